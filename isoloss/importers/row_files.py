"""Files of rows, a row a step, as logged runs: which columns are metrics, and which rows are of which run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.errors import InvalidInput
from isoloss.importers.fields import GUESSES, bare_name
from isoloss.importers.logged_fields import CONFIG, METRICS
from isoloss.importers.logged_runs import LoggedRun, Series
from isoloss.importers.paths import Paths, expand
from isoloss.notes import counted

RUN_COLUMNS = ("run_id", "run", "run_name")
"""What a file of many runs calls the column that tells them apart, best first."""

STEPS = GUESSES["step"]
TIMES = frozenset({"timestamp"})
NAMES = frozenset({"name", "run_name", "display_name"})
STATUSES = {
    "running": "running",
    "finished": "finished",
    "completed": "finished",
    "failed": "failed",
    "crashed": "failed",
    "killed": "preempted",
    "preempted": "preempted",
    "diverged": "diverged",
}
CONFIG_PREFIX = re.compile(r"config[./](.+)")
METRIC_NAMES = {name for names in METRICS.values() for name in names}
STATED = {name for names in CONFIG.values() for name in names} - METRIC_NAMES - {*METRICS}
"""Columns that are hyper-parameters where they say the same in all rows of a run."""

NON_FINITE = {
    "nan": math.nan,
    "infinity": math.inf,
    "inf": math.inf,
    "-infinity": -math.inf,
    "-inf": -math.inf,
}
LONG_AGO_S = 1e8
"""Before March 1973 no training was logged: a smaller number is no time."""

IN_MILLISECONDS = 1e11
USUAL_STEMS = re.compile(
    r"trainer_state|history|scan_history|metrics|log|logs|events|train|train_log|\d{1,5}"
)
"""Names that every run's file has, so that its folder is what tells it apart."""

ENDS = (
    ".csv.gz",
    ".tsv.gz",
    ".csv",
    ".tsv",
    ".txt",
    ".jsonl.gz",
    ".ndjson.gz",
    ".json.gz",
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".pq",
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
WANDB_ARTIFACT = re.compile(r"run-([a-z0-9]+)-history(?:[:-]v\d+)?")


@dataclass(frozen=True)
class RowColumn:
    """The cells of a column: values (n,) at rows (n,); an array of numbers, or a list of anything."""

    rows: IntArray
    values: FloatArray | IntArray | list[Any]

    def numbers(self) -> tuple[IntArray, FloatArray, int]:
        """The numbers of the column, their rows, and how many cells are none."""
        if isinstance(self.values, np.ndarray):
            return self.rows, self.values.astype(np.float64), 0
        if set(map(type, self.values)) <= {int, float}:
            return self.rows, np.array([_float(value) for value in self.values], dtype=np.float64), 0
        read = [_number(value) for value in self.values]
        there = np.array([value is not None for value in read], dtype=bool)
        found = np.array([value for value in read if value is not None], dtype=np.float64)
        return self.rows[there], found, int(there.size - there.sum())


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _float(value)
    return NON_FINITE.get(value.strip().lower()) if isinstance(value, str) else None


@dataclass(frozen=True)
class Rows:
    """The rows of a file: `n_rows`, columns by name, the line of each row if it has one, what could not be read."""

    place: str
    key: str
    n_rows: int
    columns: Mapping[str, RowColumn]
    lines: IntArray | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """A row in words."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


def runs_of(rows: Rows, run_column: str | None = None, step_column: str | None = None) -> Iterator[LoggedRun]:
    """The runs whose rows these are: one, or those of the run column. Raises InvalidInput for a lacking column."""
    step_name = _step_column(rows, step_column)
    run_name = _run_column(rows, run_column)
    step, problems = _steps(rows, step_name)
    keys, run_of = _run_of_rows(rows, run_name)
    passed_over = {bare_name(name) for name in STEPS} | TIMES
    time_s = _times(rows)
    splits = {
        name: _Split.of(column, run_of, len(keys))
        for name, column in rows.columns.items()
        if name not in (step_name, run_name) and bare_name(name) not in passed_over
    }
    for index, key in enumerate(keys):
        yield _run(rows, key or rows.key, {name: split.of_run(index) for name, split in splits.items()}, step,
                   time_s, problems)  # fmt: skip


def _step_column(rows: Rows, chosen: str | None) -> str:
    if chosen is not None:
        if chosen not in rows.columns:
            raise InvalidInput(field=rows.place, reason=_no_column(rows, chosen))
        return chosen
    # A tracker's own counter, as in `_step`, is the last resort: it counts what was logged, not the updates.
    for hidden in (False, True):
        for meant in STEPS:
            for name in rows.columns:
                if name.startswith("_") == hidden and bare_name(name).replace(".", "/") == meant:
                    return name
    names = ", ".join(rows.columns) or "none"
    raise InvalidInput(
        field=rows.place,
        reason=f"no column is the step; name the one that is by --map NAME=step (columns: {names})",
    )


def _run_column(rows: Rows, chosen: str | None) -> str | None:
    if chosen is not None and chosen not in rows.columns:
        raise InvalidInput(field=rows.place, reason=_no_column(rows, chosen))
    found = (name for meant in RUN_COLUMNS for name in rows.columns if bare_name(name) == meant)
    return chosen or next(found, None)


def _no_column(rows: Rows, name: str) -> str:
    return f"there is no column {name!r} (it has {', '.join(rows.columns)})"


def _steps(rows: Rows, name: str) -> tuple[IntArray, tuple[str, ...]]:
    """The step of every row, -1 where it has none, and one message for each kind of those."""
    column = rows.columns[name]
    at, numbers, n_text = column.numbers()
    step = np.full(rows.n_rows, -1, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) <= 2.0**62)
    step[at[whole]] = numbers[whole].astype(np.int64)
    if isinstance(column.values, np.ndarray) and column.values.dtype.kind == "i":
        step[at] = column.values  # not by way of floats, which cannot hold every step
    absent = _n_with_metrics(rows) - at.size - n_text
    negative = whole & (numbers < 0)
    wrong = {
        "no step": (absent, None),
        "a step that is no number": (n_text, None),
        "a step that is no whole number": (int((~whole).sum()), _first(at[~whole])),
        "a negative step": (int(negative.sum()), _first(at[negative])),
    }
    step[step < 0] = -1
    told = []
    for what, (count, first) in wrong.items():
        if count:
            where = f", {rows.where(first)} first" if first is not None else ""
            told.append(f"{counted(count, 'row')} with {what} left out{where}")
    return step, tuple(told)


def _n_with_metrics(rows: Rows) -> int:
    """Count the rows that hold more than settings."""
    filled = np.zeros(rows.n_rows, dtype=bool)
    for name, column in rows.columns.items():
        if not CONFIG_PREFIX.fullmatch(name):
            filled[column.rows] = True
    return int(filled.sum())


def _first(rows: IntArray) -> int | None:
    return int(rows[0]) if rows.size else None


def _run_of_rows(rows: Rows, name: str | None) -> tuple[list[str | None], IntArray]:
    """The keys of the runs in the order in which they begin, and the run of every row, -1 for none."""
    if name is None:
        return [None], np.zeros(rows.n_rows, dtype=np.int64)
    column = rows.columns[name]
    keys: dict[str, int] = {}
    run_of = np.full(rows.n_rows, -1, dtype=np.int64)
    told = [keys.setdefault(_key(value), len(keys)) for value in _listed(column)]
    run_of[column.rows] = np.array(told, dtype=np.int64)
    return list(keys), run_of


def _listed(column: RowColumn) -> list[Any]:
    return column.values.tolist() if isinstance(column.values, np.ndarray) else column.values


def _key(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _times(rows: Rows) -> FloatArray | None:
    """When each row was written, unix seconds, NaN where it is not said; None where no column says it."""
    for name, column in rows.columns.items():
        if bare_name(name) in TIMES:
            at, numbers, _ = column.numbers()
            if numbers.size and np.nanmin(numbers) > LONG_AGO_S:
                time_s = np.full(rows.n_rows, np.nan)
                time_s[at] = numbers / 1000 if np.nanmin(numbers) > IN_MILLISECONDS else numbers
                return time_s
    return None


@dataclass(frozen=True)
class _Split:
    """A column's cells by the run that they are of."""

    column: RowColumn
    order: IntArray
    bounds: IntArray

    @classmethod
    def of(cls, column: RowColumn, run_of: IntArray, n_runs: int) -> _Split:
        runs = run_of[column.rows]
        order = np.argsort(runs, kind="stable")
        return cls(column, order, np.searchsorted(runs[order], np.arange(n_runs + 1)))

    def of_run(self, index: int) -> RowColumn:
        chosen = self.order[self.bounds[index] : self.bounds[index + 1]]
        values = self.column.values
        kept = values[chosen] if isinstance(values, np.ndarray) else [values[at] for at in chosen.tolist()]
        return RowColumn(self.column.rows[chosen], kept)


def _run(
    rows: Rows,
    key: str,
    columns: Mapping[str, RowColumn],
    step: IntArray,
    time_s: FloatArray | None,
    problems: tuple[str, ...],
) -> LoggedRun:
    reading = _Reading(dict(rows.config))
    for name, column in columns.items():
        if column.rows.size:
            reading.column(name, column, step, time_s)
    place = rows.place if key == rows.key else f"{rows.place}, run {key}"
    told = (*rows.problems, *problems, *reading.problems)
    return LoggedRun(
        place, key, reading.name or key, reading.status, reading.config, (), None, reading.series, told
    )


@dataclass
class _Reading:
    """A run's columns, one after the other: hyper-parameters, its name, its status, metrics."""

    config: dict[str, Any]
    name: str | None = None
    status: str | None = None
    series: dict[str, Series] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def column(self, name: str, column: RowColumn, step: IntArray, time_s: FloatArray | None) -> None:
        values = _listed(column)
        if prefixed := CONFIG_PREFIX.fullmatch(name):
            self.config[prefixed[1]] = values[0]
            return
        rows, numbers, n_text = column.numbers()
        bare = bare_name(name)
        if not numbers.size:
            self._text(name, bare, values)
        elif bare in STATED and not n_text and _is_constant(numbers):
            self.config[name] = values[0]
        else:
            self._metric(name, rows, numbers, step, time_s)
            if n_text:
                self.problems.append(f"{counted(n_text, 'value')} of {name!r} left out, for being no number")

    def _text(self, name: str, bare: str, values: Sequence[Any]) -> None:
        first = values[0]
        if not all(value == first for value in values):
            self.problems.append(f"column {name!r} left out: it holds no numbers")
        elif bare in NAMES and isinstance(first, str):
            self.name = first
        elif bare in ("status", "state") and str(first).lower() in STATUSES:
            self.status = STATUSES[str(first).lower()]
        else:
            self.config[name] = first

    def _metric(
        self, name: str, rows: IntArray, numbers: FloatArray, step: IntArray, time_s: FloatArray | None
    ) -> None:
        at: BoolArray = step[rows] >= 0
        rows, numbers = rows[at], numbers[at]
        blank = np.isnan(numbers)
        if _is_padding(blank):
            self.problems.append(f"{counted(int(blank.sum()), 'NaN')} of {name!r} taken for blanks")
            rows, numbers = rows[~blank], numbers[~blank]
        if rows.size:
            self.series[name] = Series(step[rows], numbers, None if time_s is None else time_s[rows], rows)


def _is_padding(blank: BoolArray) -> bool:
    """Whether NaN stands where nothing was measured: for most rows, and with measurements behind it."""
    return bool(2 * blank.sum() > blank.size) and bool(np.any(np.diff(blank.astype(np.int8)) < 0))


def _is_constant(numbers: FloatArray) -> bool:
    return bool(np.all(numbers == numbers[0]))


@dataclass(frozen=True)
class Found:
    """A file, and the key of the run that is in it."""

    path: Path
    key: str


def find_files(paths: Paths, suffixes: Sequence[str]) -> list[Found]:
    """The files that paths, folders and patterns name, in order, each with a key that is the same every time.

    A file is called after itself; in a folder that was given, by its way from there; where every run's file has
    that name, as history.parquet, by its folder. Raises InvalidInput where a folder or a pattern has none.
    """
    found: list[Found] = []
    for path in expand(paths):
        if not path.is_dir():
            found.append(Found(path, _key_of(path)))
            continue
        inside = sorted(
            p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(tuple(suffixes))
        )
        inside = _newest_checkpoints(inside)
        if not inside:
            raise InvalidInput(
                field=str(path), reason=f"there is no {' or '.join(suffixes)} file in this folder"
            )
        found += [Found(one, _key_of(one, path)) for one in inside]
    return found


def _newest_checkpoints(files: Sequence[Path]) -> list[Path]:
    """The files without those of earlier checkpoints of the same training, which a later one repeats."""
    newest: dict[tuple[Path, str], tuple[int, Path]] = {}
    kept = []
    for path in files:
        numbered = CHECKPOINT.fullmatch(path.parent.name)
        if numbered is None:
            kept.append(path)
            continue
        training = (path.parent.parent, path.name)
        newest[training] = max(newest.get(training, (-1, path)), (int(numbered[1]), path))
    beside = {(path.parent, path.name) for path in kept}
    return sorted(kept + [path for training, (_, path) in newest.items() if training not in beside])


def _key_of(path: Path, root: Path | None = None) -> str:
    """What a file's run goes by; `root` is the folder that was given, if one was."""
    end = next((end for end in ENDS if path.name.lower().endswith(end)), "")
    stem = path.name[: len(path.name) - len(end)]
    above = path.absolute().parent
    if CHECKPOINT.fullmatch(above.name):
        above = above.parent
    is_usual = USUAL_STEMS.fullmatch(stem) is not None
    way = (
        list(above.relative_to(root.absolute()).parts)
        if root and above.is_relative_to(root.absolute())
        else []
    )
    if is_usual and not way:
        way = [above.name]
    parts = way if is_usual and any(way) else [*way, stem]
    parts = [found[1] if (found := WANDB_ARTIFACT.fullmatch(part)) else part for part in parts]
    return "-".join(part for part in parts if part)

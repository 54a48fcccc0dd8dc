"""Tables of finished runs, one row a run, as run specifications and as the library's `RunTable`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.csv_files import read_rows
from isoloss.importers.fields import checked_map
from isoloss.importers.paths import checked_path
from isoloss.importers.plans import run_id_of
from isoloss.importers.run_fields import (
    FLAG,
    KNOWN,
    LOSSES,
    MEASURED,
    OUTCOMES,
    SPECIFICATION,
    SUMMARY,
    TEXT,
    check_outcome,
    map_run_columns,
    unread_columns,
)
from isoloss.observations import RunTable
from isoloss.observations.counts import check_kind, mapping_of
from isoloss.observations.tables import SUMMARY_FIELDS

STATUSES = ("running", "finished", "failed", "preempted", "diverged")
PARQUET = (".parquet", ".pq")
NO_PARQUET = "to read Parquet install pyarrow, or write the table as CSV"

LARGEST_EXACT = 2.0**53
"""Whole numbers below it are the same as floats."""

FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

Cell = str | int | float | bool | None


def read_runs(
    path: str | Path,
    map: Mapping[str, str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    target: str = "loss",
    n_params_kind: str | None = None,
) -> RunTable:
    """The finished runs in a table, one a row, ready for `isoloss.fit` with a law of final losses.

    The file is CSV (gzip is undone, the delimiter found out) or Parquet. `map` says which column a field is,
    as in `{"n_params": "N", "n_tokens": "D", "final_loss": "loss"}`; usual names are known, and other columns
    of numbers keep their own names. `config` holds for all rows, but for what a row
    states itself. The outcome of the `target` "loss" is the
    field `final_loss`, of "val_loss" `final_val_loss`, of "reward" `reward`; an empty cell or NaN is missing,
    and a run whose outcome is infinite diverged, or whose column `diverged` says so. A run whose `status` is
    running, failed or preempted has no outcome. Rows go by their `run_id`, or are row-0001, row-0002, ...
    `n_params_kind` asks for that count where the rows have several. The table's `notes`, which a fit repeats, name
    the columns that no law reads.
    Raises InvalidInput that names row and column.

    >>> runs = isoloss.read_runs("runs.csv", map={"n_params": "N", "n_tokens": "D", "final_loss": "loss"})
    """
    if not isinstance(target, str) or target not in SUMMARY_FIELDS:
        raise InvalidInput(field="target", reason=f"must be one of {', '.join(SUMMARY_FIELDS)}")
    check_kind(n_params_kind)
    runs, notes = read_specifications(path, map, config=config, outcome=SUMMARY_FIELDS[target])
    table = RunTable.from_runs(runs, target=target, n_params_kind=n_params_kind)
    table = replace(table, notes=(*table.notes, *notes))
    if n_params_kind is not None and np.isnan(table.column("n_params")).all():
        reason = (
            f"no row has n_params_{n_params_kind}, or n_params of this kind; say what n_params counts by "
            f'config={{"n_params_kind": "{n_params_kind}"}}'
        )
        raise InvalidInput(field="n_params_kind", reason=reason)
    return table


def read_specifications(
    path: str | Path,
    map: Mapping[str, str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    outcome: str | None = None,
    prefix: str = "",
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows of a table as the API takes runs: `run_id`, `name`, `status`, `recipe`, `config`, `summary`.

    Beside them notes in words on columns that mean nothing to a law. `map` and `config` as for `read_runs`;
    `outcome` is a field that the table must have, `prefix` what the names of numbered rows begin with. Raises
    InvalidInput.
    """
    map, config = checked_map(map), mapping_of(config, "config")
    source = _read(checked_path(path, "path"))
    fields = map_run_columns(source.header, map, file=str(path))
    measured = not MEASURED.isdisjoint(fields.values())
    if outcome is not None and not measured:
        check_outcome(fields, outcome, str(path), source.header)
    elif not measured and not SUMMARY & set(fields.values()):
        check_outcome(fields, "final_loss", str(path), source.header)
    if not source.rows:
        raise InvalidInput(field=str(path), reason="there are no rows under the header")
    chosen = set(map.values())
    columns = {
        field: _Column(source, column, field, column in chosen).values() for column, field in fields.items()
    }
    rows = [_specification(source, row, columns, config, prefix) for row in range(len(source.rows))]
    _refuse_doubles(source, rows)
    return rows, unread_columns(source.header, fields)


@dataclass(frozen=True)
class _Source:
    """A file's header and cells; `lines` where each row stands, for a file of lines."""

    path: Path
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    lines: Sequence[int] | None = None

    def place(self, row: int) -> str:
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"{self.path}, row {row + 1}{line}"


def _read(path: Path) -> _Source:
    if path.suffix.lower() in PARQUET:
        return _read_parquet(path)
    header, rows, lines = read_rows(path)
    return _Source(path, header, [[cell.strip() or None for cell in row] for row in rows], lines)


def _read_parquet(path: Path) -> _Source:
    if not path.is_file():
        raise InvalidInput(field=str(path), reason="there is no such file")
    try:
        columns = _parquet_columns(path)
    except ImportError as error:
        raise InvalidInput(field=str(path), reason=NO_PARQUET) from error
    except Exception as error:  # whatever the library of the user's choice raises for damaged bytes
        raise InvalidInput(field=str(path), reason=f"this is no Parquet file ({error})") from error
    return _Source(path, list(columns), list(zip(*columns.values(), strict=True)))


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    try:
        found = importlib.import_module("pyarrow.parquet").read_table(path).to_pydict()
    except ImportError:
        frame = importlib.import_module("pandas").read_parquet(path)
        found = frame.astype(object).where(frame.notna(), None).to_dict("list")
    return {str(name): values for name, values in found.items()}


@dataclass(frozen=True)
class _Column:
    """A column of a file that is a field; `chosen` where the user said so."""

    source: _Source
    column: str
    field: str
    chosen: bool

    def values(self) -> list[Any]:
        """The cells as the field's values, None where missing; raises InvalidInput that names row and column."""
        place = self.source.header.index(self.column)
        cells = [row[place] for row in self.source.rows]
        if self.field in TEXT:
            return [_text(cell) for cell in cells]
        if self.field == FLAG:
            return [self._flag(cell, row) for row, cell in enumerate(cells)]
        if self.field in KNOWN or self.chosen:
            return [self._number(cell, row) for row, cell in enumerate(cells)]
        if any(isinstance(cell, str) and _parsed(cell) is None for cell in cells):
            return [_text(cell) for cell in cells]
        numbers = [_parsed(cell) for cell in cells]
        return [one if one is not None and math.isfinite(one) else None for one in numbers]

    def _number(self, cell: Cell, row: int) -> int | float | None:
        value = _parsed(cell)
        if value is None and cell is not None:
            hint = " (write a decimal point, not a comma)" if "," in str(cell) else ""
            raise self._refused(row, f"{cell!r} is no number{hint}")
        if value is None or math.isnan(value):
            return None
        if math.isinf(value) and self.field not in OUTCOMES:
            raise self._refused(row, f"{cell} is not finite")
        if value < 0 and self.field in LOSSES:
            raise self._refused(row, f"{cell} is below 0, which no loss in nats per token is")
        return value

    def _flag(self, cell: Cell, row: int) -> bool | None:
        said = _text(cell)
        if said is not None and said.lower() not in FLAGS:
            raise self._refused(row, f"{cell!r} is neither true nor false")
        return None if said is None else FLAGS[said.lower()]

    def _refused(self, row: int, reason: str) -> InvalidInput:
        return InvalidInput(field=f"{self.source.place(row)}, column {self.column!r}", reason=reason)


def _text(cell: Cell) -> str | None:
    return None if cell is None or cell != cell else str(cell)


def _parsed(cell: Any) -> int | float | None:
    """The number that a cell is or spells, None where it is none."""
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    if abs(value) < LARGEST_EXACT and value.is_integer() and not _has_point(cell):
        return int(value)
    return value


def _has_point(cell: Any) -> bool:
    return isinstance(cell, float) or (isinstance(cell, str) and not cell.lstrip("+-").isdigit())


def _specification(
    source: _Source, row: int, columns: Mapping[str, Sequence[Any]], config: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
    said = {field: values[row] for field, values in columns.items() if values[row] is not None}
    summary = {field: said[field] for field in SUMMARY if field in said}
    diverged = said.get(FLAG) or any(math.isinf(summary[field]) for field in OUTCOMES & summary.keys())
    run_id = run_id_of(said["run_id"]) if "run_id" in said else f"{prefix}row-{row + 1:04d}"
    own = {field: value for field, value in said.items() if field not in SPECIFICATION | SUMMARY | {FLAG}}
    check_kind(own.get("n_params_kind"), f"{source.place(row)}, n_params_kind")
    document = {
        "run_id": run_id,
        "name": said.get("name", run_id),
        "status": "diverged" if diverged else _status(source, row, said.get("status")),
        "config": {**config, **own},
        "summary": {field: value for field, value in sorted(summary.items()) if math.isfinite(value)},
    }
    return document | ({"recipe": said["recipe"]} if "recipe" in said else {})


def _status(source: _Source, row: int, said: str | None) -> str:
    status = "finished" if said is None else said.lower()
    if status not in STATUSES:
        reason = f"{said!r} is none of {', '.join(STATUSES)}"
        raise InvalidInput(field=f"{source.place(row)}, status", reason=reason)
    return status


def _refuse_doubles(source: _Source, rows: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for row, document in enumerate(rows):
        first = seen.setdefault(document["run_id"], row)
        if first != row:
            reason = f"run {document['run_id']!r} stands in row {first + 1} already"
            raise InvalidInput(field=source.place(row), reason=reason)

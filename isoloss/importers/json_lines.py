"""JSON Lines: one object a line, as training loops append it; and a list of such objects in one JSON document."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Source, Unreadable
from isoloss.importers.paths import Paths
from isoloss.importers.row_files import Found, RowColumn, Rows, find_files, runs_of
from isoloss.notes import counted

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", "trainer_state.json")
MAX_DEPTH = 16
HISTORY = "log_history"
"""Where the Trainer of Hugging Face keeps the rows in its trainer_state.json."""

STATE_CONFIG = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps")
"""What a trainer's state says beside them that belongs to a configuration."""


def read_json_lines(paths: Paths, *, run_column: str | None = None, step_column: str | None = None) -> Source:
    """The runs in files of JSON Lines: one a file, or those that a column tells apart.

    Nested objects are flattened with dots. `trainer_state.json` of Hugging Face's Trainer is understood. A broken
    line is counted and told; a file that cannot be used is Unreadable. Raises InvalidInput where no file is meant.
    """
    for found in find_files(paths, SUFFIXES):
        yield from read_one(found, run_column, step_column)


def read_one(
    found: Found, run_column: str | None, step_column: str | None
) -> Iterator[LoggedRun | Unreadable]:
    """The runs of one file."""
    place = str(found.path)
    try:
        yield from runs_of(_rows(found), run_column, step_column)
    except InvalidInput as error:
        said = str(error)
        yield Unreadable(place, said.removeprefix(f"{place}: "))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Unreadable(place, f"the gzip data are damaged ({error})")
    except FileNotFoundError:
        yield Unreadable(place, "there is no such file")
    except OSError as error:
        yield Unreadable(place, error.strerror or str(error))


def _rows(found: Found) -> Rows:
    data = found.path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    document = _document(found.path, data)
    if document is None:
        return _rows_of_lines(found, data)
    rows, config = document
    builder = _Builder()
    for number, row in enumerate(rows, start=1):
        builder.take(row, number)
    return Rows(
        str(found.path),
        found.key,
        builder.n_rows,
        builder.columns(),
        None,
        config,
        tuple(builder.problems("entry")),
    )


def _document(path: Path, data: bytes) -> tuple[list[Any], dict[str, Any]] | None:
    """The rows of a file that is one JSON document of them, and what it says beside; None where it is lines."""
    if not path.name.removesuffix(".gz").endswith(".json") and data.lstrip()[:1] != b"[":
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, list):
        return document, {}
    history = document.get(HISTORY) if isinstance(document, dict) else None
    if not isinstance(history, list):
        return None
    return history, {name: document[name] for name in STATE_CONFIG if document.get(name) is not None}


def _rows_of_lines(found: Found, data: bytes) -> Rows:
    builder = _Builder()
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            builder.take(_parsed(line), number)
    if not builder.n_rows and not builder.broken:
        raise InvalidInput(field=str(found.path), reason="the file is empty")
    if not builder.n_rows:
        raise InvalidInput(field=str(found.path), reason="no line of it is a JSON object")
    cut = len(lines) if lines[-1].strip() else None
    problems = tuple(builder.problems("line", cut))
    lines_of = np.array(builder.places, dtype=np.int64)
    return Rows(str(found.path), found.key, builder.n_rows, builder.columns(), lines_of, {}, problems)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class _Builder:
    """Gathers rows as columns."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.places: list[int] = []
        self.broken: list[int] = []
        self._cells: dict[str, tuple[list[int], list[Any]]] = {}

    def take(self, row: Any, place: int) -> None:
        if not isinstance(row, dict):
            self.broken.append(place)
            return
        for name, value in flat(row):
            if value is not None:
                rows, values = self._cells.setdefault(name, ([], []))
                # JSON lets a name stand twice once it is flattened: the later one counts.
                if rows and rows[-1] == self.n_rows:
                    values[-1] = value
                else:
                    rows.append(self.n_rows)
                    values.append(value)
        self.places.append(place)
        self.n_rows += 1

    def columns(self) -> dict[str, RowColumn]:
        return {
            name: RowColumn(np.array(rows, dtype=np.int64), values)
            for name, (rows, values) in self._cells.items()
        }

    def problems(self, noun: str, cut: int | None = None) -> Iterable[str]:
        """Messages on what is no row; the last line of a file may have been cut off by a crash."""
        broken = [place for place in self.broken if place != cut]
        if broken:
            yield f"{counted(len(broken), noun)} passed over for being no JSON object, {noun} {broken[0]} first"
        if cut in self.broken:
            yield f"the last {noun} ({cut}) is cut off and passed over"


def flat(row: Mapping[str, Any], prefix: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, Any]]:
    """The values of an object by their names, with dots for what was nested."""
    for name, value in row.items():
        if isinstance(value, dict) and depth:
            yield from flat(value, f"{prefix}{name}.", depth - 1)
        else:
            yield f"{prefix}{name}", value

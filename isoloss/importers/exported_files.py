"""Runs as `isoloss export` writes them: nothing is guessed, and what is read is what was there, to the bit.

An export is a folder. `export.json` says what it is of and how it is written; `runs.json` is a runs file, a run an
entry, parents before their branches; the points lie in a file for each run, in `points/`, or in one file of all.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.csv_files import CellPlace, MaskedColumn, floats_of
from isoloss.importers.exported_runs import ExportedRun
from isoloss.importers.logged_points import LoggedPoints
from isoloss.importers.logged_runs import Unreadable
from isoloss.importers.paths import Paths, checked_path, expand
from isoloss.importers.plans import ENTRY_FIELDS
from isoloss.importers.run_tables import NO_PARQUET
from isoloss.notes import first_line

VERSION = 1
MANIFEST, RUNS_FILE, FIT_FILE, POINTS_FOLDER = "export.json", "runs.json", "fit.json", "points"
FORMATS = ("csv", "parquet", "json", "jsonl")
RUN, STEP = "run_id", "step"
OTHER_RUN = "_run_id"
"""The column of the run where a run has a column run_id of its own: no column begins so."""
NON_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
NO_POINTS = LoggedPoints(np.zeros(0, dtype=np.int64), {})
NUMBERS = (int, float, type(None))
MOST_SAID = 200

Runs = Iterator[ExportedRun | Unreadable]


@dataclass(frozen=True)
class Export:
    """The folder of an export: what its manifest says, and the entries of its runs."""

    folder: Path
    manifest: Mapping[str, Any]
    entries: Sequence[Mapping[str, Any]]

    @property
    def format(self) -> str:
        return str(self.manifest["format"])

    @property
    def points_file(self) -> str | None:
        """The one file that holds the points of all runs, where there is one."""
        found = self.manifest.get("points_file")
        return found if isinstance(found, str) else None

    @property
    def run_column(self) -> str:
        """The column of that file that says whose a point is."""
        found = self.manifest.get("run_column")
        return found if isinstance(found, str) else RUN

    def inside(self, name: str) -> Path:
        """A file of the export. Raises InvalidInput for a name that leads out of its folder."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InvalidInput(field=str(path), reason="this file is not in the folder of the export")
        return path


def open_export(folder: str | Path) -> Export:
    """The export in a folder. Raises InvalidInput where there is none, or one of a later version."""
    folder = checked_path(folder, "folder")
    manifest = read_json(folder / MANIFEST, f"this is no export: a folder of one has {MANIFEST}")
    place = str(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("isoloss_export"), int):
        raise InvalidInput(field=place, reason="this is not the manifest of an export")
    if manifest["isoloss_export"] > VERSION:
        reason = f"a later version of Isoloss wrote this export (form {manifest['isoloss_export']})"
        raise InvalidInput(field=place, reason=reason)
    if manifest.get("format") not in FORMATS:
        raise InvalidInput(field=place, reason=f"the format must be one of {', '.join(FORMATS)}")
    entries = read_json(folder / RUNS_FILE)
    if not isinstance(entries, list):
        raise InvalidInput(field=str(folder / RUNS_FILE), reason="must be a list of runs")
    for number, entry in enumerate(entries, start=1):
        _check_entry(entry, f"{folder / RUNS_FILE}, entry {number}")
    return Export(folder, manifest, entries)


def _check_entry(entry: object, place: str) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get(RUN), str):
        raise InvalidInput(field=place, reason="a run is an object with a run_id")
    unknown = sorted(entry.keys() - ENTRY_FIELDS)
    if unknown:
        raise InvalidInput(field=place, reason=f"unknown: {', '.join(unknown)}")
    if not isinstance(entry.get("file"), str | None):
        raise InvalidInput(field=f"{place}, file", reason="must be a name")


def read_json(path: Path, absent: str = "there is no such file") -> Any:
    """The document in a file; raises InvalidInput."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInput(field=str(path), reason=absent) from error
    except OSError as error:
        raise InvalidInput(field=str(path), reason=error.strerror or str(error)) from error
    except ValueError as error:
        raise InvalidInput(field=str(path), reason=f"this is not JSON ({error})") from error


def read_export(folders: Paths) -> Runs:
    """The runs of exports, parents before their branches; a run whose points cannot be read is Unreadable.

    Raises InvalidInput for a folder that is no export.
    """
    for folder in expand(folders):
        yield from runs_of(open_export(folder))


def runs_of(export: Export) -> Runs:
    """The runs of one export."""
    if export.points_file is None:
        for entry in export.entries:
            yield _run(export, entry, lambda entry=entry: _own_file(export, entry))
        return
    parts = _parts(export, export.inside(export.points_file), export.run_column)
    try:
        waiting = next(parts, None)
        for entry in export.entries:
            points = NO_POINTS
            if waiting is not None and waiting[0] == entry[RUN]:
                points, waiting = waiting[1], next(parts, None)
            yield ExportedRun(f"{export.folder}, run {entry[RUN]}", entry[RUN], _document(entry), points)
        if waiting is not None:
            reason = f"its points stand in another order than the runs, from run {waiting[0]!r} on"
            yield Unreadable(str(export.folder / export.points_file), reason)
    except InvalidInput as error:
        yield Unreadable(str(export.folder / export.points_file), str(error))


def _run(export: Export, entry: Mapping[str, Any], read: Any) -> ExportedRun | Unreadable:
    place = f"{export.folder}, run {entry[RUN]}"
    try:
        return ExportedRun(place, entry[RUN], _document(entry), read())
    except InvalidInput as error:
        return Unreadable(place, str(error))


def _document(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("file", RUN)}


def _own_file(export: Export, entry: Mapping[str, Any]) -> LoggedPoints:
    name = entry.get("file")
    if name is None:
        return NO_POINTS
    found = [points for _, points in _parts(export, export.inside(name), None)]
    if len(found) != 1:
        raise InvalidInput(field=str(export.folder / name), reason="it holds no points")
    return found[0]


def _parts(export: Export, path: Path, key: str | None) -> Iterator[tuple[str | None, LoggedPoints]]:
    """The points in a file, run by run as its column `key` says; None: it is of one run. Raises InvalidInput."""
    try:
        yield from _PARTS[export.format](path, key)
    except FileNotFoundError as error:
        raise InvalidInput(field=str(path), reason="there is no such file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(field=str(path), reason="the file is not UTF-8 text") from error
    except OSError as error:
        raise InvalidInput(field=str(path), reason=error.strerror or str(error)) from error


def _points(path: Path, step: Any, columns: Mapping[str, MaskedColumn]) -> LoggedPoints:
    steps = np.asarray(step)
    if steps.dtype.kind not in "iu" or steps.ndim != 1:
        raise InvalidInput(field=str(path), reason="the steps must be whole numbers")
    steps = steps.astype(np.int64)
    if np.any(steps < 0) or np.any(np.diff(steps) <= 0):
        raise InvalidInput(field=str(path), reason="the steps of a run must increase from 0 or more")
    return LoggedPoints(steps, {name: column for name, column in columns.items() if column.count()})


def _csv_parts(path: Path, key: str | None) -> Iterator[tuple[str | None, LoggedPoints]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if STEP not in header:
            raise InvalidInput(field=str(path), reason="it has no column step")
        at = header.index(key) if key in header else None
        try:
            for run_id, rows in groupby(reader, key=lambda row: None if at is None else row[at]):
                yield run_id, _of_rows(path, header, list(rows), key)
        except (csv.Error, IndexError, ValueError) as error:
            said = first_line(error, MOST_SAID)
            raise InvalidInput(field=f"{path}, line {reader.line_num}", reason=said) from error


def _of_rows(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], key: str | None
) -> LoggedPoints:
    cells = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    step = np.array(list(map(int, cells[STEP])), dtype=np.int64)
    columns = {
        name: floats_of(told, CellPlace(path, name, step.tolist()))
        for name, told in cells.items()
        if name not in (key, STEP)
    }
    return _points(path, step, columns)


def _json_parts(path: Path, key: str | None) -> Iterator[tuple[str | None, LoggedPoints]]:
    document = read_json(path)
    if not isinstance(document, list):
        raise InvalidInput(field=str(path), reason="must be a list of points")
    yield from _of_objects(path, document, key)


def _line_parts(path: Path, key: str | None) -> Iterator[tuple[str | None, LoggedPoints]]:
    with path.open(encoding="utf-8") as file:
        objects = (_parsed(path, at, line) for at, line in enumerate(file, start=1))
        yield from _of_objects(path, objects, key)


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InvalidInput(field=f"{path}, line {number}", reason=f"this is not JSON ({error})") from error


def _of_objects(
    path: Path, objects: Iterable[Any], key: str | None
) -> Iterator[tuple[str | None, LoggedPoints]]:
    for run_id, rows in groupby(objects, key=lambda row: row.get(key) if isinstance(row, dict) else None):
        listed = list(rows)
        if not all(isinstance(row, dict) and isinstance(row.get(STEP), int) for row in listed):
            raise InvalidInput(field=str(path), reason="a point is an object with a whole step")
        names = dict.fromkeys(name for row in listed for name in row if name not in (key, STEP))
        step = np.array([row[STEP] for row in listed], dtype=np.int64)
        columns = {name: _numbers(path, name, [row.get(name) for row in listed]) for name in names}
        yield run_id, _points(path, step, columns)


def _numbers(path: Path, name: str, cells: Sequence[Any]) -> MaskedColumn:
    """The cells of a column: numbers, the names of those that JSON cannot write, None where there is none."""
    told = [NON_FINITE.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
    wrong = [cell for cell in told if type(cell) not in NUMBERS]
    if wrong:
        raise InvalidInput(field=f"{path}, {name}", reason=f"{str(wrong[0])[:40]!r} is no number")
    missing = [cell is None for cell in told]
    return np.ma.MaskedArray(np.array([0.0 if cell is None else cell for cell in told], np.float64), missing)


def _parquet_parts(path: Path, key: str | None) -> Iterator[tuple[str | None, LoggedPoints]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise InvalidInput(field="parquet", reason=NO_PARQUET) from error
    try:
        stretches = _tables_of_a_run(parquet.ParquetFile(path), key)
        for run_id, tables in groupby(stretches, key=lambda one: one[0]):
            yield run_id, _of_table(path, arrow.concat_tables([table for _, table in tables]), key)
    except arrow.ArrowException as error:
        reason = f"this is no Parquet file of points ({first_line(error, MOST_SAID)})"
        raise InvalidInput(field=str(path), reason=reason) from error


def _tables_of_a_run(file: Any, key: str | None) -> Iterator[tuple[str | None, Any]]:
    """The rows of a file in stretches of one run."""
    arrow = importlib.import_module("pyarrow")
    for batch in file.iter_batches():
        table = arrow.Table.from_batches([batch])
        if key not in table.column_names:
            yield None, table
            continue
        names = table.column(key).to_numpy(zero_copy_only=False)
        edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        for first, after in pairwise(edges):
            if after > first:
                yield str(names[first]), table.slice(first, after - first)


def _of_table(path: Path, table: Any, key: str | None) -> LoggedPoints:
    if STEP not in table.column_names:
        raise InvalidInput(field=str(path), reason="it has no column step")
    names = [name for name in table.column_names if name not in (key, STEP)]
    columns = {name: _column(path, name, table.column(name)) for name in names}
    return _points(path, table.column(STEP).to_numpy(), columns)


def _column(path: Path, name: str, column: Any) -> MaskedColumn:
    types = importlib.import_module("pyarrow").types
    if not (types.is_floating(column.type) or types.is_integer(column.type)):
        raise InvalidInput(field=f"{path}, {name}", reason=f"must hold numbers, not {column.type}")
    missing = ~column.is_valid().to_numpy()
    filled = column.fill_null(0).to_numpy().astype(np.float64)
    return np.ma.MaskedArray(filled, mask=missing)


_PARTS = {"csv": _csv_parts, "parquet": _parquet_parts, "json": _json_parts, "jsonl": _line_parts}

"""CSV files of training curves as columns of numbers; one file a run, a header, one row a step."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.fields import POINT_FIELDS, FieldMap, bare_name, checked_map, map_columns
from isoloss.importers.paths import checked_path
from isoloss.observations.point_columns import MAX_STEP

DELIMITERS = ",;\t"
RUN_COLUMNS = frozenset({"run_id", "run"})
"""What the column of a file of many runs is called."""

MaskedColumn = np.ma.MaskedArray[Any, Any]


@dataclass(frozen=True)
class CurveTable:
    """The columns of one file by field, and how its columns were understood."""

    path: Path
    columns: dict[str, MaskedColumn]
    field_map: FieldMap


def read_columns(path: str | Path, map: Mapping[str, str] | None = None) -> dict[str, MaskedColumn]:
    """The columns of a CSV file by field: `step` as whole numbers, the others as floats.

    The delimiter (comma, semicolon or tab) is found out, gzip is undone. Usual names are understood
    (`iter`, `train_loss`, `eval_loss`, `learning_rate`, ...); `map` says the rest, field to column:
    `{"loss": "my loss"}`. A blank cell is masked, with NaN beneath; `nan` and `inf` are read as such.
    A column of text is left out. Raises InvalidInput that names file, line and column.
    """
    return read_table(path, map).columns


def read_table(path: str | Path, map: Mapping[str, str] | None = None) -> CurveTable:
    """What `read_columns` reads, with the columns' mapping and the reason for each that was left out."""
    path, map = checked_path(path, "path"), checked_map(map)
    header, rows, lines = read_rows(path)
    _refuse_many_runs(header, rows, map, path)
    field_map = map_columns(header, map, file=str(path))
    columns: dict[str, MaskedColumn] = {}
    for index, column in enumerate(header):
        name = field_map.fields.get(column)
        if name is None:
            continue
        cells = [row[index].strip() for row in rows]
        if name not in POINT_FIELDS and column not in map.values() and starts_with_text(cells):
            field_map = field_map.without(column, "it holds text")
            continue
        place = CellPlace(path, column, lines)
        columns[name] = _steps(cells, place) if name == "step" else floats_of(cells, place)
    return CurveTable(path, columns, field_map)


def _refuse_many_runs(
    header: Sequence[str], rows: Sequence[Sequence[str]], map: Mapping[str, str], path: Path
) -> None:
    """Refuse a file in which a column says that its rows are of several runs: their points would be mixed."""
    for index, column in enumerate(header):
        if bare_name(column) in RUN_COLUMNS and column not in map.values():
            runs = {row[index].strip() for row in rows} - {""}
            if len(runs) > 1:
                raise InvalidInput(
                    field=str(path), reason=f"column {column} holds {len(runs)} runs: one file a run"
                )


@dataclass(frozen=True)
class CellPlace:
    """Where a cell stands, for messages."""

    path: Path
    column: str
    lines: Sequence[int]

    def refuse(self, row: int, reason: str) -> InvalidInput:
        return InvalidInput(
            field=f"{self.path}, line {self.lines[row]}, column {self.column!r}", reason=reason
        )


def read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The header of a CSV file, its rows of cells, and the line that each row stands on; raises InvalidInput."""
    text = _read_text(path)
    first = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first))
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = _check_header([cell.strip() for cell in row], path)
                continue
            _check_width(row, header, path, reader.line_num)
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InvalidInput(field=f"{path}, line {reader.line_num}", reason=str(error)) from error
    if header is None:
        raise InvalidInput(field=str(path), reason="the file is empty; it needs a header and rows")
    return header, rows, lines


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidInput(field=str(path), reason="there is no such file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(field=str(path), reason="the file is not UTF-8 text") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(field=str(path), reason=f"the gzip data are damaged ({error})") from error
    except OSError as error:
        raise InvalidInput(field=str(path), reason=error.strerror or str(error)) from error


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_header(header: list[str], path: Path) -> list[str]:
    if all(_is_number(cell) for cell in header if cell):
        raise InvalidInput(
            field=f"{path}, line 1", reason="these are numbers; the first line names the columns"
        )
    doubled = next((cell for cell in header if cell and header.count(cell) > 1), None)
    if doubled is not None:
        raise InvalidInput(field=f"{path}, line 1", reason=f"two columns are called {doubled!r}")
    return header


def _check_width(row: Sequence[str], header: Sequence[str], path: Path, line: int) -> None:
    if len(row) != len(header):
        raise InvalidInput(
            field=f"{path}, line {line}", reason=f"{len(row)} cells under a header of {len(header)} columns"
        )


def starts_with_text(cells: Sequence[str]) -> bool:
    """Whether the first cell that is not blank is no number."""
    first = next((cell for cell in cells if cell), None)
    return first is not None and not _is_number(first)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def floats_of(cells: Sequence[str], place: CellPlace) -> MaskedColumn:
    """The cells as floats, masked where blank; raises InvalidInput that names a cell that is no number."""
    try:
        data = np.array([cell or "nan" for cell in cells], dtype=np.float64)
    except ValueError as error:
        row = next(row for row, cell in enumerate(cells) if cell and not _is_number(cell))
        hint = " (write a decimal point, not a comma)" if "," in cells[row] else ""
        raise place.refuse(row, f"{cells[row]!r} is no number{hint}") from error
    return np.ma.MaskedArray(data, mask=[not cell for cell in cells])


def _steps(cells: Sequence[str], place: CellPlace) -> MaskedColumn:
    steps = [_step(cell, row, place) for row, cell in enumerate(cells)]
    return np.ma.MaskedArray(np.array(steps, dtype=np.int64), mask=[False] * len(steps))


def _step(cell: str, row: int, place: CellPlace) -> int:
    try:
        step = int(cell)
    except ValueError:
        step = _whole_number(cell, row, place)
    if not 0 <= step <= MAX_STEP:
        raise place.refuse(row, f"{cell} is outside the steps that can be recorded (0 to {MAX_STEP})")
    return step


def _whole_number(cell: str, row: int, place: CellPlace) -> int:
    value = float(cell) if _is_number(cell) else math.nan
    if not value.is_integer():
        raise place.refuse(row, f"{cell!r} is no step" if cell else "the step is missing")
    return int(value)

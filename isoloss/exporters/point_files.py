"""Files of points, a row a step, in any of the formats; what was not logged is null, and NaN stays NaN."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.exported_files import FORMATS, OTHER_RUN, RUN, STEP
from isoloss.observations.point_columns import KNOWN_COLUMNS

NEEDS_PYARROW = "to write Parquet install pyarrow: pip install 'isoloss[importers]'"
NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
ROW_GROUP = 1 << 20
"""Rows of Parquet that are read at once."""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Columns in the order of every export: those with a meaning as documents list them, free ones by name."""
    said = set(names)
    return (*(name for name in KNOWN_COLUMNS if name in said), *sorted(said - {*KNOWN_COLUMNS}))


def check_format(name: str) -> str:
    """The format. Raises InvalidInput for one that there is not, or that lacks its package."""
    if name not in FORMATS:
        raise InvalidInput(field="format", reason=f"{name!r} is not one of {', '.join(FORMATS)}")
    if name == "parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise InvalidInput(field="format", reason=NEEDS_PYARROW) from error
    return name


def format_of(path: Path) -> str:
    """The format that a file's name says. Raises InvalidInput."""
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        ends = ", ".join(f".{name}" for name in FORMATS)
        raise InvalidInput(field=str(path), reason=f"its name must say what it is, by one of {ends}")
    return check_format(path.suffix.lower().removeprefix("."))


class PointFile(ABC):
    """A file of points that is being written; `names` are its columns beside step, and run_id where it has many."""

    def __init__(self, path: Path, names: Sequence[str], *, many: bool = False) -> None:
        self.path, self.names, self.many = path, tuple(names), many

    @abstractmethod
    def write(self, run_id: str, points: Mapping[str, Any]) -> None:
        """Add points of a run: `step` (n,) and masked columns (n,)."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""

    def __enter__(self) -> PointFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def run_column(self) -> str | None:
        """The column that says whose a point is: run_id, unless a run has such a column; None in a file of one."""
        if not self.many:
            return None
        return OTHER_RUN if RUN in self.names else RUN

    @property
    def header(self) -> list[str]:
        return [*([self.run_column] if self.run_column else []), STEP, *self.names]


class CsvFile(PointFile):
    """A header, then a line a step; an empty cell where nothing was logged."""

    def __init__(self, path: Path, names: Sequence[str], *, many: bool = False) -> None:
        super().__init__(path, names, many=many)
        self._file = path.open("w", encoding="utf-8", newline="")
        # Neither ids of runs nor names of columns can hold a comma, a quote or a blank.
        self._file.write(",".join(self.header) + "\n")

    def write(self, run_id: str, points: Mapping[str, Any]) -> None:
        cells = _texts(self.names, points, "", "{}")
        first = f"{run_id}," if self.many else ""
        self._file.writelines(f"{first}{','.join(row)}\n" for row in zip(*cells, strict=True))

    def close(self) -> None:
        self._file.close()


class LineFile(PointFile):
    """JSON Lines: an object a step, null where nothing was logged, NaN and infinities by their names."""

    def __init__(self, path: Path, names: Sequence[str], *, many: bool = False) -> None:
        super().__init__(path, names, many=many)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._between = ""

    def write(self, run_id: str, points: Mapping[str, Any]) -> None:
        first = f"{json.dumps(self.run_column)}: {json.dumps(run_id)}, " if self.many else ""
        fields = ", ".join(f"{json.dumps(name)}: %s" for name in (STEP, *self.names))
        template = f"{{{first.replace('%', '%%')}{fields}}}"
        rows = zip(*_texts(self.names, points, "null", '"{}"'), strict=True)
        text = self._joint().join(template % row for row in rows)
        if text:
            self._file.write(f"{self._between}{text}")
            self._between = self._joint()

    def _joint(self) -> str:
        return "\n"

    def close(self) -> None:
        self._file.write("\n" if self._between else "")
        self._file.close()


class JsonFile(LineFile):
    """The same objects as one JSON list."""

    def __init__(self, path: Path, names: Sequence[str], *, many: bool = False) -> None:
        super().__init__(path, names, many=many)
        self._file.write("[\n")

    def _joint(self) -> str:
        return ",\n"

    def close(self) -> None:
        self._file.write("\n]\n" if self._between else "]\n")
        self._file.close()


class ParquetFile(PointFile):
    """Steps as int64, the others as float64 with nulls."""

    def __init__(self, path: Path, names: Sequence[str], *, many: bool = False) -> None:
        super().__init__(path, names, many=many)
        self._arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
        kinds = {self.run_column: self._arrow.string(), STEP: self._arrow.int64()}
        fields = [self._arrow.field(name, kinds.get(name, self._arrow.float64())) for name in self.header]
        self._schema = self._arrow.schema(fields)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []
        self._n_waiting = 0

    def write(self, run_id: str, points: Mapping[str, Any]) -> None:
        step = np.asarray(np.ma.getdata(points[STEP]), dtype=np.int64)
        columns = [self._column(points.get(name), step.size) for name in self.names]
        first = [self._arrow.repeat(run_id, step.size)] if self.many else []
        table = self._arrow.table([*first, self._arrow.array(step), *columns], schema=self._schema)
        self._waiting.append(table)
        self._n_waiting += step.size
        if self._n_waiting >= ROW_GROUP:
            self._flush()

    def _column(self, column: Any, length: int) -> Any:
        if column is None:
            return self._arrow.nulls(length, self._arrow.float64())
        data = np.asarray(np.ma.getdata(column), dtype=np.float64)
        return self._arrow.array(data, mask=np.ma.getmaskarray(column))

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.concat_tables(self._waiting))
        self._waiting, self._n_waiting = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()


FILES: Mapping[str, type[PointFile]] = {
    "csv": CsvFile,
    "parquet": ParquetFile,
    "json": JsonFile,
    "jsonl": LineFile,
}


def _texts(names: Sequence[str], points: Mapping[str, Any], null: str, odd: str) -> list[list[str]]:
    """The cells of a step and columns as texts, in the fewest digits that say each number to the bit."""
    step = np.asarray(np.ma.getdata(points[STEP]), dtype=np.int64)
    return [
        list(map(str, step.tolist())),
        *(_cells(points.get(name), step.size, null, odd) for name in names),
    ]


def _cells(column: Any, length: int, null: str, odd: str) -> list[str]:
    if column is None:
        return [null] * length
    there = np.flatnonzero(~np.ma.getmaskarray(column))
    data = np.asarray(np.ma.getdata(column), dtype=np.float64)[there]
    told = list(map(repr, data.tolist()))
    for at in np.flatnonzero(~np.isfinite(data)).tolist():
        told[at] = odd.format(NAMES[told[at]])
    if there.size == length:
        return told
    cells = [null] * length
    for at, text in zip(there.tolist(), told, strict=True):
        cells[at] = text
    return cells

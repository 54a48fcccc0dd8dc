"""Parquet files of rows, a row a step: one file a run, or one file of many."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import Source, Unreadable
from isoloss.importers.paths import Paths
from isoloss.importers.row_files import Found, RowColumn, Rows, find_files, runs_of
from isoloss.importers.run_tables import NO_PARQUET
from isoloss.notes import first_line

SUFFIXES = (".parquet", ".pq")
MOST_SAID = 200
MAX_DEPTH = 16


def read_parquet(paths: Paths, *, run_column: str | None = None, step_column: str | None = None) -> Source:
    """The runs in Parquet files: one a file, or those that a column tells apart.

    Nested columns are flattened with dots. A file that cannot be used is Unreadable. Needs pyarrow; raises
    InvalidInput where it is not there, and where no file is meant.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidInput(field="parquet", reason=NO_PARQUET) from error
    for found in find_files(paths, SUFFIXES):
        place = str(found.path)
        try:
            yield from runs_of(_rows(parquet, found), run_column, step_column)
        except InvalidInput as error:
            yield Unreadable(place, str(error).removeprefix(f"{place}: "))
        except FileNotFoundError:
            yield Unreadable(place, "there is no such file")
        except Exception as error:  # whatever the library raises for damaged bytes
            yield Unreadable(place, f"this is no Parquet file ({first_line(error, MOST_SAID)})")


def _rows(parquet: Any, found: Found) -> Rows:
    table = _flat(parquet.ParquetFile(found.path).read())
    if not table.num_rows:
        raise InvalidInput(field=str(found.path), reason="the file has no rows")
    columns: dict[str, RowColumn] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        read = _column(column)
        if read.rows.size:
            columns.setdefault(name, read)
    return Rows(str(found.path), found.key, table.num_rows, columns)


def _flat(table: Any) -> Any:
    types = importlib.import_module("pyarrow").types
    for _ in range(MAX_DEPTH):
        if not any(types.is_struct(field.type) for field in table.schema):
            break
        table = table.flatten()
    return table


def _column(column: Any) -> RowColumn:
    """A column's cells without those that are null."""
    arrow = importlib.import_module("pyarrow")
    rows = np.flatnonzero(column.is_valid().to_numpy())
    there = column.drop_null()
    kind = there.type
    if arrow.types.is_decimal(kind) or arrow.types.is_float16(kind):
        there, kind = there.cast(arrow.float64()), arrow.float64()
    if arrow.types.is_integer(kind) and kind != arrow.uint64():
        return RowColumn(rows, there.to_numpy().astype(np.int64))
    if arrow.types.is_floating(kind) or arrow.types.is_integer(kind):
        return RowColumn(rows, there.to_numpy().astype(np.float64))
    if arrow.types.is_timestamp(kind):
        at = there.cast(arrow.timestamp("us")).cast(arrow.int64()).to_numpy()
        return RowColumn(rows, at.astype(np.float64) / 1e6)
    return RowColumn(rows, there.to_pylist())

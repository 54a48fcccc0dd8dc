"""Columns of a run's points as the API takes them: checked, made plain and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isoloss.client import wire
from isoloss.errors import InvalidInput

Column: TypeAlias = Sequence[float | int | str | None] | NDArray[Any]
Columns: TypeAlias = Mapping[str, Column]

DEFAULT_BATCH = 4000


def split_columns(columns: Columns, batch_size: int = DEFAULT_BATCH) -> Iterator[dict[str, list[Any]]]:
    """The columns in batches of at most `batch_size` points, ready for JSON.

    A batch is all or nothing for the service, several are not: so what can be checked without it (equal
    lengths, steps that increase across the batches) is checked before the first one leaves.
    Raises InvalidInput.
    """
    plain = {name: _cells(name, column) for name, column in columns.items()}
    _check(plain)
    length = len(plain["step"])
    for start in range(0, length, batch_size):
        yield {name: cells[start : start + batch_size] for name, cells in plain.items()}


def _cells(name: str, column: Any) -> list[Any]:
    if isinstance(column, list | tuple | range):
        return _listed(name, list(column))
    array = column if isinstance(column, np.ndarray) else np.asarray(column)
    if array.ndim != 1:
        raise InvalidInput(field=name, reason=f"a column has one dimension, this one has {array.ndim}")
    if name == "step":
        return _whole_numbers(array)
    if array.dtype.kind == "f" and not isinstance(array, np.ma.MaskedArray) and name != "loss":
        # A plain array has no null: NaN says "not measured", except in the loss, where it is a measurement.
        array = np.ma.masked_where(np.isnan(array), array)
    return wire.plain_column(array)


def _listed(name: str, cells: list[Any]) -> list[Any]:
    plain: list[Any] = wire.plain(cells)
    return [_whole(cell) for cell in plain] if name == "step" else plain


def _whole(cell: Any) -> Any:
    # 3.0 is step 3 (arithmetic made it a float); 3.5 goes on as it is and is refused by the check below.
    return int(cell) if isinstance(cell, float) and math.isfinite(cell) and cell.is_integer() else cell


def _whole_numbers(array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind in "iu":
        return wire.plain_column(array)
    return [_whole(cell) for cell in wire.plain_column(array)]


def _check(columns: Mapping[str, Sequence[Any]]) -> None:
    if "step" not in columns:
        raise InvalidInput(field="step", reason="points need a column of steps")
    length = len(columns["step"])
    for name, cells in columns.items():
        if len(cells) != length:
            raise InvalidInput(field=name, reason=f"the column has {len(cells)} values for {length} steps")
    _check_steps(columns["step"])


def _check_steps(steps: Sequence[Any]) -> None:
    last: int | None = None
    for row, step in enumerate(steps):
        if isinstance(step, bool) or not isinstance(step, int):
            raise InvalidInput(field="step", reason=f"value {row} is {step!r}, not a whole number")
        if last is not None and step <= last:
            raise InvalidInput(
                field="step",
                reason=f"steps must increase, but value {row} is {step} after {last}; sort them first",
            )
        last = step

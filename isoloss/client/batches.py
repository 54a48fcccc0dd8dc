"""Columns of a run's points as the API takes them: checked, made plain and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import InvalidInput

Column: TypeAlias = Sequence[float | int | str | None] | NDArray[Any]
Columns: TypeAlias = Mapping[str, Column]
Cells: TypeAlias = list[Any] | NDArray[Any]

DEFAULT_BATCH = 4000


def split_columns(columns: Columns, batch_size: int = DEFAULT_BATCH) -> Iterator[dict[str, Cells]]:
    """The columns in batches of at most `batch_size` points, each ready for `wire.dump`.

    A batch is all or nothing for the service, several are not: so what can be checked without it (equal
    lengths, steps that increase across the batches) is checked before the first one leaves.
    Raises InvalidInput.
    """
    cells = {name: _cells(name, column) for name, column in columns.items()}
    _check(cells)
    for start in range(0, len(cells["step"]), batch_size):
        yield {name: column[start : start + batch_size] for name, column in cells.items()}


def _cells(name: str, column: Any) -> Cells:
    if isinstance(column, list | tuple | range):
        return _whole_steps(list(column)) if name == "step" else list(column)
    array = column if isinstance(column, np.ndarray) else np.asarray(column)
    if array.ndim != 1:
        raise InvalidInput(field=name, reason=f"a column has one dimension, this one has {array.ndim}")
    if name == "step":
        return array if array.dtype.kind in "iu" else _whole_steps(array.tolist())
    if array.dtype.kind == "f" and not isinstance(array, np.ma.MaskedArray) and name != "loss":
        # A plain array has no null: NaN says "not measured", except in the loss, where it is a measurement.
        return np.ma.masked_where(np.isnan(array), array)
    return array


def _whole_steps(cells: list[Any]) -> list[Any]:
    return [_whole(cell) for cell in cells]


def _whole(cell: Any) -> Any:
    # 3.0 is step 3 (arithmetic made it a float); 3.5 goes on as it is and is refused by the check below.
    if isinstance(cell, np.generic):
        cell = cell.item()
    return int(cell) if isinstance(cell, float) and math.isfinite(cell) and cell.is_integer() else cell


def _check(columns: Mapping[str, Cells]) -> None:
    if "step" not in columns:
        raise InvalidInput(field="step", reason="points need a column of steps")
    length = len(columns["step"])
    for name, cells in columns.items():
        if len(cells) != length:
            raise InvalidInput(field=name, reason=f"the column has {len(cells)} values for {length} steps")
    if not _increases(columns["step"]):
        _refuse_first_wrong(columns["step"])


def _increases(steps: Cells) -> bool:
    return (
        isinstance(steps, np.ndarray) and not np.ma.is_masked(steps) and bool(np.all(steps[1:] > steps[:-1]))
    )


def _refuse_first_wrong(steps: Cells) -> None:
    last: int | None = None
    for row, step in enumerate(steps.tolist() if isinstance(steps, np.ndarray) else steps):
        if isinstance(step, bool) or not isinstance(step, int):
            raise InvalidInput(field="step", reason=f"value {row} is {step!r}, not a whole number")
        if last is not None and step <= last:
            raise InvalidInput(
                field="step",
                reason=f"steps must increase, but value {row} is {step} after {last}; sort them first",
            )
        last = step

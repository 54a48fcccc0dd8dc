"""Batches of points: checked a column at a time, because a model for every number would cost too much."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from app.bodies import parsed
from app.problems import Malformed
from isoloss.errors import InvalidInput
from isoloss.observations.point_columns import COLUMN_NAME, KNOWN_COLUMNS, MAX_STEP, MAY_BE_NON_FINITE
from store.columns import Column, IntArray, Points

STEP = "step"
NON_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
ABOVE_ZERO = ("loss", "val_loss", "tokens", "lr")
NOT_BELOW_ZERO = ("grad_norm", "grad_norm_l1", "compute_flops", "wall_time_s")
NUMBERS = {int, float, type(None)}


def points_of(body: bytes) -> Points:
    """The points that a body holds. Raises Malformed, and InvalidInput that names the column at fault.

    A learning rate of 0 is let through: whether the schedule reaches it is for `zero_rates` to say.
    """
    columns = _columns(body)
    step = _steps(columns.pop(STEP))
    found = {name: _column(name, cells, step) for name, cells in columns.items()}
    return Points(step, {name: column for name, column in found.items() if column.present.any()})


def zero_rates(points: Points) -> IntArray:
    """The steps after 0 whose learning rate is 0: right only where the declared schedule ends there."""
    lr = points["lr"]
    steps: IntArray = points.step[lr.present & (lr.values == 0) & (points.step > 0)]
    return steps


def _columns(body: bytes) -> dict[str, list[Any]]:
    try:
        document = parsed(body)
    except json.JSONDecodeError as error:
        raise Malformed(reason=f"{error.msg} (at character {error.pos})") from None
    if not isinstance(document, dict):
        raise InvalidInput(field="body", reason="must be an object of columns")
    if STEP not in document:
        raise InvalidInput(field=STEP, reason="is missing")
    for name, cells in document.items():
        if name not in KNOWN_COLUMNS and name != STEP and COLUMN_NAME.fullmatch(name) is None:
            raise InvalidInput(
                field=name[:100],
                reason=f"is no column: names are {', '.join(KNOWN_COLUMNS)}, or {COLUMN_NAME.pattern}",
            )
        if not isinstance(cells, list):
            raise InvalidInput(field=name, reason="must be a list")
    _check_lengths(document)
    _refuse_repeated(body, document)
    return document


def _refuse_repeated(body: bytes, columns: dict[str, list[Any]]) -> None:
    """Refuse a name that stands twice in the object: reading it keeps the last value and loses the others.

    Column names and their numbers hold no colon, so that counting colons tells; only where there are more
    than names is the body read a second time.
    """
    if body.count(b":") == len(columns):
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput(field=name[:100], reason="stands more than once in the batch")
            seen.add(name)
        return dict(pairs)

    json.loads(body, object_pairs_hook=once, parse_int=str, parse_float=str)


def _check_lengths(columns: dict[str, list[Any]]) -> None:
    n_steps = len(columns[STEP])
    if not n_steps:
        raise InvalidInput(field=STEP, reason="the batch is empty")
    for name, cells in columns.items():
        if len(cells) != n_steps:
            raise InvalidInput(field=name, reason=f"has {len(cells)} values where step has {n_steps}")


def _steps(cells: list[Any]) -> IntArray:
    if set(map(type, cells)) != {int}:
        raise InvalidInput(field=STEP, reason="must be whole numbers")
    if min(cells) < 0:
        raise InvalidInput(field=STEP, reason="must not be negative")
    if max(cells) > MAX_STEP:
        raise InvalidInput(field=STEP, reason=f"must be at most {MAX_STEP}")
    step = np.array(cells, dtype=np.int64)
    wrong = np.flatnonzero(np.diff(step) <= 0)
    if len(wrong):
        before, after = int(step[wrong[0]]), int(step[wrong[0] + 1])
        what = "is repeated" if before == after else f"comes after {before}"
        raise InvalidInput(field=STEP, reason=f"step {after} {what}; steps increase strictly within a batch")
    return step


def _column(name: str, cells: list[Any], step: IntArray) -> Column:
    types = set(map(type, cells))
    if not types <= NUMBERS:
        cells = _without_names(name, cells, types, step)
    present = None
    if type(None) in types:
        present = [cell is not None for cell in cells]
        cells = [0.0 if cell is None else cell for cell in cells]
    column = Column.of(np.array(cells, dtype=np.float64), present)
    _check_values(name, column, step)
    return column


def _without_names(name: str, cells: list[Any], types: set[type], step: IntArray) -> list[Any]:
    """The cells with "NaN", "Infinity" and "-Infinity" as floats, in the columns that may hold them."""
    for at, cell in enumerate(cells):
        if type(cell) not in NUMBERS and not (type(cell) is str and cell in NON_FINITE):
            reason = f"step {int(step[at])} has {json.dumps(cell)[:50]}, which is no number"
            raise InvalidInput(field=name, reason=reason)
    if str in types and name not in MAY_BE_NON_FINITE:
        at = next(at for at, cell in enumerate(cells) if type(cell) is str)
        reason = (
            f"step {int(step[at])} has {cells[at]}; only {' and '.join(MAY_BE_NON_FINITE)} may be non-finite"
        )
        raise InvalidInput(field=name, reason=reason)
    return [NON_FINITE[cell] if type(cell) is str else cell for cell in cells]


def _check_values(name: str, column: Column, step: IntArray) -> None:
    logged = column.present & np.isfinite(column.values)
    if name in ABOVE_ZERO:
        wrong, rule = column.values <= 0, "must be above 0"
    elif name in NOT_BELOW_ZERO:
        wrong, rule = column.values < 0, "must not be negative"
    else:
        return
    if name == "tokens":
        wrong &= (column.values < 0) | (step > 0)  # before the first step no token has been seen
    if name == "lr":
        wrong &= column.values < 0
    at = np.flatnonzero(wrong & logged)
    if len(at):
        reason = f"{rule}: step {int(step[at[0]])} has {float(column.values[at[0]])!r}"
        raise InvalidInput(field=name, reason=reason)

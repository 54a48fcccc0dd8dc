"""Points on their way in, from whoever sends them: checked a column at a time, then stored with all that follows.

The service and the workers that train trials send through here, so that a trial's run is a run like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from isoloss.observations.point_columns import MAX_STEP, MAY_BE_NON_FINITE
from isoloss.schedules import schedule_from_spec
from store import following, points, queue, runs
from store.columns import Column, IntArray, Points
from store.points import Accepted
from store.runs import Specification
from store.tables import Run

STEP = "step"
NON_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
ABOVE_ZERO = ("loss", "val_loss", "tokens", "lr")
NOT_BELOW_ZERO = ("grad_norm", "grad_norm_l1", "compute_flops", "wall_time_s")
NUMBERS = {int, float, type(None)}


def points_of_columns(columns: Mapping[str, Sequence[Any]]) -> Points:
    """The points that columns of equal length hold. Raises InvalidInput that names the column at fault.

    A learning rate of 0 is let through: whether the schedule reaches it is for `accept` to say.
    """
    step = _steps(columns[STEP])
    found = {name: _column(name, cells, step) for name, cells in columns.items() if name != STEP}
    return Points(step, {name: column for name, column in found.items() if column.present.any()})


def accept(
    session: Session, project_id: int, run_id: str, sent: Points, replace_values: bool = False
) -> Accepted:
    """Store a batch of points, all or nothing, and have the fits that follow the run done again.

    Raises what `points.append` does, and InvalidInput for a learning rate of 0 that no declared schedule has.
    """
    run = points.hold(session, project_id, run_id)
    _check_zero_rates(session, project_id, run_id, sent)
    done = points.append(session, run, sent, replace_values)
    if run.status != "running" and done.accepted:
        following.runs_changed(session, project_id)
    return done


def declare(session: Session, project_id: int, run_id: str, said: Specification) -> tuple[Run, bool]:
    """Make the run what its specification says, with all that follows where it has ended; also whether it is new.

    Raises what `runs.put` does.
    """
    run, is_new = runs.put(session, project_id, run_id, said)
    if run.status != "running":
        if run.last_step is not None:
            queue.defer(session, "compact", {}, queue=queue.UPKEEP, queueing_lock="compact", lock="compact")
        following.runs_changed(session, project_id)
    return run, is_new


def _check_zero_rates(session: Session, project_id: int, run_id: str, sent: Points) -> None:
    steps = _zero_rates(sent)
    if not len(steps):
        return
    declared = runs.get(session, project_id, run_id).schedule
    schedule = None if declared is None else schedule_from_spec(declared)
    if schedule is None or steps[-1] > schedule.total_steps or schedule.lr(steps).any():
        reason = f"must be above 0: step {int(steps[0])} has 0.0, and no declared schedule is 0 there"
        raise InvalidInput(field="lr", reason=reason)


def _zero_rates(sent: Points) -> IntArray:
    """The steps after 0 whose learning rate is 0: right only where the declared schedule ends there."""
    lr = sent["lr"]
    steps: IntArray = sent.step[lr.present & (lr.values == 0) & (sent.step > 0)]
    return steps


def _steps(cells: Sequence[Any]) -> IntArray:
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


def _column(name: str, cells: Sequence[Any], step: IntArray) -> Column:
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


def _without_names(name: str, cells: Sequence[Any], types: set[type], step: IntArray) -> list[Any]:
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

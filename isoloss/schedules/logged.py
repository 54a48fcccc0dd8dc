"""The schedule that a run's logged learning rates support."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidSchedule
from isoloss.schedules.pieces import FloatArray, IntArray, Piece, Polyline
from isoloss.schedules.schedule import Schedule

AGREEMENT = 1e-6
"""Relative distance within which a logged rate confirms the declared one (design.md, the API contract)."""

HIDDEN_SHARE = 0.005
"""Largest share of a log's steps before its first entry in which a warm-up may be hidden."""


def from_log(
    steps: npt.ArrayLike, lr: npt.ArrayLike, declared: Schedule | None = None
) -> tuple[Schedule, str | None]:
    """Return the schedule that logged learning rates support, and in words what disagreed (None: nothing).

    `steps` (n,) increasing from 1, `lr` (n,) the rate of each of those updates. A declared schedule that agrees
    at every logged step is kept as it is; otherwise the log is interpolated linearly, with the declared
    schedule before its first step. Raises InvalidSchedule where neither tells the warm-up.
    """
    at, logged = np.asarray(steps, dtype=np.int64), np.asarray(lr, dtype=np.float64)
    if declared is None:
        at, logged, note = from_first_step(at, logged)
        return _interpolated(at, logged, before=(), warmup_steps=rise_steps(at, logged)), note
    disagreement = disagreement_with(at, logged, declared)
    if disagreement is None:
        return declared, None
    if declared.total_steps < at[0]:  # the line begins where the declared schedule ends
        at = np.append(declared.total_steps, at)
        logged = np.append(declared.lr(at[:1]), logged)
    before = declared.until(int(at[0]) - 1)
    known = declared.warmup_steps < at[0]
    warmup_steps = declared.warmup_steps if known else rise_steps(at, logged)
    note = disagreement + "; the logged learning rate is used, interpolated linearly"
    return _interpolated(at, logged, before, warmup_steps), note


def rise_steps(steps: IntArray, lr: FloatArray) -> int:
    """Return the step at which an initial, uninterrupted rise of the learning rate ends; 0 where there is none."""
    climbs = np.append(np.diff(lr) > 0, False)
    highest = int(np.argmin(climbs))
    return int(steps[highest]) if highest else 0


def disagreement_with(at: IntArray, logged: FloatArray, declared: Schedule) -> str | None:
    """Say where logged rates (n,) at steps (n,) are not those of a declared schedule; None: they agree."""
    inside = at <= declared.total_steps
    expected, shown = declared.lr(at[inside]), logged[inside]
    off = np.abs(shown - expected) > AGREEMENT * np.maximum(expected, shown)
    if off.any():
        worst = int(np.argmax(np.abs(shown - expected)))
        return f"at step {at[worst]} the logged lr is {shown[worst]:.6g}, the declared {expected[worst]:.6g}"
    if not inside.all():
        return f"learning rates were logged after the declared end, step {declared.total_steps}"
    return None


def _interpolated(at: IntArray, logged: FloatArray, before: tuple[Piece, ...], warmup_steps: int) -> Schedule:
    # The line's offset 0 is the step before the first logged one; it has the same level.
    offsets = np.append(0, at - at[0] + 1)
    return Schedule((*before, Polyline(offsets, np.append(logged[0], logged))), warmup_steps)


def from_first_step(at: IntArray, logged: FloatArray) -> tuple[IntArray, FloatArray, str | None]:
    """Reach back to step 1, with a note; a silence that could hide a warm-up that matters is refused.

    Rates that rise at first are continued to step 1 with their slope. Rates that do not may hide a warm-up
    before the first log, which may be at most `HIDDEN_SHARE` of the steps.
    """
    if at[0] == 1:
        return at, logged, None
    interval = int(np.median(np.diff(at))) if at.size > 1 else 1
    rise = (logged[1] - logged[0]) / (at[1] - at[0]) if at.size > 1 else 0.0
    unknown = at[0] > interval + 1 or (rise <= 0 and at[0] - 1 > HIDDEN_SHARE * at[-1])
    if unknown:
        reason = (
            f"the log starts at step {at[0]} and no schedule is declared: its warm-up is unknown; "
            "declare the run's schedule"
        )
        raise InvalidSchedule(field="lr", reason=reason)
    first = max(0.0, logged[0] - max(0.0, rise) * (at[0] - 1))
    note = f"no learning rate was logged before step {at[0]}: it is taken to have been {first:.3g} at step 1"
    return np.append(1, at), np.append(first, logged), note

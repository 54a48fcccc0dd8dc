"""The points of a logged run: its metrics by column, resolved, and as the service takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.importers.logged_runs import Series
from isoloss.importers.restarts import resolve
from isoloss.notes import counted
from isoloss.observations.point_columns import ABOVE_ZERO, MAX_STEP, MAY_BE_NON_FINITE, NOT_BELOW_ZERO
from isoloss.schedules import Schedule

MaskedColumn = np.ma.MaskedArray[Any, Any]


@dataclass(frozen=True)
class LoggedPoints:
    """Points as they may be sent: `step` (n,) increasing, and columns (n,) masked where nothing was logged.

    `left_out` values are not among them, for reasons that the notes give.
    """

    step: IntArray
    columns: Mapping[str, MaskedColumn]
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def last_step(self) -> int | None:
        return int(self.step[-1]) if self.step.size else None

    def has_diverged(self) -> bool:
        """Whether a loss was logged that is not finite."""
        losses = [column for name, column in self.columns.items() if name in MAY_BE_NON_FINITE]
        return any(bool(np.any(~np.isfinite(column.compressed()))) for column in losses)

    def sendable(self) -> dict[str, Any]:
        """The columns as the client takes them."""
        return {"step": self.step, **self.columns}

    def at(self, places: BoolArray | IntArray) -> LoggedPoints:
        """Some of the points, without columns that are empty there."""
        columns = {name: column[places] for name, column in self.columns.items()}
        return LoggedPoints(
            self.step[places], {name: column for name, column in columns.items() if column.count()}
        )


@dataclass
class _Counted:
    """What was left out and why: a reason is told once, with how often and where first."""

    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, reason: str, steps: IntArray) -> None:
        if steps.size:
            before, first = self.reasons.get(reason, (0, int(steps[0])))
            self.reasons[reason] = (before + steps.size, first)

    @property
    def total(self) -> int:
        return sum(count for count, _ in self.reasons.values())

    def notes(self) -> list[str]:
        return [
            f"{counted(count, 'value')} left out, at step {first} first: {reason}"
            for reason, (count, first) in self.reasons.items()
        ]


def read_points(series: Mapping[str, Series]) -> LoggedPoints:
    """The points of a run's metrics, which go by the names of their columns."""
    gone = _Counted()
    resolved = resolve({name: _at_steps(one, gone) for name, one in series.items()})
    kept = {name: _within_rules(name, one, gone) for name, one in resolved.series.items()}
    kept = {name: one for name, one in kept.items() if one.step.size}
    forgotten = sum(one.forgotten for one in resolved.restarts) + resolved.repeated
    notes = (*resolved.notes(), *gone.notes())
    if not kept:
        return LoggedPoints(np.zeros(0, dtype=np.int64), {}, forgotten + gone.total, notes)
    step = np.unique(np.concatenate([one.step for one in kept.values()]))
    columns = {name: _spread(one, step) for name, one in kept.items()}
    return LoggedPoints(step, columns, forgotten + gone.total, notes)


def _at_steps(series: Series, gone: _Counted) -> Series:
    """The series without values at what can be no step."""
    for reason, wrong in (
        ("their step is negative", series.step < 0),
        (f"their step is beyond {MAX_STEP}", series.step > MAX_STEP),
    ):
        gone.add(reason, series.step[wrong])
    return _taken(series, (series.step >= 0) & (series.step <= MAX_STEP))


def _within_rules(name: str, series: Series, gone: _Counted) -> Series:
    """The series without the values that the service would refuse the batch for."""
    value = series.value
    finite = np.isfinite(value)
    wrong: dict[str, BoolArray] = {}
    if name not in MAY_BE_NON_FINITE:
        wrong[f"{name} is NaN or infinite, which only a loss may be"] = ~finite
    if name in ABOVE_ZERO:
        wrong[f"{name} is not above 0"] = finite & (value <= 0)
    if name in NOT_BELOW_ZERO:
        wrong[f"{name} is below 0"] = finite & (value < 0)
    if name == "tokens":
        wrong["tokens is 0 after the first step"] = (value == 0) & (series.step > 0)
    for reason, places in wrong.items():
        gone.add(reason, series.step[places])
    refused = np.any(list(wrong.values()), axis=0) if wrong else np.zeros(value.size, dtype=bool)
    return _taken(series, ~refused)


def _taken(series: Series, places: BoolArray) -> Series:
    if places.all():
        return series
    time_s = None if series.time_s is None else series.time_s[places]
    order = None if series.order is None else series.order[places]
    return Series(series.step[places], series.value[places], time_s, order)


def _spread(series: Series, step: IntArray) -> MaskedColumn:
    at = np.searchsorted(step, series.step)
    values: FloatArray = np.zeros(step.size)
    values[at] = series.value
    missing = np.ones(step.size, dtype=bool)
    missing[at] = False
    return np.ma.MaskedArray(values, mask=missing)


def without_zero_rates(points: LoggedPoints, schedule: Schedule | None) -> LoggedPoints:
    """The points without rates of 0 where the schedule is not 0, which the service refuses."""
    lr = points.columns.get("lr")
    if lr is None:
        return points
    zero = ~np.ma.getmaskarray(lr) & (np.ma.getdata(lr) == 0) & (points.step > 0)
    inside = zero & (points.step <= (0 if schedule is None else schedule.total_steps))
    if schedule is not None and inside.any():
        zero[inside] = schedule.lr(points.step[inside]) != 0
    if not zero.any():
        return points
    gone = _Counted()
    gone.add("lr is 0 where no schedule is 0", points.step[zero])
    columns = {**points.columns, "lr": np.ma.masked_where(zero, lr)}
    kept = LoggedPoints(points.step, columns).at(
        np.any([~np.ma.getmaskarray(column) for column in columns.values()], axis=0)
    )
    return LoggedPoints(kept.step, kept.columns, points.left_out + gone.total, (*points.notes, *gone.notes()))

"""What a chain of fits finds, for the runs as they are and for runs that are weighted otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.options import FitOptions
from isoloss.fitting.solver import Model, solve
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

Values = Mapping[str, tuple[str, FloatArray]]
"""Quantities by their names: (unit, values (members,))."""


@dataclass(frozen=True)
class Group:
    """What was found for some of the runs: `by` says which they are, `rows` are they.

    `ends` are intervals by their names, None for a side without limit, where members do not show them.
    """

    by: Mapping[str, float | str]
    rows: Sequence[int]
    values: Values
    ends: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Points:
    """What the law predicts, as earlier stages found it: `columns` and `outcome` (n,), `rows` the runs of each."""

    names: Sequence[str]
    columns: Mapping[str, FloatArray]
    outcome: FloatArray
    rows: Sequence[Sequence[int]]

    def only(self, chosen: Sequence[int] | IntArray) -> Points:
        return Points(
            [self.names[one] for one in chosen],
            {name: values[list(chosen)] for name, values in self.columns.items()},
            self.outcome[list(chosen)],
            [self.rows[one] for one in chosen],
        )


@dataclass(frozen=True)
class Found:
    """The outcome of a chain for every member: `theta` (members, parameters), by groups, and what follows.

    `points` are those of the first member, which has the runs as they are. `noise` is the standard deviation of the
    logarithm of what runs showed about the fits of the first stage, which have `n_fitted` parameters in all.
    `missing` are parameters that the runs cannot determine, with why; `weak` and `notes` are reasons in words,
    those that speak against the law and others. `left_out` has runs that no stage could use. `open` are those of
    `missing` without which predictions hold all the same, only wider. `profiles` are limits of parameters, None for
    a side without one.

    Members after the first have one run each moved by a standard deviation, or are `drawn`: then each has noise in
    all runs at once. `spare` is from how many independent deviations the noise is known, the runs less `n_fitted`
    where it is None. `convention` is the law's reading that was chosen, `statement` what intervals rest on.
    """

    theta: FloatArray
    points: Points
    groups: Sequence[Group]
    derived: Values
    noise: float
    n_fitted: int
    missing: Mapping[str, str] = field(default_factory=dict)
    weak: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: Sequence[dict[str, str]] = ()
    open: Collection[str] = ()
    profiles: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    drawn: bool = False
    spare: float | None = None
    unit: str = "runs"
    convention: str | None = None
    statement: str | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


def nothing(law: StagedLaw, members: int, why: str, left_out: Sequence[dict[str, str]]) -> Found:
    """Return what is found where the first stage has nothing to work on."""
    names = [parameter.name for parameter in law.parameters]
    names_of = (*law.columns, "n_params", law.cut_by)
    points = Points([], {name: np.empty(0) for name in names_of}, np.empty(0), [])
    theta = np.full((members, len(names)), np.nan)
    return Found(theta, points, [], {}, 0.0, 0, dict.fromkeys(names, why), left_out=left_out)


Chain = Callable[[RunTable, FloatArray], Found]
"""Runs that all have what the law needs, and the logarithms (members, runs) of what they showed: what is found for
every member. The first has them as they are."""


class Study(Protocol):
    """Finds a law in its runs under the options of a fit, for the runs as they are and for other members.

    Where not the `whole` of it is asked for, predictions are all that is wanted: no groups and no comparisons.
    """

    def __call__(
        self, law: StagedLaw, table: RunTable, asked: FitOptions, *, whole: bool = True
    ) -> Found: ...


@dataclass(frozen=True)
class Limits:
    """Where a search begins and how far it goes, (parameters,) each."""

    start: FloatArray
    lower: FloatArray
    upper: FloatArray


def solve_each(model: Model, logs: FloatArray, limits: Limits, delta: float = np.inf) -> FloatArray:
    """Return the parameters (members, parameters) whose logarithms of predictions are nearest to logs (members, n).

    `model` maps parameters to such logarithms and their derivatives. What each member saw rides along in the
    solver as parameters that are held: it knows one model for all.
    """
    count = limits.start.size

    def residuals(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        told, slopes = model(theta[:, :count])
        held = np.zeros((*told.shape, told.shape[1]))
        return told - theta[:, count:], np.concatenate([slopes, held], axis=2)

    starts, low, high = (
        np.concatenate([np.repeat(one[None], len(logs), axis=0), logs], axis=1)
        for one in (limits.start, limits.lower, limits.upper)
    )
    found = solve(residuals, starts, np.ones_like(logs), lower=low, upper=high, delta=delta)
    return found.theta[:, :count]


def distinct_members(logs: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the different rows of logs (members, n), the first one first, and which of them each member has."""
    same = np.all(logs == logs[:1], axis=1)
    rows = np.concatenate([[0], np.flatnonzero(~same)])
    back = np.zeros(len(logs), dtype=np.int64)
    back[rows] = np.arange(rows.size)
    return logs[rows], back


def group_rows(columns: Sequence[FloatArray]) -> list[list[int]]:
    """Return the rows in groups that agree in all columns to six digits, in the order of their values."""
    keys = np.stack([np.char.mod("%.6g", column) for column in columns], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rows = [list(map(int, np.flatnonzero(inverse.ravel() == number))) for number in range(len(first))]
    return sorted(rows, key=lambda group: tuple(float(column[group[0]]) for column in columns))


def power_of(x: FloatArray, y: FloatArray, counts: FloatArray | None = None) -> FloatArray:
    """Return ln coefficient and exponent of y = coefficient * x^exponent by least squares on ln y, (members, 2).

    `x` (members, n) or (n,), `y` (members, n), both above 0, NaN where there is none; `counts` (n,) is 0 for those
    that do not count.
    """
    log_x, log_y = np.broadcast_arrays(np.log(x), np.log(y))
    known = np.isfinite(log_x) & np.isfinite(log_y)
    w = known * (1.0 if counts is None else counts)
    total = w.sum(axis=1, keepdims=True)
    log_x, log_y = np.where(known, log_x, 0.0), np.where(known, log_y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = ((w * one).sum(axis=1, keepdims=True) / total for one in (log_x, log_y))
        slope = (w * (log_x - mean_x) * (log_y - mean_y)).sum(axis=1) / (w * (log_x - mean_x) ** 2).sum(
            axis=1
        )
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], axis=1)

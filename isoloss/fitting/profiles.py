"""Profile-likelihood intervals of single parameters.

A parameter is held at values on both sides of its optimum and the others are fitted again; the interval ends where
the objective has risen by more than noise allows. Unlike percentiles of resamples it sees a valley that bends or
never closes. Source: Venzon and Moolgavkar 1988, 'A Method for Computing Profile-Likelihood-Based Confidence
Intervals'; the scale of the objective as for M-estimators, Huber and Ronchetti 2009, 'Robust Statistics', 7.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import f_quantile
from isoloss.fitting.members import NEGLIGIBLE
from isoloss.fitting.objective import from_solver
from isoloss.fitting.solver import COARSE, Solution
from isoloss.fitting.task import Task
from isoloss.fitting.variances import Variances

WIDTHS = (1.0, 2.0, 4.0, 10.0)
"""Where the profile is looked at on each side, in standard errors of the quadratic approximation, until it has
risen enough."""

MOST_LOOKS = 20
"""How often the place where it has risen enough is then looked for in between."""

CLOSE = 0.05
"""Relative distance between a rise and the allowed one within which the place is found."""


@dataclass(frozen=True)
class Profile:
    """The ends of a parameter's interval, None where the profile never rises enough on that side.

    `at_bounds` is whether the side below, and the one above, was looked at up to the parameter's bound.
    """

    lower: float | None
    upper: float | None
    at_bounds: tuple[bool, bool] = (False, False)


def profile_intervals(
    task: Task, theta: FloatArray, objective: float, found: Variances, level: float
) -> dict[str, Profile]:
    """Return the profile-likelihood interval of every free parameter at the optimum theta (parameters,)."""
    residuals = task.problem.residuals(theta[None])[0]
    chosen = np.flatnonzero(found.total > 0)
    if not chosen.size or _exact(residuals):
        return {}
    allowed = _allowed_rises(task, residuals, found, level)
    errors = np.sqrt(found.total)
    sides = [
        side for index in chosen for side in _sides(task, theta, int(index), errors[index], allowed[index])
    ]
    _search(task, sides, objective)
    pairs = zip(sides[::2], sides[1::2], strict=True)
    return {task.law.parameters[down.index].name: _profile(task, down, up) for down, up in pairs}


def _exact(residuals: FloatArray) -> bool:
    """Return whether there is no noise: then a profile rises by rounding errors alone."""
    return bool(np.sqrt(np.mean(residuals**2)) < NEGLIGIBLE)


def _allowed_rises(task: Task, residuals: FloatArray, found: Variances, level: float) -> FloatArray:
    """Return by how much the objective may rise for each parameter, (parameters,).

    More where priors hold a parameter closer than they know it: their centres are uncertain too.
    """
    left = max(1, residuals.size - task.n_varied)
    looser = np.maximum(1.0, found.total / np.where(found.usual > 0, found.usual, 1.0))
    return np.asarray(f_quantile(level, 1, left) * found.scale / 2 * looser)


def _profile(task: Task, down: _Side, up: _Side) -> Profile:
    """Return the values at the coordinates where the profile passes what is allowed."""
    parameter = task.law.parameters[down.index]
    below, above = (up, down) if parameter.scale == "log_complement" else (down, up)
    ends = (side.end() for side in (below, above))
    low, high = (None if end is None else float(from_solver(parameter, np.array(end))) for end in ends)
    return Profile(low, high, (below.is_at_bound, above.is_at_bound))


@dataclass
class _Side:
    """One side of a parameter: the last place where the profile has not risen enough, and the first where it has.

    In the solver's coordinates; `theta` (parameters,) is the law with the parameter held at `inner`, and the start
    from which it is held farther out: a valley that bends is followed. `allowed` is how much it may rise, `bound`
    where the parameter must stop.
    """

    index: int
    allowed: float
    bound: float
    widths: list[float]
    inner: float
    theta: FloatArray
    inner_rise: float = 0.0
    outer: float | None = None
    outer_rise: float = np.inf
    looks: int = 0
    found: bool = False

    def next(self) -> float | None:
        """Return where to look next, None where there is nothing left to look for.

        In between, half-way takes turns with where a parabola would have risen enough: the one is sure, the other
        fast where it holds.
        """
        if self.outer is None:
            return self.widths.pop(0) if self.widths else None
        if self.found or self.looks == MOST_LOOKS:
            return None
        self.looks += 1
        guess = self.end() if self.looks % 2 else None
        return (self.inner + self.outer) / 2 if guess is None else guess

    def note(self, place: float, rise: float, theta: FloatArray) -> None:
        """Take in how far the profile has risen at a place."""
        if rise > self.allowed:
            self.outer, self.outer_rise = place, rise
        else:
            self.inner, self.inner_rise, self.theta = place, rise, theta
        self.found = abs(rise - self.allowed) <= CLOSE * self.allowed

    @property
    def is_at_bound(self) -> bool:
        """Return whether the bound was reached before the profile had risen enough."""
        return self.outer is None and self.inner == self.bound

    def end(self) -> float | None:
        """Return where the rise passes what is allowed; its square root is close to linear in between."""
        if self.outer is None or not np.isfinite(self.outer_rise):
            return None
        low, high = np.sqrt(max(self.inner_rise, 0.0)), np.sqrt(self.outer_rise)
        return float(self.inner + (np.sqrt(self.allowed) - low) / (high - low) * (self.outer - self.inner))


def _sides(task: Task, theta: FloatArray, index: int, error: float, allowed: float) -> list[_Side]:
    """Return the side below and the one above the optimum; what lies outside of the bounds is not looked at."""
    at = float(task.problem.coordinates(theta[None])[0, index])
    bounds = np.stack([task.problem.lower, task.problem.upper])
    low, high = np.sort(task.problem.coordinates(bounds)[:, index])
    places = [np.clip(at + sign * error * np.array(WIDTHS), low, high) for sign in (-1, 1)]
    return [
        _Side(index, allowed, bound, [float(place) for place in dict.fromkeys(one) if place != at], at, theta)
        for bound, one in zip((float(low), float(high)), places, strict=True)
    ]


def _search(task: Task, sides: Sequence[_Side], objective: float) -> None:
    """Look at all sides together, until none has anything left to look for."""
    while True:
        asked = [(side, place) for side in sides if (place := side.next()) is not None]
        if not asked:
            return
        places = np.array([place for _, place in asked])
        found = _held(task, [side for side, _ in asked], places)
        for (side, place), rise, theta in zip(asked, found.objective - objective, found.theta, strict=True):
            side.note(place, float(rise), theta)


def _held(task: Task, sides: Sequence[_Side], places: FloatArray) -> Solution:
    """Fit the other parameters with that of each side held at its place (sides,)."""
    rows, index = np.arange(len(sides)), np.array([side.index for side in sides])
    starts = task.problem.coordinates(np.stack([side.theta for side in sides]))
    starts[rows, index] = places
    starts = task.problem.values(starts)
    bounds = [
        np.repeat(bound[None], len(sides), axis=0) for bound in (task.problem.lower, task.problem.upper)
    ]
    for bound in bounds:
        bound[rows, index] = starts[rows, index]
    ones = np.broadcast_to(1.0, (len(sides), task.features.n_points))
    return task.problem.solve(starts, ones, tolerance=COARSE, held=(bounds[0], bounds[1]))

"""How far runs lay from a law while they trained, and what that tells of how they end.

A trace is the log loss of a run less the law's, summed up at fixed shares of the run (`STOPS`). Of runs that have
ended it is known how each went on: at each stop a regression, shrunk towards the law, says how much of what a run
shows by then is still there later, and what remains unexplained is how far a forecast was off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.distributions import normal_quantile
from isoloss.fitting.intervals import students_factor

STOPS = np.array([0.0, *np.arange(0.1, 0.951, 0.05), 0.975, 1.0])
"""Shares of a run at which it is summed up; at the first nothing has been seen, the last is the end."""

BEGINS = 0.05
"""Share of a run before which its losses are not looked at: they tell of the warm-up."""

RECENT = 0.03
"""Share of a run that is recent."""

FEWEST_RECENT = 3
ENDS = 0.99
"""The final loss is the mean of what follows this share of the run."""

N_SIGNS = 3
"""Numbers that sum up what a run has shown: the means of all of it, of its later half, and of its recent part."""

SHRINKAGE = 1.0
"""Ridge of the regressions, in families: one family alone moves a forecast half the way."""

MANY = 20
"""Families whose quantile is taken; of fewer, Student's factor times the root of their mean square."""

POOLED = 4
"""Families that the scatter of all stops counts for, beside the scatter of each."""

FALSE_ALARMS = 0.01
"""Share of the runs that end well that may be said to have left their band."""


def signs(progress: FloatArray, off: FloatArray, stop: float) -> FloatArray | None:
    """Return what a run has shown by a stop, (N_SIGNS,); None where it has shown too little.

    `progress` (n,) is increasing, in shares of the run; `off` (n,) its log loss less the law's.
    """
    seen = (progress >= BEGINS) & (progress <= stop)
    if seen.sum() < FEWEST_RECENT:
        return None
    at, values = progress[seen], off[seen]
    return np.array([values.mean(), values[at >= stop / 2].mean(), recent(progress, off, stop)])


def recent(progress: FloatArray, off: FloatArray, stop: float) -> float:
    """Return how far a run lay from the law just before a stop; at the end, how far its final loss did."""
    if stop >= 1.0:
        return float(off[(progress > ENDS) | (np.arange(off.size) == off.size - 1)].mean())
    until = off[(progress >= BEGINS) & (progress <= stop)]
    count = int(np.sum((progress > max(BEGINS, stop - RECENT)) & (progress <= stop)))
    return float(until[-max(count, FEWEST_RECENT) :].mean())


@dataclass(frozen=True)
class Traces:
    """Finished runs at the stops.

    `signs` (runs, stops, N_SIGNS) and `recent` (runs, stops), NaN where a run has shown too little; `families`
    (runs,) numbers those that share a trunk: they count as one.
    """

    signs: FloatArray
    recent: FloatArray
    families: IntArray

    @classmethod
    def of(cls, runs: list[tuple[FloatArray, FloatArray]], families: IntArray) -> Traces:
        """Return the traces of runs, each its progress and how far it lay from the law."""
        nothing = np.full(N_SIGNS, np.nan)
        shown = [[_or(signs(*run, stop), nothing) for stop in STOPS] for run in runs]
        later = [[_or_nan(run, stop) for stop in STOPS] for run in runs]
        return cls(np.array(shown), np.array(later), families)

    @cached_property
    def weights(self) -> FloatArray:
        """What each run counts, (runs,): a family counts as one."""
        _, place, size = np.unique(self.families, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / size[place])


def _or(found: FloatArray | None, instead: FloatArray) -> FloatArray:
    return instead if found is None else found


def _or_nan(run: tuple[FloatArray, FloatArray], stop: float) -> float:
    return recent(*run, stop) if signs(*run, stop) is not None else np.nan


@dataclass(frozen=True)
class Experience:
    """What finished runs tell: of stops j and later ones k, all (stops, stops) where k > j.

    `carry` (stops, stops, N_SIGNS): what of the signs at j is still there at k. `scatter` (stops, stops): the root
    mean square of what that leaves unexplained, each family by what the others say. `widths` (stops,): how many of
    them an interval of the wanted level needs at the end. `reach` (stops, N_SIGNS): the largest signs that were
    seen. `alarm`: beyond how many of them no run went that ended well. `n_families`.
    """

    carry: FloatArray
    scatter: FloatArray
    widths: FloatArray
    reach: FloatArray
    alarm: float
    n_families: int

    @classmethod
    def of(cls, traces: Traces, doubts: Callable[[FloatArray], FloatArray], level: float) -> Experience:
        """Return what traces tell.

        `doubts` gives the law's doubt of the forecasts of their ends for what is carried over: variances (runs,
        stops).
        """
        n = STOPS.size
        carry = np.zeros((n, n, N_SIGNS))
        left = np.full((len(traces.families), n, n), np.nan)
        for j in range(n - 1):
            for k in range(j + 1, n):
                carry[j, k], left[:, j, k] = _regressed(traces, j, k)
        scatter = _pooled(_mean_squares(left, traces.weights), len(np.unique(traces.families)))
        scores = left[:, :-1, -1] / np.sqrt(scatter[:-1, -1] ** 2 + doubts(carry)[:, :-1])
        widths = np.array([_width(scores[:, j], traces, level) for j in range(n - 1)])
        reach = np.nanmax(np.abs(np.nan_to_num(traces.signs)), axis=0)
        n_families = len(np.unique(traces.families))
        return cls(carry, scatter, widths, reach, _alarm(left, traces), n_families)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, None where nothing is known."""
        arrays = {
            name: [None if math.isnan(one) else one for one in value.ravel().tolist()]
            for name, value in self.__dict__.items()
            if isinstance(value, np.ndarray)
        }
        alarm = self.alarm if np.isfinite(self.alarm) else None
        return {**arrays, "alarm": alarm, "n_families": self.n_families}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Experience:
        """Return the experience that `as_dict` described."""
        n = STOPS.size
        shapes = {"carry": (n, n, N_SIGNS), "scatter": (n, n), "widths": (n - 1,), "reach": (n, N_SIGNS)}
        read = {name: np.array(document[name], dtype=float).reshape(shape) for name, shape in shapes.items()}
        alarm = np.inf if document["alarm"] is None else document["alarm"]
        return cls(**read, alarm=alarm, n_families=document["n_families"])

    def half_width(self, stop: int, variance: float) -> float:
        """Return half of the interval of a final log loss, seen from a stop; `variance` is the law's own doubt."""
        return float(self.widths[stop] * np.hypot(self.scatter[stop, -1], np.sqrt(variance)))


def stop_at(progress: float) -> int:
    """Return the last stop, short of the end, that a run has passed."""
    passed = int(np.sum(progress + 1e-9 >= STOPS)) - 1
    return min(passed, STOPS.size - 2)


def _regressed(traces: Traces, j: int, k: int) -> tuple[FloatArray, FloatArray]:
    """Return what of the signs at stop j is there at k, (N_SIGNS,), and each run's error by the other families."""
    shown, later = traces.signs[:, j], traces.recent[:, k]
    known = np.isfinite(later)
    if j == 0:  # nothing has been seen
        return np.zeros(N_SIGNS), later
    known &= np.isfinite(shown).all(axis=1)
    off = np.full(later.size, np.nan)
    if not known.any():
        return np.zeros(N_SIGNS), off
    for family in np.unique(traces.families[known]):
        own = known & (traces.families == family)
        off[own] = later[own] - shown[own] @ _ridge(shown, later, traces.weights, known & ~own)
    return _ridge(shown, later, traces.weights, known), off


def _ridge(shown: FloatArray, later: FloatArray, weights: FloatArray, kept: BoolArray) -> FloatArray:
    if not kept.any():
        return np.zeros(N_SIGNS)
    x, y, w = shown[kept], later[kept], weights[kept]
    squares = (x * w[:, None]).T @ x
    typical = np.trace(squares) / N_SIGNS / w.sum()
    if not typical > 0:
        return np.zeros(N_SIGNS)
    ridge = SHRINKAGE * typical * np.eye(N_SIGNS)
    return np.asarray(np.linalg.solve(squares + ridge, (x * w[:, None]).T @ y))


def _mean_squares(off: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean squares over runs, the first axis; NaN where no run has shown anything."""
    known = np.isfinite(off)
    each = np.broadcast_to(weights.reshape(-1, *[1] * (off.ndim - 1)), off.shape)
    total = (each * known).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((each * np.where(known, off, 0.0) ** 2).sum(axis=0) / total)


def _pooled(squares: FloatArray, n_families: int) -> FloatArray:
    """Return root mean squares (stops, stops), each drawn towards all: few families show none of them well."""
    typical = np.nanmedian(squares) if np.isfinite(squares).any() else np.nan
    return np.asarray(np.sqrt((n_families * squares + POOLED * typical) / (n_families + POOLED)))


def _width(scores: FloatArray, traces: Traces, level: float) -> float:
    """Return how many scatters an interval needs: by Student for few families, by their quantile for many."""
    known = np.isfinite(scores)
    n = len(np.unique(traces.families[known]))
    if n < 2:
        return np.nan
    weights = traces.weights[known]
    if n >= MANY:
        return float(_quantile(np.abs(scores[known]), weights, level * (n + 1) / n))
    spread = np.sqrt(_mean_squares(scores[known], weights) * (1 + 1 / n))
    return float(students_factor(n - 1, level) * _normal(level) * spread)


def _normal(level: float) -> float:
    return float(normal_quantile((1 + level) / 2))


def _quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.sum(below < share)), values.size - 1)])


def _alarm(left: FloatArray, traces: Traces) -> float:
    """Return how many scatters a run must lie off for an alarm: more than any did, and than chance makes likely.

    `left` (runs, stops, stops). A family's score is its largest by the scatter of the others, as a new run's will
    be; the scores' logarithms are taken as normal.
    """
    names = np.unique(traces.families)
    worst = []
    for family in names:
        own = traces.families == family
        scatter = _pooled(_mean_squares(left[~own], traces.weights[~own]), names.size - 1)
        worst.append(float(np.nanmax(np.abs(left[own] / scatter), initial=0.0)))
    logs = np.log([one for one in worst if one > 0])
    if logs.size < 2:
        return np.inf
    likely = students_factor(logs.size - 1, 1 - 2 * FALSE_ALARMS) * _normal(1 - 2 * FALSE_ALARMS)
    chance = logs.mean() + likely * logs.std(ddof=1) * np.sqrt(1 + 1 / logs.size)
    return float(max(*worst, np.exp(chance)))

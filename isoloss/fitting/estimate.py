"""The optimum of a law on its data, its resamples and profiles, and its error on runs predicted from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import FitFailed
from isoloss.fitting.constrained import solve_constrained
from isoloss.fitting.folds import Validation, validate
from isoloss.fitting.profiles import Profile, profile_intervals
from isoloss.fitting.resampling import Resampling
from isoloss.fitting.solver import COARSE, Solution, same_optimum
from isoloss.fitting.starts import data_starts
from isoloss.fitting.task import Task
from isoloss.fitting.variances import Variances, variances
from isoloss.fitting.verdicts import AGREEING

Progress = Callable[[float, str], None]


def silent(fraction: float, message: str) -> None:
    """Report progress to nobody."""


EXACT = 1e-15
"""Tolerance of an optimum under expressions, which has no other polish."""

BATCH = 100
"""Resamples that are refitted together, and between two reports of progress."""

BATCH_BYTES = 64 * 2**20
"""Where the weights of a batch would take more memory than this, it is smaller."""

BESIDE_WARM = 2
"""Other starts that an earlier optimum is tried beside."""

WIDENINGS = 4
"""How many times a search is widened, each time to twice as many starts."""


@dataclass(frozen=True)
class Search:
    """How the optimum was found: the starts that were tried, and how many reached the best objective."""

    theta: FloatArray
    objective: float
    starts: int
    agree: int


@dataclass(frozen=True)
class Estimate:
    """The optimum and what surrounds it: `samples` (resamples, parameters), `failed` the share without one."""

    search: Search
    resampling: Resampling
    samples: FloatArray
    failed: float
    validation: Validation
    variances: Variances
    profiles: dict[str, Profile] = field(default_factory=dict)

    @property
    def theta(self) -> FloatArray:
        return self.search.theta

    def inflation(self, level: float) -> float:
        """Return by how much the spread of resamples is too narrow, see `Resampling.inflation`."""
        return self.resampling.inflation(self.variances.n_known, level)

    @property
    def objective(self) -> float:
        return self.search.objective


def estimate(task: Task, progress: Progress, warm: FloatArray | None = None) -> Estimate:
    """Search from several starts, predict runs from others, and refit to resamples.

    `warm` (parameters,) is an earlier optimum on similar data: it is tried beside a few other starts.
    """
    progress(0.02, "searching from several starts")
    search = find_optimum(task, warm)
    residuals = task.problem.residuals(search.theta[None])[0]
    progress(0.1, "predicting runs from the others")
    validation = validate(task, search.theta, lambda theta, weights: _refit(task, theta, weights))
    resampling = Resampling.of(task.data, residuals, task.options.seed, task.options.resample)
    samples = _resamples(task, search.theta, resampling, progress)
    usable = samples[np.all(np.isfinite(samples), axis=1)]
    failed = 1 - len(usable) / len(samples) if len(samples) else 0.0
    found = variances(task, search.theta, residuals)
    profiles = _profiles(task, search, found, progress)
    return Estimate(search, resampling, usable, failed, validation, found, profiles)


def find_optimum(task: Task, warm: FloatArray | None = None) -> Search:
    """Search from the best starts; where they disagree, from twice as many others, and so on.

    Raises FitFailed where no start has a finite objective.
    """
    shape = (0, len(task.law.parameters))
    tried, theta, objective = np.empty(shape), np.empty(shape), np.empty(0)
    agree = 0
    for widening in range(WIDENINGS + 1):
        starts = _untried(_starts(task, widening, warm), tried)
        if not len(starts):
            break
        found = _search(task, starts)
        tried, theta = np.concatenate([tried, starts]), np.concatenate([theta, found.theta])
        objective = np.concatenate([objective, found.objective])
        agree = int(np.sum(same_optimum(objective, float(np.min(objective)), task.features.n_points)))
        if agree >= min(AGREEING, task.options.starts):
            break
    best = int(np.argmin(objective))
    if not np.isfinite(objective[best]):
        raise FitFailed(reason="no start reached a finite objective")
    return Search(theta[best], float(objective[best]), len(objective), agree)


def _starts(task: Task, widening: int, warm: FloatArray | None) -> FloatArray:
    """Return the starts (starts, parameters) of a search that was widened so many times."""
    count = task.options.starts << widening
    if warm is None or widening:
        starts = data_starts(task.problem, count)
    else:
        inside = np.clip(warm, task.problem.lower, task.problem.upper)
        starts = np.concatenate([inside[None], data_starts(task.problem, min(count, BESIDE_WARM))])
    if not len(starts):
        raise FitFailed(reason="the law gives no positive loss anywhere near these data")
    return starts


def _untried(starts: FloatArray, tried: FloatArray) -> FloatArray:
    """Return the starts that were not tried: one that is tried again agrees with itself."""
    known = {one.tobytes() for one in tried}
    return np.array([one for one in starts if one.tobytes() not in known]).reshape(-1, starts.shape[1])


def _search(task: Task, theta: FloatArray) -> Solution:
    """Solve the whole problem from every start (starts, parameters)."""
    ones = np.broadcast_to(1.0, (len(theta), task.features.n_points))
    if task.constraints.expressions:
        return solve_constrained(task.problem, theta, ones, task.constraints.expressions, EXACT)
    return task.problem.solve(theta, ones, race=True)


def _refit(task: Task, theta: FloatArray, weights: FloatArray, centres: FloatArray | None = None) -> Solution:
    """Solve for every row of weights (members, points) and of priors' centres, from theta (parameters,)."""
    starts = np.repeat(theta[None], len(weights), axis=0)
    if task.constraints.expressions:
        return solve_constrained(task.problem, starts, weights, task.constraints.expressions, COARSE, centres)
    return task.problem.solve(starts, weights, tolerance=COARSE, centres=centres)


def _resamples(task: Task, theta: FloatArray, resampling: Resampling, progress: Progress) -> FloatArray:
    """Refit to every resample from the optimum: (resamples, parameters), NaN where there is no optimum.

    Each draws the centres of priors too: what the data leave to a prior is as uncertain as the prior says.
    """
    count = task.options.bootstrap
    rows = np.full((count, theta.size), np.nan)
    batch = 1 if task.constraints.expressions else BATCH  # one refit under expressions takes a while
    size = max(1, min(batch, BATCH_BYTES // (8 * task.features.n_points)))
    for begin in range(0, count, size):
        progress(0.2 + 0.7 * begin / count, f"resample {begin} of {count}")
        end = min(begin + size, count)
        centres = task.problem.drawn_centres(resampling.normal(begin, end, theta.size))
        found = _refit(task, theta, resampling.weights(begin, end), centres)
        rows[begin:end] = np.where(np.isfinite(found.objective)[:, None], found.theta, np.nan)
    return rows


def _profiles(task: Task, search: Search, found: Variances, progress: Progress) -> dict[str, Profile]:
    """Return profile-likelihood intervals where intervals are wanted at all; expressions have none."""
    options = task.options
    if not options.profile or not options.bootstrap or options.expr or task.missing:
        return {}
    progress(0.92, "profiling each parameter")
    return profile_intervals(task, search.theta, search.objective, found, options.level)

"""The optimum of a law on its curves, its resamples, and its error on schedules that are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoloss.errors import FitFailed
from isoloss.fitting.constrained import solve_constrained
from isoloss.fitting.intervals import Spread, discrepancy, noise_quantiles
from isoloss.fitting.resampling import Resampling, block_length, leave_out, schedule_groups
from isoloss.fitting.solver import COARSE, Solution
from isoloss.fitting.starts import data_starts
from isoloss.fitting.task import Task
from isoloss.fitting.verdicts import FOLDS_NEEDED

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[float, str], None]

MOST_FOLDS = 40
"""The most schedules that are left out in turn; of more, so many at even distances in the order of their runs."""

EXACT = 1e-15
"""Tolerance of an optimum under expressions, which has no other polish."""

BATCH = 50
"""Resamples that are refitted together, and between two reports of progress."""

BATCH_BYTES = 64 * 2**20
"""Where the weights of a batch would take more memory than this, it is smaller."""


@dataclass(frozen=True)
class Estimate:
    """The optimum and what surrounds it: `samples` (resamples, parameters), `failed` the share without one."""

    theta: FloatArray
    objective: float
    starts: Solution
    resampling: Resampling
    samples: FloatArray
    failed: float
    spread: Spread


def estimate(task: Task, progress: Progress) -> Estimate:
    """Search from several starts, predict each schedule from the others, and refit to resamples."""
    progress(0.02, "searching from several starts")
    starts = data_starts(task.problem, task.options.starts)
    if not len(starts):
        raise FitFailed(reason="the law gives no positive loss anywhere near these data")
    found = _search(task, starts)
    best = int(np.argmin(found.objective))
    if not np.isfinite(found.objective[best]):
        raise FitFailed(reason="no start reached a finite objective")
    theta = found.theta[best]
    residuals = task.problem.residuals(theta[None])[0]
    spread = _spread(task, theta, residuals, progress)
    resampling = Resampling.of(task.lengths, residuals, task.options.seed)
    samples = _resamples(task, theta, resampling, progress)
    usable = samples[np.all(np.isfinite(samples), axis=1)]
    failed = 1 - len(usable) / len(samples) if len(samples) else 0.0
    objective = float(found.objective[best])
    return Estimate(theta, objective, found, resampling, usable, failed, spread)


def _search(task: Task, theta: FloatArray) -> Solution:
    """Solve the whole problem from every start (starts, parameters)."""
    ones = np.ones((len(theta), task.features.n_points))
    if task.constraints.expressions:
        return solve_constrained(task.problem, theta, ones, task.constraints.expressions, EXACT)
    return task.problem.solve(theta, ones, race=True)


def _refit(task: Task, theta: FloatArray, weights: FloatArray) -> Solution:
    """Solve for every row of weights (members, points) from the optimum theta (parameters,)."""
    starts = np.repeat(theta[None], len(weights), axis=0)
    if task.constraints.expressions:
        return solve_constrained(task.problem, starts, weights, task.constraints.expressions, COARSE)
    return task.problem.solve(starts, weights, tolerance=COARSE)


def _resamples(task: Task, theta: FloatArray, resampling: Resampling, progress: Progress) -> FloatArray:
    """Refit to every resample from the optimum: (resamples, parameters), NaN where there is no optimum."""
    count = task.options.bootstrap
    rows = np.full((count, theta.size), np.nan)
    batch = 1 if task.constraints.expressions else BATCH  # one refit under expressions takes a while
    size = max(1, min(batch, BATCH_BYTES // (8 * task.features.n_points)))
    for begin in range(0, count, size):
        progress(0.2 + 0.75 * begin / count, f"resample {begin} of {count}")
        end = min(begin + size, count)
        found = _refit(task, theta, resampling.weights(begin, end))
        rows[begin:end] = np.where(np.isfinite(found.objective)[:, None], found.theta, np.nan)
    return rows


def _spread(task: Task, theta: FloatArray, residuals: FloatArray, progress: Progress) -> Spread:
    """Predict the runs of each schedule from the others; those that the law needs are passed over."""
    progress(0.1, "predicting each schedule from the others")
    noise = noise_quantiles(residuals)
    groups = schedule_groups([curve.schedule for curve in task.curves])
    groups = groups[:: -(-len(groups) // MOST_FOLDS)]
    kept = [group for group in groups if _determined_without(task, group)]
    if len(kept) < FOLDS_NEEDED:
        return Spread(None, len(kept), noise, None)
    found = _refit(task, theta, leave_out(task.lengths, kept))
    errors = task.problem.residuals(found.theta)
    parts = [[errors[fold, task.runs[index]] for index in group] for fold, group in enumerate(kept)]
    blocks = [[block_length(residuals[task.runs[index]]) for index in group] for group in kept]
    worst, fold = discrepancy(parts, blocks)
    return Spread(worst, len(kept), noise, task.curves[kept[fold][0]].run_id)


def _determined_without(task: Task, group: Sequence[int]) -> bool:
    others = [curve for position, curve in enumerate(task.curves) if position not in group]
    if not others or sum(curve.n_points for curve in others) <= task.n_varied:
        return False
    lost = task.law.undetermined(task.law.prepare(others), task.options.fix)
    return set(lost) <= set(task.missing) | set(task.held)

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
from scipy import stats

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.members import NEGLIGIBLE
from isoloss.fitting.objective import from_solver
from isoloss.fitting.resampling import correlation_time
from isoloss.fitting.solver import COARSE
from isoloss.fitting.task import Task

WIDTHS = (1.0, 2.0, 4.0, 10.0)
"""Where the profile is looked at on each side, in standard errors of the quadratic approximation."""


@dataclass(frozen=True)
class Profile:
    """The ends of a parameter's interval, None where the profile never rises enough on that side."""

    lower: float | None
    upper: float | None


def profile_intervals(task: Task, theta: FloatArray, objective: float, level: float) -> dict[str, Profile]:
    """Return the profile-likelihood interval of every free parameter at the optimum theta (parameters,)."""
    errors = standard_errors_of(task, theta)
    chosen = np.flatnonzero(errors > 0)
    if not chosen.size or _exact(task, theta):
        return {}
    at = task.problem.coordinates(theta[None])[0]
    # (parameters, sides, widths): all of them are fitted together.
    away = np.multiply.outer(errors[chosen], np.multiply.outer((-1.0, 1.0), WIDTHS))
    coordinates = at[chosen][:, None, None] + away
    rises = _rises(task, theta, chosen, coordinates) - objective
    allowed = _allowed_rise(task, theta, level)
    found = {}
    for position, index in enumerate(chosen):
        ends = [
            _crossing(np.append(at[index], values), np.append(0.0, rise), allowed)
            for values, rise in zip(coordinates[position], rises[position], strict=True)
        ]
        found[task.law.parameters[index].name] = _profile(task, int(index), ends)
    return found


def standard_errors_of(task: Task, theta: FloatArray) -> FloatArray:
    """Return the standard errors of the quadratic approximation, (parameters,), in the solver's coordinates."""
    free = task.varied
    jacobian = task.problem.relative_jacobian(theta[None])[0][:, free]
    residuals = task.problem.residuals(theta[None])[0]
    curvature = jacobian.T @ jacobian * _inside(task, residuals) + np.diag(task.problem.prior[1][free])
    out = np.full(theta.size, np.nan)
    with np.errstate(invalid="ignore"):
        variance = np.diag(np.linalg.pinv(curvature, hermitian=True)) * _scale(task, residuals)
        out[free] = np.where(variance > 0, np.sqrt(variance), np.nan)
    return out


def _exact(task: Task, theta: FloatArray) -> bool:
    """Return whether there is no noise: then a profile rises by rounding errors alone."""
    return bool(np.sqrt(np.mean(task.problem.residuals(theta[None]) ** 2)) < NEGLIGIBLE)


def _inside(task: Task, residuals: FloatArray) -> float:
    return max(float((np.abs(residuals) <= task.problem.delta).mean()), 1e-3)


def _scale(task: Task, residuals: FloatArray) -> float:
    """Return the variance of a point's score, times its correlation with its neighbours, over the curvature."""
    push = np.clip(residuals, -task.problem.delta, task.problem.delta)
    left = max(1, residuals.size - task.n_varied)
    times = [correlation_time(residuals[run]) for run in task.data.slices if run.stop - run.start > 1]
    return (
        float(np.sum(push**2) / left) * (float(np.mean(times)) if times else 1.0) / _inside(task, residuals)
    )


def _allowed_rise(task: Task, theta: FloatArray, level: float) -> float:
    residuals = task.problem.residuals(theta[None])[0]
    left = max(1, residuals.size - task.n_varied)
    return float(stats.f.ppf(level, 1, left) * _scale(task, residuals) / 2)


def _profile(task: Task, index: int, ends: Sequence[float | None]) -> Profile:
    """Return the values at the coordinates where the profile passes what is allowed."""
    parameter = task.law.parameters[index]
    low, high = (None if end is None else float(from_solver(parameter, np.array(end))) for end in ends)
    return Profile(high, low) if parameter.scale == "log_complement" else Profile(low, high)


def _rises(task: Task, theta: FloatArray, chosen: IntArray, coordinates: FloatArray) -> FloatArray:
    """Return the objective with one parameter held at each coordinate (parameters, ...).

    Infinite outside of the parameter's bounds.
    """
    flat = coordinates.reshape(len(chosen), -1)
    index = np.repeat(chosen, flat.shape[1])
    starts = task.problem.coordinates(np.repeat(theta[None], index.size, axis=0))
    rows = np.arange(index.size)
    starts[rows, index] = flat.ravel()
    with np.errstate(over="ignore"):
        starts = task.problem.values(starts)
    held = starts[rows, index]
    inside = np.isfinite(held) & (held >= task.problem.lower[index]) & (held <= task.problem.upper[index])
    lower, upper = (
        np.repeat(bound[None], int(inside.sum()), axis=0)
        for bound in (task.problem.lower, task.problem.upper)
    )
    kept = np.arange(len(lower))
    lower[kept, index[inside]] = upper[kept, index[inside]] = held[inside]
    ones = np.broadcast_to(1.0, (len(lower), task.features.n_points))
    objective = np.full(index.size, np.inf)
    objective[inside] = task.problem.solve(
        starts[inside], ones, tolerance=COARSE, held=(lower, upper)
    ).objective
    return objective.reshape(coordinates.shape)


def _crossing(coordinates: FloatArray, rise: FloatArray, allowed: float) -> float | None:
    """Return where the rise first passes what is allowed; its square root is close to linear in between."""
    above = np.flatnonzero(rise > allowed)
    if not above.size:
        return None
    last = int(above[0])
    roots = np.sqrt(np.maximum(rise[last - 1 : last + 1], 0.0))
    if not np.isfinite(roots[1]):
        return None
    share = (np.sqrt(allowed) - roots[0]) / (roots[1] - roots[0])
    return float(coordinates[last - 1] + share * (coordinates[last] - coordinates[last - 1]))

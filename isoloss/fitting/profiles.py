"""Profile-likelihood intervals of single parameters.

A parameter is held at values on both sides of its optimum and the others are fitted again; the interval ends where
the objective has risen by more than noise allows. Unlike percentiles of resamples it sees a valley that bends or
never closes. Source: Venzon and Moolgavkar 1988, 'A Method for Computing Profile-Likelihood-Based Confidence
Intervals'; the scale of the objective as for M-estimators, Huber and Ronchetti 2009, 'Robust Statistics', 7.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from isoloss.arrays import FloatArray
from isoloss.fitting.resampling import correlation_time
from isoloss.fitting.solver import COARSE
from isoloss.fitting.task import Task

WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Where the profile is looked at on each side, in standard errors of the quadratic approximation."""


@dataclass(frozen=True)
class Profile:
    """The ends of a parameter's interval, None where the profile never rises enough on that side."""

    lower: float | None
    upper: float | None


def profile_intervals(task: Task, theta: FloatArray, objective: float, level: float) -> dict[str, Profile]:
    """Return the profile-likelihood interval of every free parameter at the optimum theta (parameters,)."""
    free = np.flatnonzero(task.varied)
    errors = standard_errors_of(task, theta)
    allowed = _allowed_rise(task, theta, level)
    found = {}
    for index in free:
        if errors[index] > 0:
            name = task.law.parameters[index].name
            found[name] = _profile(task, theta, objective, int(index), errors[index], allowed)
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


def _profile(
    task: Task, theta: FloatArray, objective: float, index: int, error: float, allowed: float
) -> Profile:
    at = task.problem.coordinates(theta[None])[0, index]
    ends = []
    for sign in (-1.0, 1.0):
        values = at + sign * error * np.array(WIDTHS)
        rise = _rises(task, theta, index, values) - objective
        ends.append(_crossing(np.append(at, values), np.append(0.0, rise), allowed))
    values = [None if end is None else _value(task, theta, index, end) for end in ends]
    low, high = values[::-1] if task.law.parameters[index].scale == "log_complement" else values
    return Profile(low, high)


def _rises(task: Task, theta: FloatArray, index: int, coordinates: FloatArray) -> FloatArray:
    """Return the objective with the parameter held at each coordinate; infinite outside its bounds."""
    starts = np.repeat(theta[None], len(coordinates), axis=0)
    moved = task.problem.coordinates(starts)
    moved[:, index] = coordinates
    starts = task.problem.values(moved)
    low, high = task.problem.lower[index], task.problem.upper[index]
    inside = (starts[:, index] >= low) & (starts[:, index] <= high)
    objective = np.full(len(coordinates), np.inf)
    if inside.any():
        lower, upper = (
            np.repeat(bound[None], int(inside.sum()), axis=0)
            for bound in (task.problem.lower, task.problem.upper)
        )
        lower[:, index] = upper[:, index] = starts[inside, index]
        ones = np.ones((int(inside.sum()), task.features.n_points))
        solved = task.problem.solve(starts[inside], ones, tolerance=COARSE, held=(lower, upper))
        objective[inside] = solved.objective
    return objective


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


def _value(task: Task, theta: FloatArray, index: int, coordinate: float) -> float:
    moved = task.problem.coordinates(theta[None])
    moved[0, index] = coordinate
    return float(task.problem.values(moved)[0, index])

"""Starts derived from the data: variable projection over a grid of the nonlinear parameters (laws.md 1.3)."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from isoloss.fitting.objective import Problem

FloatArray = npt.NDArray[np.float64]


def data_starts(problem: Problem, count: int) -> FloatArray:
    """Return up to `count` starts (count, parameters), best first by the full objective.

    At each node of the law's grid the linear parameters follow by weighted least squares (weights 1/L^2, so
    that relative errors count alike), within their bounds at 0.
    """
    theta = np.clip(problem.law.grid(problem.features), problem.lower, problem.upper)
    theta = np.unique(theta, axis=0)
    linear = np.array([parameter.enters_linearly for parameter in problem.law.parameters])
    observed = np.exp(problem.log_observed)
    basis = problem.law.basis(theta, problem.features)
    theta[:, linear] = nonnegative_least_squares(basis, observed, 1 / observed**2, problem.free[linear])
    theta = np.clip(theta, problem.lower, problem.upper)
    with np.errstate(invalid="ignore"):
        objective = problem.objective(theta)
    usable = np.flatnonzero(np.isfinite(objective))
    return theta[usable[np.argsort(objective[usable])][:count]]


def nonnegative_least_squares(
    basis: FloatArray, observed: FloatArray, weights: FloatArray, free: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return coefficients >= 0 that minimise the weighted squares, (members, columns).

    `basis` (members, points, columns), `observed` and `weights` (points,); columns that are not `free` stay 0.
    The few columns of a law allow the exact way: every subset is solved, the best feasible one is taken.
    """
    weighted = basis * weights[:, None]
    normal = np.einsum("mip,miq->mpq", weighted, basis)
    right = np.einsum("mip,i->mp", weighted, observed)
    best = np.zeros(right.shape)
    lowest = np.zeros(len(right))
    for chosen in product([False, True], repeat=basis.shape[2]):
        columns = np.flatnonzero(chosen)
        if not columns.size or not np.all(free[columns]):
            continue
        found = _solve_subset(normal, right, columns)
        # Up to a constant the objective is c'Nc - 2 c'b.
        value = np.einsum("mp,mp->m", found, np.einsum("mpq,mq->mp", normal, found) - 2 * right)
        better = np.all(found >= 0, axis=1) & (value < lowest)
        best[better], lowest[better] = found[better], value[better]
    return best


def _solve_subset(normal: FloatArray, right: FloatArray, columns: npt.NDArray[np.int64]) -> FloatArray:
    matrix = normal[:, columns[:, None], columns]
    scale = np.sqrt(np.maximum(np.einsum("mpp->mp", matrix), 1e-300))
    scaled = matrix / (scale[:, :, None] * scale[:, None, :]) + 1e-13 * np.eye(len(columns))
    solved = np.linalg.solve(scaled, (right[:, columns] / scale)[..., None])[..., 0] / scale
    out = np.zeros(right.shape)
    out[:, columns] = solved
    return out

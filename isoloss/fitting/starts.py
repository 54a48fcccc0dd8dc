"""Starts derived from the data: variable projection over a grid of the nonlinear parameters (laws.md 1.3)."""

from __future__ import annotations

from itertools import product

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.fitting.objective import Problem

GRID_VALUES = 8_000_000
"""Values of the law's terms that are worked out at once while the grid is searched."""

MOST_SPREAD = 200
"""Starts that are chosen for their distance from others; whoever asks for more takes most of the grid anyhow."""


def data_starts(problem: Problem, count: int) -> FloatArray:
    """Return up to `count` starts (count, parameters), the best one by the full objective first.

    At each node of the law's grid the linear parameters follow by weighted least squares (weights 1/L^2, so
    that relative errors count alike), above 0 where they cannot be negative. The best nodes are neighbours and
    tend to lie in one basin: every other start is the node of the grid's better half that is farthest from those
    before it. On one grid fewer starts are the first of more.
    """
    theta = np.clip(problem.law.grid(problem.features, count), problem.lower, problem.upper)
    theta = np.unique(theta, axis=0)
    size = max(1, GRID_VALUES // (problem.features.n_terms * len(problem.law.parameters)))
    parts = [_projected(problem, theta[begin : begin + size]) for begin in range(0, len(theta), size)]
    theta, objective = (np.concatenate(column) for column in zip(*parts, strict=True))
    usable = np.flatnonzero(np.isfinite(objective))
    ranked = theta[usable[np.argsort(objective[usable], kind="stable")]]
    return np.asarray(ranked[_alternating(_places(problem, ranked), count)])


def _places(problem: Problem, theta: FloatArray) -> FloatArray:
    """Return where starts lie in the nonlinear parameters: coordinates of the solver, scaled to run from 0 to 1."""
    nonlinear = [not parameter.enters_linearly for parameter in problem.law.parameters]
    places = problem.coordinates(theta)[:, nonlinear]
    if not len(places):
        return places
    lowest, width = places.min(axis=0), np.ptp(places, axis=0)
    return (places - lowest)[:, width > 0] / width[width > 0]


def _alternating(places: FloatArray, count: int) -> IntArray:
    """Return up to `count` of the ranks in turn: the best one left, the farthest one left of the better half.

    `places` (ranks, coordinates) are ordered by rank.
    """
    half = places[: -(-len(places) // 2)]
    left = np.ones(len(places), dtype=bool)
    apart = np.full(len(half), np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, len(places), 2 * MOST_SPREAD):
        best = int(np.argmax(left))
        farthest = int(np.argmax(np.where(left[: len(half)], apart, -1.0)))
        rank = farthest if len(chosen) % 2 and left[farthest] else best
        chosen.append(rank)
        left[rank] = False
        apart = np.minimum(apart, ((half - places[rank]) ** 2).sum(axis=1))
    return np.array([*chosen, *np.flatnonzero(left)][:count], dtype=np.int64)


def _projected(problem: Problem, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return theta (members, parameters) with its linear parameters solved for, and the objective there."""
    linear = np.array([parameter.enters_linearly for parameter in problem.law.parameters])
    if not linear.any():
        return theta, problem.objective(theta)
    signed = np.array([parameter.lower < 0 for parameter in problem.law.parameters])[linear]
    observed = np.exp(problem.log_observed)
    basis = problem.law.basis(theta, problem.features)
    # What is not free keeps its value: its part of the prediction is taken off what is left to explain.
    fixed = np.where(problem.free[linear], 0.0, problem.lower[linear])
    with np.errstate(invalid="ignore"):
        left = observed - basis @ fixed if fixed.any() else observed[None]
        weights = 1 / observed**2
        solved = least_squares(basis, left, weights, problem.free[linear], signed)
        theta = theta.copy()
        theta[:, linear] = np.where(problem.free[linear], solved, fixed)
        theta = np.clip(theta, problem.lower, problem.upper)
        coefficients = theta[:, linear, None]
        return theta, problem.objective(theta, (basis @ coefficients)[..., 0])


def least_squares(
    basis: FloatArray, observed: FloatArray, weights: FloatArray, free: BoolArray, signed: BoolArray
) -> FloatArray:
    """Return coefficients that minimise the weighted squares, (members, columns), at least 0 unless `signed`.

    `basis` (members, points, columns), `observed` (members or 1, points), `weights` (points,); columns that are
    not `free` stay 0. The few columns of a law allow the exact way: every subset is solved, and the best one
    without a negative coefficient is taken.
    """
    weighted = (basis * weights[:, None]).transpose(0, 2, 1)
    normal = weighted @ basis
    right = (weighted @ observed[..., None])[..., 0]
    best = np.zeros(right.shape)
    lowest = np.zeros(len(right))
    for chosen in product([False, True], repeat=basis.shape[2]):
        columns = np.flatnonzero(chosen)
        if not columns.size or not np.all(free[columns]):
            continue
        found = _solve_subset(normal, right, columns)
        # Up to a constant the objective is c'Nc - 2 c'b.
        value = np.einsum("mp,mp->m", found, np.einsum("mpq,mq->mp", normal, found) - 2 * right)
        better = np.all((found >= 0) | signed, axis=1) & (value < lowest)
        best[better], lowest[better] = found[better], value[better]
    return best


def _solve_subset(normal: FloatArray, right: FloatArray, columns: IntArray) -> FloatArray:
    matrix = normal[:, columns[:, None], columns]
    scale = np.sqrt(np.maximum(np.einsum("mpp->mp", matrix), 1e-300))
    scaled = matrix / (scale[:, :, None] * scale[:, None, :]) + 1e-13 * np.eye(len(columns))
    solved = np.linalg.solve(scaled, (right[:, columns] / scale)[..., None])[..., 0] / scale
    out = np.zeros(right.shape)
    out[:, columns] = solved
    return out

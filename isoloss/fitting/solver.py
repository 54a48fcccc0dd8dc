"""A bounded Levenberg-Marquardt solver for Huber objectives, over many starts and resamples at once.

Every member minimises sum_i w_i Huber(r_i(theta)) for its own weights and from its own start; members that have
converged are retired early, and members are worked on in chunks that bound the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Residuals = Callable[[FloatArray], FloatArray]
"""theta (members, parameters) -> residuals (members, points); not finite where the model is undefined."""

ResidualsWithJacobian = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""theta -> residuals (members, points) and Jacobian (members, points, parameters)."""

CHUNK_BYTES = 64 * 2**20
MAX_DAMPING = 1e12
SAME_OPTIMUM = 1e-4
"""Relative distance between objectives within which two starts have found the same optimum."""

FINE = 1e-11
"""Relative gain below which an estimate has converged."""

COARSE = 1e-7
"""The same for resamples, whose spread is known to a few percent at best."""

PATIENCE = 3
"""How many times the iterations of the first start to converge the other starts of a race may take."""

FLAT_CURVATURE = 0.05
"""Share of its weight that a point keeps in the curvature where the Huber loss is linear (see `_curvature`)."""


@dataclass(frozen=True)
class Solution:
    """Where each member ended: theta (members, parameters), objective, and whether it converged."""

    theta: FloatArray
    objective: FloatArray
    converged: BoolArray
    iterations: npt.NDArray[np.int64]


def huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Return Huber(r) = r^2/2 for |r| <= delta, else delta (|r| - delta/2) (laws.md 1.3)."""
    size = np.abs(residuals)
    inside = np.minimum(size, delta)
    return inside * (size - inside / 2)


def solve(
    residuals: Residuals,
    residuals_with_jacobian: ResidualsWithJacobian,
    start: FloatArray,
    weights: FloatArray,
    *,
    lower: FloatArray,
    upper: FloatArray,
    delta: float,
    race: bool = False,
    max_iterations: int = 200,
    tolerance: float = FINE,
) -> Solution:
    """Minimise every member's objective from its start, within bounds.

    `start` (members, parameters); `weights` (members, points), each at least 0; `lower` and `upper`
    (parameters,) in the same coordinates, equal where a parameter is held. A member has converged when a step
    lowers its objective by less than `tolerance` relative. In a `race` all members solve one problem from
    different starts: one that comes within `SAME_OPTIMUM` of a member that has converged need not go on,
    and one that takes `PATIENCE` times as long is given up.
    """
    members, n_parameters = start.shape
    n_points = weights.shape[1]
    size = max(1, CHUNK_BYTES // (8 * n_points * (n_parameters + 4)))
    parts = [
        _solve_chunk(
            residuals, residuals_with_jacobian, start[part], weights[part], lower, upper, delta,
            race, max_iterations, tolerance,
        )
        for part in (slice(begin, begin + size) for begin in range(0, members, size))
    ]  # fmt: skip
    columns = ("theta", "objective", "converged", "iterations")
    return Solution(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _solve_chunk(
    residuals: Residuals,
    residuals_with_jacobian: ResidualsWithJacobian,
    start: FloatArray,
    weights: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    delta: float,
    race: bool,
    max_iterations: int,
    tolerance: float,
) -> Solution:
    theta = np.clip(start, lower, upper)
    objective = _objective(residuals(theta), weights, delta)
    damping = np.full(len(theta), 1e-3)
    quiet = np.zeros(len(theta), dtype=np.int64)
    iterations = np.zeros(len(theta), dtype=np.int64)
    live = np.flatnonzero(np.isfinite(objective))
    leader, last_turn = -np.inf, max_iterations
    for turn in range(1, max_iterations + 1):
        if not live.size or turn > last_turn:
            break
        iterations[live] += 1
        at, weight = theta[live], weights[live]
        gradient, hessian = _curvature(*residuals_with_jacobian(at), weight, delta)
        step = _bounded_step(gradient, hessian, damping[live], at, lower, upper)
        moved = np.clip(at + step, lower, upper)
        reached = _objective(residuals(moved), weight, delta)
        gain = objective[live] - reached
        better = gain >= 0
        theta[live[better]], objective[live[better]] = moved[better], reached[better]
        damping[live] *= np.where(better, 0.2, 8.0)
        damping[live] = np.maximum(damping[live], 1e-12)
        small = np.abs(np.where(better, gain, 0.0)) <= tolerance * np.maximum(objective[live], 1e-300)
        quiet[live] = np.where(better & small, quiet[live] + 1, np.where(better, 0, quiet[live]))
        stuck = damping[live] > MAX_DAMPING
        done = stuck | (quiet[live] >= 2)
        if race and done.any():
            finished = float(objective[live[done]].min())
            last_turn = min(last_turn, PATIENCE * turn) if leader < 0 else last_turn
            leader = finished if leader < 0 else min(leader, finished)
        live = live[~done & (objective[live] > leader * (1 + SAME_OPTIMUM))]
    converged = np.isfinite(objective)
    converged[live] = False
    return Solution(theta, objective, converged, iterations)


def _objective(residuals: FloatArray, weights: FloatArray, delta: float) -> FloatArray:
    """Return each member's objective, infinite where its model is undefined at a point that counts."""
    with np.errstate(invalid="ignore"):
        total = np.einsum("mi,mi->m", weights, huber(np.where(weights > 0, residuals, 0.0), delta))
    return np.where(np.isfinite(total), total, np.inf)


def _curvature(
    residuals: FloatArray, jacobian: FloatArray, weights: FloatArray, delta: float
) -> tuple[FloatArray, FloatArray]:
    """Return the gradient (members, parameters) and a curvature (members, parameters, parameters).

    The Huber loss is flat in curvature beyond delta. Newton's choice (nothing there) converges fast but may be
    singular, the reweighting choice (delta/|r|) never is but converges slowly: a share of the second is kept.
    """
    size = np.abs(residuals)
    inside = size <= delta
    reweighted = weights * np.where(inside, 1.0, delta / np.maximum(size, delta))
    curved = np.where(inside, reweighted, FLAT_CURVATURE * reweighted)
    gradient = np.einsum("mip,mi->mp", jacobian, reweighted * residuals)
    hessian = np.matmul(jacobian.transpose(0, 2, 1), jacobian * curved[..., None])
    return gradient, hessian


def _bounded_step(
    gradient: FloatArray,
    hessian: FloatArray,
    damping: FloatArray,
    theta: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
) -> FloatArray:
    """Return the damped step of each member; parameters that a bound holds against the gradient stay."""
    held = ((theta <= lower) & (gradient >= 0)) | ((theta >= upper) & (gradient <= 0)) | (lower == upper)
    diagonal = np.einsum("mpp->mp", hessian)
    scale = np.sqrt(np.where(held | (diagonal <= 0), 1.0, diagonal))
    free = ~held
    scaled = hessian / (scale[:, :, None] * scale[:, None, :]) * (free[:, :, None] & free[:, None, :])
    identity = np.eye(theta.shape[1])
    scaled = scaled + identity * np.where(held, 1.0, damping[:, None])[:, None, :] + 1e-14 * identity
    right = np.where(held, 0.0, -gradient / scale)
    return np.linalg.solve(scaled, right[..., None])[..., 0] / scale

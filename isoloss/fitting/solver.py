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

Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""theta (members, parameters) -> residuals (members, points), not finite where the model is undefined, and
their Jacobian (members, points, parameters)."""

CHUNK_BYTES = 64 * 2**20
MAX_DAMPING = 1e12
SAME_OPTIMUM = 1e-4
"""Relative distance between objectives within which two starts have found the same optimum."""

NEGLIGIBLE = 1e-6
"""Root mean square residual below which objectives are equal whatever their ratio: data without noise."""

FINE = 1e-11
"""Relative gain below which an estimate has converged."""

COARSE = 1e-7
"""The same for resamples, whose spread is known to a few percent at best."""

PATIENCE = 2
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


def same_optimum(objective: FloatArray, best: float, n_points: int) -> BoolArray:
    """Return which objectives (members,) are those of the best optimum, over `n_points` residuals."""
    if not np.isfinite(best):
        return np.zeros(objective.shape, dtype=bool)
    return np.asarray(objective <= best * (1 + SAME_OPTIMUM) + n_points * NEGLIGIBLE**2 / 2)


def solve(
    model: Model,
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
    parts = []
    for begin in range(0, members, size):
        part = slice(begin, begin + size)
        chunk = _Members(np.clip(start[part], lower, upper), model, weights[part], delta)
        _work_on(chunk, lower, upper, _Race() if race else _Rules(), max_iterations, tolerance)
        parts.append(chunk.solution())
    columns = ("theta", "objective", "converged", "iterations")
    return Solution(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _work_on(
    members: _Members,
    lower: FloatArray,
    upper: FloatArray,
    rules: _Rules,
    max_iterations: int,
    tolerance: float,
) -> None:
    """Step the members until the rules have retired them all, or say that it is over."""
    for turn in range(1, max_iterations + 1):
        if not members.live.size or rules.over(turn):
            break
        moved = np.clip(members.propose(lower, upper), lower, upper)
        members.move(moved, tolerance)
        members.retire(rules.finished(members, turn))


class _Members:
    """Where every member stands: its coordinates, and the local shape of its objective."""

    def __init__(self, theta: FloatArray, model: Model, weights: FloatArray, delta: float) -> None:
        self.model, self.weights, self.delta = model, weights, delta
        self.theta = theta
        self.objective, self.gradient, self.hessian = _local(model, theta, weights, delta)
        self.damping = np.full(len(theta), 1e-3)
        self.quiet = np.zeros(len(theta), dtype=np.int64)
        self.iterations = np.zeros(len(theta), dtype=np.int64)
        self.live = np.flatnonzero(np.isfinite(self.objective))

    def propose(self, lower: FloatArray, upper: FloatArray) -> FloatArray:
        """Return where the live members would step to."""
        live = self.live
        at = self.theta[live]
        step = _bounded_step(self.gradient[live], self.hessian[live], self.damping[live], at, lower, upper)
        return at + step

    def move(self, moved: FloatArray, tolerance: float) -> None:
        """Take the steps that lower the objective; damp those that do not, and note who gains little."""
        live = self.live
        reached, gradient, hessian = _local(self.model, moved, self.weights[live], self.delta)
        gain = self.objective[live] - reached
        better = gain >= 0
        small = better & (gain <= tolerance * np.maximum(self.objective[live], 1e-300))
        won = live[better]
        self.theta[won], self.objective[won] = moved[better], reached[better]
        self.gradient[won], self.hessian[won] = gradient[better], hessian[better]
        self.damping[live] = np.maximum(self.damping[live] * np.where(better, 0.2, 8.0), 1e-12)
        self.quiet[live] = np.where(small, self.quiet[live] + 1, np.where(better, 0, self.quiet[live]))
        self.iterations[live] += 1

    def converged(self) -> BoolArray:
        """Return which live members have gained little twice, or can find no better step."""
        return np.asarray((self.quiet[self.live] >= 2) | (self.damping[self.live] > MAX_DAMPING))

    def retire(self, finished: BoolArray) -> None:
        self.live = self.live[~finished]

    def solution(self) -> Solution:
        converged = np.isfinite(self.objective)
        converged[self.live] = False
        return Solution(self.theta, self.objective, converged, self.iterations)


class _Rules:
    """Members that know nothing of each other go on until they converge."""

    def over(self, turn: int) -> bool:  # noqa: ARG002 (the race asks)
        return False

    def finished(self, members: _Members, turn: int) -> BoolArray:  # noqa: ARG002
        return members.converged()


class _Race(_Rules):
    """Starts of one problem: who comes close to the leader has agreed, who takes much longer is given up."""

    def __init__(self) -> None:
        self.best, self.last_turn = np.inf, np.inf

    def over(self, turn: int) -> bool:
        return turn > self.last_turn

    def finished(self, members: _Members, turn: int) -> BoolArray:
        done = members.converged()
        reached = members.objective[members.live]
        if done.any():
            self.last_turn = min(self.last_turn, PATIENCE * turn)
            self.best = min(self.best, float(reached[done].min()))
        return np.asarray(done | same_optimum(reached, self.best, members.weights.shape[1]))


def _local(
    model: Model, theta: FloatArray, weights: FloatArray, delta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return each member's objective, gradient and curvature; infinite where its model is undefined."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        residuals, jacobian = model(theta)
        objective = _objective(residuals, weights, delta)
        return objective, *_curvature(residuals, jacobian, weights, delta)


def _objective(residuals: FloatArray, weights: FloatArray, delta: float) -> FloatArray:
    """Return each member's objective, infinite where its model is undefined at a point that counts."""
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

"""The Huber objective of many members at once: its value, gradient and curvature for each one's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, device, namespace

Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""theta (members, parameters) -> residuals (members, points), not finite where the model is undefined, and
their Jacobian (members, points, parameters); arrays of the library that theta belongs to."""

Prior = tuple[FloatArray, FloatArray]
"""Centre (parameters,), or (members, parameters) where each member has its own, and precision (parameters,), in the
solver's coordinates; precision 0 is no prior."""

Shape = tuple[FloatArray, FloatArray, FloatArray]
"""Objective (members,), gradient (members, parameters) and curvature (members, parameters, parameters)."""

FLAT_CURVATURE = 0.05
"""Share of its weight that a point keeps in the curvature where the Huber loss is linear (see `_shape`)."""


def huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Return Huber(r) = r^2/2 for |r| <= delta, else delta (|r| - delta/2) (laws.md 1.3)."""
    xp = namespace(residuals)
    if delta == np.inf:
        return residuals * residuals / 2
    size = xp.abs(residuals)
    inside = xp.where(size <= delta, size, delta)
    return inside * (size - inside / 2)


@dataclass(frozen=True)
class Objective:
    """What every member minimises for its own weights and centres of priors; `precision` None: no priors."""

    model: Model
    delta: float
    precision: FloatArray | None

    def local(self, theta: FloatArray, weights: FloatArray, centre: FloatArray) -> Shape:
        """Return each member's objective, gradient and curvature; objective infinite where one is undefined."""
        residuals, jacobian = self._modelled(theta)
        shape = _shape(residuals, jacobian, weights, self.delta)
        undefined = ~_finite(shape)
        if bool(namespace(theta).any(undefined)):
            shape = _without_unweighted(shape, undefined, residuals, jacobian, weights, self.delta)
        return self._with_prior(theta - centre, shape)

    def _modelled(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the model's residuals and Jacobian, worked out once where all members stand at one place.

        Resamples all start at the optimum: their first look is a third of their work.
        """
        xp = namespace(theta)
        if theta.shape[0] < 2 or not bool(xp.all(theta == theta[:1])):
            return self.model(theta)
        residuals, jacobian = self.model(theta[:1])
        members = theta.shape[0]
        return (
            xp.broadcast_to(residuals, (members, *residuals.shape[1:])),
            xp.broadcast_to(jacobian, (members, *jacobian.shape[1:])),
        )

    def _with_prior(self, away: FloatArray, shape: Shape) -> Shape:
        """Return the shape with what the priors add, (members, parameters) `away` from their centres."""
        precision = self.precision
        if precision is None:
            return shape
        xp = namespace(away)
        objective, gradient, curvature = shape
        away = xp.where(precision > 0, away, 0.0)
        total = objective + xp.sum(precision * away * away, axis=1) / 2
        return total, gradient + precision * away, curvature + precision * identity(away)


def identity(theta: FloatArray) -> FloatArray:
    """Return the unit matrix (parameters, parameters) for theta (members, parameters)."""
    xp = namespace(theta)
    return xp.eye(theta.shape[1], dtype=xp.float64, device=device(theta))


def _shape(residuals: FloatArray, jacobian: FloatArray, weights: FloatArray, delta: float) -> Shape:
    """Return the objective, and its shape as the linear model of the residuals has it.

    The Huber loss is flat in curvature beyond delta. Newton's choice (nothing there) converges fast but may be
    singular, the reweighting choice (delta/|r|) never is but converges slowly: a share of the second is kept.
    """
    xp = namespace(residuals)
    if delta == np.inf:
        influence, curved = weights * residuals, weights
        objective = xp.sum(influence * residuals, axis=1) / 2
    else:
        clipped = residuals.clip(-delta, delta)
        influence = weights * clipped
        objective = xp.sum(influence * (residuals - clipped / 2), axis=1)
        curved = xp.where(clipped == residuals, weights, FLAT_CURVATURE * influence / residuals)
    gradient = xp.matmul(influence[:, None, :], jacobian)[:, 0, :]
    return objective, gradient, xp.matmul(xp.matrix_transpose(jacobian), jacobian * curved[..., None])


def _finite(shape: Shape) -> BoolArray:
    objective, gradient, curvature = shape
    xp = namespace(objective)
    total = objective + xp.sum(gradient, axis=1) + xp.sum(curvature, axis=(1, 2))
    return xp.isfinite(total)


def _without_unweighted(
    shape: Shape,
    undefined: BoolArray,
    residuals: FloatArray,
    jacobian: FloatArray,
    weights: FloatArray,
    delta: float,
) -> Shape:
    """Work out the undefined members again without the points that have no weight; infinite if that fails."""
    xp = namespace(residuals)
    rows = xp.nonzero(undefined)[0]
    weights = weights[rows]
    counts = weights != 0
    residuals = xp.where(counts, residuals[rows], 0.0)
    again = _shape(residuals, xp.where(counts[..., None], jacobian[rows], 0.0), weights, delta)
    objective, gradient, curvature = shape
    objective[rows] = xp.where(_finite(again), again[0], xp.inf)
    gradient[rows], curvature[rows] = again[1], again[2]
    return objective, gradient, curvature

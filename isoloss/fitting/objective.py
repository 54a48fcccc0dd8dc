"""A law, its observations and their objective, in the coordinates that the solver moves in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.fitting.solver import FINE, Solution, huber, solve
from isoloss.laws import Features, Law
from isoloss.laws.law import Parameter

FloatArray = npt.NDArray[np.float64]

HUBER_DELTA = 1e-3
"""The Huber threshold on log loss of laws.md 1.3, shared by the published fits."""


def to_solver(parameter: Parameter, value: FloatArray) -> FloatArray:
    """Return the solver's coordinate of a parameter's value."""
    if parameter.scale == "log":
        return np.log(value)
    if parameter.scale == "log_complement":
        return np.log1p(-value)
    return value


def from_solver(parameter: Parameter, coordinate: FloatArray) -> FloatArray:
    """Return the parameter's value at a coordinate of the solver."""
    if parameter.scale == "log":
        return np.exp(coordinate)
    if parameter.scale == "log_complement":
        return -np.expm1(coordinate)
    return coordinate


def stretch(parameter: Parameter, value: FloatArray) -> FloatArray:
    """Return d value / d coordinate, for the chain rule."""
    if parameter.scale == "log":
        return value
    if parameter.scale == "log_complement":
        return value - 1.0
    return np.ones_like(value)


@dataclass(frozen=True)
class Problem:
    """Residuals log(predicted) - log(observed) of a law over all its points.

    `log_observed` (points,); `lower`, `upper` (parameters,) bound the values, and are equal where one is held.
    """

    law: Law[Any]
    features: Features
    log_observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    delta: float = HUBER_DELTA

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        return self.lower < self.upper

    def solve(
        self, theta: FloatArray, weights: FloatArray, *, race: bool = False, tolerance: float = FINE
    ) -> Solution:
        """Minimise sum_i w_i Huber(r_i) for every member; theta (members, parameters), weights (members, points).

        In a `race` the members are starts of one problem, see `solver.solve`.
        """
        bounds = np.sort(self._coordinates(np.stack([self.lower, self.upper])), axis=0)
        solution = solve(
            lambda coordinates: self._with_jacobian(self.values(coordinates)),
            self._coordinates(theta),
            weights,
            lower=bounds[0],
            upper=bounds[1],
            delta=self.delta,
            race=race,
            tolerance=tolerance,
        )
        return Solution(
            self.values(solution.theta), solution.objective, solution.converged, solution.iterations
        )

    def residuals(self, theta: FloatArray) -> FloatArray:
        """Return log(predicted) - log(observed), (members, points); NaN where the prediction is not above 0."""
        predicted = self.law.predict(theta, self.features)
        return np.log(np.where(predicted > 0, predicted, np.nan)) - self.log_observed

    def objective(self, theta: FloatArray) -> FloatArray:
        """Return the sum of Huber losses of each member, (members,)."""
        return np.asarray(huber(self.residuals(theta), self.delta).sum(axis=1))

    def values(self, coordinates: FloatArray) -> FloatArray:
        columns = zip(self.law.parameters, coordinates.T, strict=True)
        return np.stack([from_solver(parameter, column) for parameter, column in columns], axis=1)

    def _coordinates(self, theta: FloatArray) -> FloatArray:
        columns = zip(self.law.parameters, theta.T, strict=True)
        with np.errstate(divide="ignore"):
            return np.stack([to_solver(parameter, column) for parameter, column in columns], axis=1)

    def relative_jacobian(self, theta: FloatArray) -> FloatArray:
        """Return the derivatives of the residuals by the solver's coordinates: (members, points, parameters)."""
        return self._with_jacobian(theta)[1]

    def _with_jacobian(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        predicted, jacobian = self.law.jacobian(theta, self.features)
        columns = zip(self.law.parameters, theta.T, strict=True)
        chain = np.stack([stretch(parameter, column) for parameter, column in columns], axis=1)
        jacobian *= chain[:, None, :] / predicted[..., None]
        return np.log(predicted) - self.log_observed, jacobian


def log_observed(columns: Sequence[FloatArray]) -> FloatArray:
    """Return the logarithm of the observed losses of several curves, one after another."""
    return np.log(np.concatenate(columns))

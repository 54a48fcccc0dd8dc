"""A law, its observations and their objective, in the coordinates that the solver moves in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, as_numpy, namespace
from isoloss.fitting.backends import moved
from isoloss.fitting.solver import COARSE, FINE, Solution, huber, solve
from isoloss.laws import Features, Law, Priors
from isoloss.laws.law import Parameter

HUBER_DELTA = 1e-3
"""The Huber threshold on log loss of laws.md 1.3, shared by the published fits."""


MOST_ITERATIONS = 200
MOST_COARSE_ITERATIONS = 50
"""A resample that takes longer wanders along a valley in which no prediction changes."""


def to_solver(parameter: Parameter, value: FloatArray) -> FloatArray:
    """Return the solver's coordinate of a parameter's value."""
    if parameter.scale == "log":
        return namespace(value).log(value)
    if parameter.scale == "log_complement":
        return namespace(value).log1p(-value)
    return value


def from_solver(parameter: Parameter, coordinate: FloatArray) -> FloatArray:
    """Return the parameter's value at a coordinate of the solver."""
    if parameter.scale == "log":
        return namespace(coordinate).exp(coordinate)
    if parameter.scale == "log_complement":
        return -namespace(coordinate).expm1(coordinate)
    return coordinate


def stretch(parameter: Parameter, value: FloatArray) -> FloatArray:
    """Return d value / d coordinate, for the chain rule."""
    if parameter.scale == "log":
        return value
    if parameter.scale == "log_complement":
        return value - 1.0
    return namespace(value).ones_like(value)


@dataclass(frozen=True)
class Problem:
    """Residuals log(predicted) - log(observed) of a law over all its points, and what it expects beforehand.

    `log_observed` (points,); `lower`, `upper` (parameters,) bound the values, and are equal where one is held.
    """

    law: Law[Any]
    features: Features
    log_observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    delta: float = HUBER_DELTA
    priors: Priors = field(default_factory=Priors)
    backend: str = "numpy"

    @property
    def free(self) -> BoolArray:
        return self.lower < self.upper

    @cached_property
    def prior(self) -> tuple[FloatArray, FloatArray]:
        """The priors' centres and precisions in the solver's coordinates, (parameters,) each."""
        centre, precision = np.zeros((2, len(self.law.parameters)))
        for name, (value, sd) in self.priors.centres.items():
            index = self.law.index(name)
            if self.free[index]:
                centre[index] = to_solver(self.law.parameters[index], np.array(value))
                precision[index] = (self.priors.strength / sd) ** 2
        return centre, precision

    def solve(
        self,
        theta: FloatArray,
        weights: FloatArray,
        *,
        race: bool = False,
        tolerance: float = FINE,
        held: tuple[FloatArray, FloatArray] | None = None,
        centres: FloatArray | None = None,
    ) -> Solution:
        """Minimise sum_i w_i Huber(r_i) + priors for every member.

        `theta` (members, parameters) are the starts, `weights` (members, points) those of each member.
        In a `race` the members are starts of one problem, see `solver.solve`. `held` are other (lower, upper)
        bounds of values, `centres` other centres of the priors in the solver's coordinates, (members, parameters)
        each.
        """
        lower, upper = (self.lower[None], self.upper[None]) if held is None else held
        bounds = np.sort(np.stack([self.coordinates(lower), self.coordinates(upper)]), axis=0)
        centre, precision = self.prior
        solution = solve(
            self.model(),
            moved(self.coordinates(theta), self.backend),
            moved(weights, self.backend),
            lower=moved(bounds[0], self.backend),
            upper=moved(bounds[1], self.backend),
            delta=self.delta,
            prior=(
                moved(centre if centres is None else centres, self.backend),
                moved(precision, self.backend),
            ),
            race=race,
            tolerance=tolerance,
            max_iterations=MOST_ITERATIONS if tolerance < COARSE else MOST_COARSE_ITERATIONS,
            work=self.features.n_terms * (len(self.law.parameters) + 4),
        )
        found, objective, converged, iterations = map(
            as_numpy, (solution.theta, solution.objective, solution.converged, solution.iterations)
        )
        values = np.clip(self.values(found), lower, upper)  # what is held keeps its last digit
        return Solution(values, objective, converged, iterations)

    def model(self) -> Callable[[Any], tuple[Any, Any]]:
        """Return what maps coordinates (members, parameters) to residuals and their derivatives by coordinates."""
        features = moved(self.features, self.backend)
        observed = moved(self.log_observed, self.backend)
        return lambda coordinates: self._with_jacobian(self.values(coordinates), features, observed)

    def residuals(self, theta: FloatArray) -> FloatArray:
        """Return log(predicted) - log(observed), (members, points); NaN where the prediction is not above 0."""
        return self._residuals_of(self.law.predict(theta, self.features))

    def _residuals_of(self, predicted: FloatArray) -> FloatArray:
        return np.log(np.where(predicted > 0, predicted, np.nan)) - self.log_observed

    def objective(self, theta: FloatArray, predicted: FloatArray | None = None) -> FloatArray:
        """Return the sum of Huber losses and priors of each member, (members,).

        `predicted` (members, points) are the law's predictions, where they are known.
        """
        residuals = self.residuals(theta) if predicted is None else self._residuals_of(predicted)
        return np.asarray(huber(residuals, self.delta).sum(axis=1)) + self.penalty(theta)

    def drawn_centres(self, draws: FloatArray) -> FloatArray:
        """Return the priors' centres moved by so many of their standard deviations: (members, parameters)."""
        centre, precision = self.prior
        known = precision > 0
        sd = np.where(known, self.priors.strength / np.sqrt(np.where(known, precision, 1.0)), 0.0)
        return np.asarray(centre + sd * draws)

    def penalty(self, theta: FloatArray) -> FloatArray:
        """Return what the priors add to the objective of each member, (members,)."""
        centre, precision = self.prior
        away = np.where(precision > 0, self.coordinates(theta) - centre, 0.0)
        return np.asarray((precision * away**2).sum(axis=1) / 2)

    def values(self, coordinates: FloatArray) -> FloatArray:
        columns = zip(self.law.parameters, coordinates.T, strict=True)
        xp = namespace(coordinates)
        return xp.stack([from_solver(parameter, column) for parameter, column in columns], axis=1)

    def coordinates(self, theta: FloatArray) -> FloatArray:
        columns = zip(self.law.parameters, theta.T, strict=True)
        with np.errstate(divide="ignore"):
            return np.stack([to_solver(parameter, column) for parameter, column in columns], axis=1)

    def relative_jacobian(self, theta: FloatArray) -> FloatArray:
        """Return the derivatives of the residuals by the solver's coordinates: (members, points, parameters)."""
        return self._with_jacobian(theta, self.features, self.log_observed)[1]

    def _with_jacobian(self, theta: Any, features: Features, observed: Any) -> tuple[Any, Any]:
        xp = namespace(theta)
        predicted, jacobian = self.law.jacobian(theta, features)
        columns = zip(self.law.parameters, theta.T, strict=True)
        chain = xp.stack([stretch(parameter, column) for parameter, column in columns], axis=1)
        jacobian *= (1 / predicted)[..., None]
        jacobian *= chain[:, None, :]
        return xp.log(predicted) - observed, jacobian

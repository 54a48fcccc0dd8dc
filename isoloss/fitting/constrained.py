"""Fits under user expressions between parameters, by lmfit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import FitFailed
from isoloss.fitting.expressions import identifier
from isoloss.fitting.objective import Problem, stretch
from isoloss.fitting.solver import Solution, huber

if TYPE_CHECKING:
    import lmfit  # takes long to import, and fits without expressions do without it

FAR_OFF = 1e3
"""Stands for a residual where the law is undefined: far worse than any that it can reach."""

MOST_EVALUATIONS = 1_000
"""How often the residuals of one member are evaluated; an expression can make a valley without an end."""

NUDGE = 2e-8
"""Step, relative where it is above 1, by which the derivatives of expressions are worked out."""

COORDINATE = "_coordinate"
VALUES = {"linear": "{}", "log": "exp({})", "log_complement": "1 - exp({})"}
"""Values by their coordinates (`objective.from_solver`) as lmfit reads them, beside what a user ties together."""

LOST_AFTER = 50
"""After so many evaluations a member whose law was undefined at every one of them is given up."""


def solve_constrained(
    problem: Problem,
    theta: FloatArray,
    weights: FloatArray,
    expressions: Mapping[str, str],
    tolerance: float,
    centres: FloatArray | None = None,
) -> Solution:
    """Minimise the objective of each member under checked expressions; shapes as in `Problem.solve`.

    Raises FitFailed where an expression has no value, or one outside the law's bounds, at the optimum.
    """
    centres = np.broadcast_to(problem.prior[0], theta.shape) if centres is None else centres
    ends = [
        _solve_one(_Target(problem, weight, centre), start, expressions, tolerance)
        for start, weight, centre in zip(theta, weights, centres, strict=True)
    ]
    found, objective, converged, iterations = zip(*ends, strict=True)
    return Solution(np.array(found), np.array(objective), np.array(converged), np.array(iterations))


def directions(problem: Problem, theta: FloatArray, expressions: Mapping[str, str]) -> FloatArray:
    """Return how the parameters move with those that vary, in the solver's coordinates: (parameters, varied).

    A parameter that an expression gives goes with those in it; one that is held does not move.
    """
    varied = problem.free & ~np.array([one.name in expressions for one in problem.law.parameters])
    if not expressions:
        return np.eye(theta.size)[:, varied]
    target = _Target(problem, np.ones(1), problem.prior[0])
    moves = target.moves(_parameters(problem, theta, expressions))
    return moves / _stretched(problem, theta)[:, None]


def _stretched(problem: Problem, theta: FloatArray) -> FloatArray:
    """Return d value / d coordinate at theta (parameters,)."""
    return np.array([stretch(one, theta[[at]])[0] for at, one in enumerate(problem.law.parameters)])


def _solve_one(
    target: _Target, start: FloatArray, expressions: Mapping[str, str], tolerance: float
) -> tuple[FloatArray, float, bool, int]:
    import lmfit

    problem = target.problem
    tolerances = dict.fromkeys(("xtol", "ftol", "gtol"), tolerance)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a value that is not finite is refused below
            parameters = _parameters(problem, start, expressions)
            result = lmfit.minimize(
                target,
                parameters,
                method="least_squares",
                jac=target.jacobian,
                iter_cb=target.is_lost,
                max_nfev=MOST_EVALUATIONS,
                x_scale="jac",
                **tolerances,
            )
            theta = target.theta(result.params)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise FitFailed(reason="an expression has no value near these data") from error
    if not np.all(np.isfinite(theta)):
        raise FitFailed(reason="an expression has no finite value near these data")
    _check_bounds(problem, theta, expressions)
    defined = bool(np.all(np.isfinite(problem.residuals(theta[None]))))
    objective = float(result.chisqr) * problem.delta**2 / 2 if defined else np.inf
    return theta, objective, defined and bool(result.success), int(result.nfev)


class _Target:
    """What lmfit minimises half the squares of: the objective of a member, in units of delta squared."""

    def __init__(self, problem: Problem, weight: FloatArray, centre: FloatArray) -> None:
        self.problem, self.weight, self.centre, self.defined = problem, weight, centre, False
        self.names = [identifier(parameter.name) for parameter in problem.law.parameters]

    def __call__(self, parameters: lmfit.Parameters) -> FloatArray:
        """Return a residual of each point (points,), and one of each prior."""
        theta = self.theta(parameters)[None]
        raw = self.problem.residuals(theta)[0]
        self.defined |= bool(np.all(np.isfinite(raw)))
        raw = _no_farther(raw)
        # With the sign of the residual, so that it passes 0 smoothly.
        points = np.copysign(np.sqrt(2 * self.weight * huber(raw, self.problem.delta)), raw)
        return np.concatenate([points, self._priors(theta)]) / self.problem.delta

    def jacobian(self, parameters: lmfit.Parameters) -> FloatArray:
        """Return the derivatives of the same residuals by the parameters that lmfit varies."""
        theta, problem = self.theta(parameters)[None], self.problem
        predicted, slopes = problem.law.jacobian(theta, problem.features)
        size = np.abs(_no_farther(problem.residuals(theta)[0])).clip(problem.delta)
        # sqrt(w) up to delta; beyond, where the loss is delta (|r| - delta/2), less and less.
        bend = np.sqrt(self.weight) * problem.delta / np.sqrt(problem.delta * (2 * size - problem.delta))
        points = bend[:, None] * slopes[0] / predicted[0][:, None]
        priors = np.diag(np.sqrt(problem.prior[1]) / _stretched(problem, theta[0]))[problem.prior[1] > 0]
        rows = np.nan_to_num(np.concatenate([points, priors]), nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(rows @ self.moves(parameters) / problem.delta)

    def moves(self, parameters: lmfit.Parameters) -> FloatArray:
        """Return by how much all values move with each coordinate that lmfit varies: (parameters, varied)."""
        at = self.theta(parameters)
        columns = []
        for varied in [one for one in parameters.values() if one.vary]:
            value = varied.value
            step = NUDGE * max(abs(value), 1.0) * (1 if value < varied.max else -1)
            varied.value = value + step
            parameters.update_constraints()
            columns.append((self.theta(parameters) - at) / (varied.value - value))
            varied.value = value
        parameters.update_constraints()
        return np.stack(columns, axis=1)

    def _priors(self, theta: FloatArray) -> FloatArray:
        precision = self.problem.prior[1]
        known = precision > 0
        away = self.problem.coordinates(theta)[0, known] - self.centre[known]
        return np.sqrt(precision[known]) * _no_farther(away)

    def theta(self, parameters: lmfit.Parameters) -> FloatArray:
        return np.array([parameters[name].value for name in self.names])

    def is_lost(self, parameters: lmfit.Parameters, evaluation: int, residuals: FloatArray) -> bool:  # noqa: ARG002
        """Return whether to give up, as lmfit asks after every evaluation."""
        return evaluation >= LOST_AFTER and not self.defined


def _no_farther(values: FloatArray) -> FloatArray:
    """Return values with `FAR_OFF` in the place of those that are not finite."""
    return np.nan_to_num(values, nan=FAR_OFF, posinf=FAR_OFF, neginf=-FAR_OFF)


def _check_bounds(problem: Problem, theta: FloatArray, expressions: Mapping[str, str]) -> None:
    for name in expressions:
        index = problem.law.index(name)
        parameter, value = problem.law.parameters[index], theta[index]
        if not parameter.lower <= value <= parameter.upper:
            limits = f"[{parameter.lower:g}, {parameter.upper:g}]"
            raise FitFailed(reason=f"the expression gives {name} = {value:.4g}, outside the law's {limits}")


def _parameters(problem: Problem, start: FloatArray, expressions: Mapping[str, str]) -> lmfit.Parameters:
    """Return lmfit's parameters at a start: it varies coordinates of the solver, and values follow from those."""
    import lmfit

    parameters = lmfit.Parameters()
    ends = problem.coordinates(
        np.stack([start.clip(problem.lower, problem.upper), problem.lower, problem.upper])
    )
    columns = zip(problem.law.parameters, ends.T, problem.lower, problem.upper, strict=True)
    for parameter, (at, *bounds), low, high in columns:
        name = identifier(parameter.name)
        if low == high or parameter.name in expressions:
            parameters.add(name, value=float(low), vary=False)
        else:
            coordinate = f"{name}{COORDINATE}"
            parameters.add(coordinate, value=float(at), min=min(bounds), max=max(bounds))
            parameters.add(name, expr=VALUES[parameter.scale].format(coordinate))
    for name, expression in expressions.items():
        # Without bounds of its own: lmfit would move the value inside and so break the expression.
        parameters[identifier(name)].set(expr=expression, min=-np.inf, max=np.inf)
    return parameters

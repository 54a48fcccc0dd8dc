"""Fits under user expressions between parameters, by lmfit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import lmfit
import numpy as np
import numpy.typing as npt

from isoloss.errors import FitFailed
from isoloss.fitting.expressions import identifier
from isoloss.fitting.objective import Problem
from isoloss.fitting.solver import Solution, huber

FloatArray = npt.NDArray[np.float64]

TOLERANCES = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}

FAR_OFF = 1e3
"""Stands for a residual where the law is undefined: far worse than any that it can reach."""


def solve_constrained(
    problem: Problem, theta: FloatArray, weights: FloatArray, expressions: Mapping[str, str]
) -> Solution:
    """Minimise the objective of each member under checked expressions; shapes as in `Problem.solve`."""
    ends = [
        _solve_one(problem, start, weight, expressions) for start, weight in zip(theta, weights, strict=True)
    ]
    found, objective, converged, iterations = zip(*ends, strict=True)
    return Solution(np.array(found), np.array(objective), np.array(converged), np.array(iterations))


def _solve_one(
    problem: Problem, start: FloatArray, weight: FloatArray, expressions: Mapping[str, str]
) -> tuple[FloatArray, float, bool, int]:
    names = [identifier(parameter.name) for parameter in problem.law.parameters]

    def residuals(parameters: lmfit.Parameters) -> FloatArray:
        theta = np.array([[parameters[name].value for name in names]])
        raw = np.nan_to_num(problem.residuals(theta)[0], nan=FAR_OFF)
        return np.sqrt(2 * weight * huber(raw, problem.delta)) / problem.delta

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a value that is not finite is refused below
            parameters = _parameters(problem, start, expressions)
            result = lmfit.minimize(residuals, parameters, method="least_squares", **TOLERANCES)
            theta = np.array([result.params[name].value for name in names])
    except (ValueError, TypeError, ArithmeticError) as error:
        raise FitFailed(reason=f"an expression has no value near these data: {error}") from error
    if not np.all(np.isfinite(theta)):
        raise FitFailed(reason="an expression has no finite value near these data")
    objective = float(result.chisqr) * problem.delta**2 / 2
    return theta, objective, bool(result.success), int(result.nfev)


def _parameters(problem: Problem, start: FloatArray, expressions: Mapping[str, str]) -> lmfit.Parameters:
    parameters = lmfit.Parameters()
    columns = zip(problem.law.parameters, start, problem.lower, problem.upper, strict=True)
    for parameter, value, low, high in columns:
        inside = float(np.clip(value, low, high))
        parameters.add(identifier(parameter.name), value=inside, min=low, max=high if high > low else np.inf)
        parameters[identifier(parameter.name)].vary = low < high
    for name, expression in expressions.items():
        parameters[identifier(name)].set(expr=expression)
    return parameters

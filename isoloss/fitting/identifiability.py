"""How well the data tell parameters apart: condition number, and pairs that trade off, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.fitting.task import Task

CORRELATED = 0.99
"""Correlation above which two parameters trade off."""


@dataclass(frozen=True)
class Identifiability:
    """`condition_number` of the curvature with unit diagonal; `pairs` of parameters with their correlation."""

    condition_number: float
    pairs: tuple[tuple[str, str, float], ...]

    def in_words(self, task: Task) -> list[str]:
        """Return what trades off with what, and what would tell them apart."""
        remedies = task.law.remedies
        return [
            f"{one} and {other} trade off (correlation {correlation:.3f}): fix one, or "
            + remedies.get(frozenset((one, other)), task.law.remedy)
            for one, other, correlation in self.pairs
        ]


def identifiability(task: Task, theta: FloatArray) -> Identifiability:
    """Return how well the parameters that lie inside their bounds are told apart at theta (parameters,)."""
    names = [parameter.name for parameter in task.law.parameters]
    determined = np.array([name not in task.missing for name in names])
    inside = (theta > task.problem.lower) & (theta < task.problem.upper)
    chosen = np.flatnonzero(task.varied & determined & inside)
    if not chosen.size:
        return Identifiability(1.0, ())
    curvature = _curvature(task, theta, (determined & inside)[task.varied])
    scale = np.sqrt(np.diag(curvature))
    if not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        return Identifiability(float("inf"), ())
    values, directions = np.linalg.eigh(curvature / np.outer(scale, scale))
    rounding = values[-1] * np.finfo(np.float64).eps
    covariance = (directions / np.maximum(values, rounding)) @ directions.T
    condition = float(values[-1] / values[0]) if values[0] > rounding else float("inf")
    return Identifiability(condition, _pairs(covariance, [names[index] for index in chosen]))


def _curvature(task: Task, theta: FloatArray, chosen: BoolArray) -> FloatArray:
    """Return J'J of the chosen varied parameters with the priors' precision, whose rows count like observations."""
    moves = task.directions(theta)[:, chosen]
    jacobian = task.problem.relative_jacobian(theta[None])[0] @ moves
    return np.asarray(jacobian.T @ jacobian + moves.T @ (task.problem.prior[1][:, None] * moves))


def _pairs(covariance: FloatArray, names: list[str]) -> tuple[tuple[str, str, float], ...]:
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    rows, columns = np.nonzero(np.triu(np.abs(correlation) > CORRELATED, 1))
    found = [
        (names[row], names[column], float(correlation[row, column]))
        for row, column in zip(rows, columns, strict=True)
    ]
    return tuple(sorted(found, key=lambda pair: -abs(pair[2])))

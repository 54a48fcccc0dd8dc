"""The problems that Isoloss solves, for SciPy's general minimisers, and starts drawn at random."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.objective import Problem
from isoloss.fitting.one_law import Observations
from isoloss.fitting.options import FitOptions
from isoloss.fitting.screening import screen
from isoloss.fitting.table_screening import screen_table
from isoloss.fitting.task import Task
from isoloss.laws import LAWS, CurveLaw, TableLaw
from isoloss.observations import RunTable

EXACT = {"ftol": 1e-15, "gtol": 1e-12, "maxfun": 20_000, "maxiter": 5_000}
"""A tolerance at which L-BFGS-B reaches optima as flat as these (laws.md 1.3)."""

REFUSED = 1e3
"""Objective where the law gives no positive loss."""


def problem_of(law: str, observations: Observations, convention: str | None = None) -> Problem:
    """Return what `isoloss.fit` minimises for a law and observations under its usual options."""
    read, options = LAWS[law].under(convention), FitOptions(convention=convention)
    data: Dataset
    if isinstance(observations, RunTable):
        assert isinstance(read, TableLaw)
        data = TableDataset(screen_table(observations, read)[0], read.columns)
    else:
        assert isinstance(read, CurveLaw)
        in_order = sorted(observations, key=lambda curve: curve.run_id)
        data = CurveDataset(screen(in_order, options, read)[0])
    return Task(read, data, options).problem


def random_starts(problem: Problem, count: int, seed: int = 0) -> FloatArray:
    """Return starts (count, parameters) drawn over the bounds, evenly in the solver's coordinates.

    What enters linearly has no upper bound: each term is drawn up to the size of the losses.
    """
    random = np.random.default_rng(seed)
    found = np.zeros((0, len(problem.lower)))
    while len(found) < count:
        drawn = _drawn(problem, random, count)
        with np.errstate(all="ignore"):
            found = np.concatenate([found, drawn[np.isfinite(problem.objective(drawn))]])
    return found[:count]


def _drawn(problem: Problem, random: np.random.Generator, count: int) -> FloatArray:
    share = random.uniform(size=(count, len(problem.lower)))
    linear = np.array([parameter.enters_linearly for parameter in problem.law.parameters])
    with np.errstate(all="ignore"):
        ends = np.sort(problem.coordinates(np.stack([problem.lower, problem.upper])), axis=0)
        theta = problem.values(np.where(linear, 0.0, ends[0] + share * (ends[1] - ends[0])))
        theta[:, ~problem.free] = problem.lower[~problem.free]
        height = np.max(np.abs(problem.law.basis(theta, problem.features)), axis=1)
    signed = problem.lower[linear] < 0
    reach = np.exp(np.max(problem.log_observed)) / np.maximum(height, 1e-300)
    theta[:, linear] = np.where(signed, 2 * share[:, linear] - 1, share[:, linear]) * reach
    return np.clip(theta, problem.lower, problem.upper)


class ScipyRival:
    """SciPy's L-BFGS-B on a problem: its objective with priors, in the solver's coordinates, within its bounds."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.free = np.flatnonzero(problem.free)
        ends = problem.coordinates(np.stack([problem.lower, problem.upper]))
        self.held = ends[0]
        self.bounds = np.sort(ends, axis=0)[:, self.free].T

    def minimum(self, start: FloatArray) -> tuple[FloatArray, float]:
        """Return where SciPy ends from theta (parameters,), and the objective there.

        It takes differences for the gradient, as it does for most who use it.
        """
        begin = self.problem.coordinates(start[None])[0][self.free]
        found = minimize(
            self._objective,
            np.clip(begin, *self.bounds.T),
            method="L-BFGS-B",
            bounds=self.bounds,
            options=EXACT,
        )
        return self._theta(found.x), float(found.fun)

    def _theta(self, moved: FloatArray) -> FloatArray:
        whole = self.held.copy()
        whole[self.free] = moved
        return np.asarray(self.problem.values(whole[None])[0])

    def _objective(self, moved: FloatArray) -> float:
        with np.errstate(all="ignore"):
            value = float(self.problem.objective(self._theta(moved)[None])[0])
        return value if np.isfinite(value) else REFUSED

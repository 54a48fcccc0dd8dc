"""SciPy's minimisers on the problems that Isoloss solves."""

from __future__ import annotations

import pytest

import isoloss
from benchmarks.rivals import ScipyRival, problem_of, random_starts
from tests.fitting.synthetic_tables import table


def test_scipy_minimises_the_same_objective() -> None:
    """From some random start L-BFGS-B ends at our optimum, and from none below it."""
    problem = problem_of("chinchilla", table())
    rival = ScipyRival(problem)
    found = [rival.minimum(start)[1] for start in random_starts(problem, 3)]
    assert min(found) == pytest.approx(isoloss.fit("chinchilla", table(), bootstrap=0).objective, rel=1e-4)

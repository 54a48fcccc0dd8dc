"""The search for the optimum: from how many starts, when it widens, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from isoloss.errors import FitFailed
from isoloss.fitting import Fit, estimate, fit
from isoloss.fitting.solver import Solution
from isoloss.fitting.task import Task
from isoloss.fitting.verdicts import AGREEING
from isoloss.laws.power_law import EXPONENT, PowerLaw
from tests.fitting.synthetic_tables import table

Search = Callable[[Task, np.ndarray], Solution]


class Watched:
    """Stands in for the search from given starts: notes what was tried, and lets `told` change what is found."""

    def __init__(self, told: Callable[[Solution, int], np.ndarray]) -> None:
        self.tried: list[np.ndarray] = []
        self.objectives: list[np.ndarray] = []
        self.told, self.search = told, estimate._search

    def __call__(self, task: Task, theta: np.ndarray) -> Solution:
        found = self.search(task, theta)
        self.tried.append(theta)
        self.objectives.append(self.told(found, len(self.tried)))
        return Solution(found.theta, self.objectives[-1], found.converged, found.iterations)

    def fitted(self, monkeypatch: pytest.MonkeyPatch, starts: int) -> Fit:
        monkeypatch.setattr(estimate, "_search", self)
        return fit("power_law", table("power_law"), bootstrap=50, starts=starts)


def as_found(solution: Solution, turn: int) -> np.ndarray:
    return solution.objective


def all_different(solution: Solution, turn: int) -> np.ndarray:
    """Every start at an optimum of its own, the very first at the lowest."""
    return turn + np.arange(float(len(solution.objective)))


def different_at_first(solution: Solution, turn: int) -> np.ndarray:
    return all_different(solution, turn) if turn < 3 else np.full(len(solution.objective), 0.5)


def test_starts_that_agree_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are tried than were asked for, and the result counts who reached the best objective."""
    watched = Watched(as_found)
    found = watched.fitted(monkeypatch, starts=6)
    assert [len(theta) for theta in watched.tried] == [6]
    best = watched.objectives[0].min()
    agree = int(np.sum(watched.objectives[0] <= best * (1 + 1e-4)))
    assert agree >= AGREEING
    assert (found.diagnostics["starts"], found.diagnostics["starts_agree"]) == (6, agree)
    assert found.objective == best
    assert not any("starts" in reason for reason in found.reasons)


def test_starts_that_never_agree_are_doubled_four_times_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the search ends with the best of all, and the verdict is weak for it."""
    watched = Watched(all_different)
    found = watched.fitted(monkeypatch, starts=2)
    asked = [len(theta) for theta in watched.tried]
    assert asked[:4] == [2, 2, 4, 8]  # twice as many in all, and none of them twice
    assert len(asked) == 5
    assert len(np.unique(np.concatenate(watched.tried), axis=0)) == sum(asked)
    assert found.diagnostics["starts"] == sum(asked)
    assert found.diagnostics["starts_agree"] == 1
    assert found.verdict == "weak"
    assert f"only 1 of {sum(asked)} starts reached the best objective" in found.reasons


def test_the_search_ends_as_soon_as_starts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second widening finds a better optimum several times, it is the result."""
    watched = Watched(different_at_first)
    found = watched.fitted(monkeypatch, starts=3)
    assert [len(theta) for theta in watched.tried] == [3, 3, 6]
    assert found.objective == 0.5
    assert (found.diagnostics["starts"], found.diagnostics["starts_agree"]) == (12, 6)
    assert not any("starts" in reason for reason in found.reasons)


def test_one_start_has_nobody_to_agree_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one start gets one, without a complaint."""
    watched = Watched(as_found)
    found = watched.fitted(monkeypatch, starts=1)
    assert [len(theta) for theta in watched.tried] == [1]
    assert not any("starts" in reason for reason in found.reasons)


def test_starts_on_a_plateau_are_given_the_time_to_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start near the optimum is there at once: the two others are waited for, and agree with it."""
    whole = fit("power_law", table("power_law"), bootstrap=0)

    def grid(self: PowerLaw, features: object, count: int) -> np.ndarray:
        theta = np.zeros((3, 3))
        theta[:, EXPONENT] = [-0.31, -2.99, -2.98]
        return theta

    monkeypatch.setattr(PowerLaw, "grid", grid)
    found = fit("power_law", table("power_law"), bootstrap=0, starts=3)
    assert (found.diagnostics["starts"], found.diagnostics["starts_agree"]) == (3, 3)
    assert found.theta == pytest.approx(whole.theta, rel=1e-6)


def test_no_start_at_all_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the law has no positive loss anywhere, that is said, and no number given."""

    def grid(self: PowerLaw, features: object, count: int) -> np.ndarray:
        return np.full((count, 3), np.nan)

    monkeypatch.setattr(PowerLaw, "grid", grid)
    with pytest.raises(FitFailed, match="no positive loss anywhere"):
        fit("power_law", table("power_law"), bootstrap=0)

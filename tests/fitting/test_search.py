"""The search for the optimum: from how many starts, when it widens, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from isoloss.errors import FitFailed
from isoloss.fitting import Fit, estimate, fit
from isoloss.fitting.solver import Solution
from isoloss.fitting.starts import data_starts
from isoloss.fitting.task import Task
from isoloss.fitting.verdicts import AGREEING
from isoloss.laws import LAWS
from isoloss.laws.power_law import PowerLaw
from isoloss.observations import RunTable
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


def noisy_table(seed: int) -> RunTable:
    """A chinchilla table of 6, 8, 12 or 20 runs at any sizes, with noise of heavy tails."""
    rng = np.random.default_rng(seed)
    n_runs = int(rng.choice([6, 8, 12, 20]))
    size, data = 10 ** rng.uniform(7, 9.5, n_runs), 10 ** rng.uniform(8.5, 11, n_runs)
    loss = 1.8 + 400 * size**-0.34 + 1500 * data**-0.36
    loss *= np.exp(rng.choice([0.002, 0.02, 0.1]) * rng.standard_t(2, n_runs))
    names = tuple(f"run-{row}" for row in range(n_runs))
    return RunTable(names, {"n_params": size, "n_tokens": data}, loss, n_params_kind="total")


@pytest.mark.parametrize("seed", [28, 74, 96])
def test_the_starts_are_spread_over_basins(seed: int) -> None:
    """Tables where the best nodes of the grid all lead to one worse optimum: 300 starts find nothing better."""
    few, many = (fit("chinchilla", noisy_table(seed), bootstrap=0, starts=starts) for starts in (6, 300))
    assert few.objective <= many.objective * (1 + 1e-4)


def test_fewer_starts_are_the_first_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one grid: the best node, then in turn one far from those before it and the best one left."""
    columns = LAWS["chinchilla"].index("alpha"), LAWS["chinchilla"].index("beta")
    seen: list[np.ndarray] = []

    def searched(task: Task, theta: np.ndarray) -> Solution:
        seen.extend(data_starts(task.problem, count) for count in (1, 6, 12, 36))
        return search(task, theta)

    search = estimate._search
    monkeypatch.setattr(estimate, "_search", searched)
    fit("chinchilla", noisy_table(96), bootstrap=0)
    one, six, twelve, all_of_them = seen[:4]
    np.testing.assert_array_equal(one, six[:1])
    np.testing.assert_array_equal(six, twelve[:6])
    assert len(np.unique(all_of_them, axis=0)) == 36
    away = np.log(six[:, columns] / six[0, columns])
    assert np.linalg.norm(away[1]) > np.linalg.norm(away[2])


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
        theta[:, PowerLaw().index("exponent")] = [-0.31, -2.99, -2.98]
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

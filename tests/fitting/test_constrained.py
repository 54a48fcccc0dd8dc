"""Our batched solver and lmfit, which fits under expressions, on the same problems of every law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from isoloss.fitting import FitOptions, fit
from isoloss.fitting.constrained import LOST_AFTER, _parameters, _Target, solve_constrained
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.estimate import EXACT, find_optimum
from isoloss.fitting.solver import Solution
from isoloss.fitting.task import Task
from isoloss.laws import LAWS, StagedLaw, SweepLaw, TableLaw
from isoloss.observations import RunTable
from tests.contract.test_laws import TRUTHS, noisy, theta_of
from tests.fitting.synthetic_tables import table

FITTED = sorted(name for name, law in LAWS.items() if not isinstance(law, SweepLaw | StagedLaw))
every_law = pytest.mark.parametrize("name", FITTED)

WEAKLY_IDENTIFIED = {"multi_power", "concave_memory", "effective_lr"}
"""Without their priors parameters of these laws trade off so far that neither method fixes the sixth digit."""

WITHOUT_PRIORS: dict[str, Any] = {"bootstrap": 0, "prior_strength": 0.0}
DELTAS = (1e-3, 1e-2)
"""Huber thresholds that some residuals of these data reach, and that none does."""


@dataclass(frozen=True)
class Both:
    """One problem, our optimum of it, and where lmfit ends: from the truth, and from our optimum."""

    task: Task
    ours: np.ndarray
    objective: float
    from_truth: Solution
    from_ours: Solution


def dataset(name: str) -> Dataset:
    data, law = noisy(name), LAWS[name]
    if not isinstance(law, TableLaw):
        assert isinstance(data, Sequence)
        return CurveDataset(data)
    assert isinstance(data, RunTable)
    return TableDataset(data, law.columns)


@cache
def both(name: str, delta: float) -> Both:
    task = Task(LAWS[name], dataset(name), FitOptions(**WITHOUT_PRIORS, huber_delta=delta))
    found = find_optimum(task)
    ones = np.ones((1, task.features.n_points))
    ends = [
        solve_constrained(task.problem, start, ones, {}, EXACT)
        for start in (theta_of(name), found.theta[None])
    ]
    return Both(task, found.theta, found.objective, *ends)


@every_law
@pytest.mark.parametrize("delta", DELTAS)
def test_both_reach_one_objective_and_one_prediction(name: str, delta: float) -> None:
    """lmfit, sent off from the truth, ends within a millionth of our objective and of our predictions."""
    one = both(name, delta)
    assert one.from_truth.converged.all()
    assert one.from_truth.objective[0] == pytest.approx(one.objective, rel=1e-6)
    ends = one.task.problem.residuals(np.stack([one.ours, one.from_truth.theta[0]]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(FITTED) - WEAKLY_IDENTIFIED))
def test_both_end_at_the_same_parameters(name: str) -> None:
    """Where the data fix every digit, and the objective is smooth, all parameters agree to a millionth."""
    one = both(name, DELTAS[1])
    np.testing.assert_allclose(one.from_truth.theta[0], one.ours, rtol=1e-6)


@every_law
@pytest.mark.parametrize("delta", DELTAS)
def test_lmfit_finds_nothing_better_than_our_optimum(name: str, delta: float) -> None:
    """Sent off from where we ended it stays there, in every parameter, also along valleys without a floor."""
    one = both(name, delta)
    assert one.from_ours.objective[0] == pytest.approx(one.objective, rel=1e-9)
    np.testing.assert_allclose(one.from_ours.theta[0], one.ours, rtol=1e-6)


@every_law
def test_an_expression_that_is_a_number_is_a_fixed_value(name: str) -> None:
    """Through `fit`, the two roads for one wish lead to one objective and one prediction of every point."""
    held, other = (parameter.name for parameter in LAWS[name].parameters[:2])
    value, options = TRUTHS[name][held], WITHOUT_PRIORS | {"starts": 1}
    fixed = fit(name, noisy(name), **options, fix={held: value})
    tied = fit(name, noisy(name), **options, expr={held: f"{value} + 0 * {other}"})
    assert tied.parameters[held].value == fixed.parameters[held].value == value
    assert tied.objective == pytest.approx(fixed.objective, rel=1e-6)
    problem = both(name, DELTAS[0]).task.problem
    ends = problem.residuals(np.stack([fixed.theta, tied.theta]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-6)


def test_priors_count_under_an_expression_as_they_do_under_a_fixed_value() -> None:
    """An expression that is a number is a fixed value, also beside priors: one exponent, one objective."""
    asked: dict[str, Any] = {"bootstrap": 0, "priors": {"exponent": [-0.5, 1e-3]}, "prior_strength": 1.0}
    fixed = fit("power_law", table("power_law"), **asked, fix={"E": 1.8})
    tied = fit("power_law", table("power_law"), **asked, expr={"E": "1.8 + 0 * exponent"})
    assert tied.parameters["exponent"].value == pytest.approx(fixed.parameters["exponent"].value, rel=1e-4)
    assert tied.objective == pytest.approx(fixed.objective, rel=1e-6)
    assert tied.diagnostics["penalty"] == pytest.approx(fixed.diagnostics["penalty"], rel=1e-3)
    assert tied.diagnostics["penalty"] > 0


def test_the_objective_under_expressions_is_that_of_the_problem() -> None:
    """Huber losses and priors at the values that are returned, also of a parameter that is tied."""
    asked = FitOptions(priors={"A": (300.0, 0.1), "beta": (0.4, 0.1)}, expr={"A": "B / 2"})
    task = Task(LAWS["chinchilla"], dataset("chinchilla"), asked)
    ones = np.ones((1, task.features.n_points))
    found = solve_constrained(task.problem, theta_of("chinchilla"), ones, task.constraints.expressions, EXACT)
    assert task.problem.penalty(found.theta)[0] > 0
    assert found.objective[0] == pytest.approx(task.problem.objective(found.theta)[0], rel=1e-9)


def test_a_law_that_an_expression_leaves_undefined_is_given_up_soon() -> None:
    """An absurd drop makes every loss after it negative: no optimum, and few evaluations."""
    options = FitOptions(expr={"C": "A * 1e+300"})
    task = Task(LAWS["lr_annealing"], dataset("lr_annealing"), options)
    starts = np.repeat(theta_of("lr_annealing"), 3, axis=0)
    ones = np.ones((3, task.features.n_points))
    found = solve_constrained(task.problem, starts, ones, task.constraints.expressions, EXACT)
    assert np.all(np.isinf(found.objective))
    assert not found.converged.any()
    assert found.iterations.max() <= LOST_AFTER


@every_law
def test_the_derivatives_given_to_lmfit_are_those_of_its_residuals(name: str) -> None:
    """Of points within the Huber threshold and beyond, of priors, and of a parameter that an expression gives."""
    law = LAWS[name]
    first, second = (parameter.name for parameter in law.parameters[:2])
    ratio = TRUTHS[name][second] / TRUTHS[name][first]
    task = Task(law, dataset(name), FitOptions(expr={second: f"{first} * {ratio!r}"}, huber_delta=1e-3))
    at = theta_of(name)[0] * 1.01
    weight = np.linspace(0.5, 2.0, task.features.n_points)
    target = _Target(task.problem, weight, task.problem.prior[0])
    parameters = _parameters(task.problem, at, task.constraints.expressions)
    found = target.jacobian(parameters)
    varied = [key for key, one in parameters.items() if one.vary]
    assert found.shape[1] == len(varied)
    for column, key in enumerate(varied):
        value = parameters[key].value
        step = 1e-6 * max(abs(value), 1e-3)
        ends = []
        for sign in (1, -1):
            moved = parameters.copy()
            moved[key].set(value=value + sign * step, min=-np.inf, max=np.inf)
            ends.append(target(moved))
        expected = (ends[0] - ends[1]) / (2 * step)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-3, atol=1e-5 * scale)


def test_either_direction_of_a_tie_says_the_same() -> None:
    """alpha = beta and beta = alpha are one problem: its priors, conditions and doubts are those of both."""
    asked: dict[str, Any] = {"bootstrap": 20, "priors": {"beta": (0.2, 0.005)}, "prior_strength": 0.01}
    one, other = (
        fit("chinchilla", table(noise=2e-3), **asked, expr=tie)
        for tie in ({"alpha": "beta"}, {"beta": "alpha"})
    )
    assert one.objective == pytest.approx(other.objective, rel=1e-6)
    assert one.verdict == other.verdict == "weak"
    for found in (one, other):
        assert any(reason.startswith("beta lies") for reason in found.reasons)
    shares = [found.diagnostics["prior_shares"] for found in (one, other)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    conditions = [found.diagnostics["condition_number"] for found in (one, other)]
    assert conditions[0] == pytest.approx(conditions[1], rel=1e-3)


def test_a_bound_given_against_the_data_is_said() -> None:
    """Where the data lie beyond a bound that was given, it is named; a bound that holds nothing is not."""
    asked: dict[str, Any] = {"bootstrap": 20}
    told = fit("power_law", table("power_law"), **asked, bounds={"E": [None, 1.5], "exponent": [-0.9, -0.1]})
    assert told.verdict == "weak"
    words = "E was bounded; left free, the data put it at 1.8"
    assert [reason.startswith(words) for reason in told.reasons if "left free" in reason] == [True]
    assert not any(reason.startswith("E has no upper limit") for reason in told.reasons)
    met = fit("power_law", table("power_law"), **asked, bounds={"E": [None, 1.9]})
    assert not any("left free" in reason or "bound" in reason for reason in met.reasons)


def test_of_several_values_those_are_named_that_alone_are_contradicted() -> None:
    """One wrong value among right ones is named alone; two that are wrong only as a pair are told as one."""
    observed = table("chinchilla")
    free = fit("chinchilla", observed, bootstrap=50, profile=False)
    at = {name: one.value or np.nan for name, one in free.parameters.items()}
    error = {name: one.std_error or np.nan for name, one in free.parameters.items()}
    across = {"A": at["A"] + 0.7 * error["A"], "alpha": at["alpha"] - 0.7 * error["alpha"]}
    for given, words in (
        (
            {"E": at["E"], "A": at["A"], "beta": 0.4},
            f"beta was given; left free, the data put it at {at['beta']:.4g}",
        ),
        (
            across,
            f"what was given is contradicted together, none alone: left free, the data put A at {at['A']:.4g}, ",
        ),
    ):
        told = fit("chinchilla", observed, bootstrap=0, fix=given)
        assert [reason.startswith(words) for reason in told.reasons if "left free" in reason] == [True]


@pytest.mark.parametrize("given", [{"fix": {"lambda": 0.9}}, {"expr": {"A": "2 * C"}}])
def test_what_was_given_against_the_data_is_said(given: dict[str, Any]) -> None:
    """Left free, the data would have it otherwise: never sound. What the data have too is no contradiction."""
    curves = noisy("lr_annealing")
    told = fit("lr_annealing", curves, bootstrap=20, profile=False, **given)
    assert told.verdict == "weak"
    assert any("left free, the data put it at" in reason for reason in told.reasons)
    free = fit("lr_annealing", curves, bootstrap=20, profile=False)
    met = fit(
        "lr_annealing", curves, bootstrap=20, profile=False, fix={"alpha": free.parameters["alpha"].value}
    )
    assert not any("left free" in reason for reason in met.reasons)

"""Fits that know an earlier one: unchanged data give it back, changed data are fitted from where it stood."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from isoloss.fitting import AUTO, Fit, fit
from isoloss.laws import LAWS, CurveLaw, StagedLaw, SweepLaw, TableLaw
from isoloss.observations import Curve, RunTable
from tests.contract.test_laws import noisy
from tests.fitting.synthetic import COSINE, LINEAR, curve, three_runs
from tests.fitting.synthetic_tables import table

Runs = Sequence[Curve] | RunTable
HELD: dict[str, Any] = {"holdout": {"run_ids": ["again"]}}
QUICK: dict[str, Any] = {"bootstrap": 5, "profile": False}


def five_curves() -> list[Curve]:
    return [*three_runs(), curve("again", COSINE, seed=7), curve("linear", LINEAR, seed=8)]


def indistinct() -> list[Curve]:
    """Runs with so much noise that the choice of a law is an average."""
    return [*three_runs(noise=1e-2), curve("linear", LINEAR, noise=1e-2, seed=50)]


def refit(law: str, data: Runs, before: Fit | None = None, **options: Any) -> Fit:
    return fit(law, data, **{**QUICK, **options}, previous=before)


@pytest.mark.parametrize(
    ("law", "data", "options"),
    [
        ("chinchilla", table, {}),
        ("chinchilla", table, {"holdout": {"fraction": 0.2}}),
        ("lr_annealing", five_curves, HELD),
        (AUTO, table, {}),
        (AUTO, indistinct, {}),
        (AUTO, five_curves, HELD),
    ],
)
def test_a_refit_of_unchanged_data_is_the_fit_itself(
    law: str, data: Callable[[], Runs], options: dict[str, Any]
) -> None:
    """The very object, whether the law was named, chosen or averaged, and whether runs were held out or not."""
    before = refit(law, data(), **options)
    assert refit(law, data(), before, **options) is before


@pytest.mark.parametrize(
    ("law", "data", "options"),
    [
        ("chinchilla", table, {}),
        ("lr_annealing", five_curves, HELD),
        (AUTO, table, {}),
        (AUTO, indistinct, {}),
    ],
)
def test_a_refit_of_unchanged_data_names_the_runs_that_are_left_out_now(
    law: str, data: Callable[[], Runs], options: dict[str, Any]
) -> None:
    """A run that could not be read then is gone, another came: the list is new, the numbers are not."""
    then, now = ([{"run_id": name, "reason": "it has no loss"}] for name in ("gone", "new"))
    before = refit(law, data(), left_out=then, **options)
    after = refit(law, data(), before, left_out=now, **options)
    assert (before.left_out, after.left_out) == (then, now)
    assert dataclasses.replace(after, left_out=then).as_document() == before.as_document()


def test_a_choice_made_for_a_table_is_made_anew_for_curves() -> None:
    """A project that had finished runs alone gets its first curves: laws of the other kind are scored."""
    before = refit(AUTO, table())
    assert isinstance(LAWS[before.law_name], TableLaw)
    after = refit(AUTO, five_curves(), before)
    assert isinstance(LAWS[after.law_name], CurveLaw)


def test_the_order_of_the_runs_is_no_change() -> None:
    """The same runs listed otherwise are the same data."""
    before = refit("chinchilla", table())
    assert refit("chinchilla", table().only(range(35, -1, -1)), before) is before


def one_loss(data: RunTable) -> RunTable:
    return dataclasses.replace(data, outcome=data.outcome * np.where(np.arange(36) == 7, 1 + 1e-12, 1.0))


def one_size(data: RunTable) -> RunTable:
    sizes = data.columns["n_params"] * np.where(np.arange(36) == 7, 1 + 1e-12, 1.0)
    return dataclasses.replace(data, columns={**data.columns, "n_params": sizes})


def one_name(data: RunTable) -> RunTable:
    return dataclasses.replace(data, run_ids=("another", *data.run_ids[1:]))


def another_kind(data: RunTable) -> RunTable:
    return dataclasses.replace(data, n_params_kind="active")


def one_run_less(data: RunTable) -> RunTable:
    return data.only(range(35))


@pytest.mark.parametrize("changed", [one_loss, one_size, one_name, another_kind, one_run_less])
@pytest.mark.parametrize("law", ["chinchilla", AUTO])
def test_a_changed_table_is_fitted_anew(law: str, changed: Callable[[RunTable], RunTable]) -> None:
    """The last digit of a loss or a count, a name, a kind of count, a missing run: each has another hash."""
    before = refit(law, table())
    again = refit(law, changed(table()), before)
    assert again is not before
    assert again.provenance["data_sha256"] != before.provenance["data_sha256"]


def with_loss(run: Curve) -> Curve:
    return dataclasses.replace(run, loss_nats=run.loss_nats * np.linspace(1, 1 + 1e-12, run.n_points))


def with_schedule(run: Curve) -> Curve:
    return dataclasses.replace(run, schedule=curve("x", COSINE | {"end_lr": 1.001e-4}).schedule)


def with_decay(run: Curve) -> Curve:
    return dataclasses.replace(run, weight_decay=0.1)


@pytest.mark.parametrize("changed", [with_loss, with_schedule, with_decay])
@pytest.mark.parametrize("position", [1, 3])
def test_a_changed_curve_is_fitted_or_scored_anew(changed: Callable[[Curve], Curve], position: int) -> None:
    """Its losses, its schedule or its weight decay; the fitted cosine run as well as the one that is held out."""
    runs = five_curves()
    before = refit("lr_annealing", runs, **HELD)
    runs[position] = changed(runs[position])
    again = refit("lr_annealing", runs, before, **HELD)
    assert again is not before
    hashes = [one.provenance[name] for name in ("data_sha256", "holdout_sha256") for one in (before, again)]
    assert (hashes[0] != hashes[1], hashes[2] != hashes[3]) == (position == 1, position == 3)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"level": 0.8}, {"starts": 7}, {"bounds": {"E": (0.1, None)}}, {"bootstrap": 6}],
)
def test_another_option_is_not_unchanged(changed: dict[str, Any]) -> None:
    """A seed, a level, a number of starts or a bound makes another fit, with its own provenance."""
    before = refit("chinchilla", table())
    again = refit("chinchilla", table(), before, **changed)
    assert again is not before
    ((name, value),) = changed.items()
    assert again.provenance["options"][name] == value
    assert again.theta == pytest.approx(before.theta, rel=1e-6)


def test_an_earlier_fit_of_another_law_is_no_start() -> None:
    """It is neither given back nor in the way."""
    other = refit("power_law", table())
    again = refit("chinchilla", table(), other)
    assert again.law_name == "chinchilla"
    assert again.theta.tolist() == refit("chinchilla", table()).theta.tolist()


def without_last(data: Runs) -> Runs:
    return data.only(range(data.n_runs - 1)) if isinstance(data, RunTable) else data[:-1]


@pytest.mark.parametrize(
    "name", sorted(name for name, law in LAWS.items() if not isinstance(law, SweepLaw | StagedLaw))
)
def test_a_run_that_landed_is_fitted_to_the_optimum_of_a_fit_from_nothing(name: str) -> None:
    """The objective and every parameter agree, though the search began where the earlier fit stood."""
    data = noisy(name)
    before = refit(name, without_last(data), bootstrap=0)
    warm, cold = refit(name, data, before, bootstrap=0), refit(name, data, bootstrap=0)
    assert warm is not before
    assert warm.objective == pytest.approx(cold.objective, rel=1e-9)
    np.testing.assert_allclose(warm.theta, cold.theta, rtol=1e-6)


@pytest.mark.parametrize("name", ["multi_power", "concave_memory", "power_law"])
def test_a_run_that_landed_is_fitted_from_fewer_starts(name: str) -> None:
    """The earlier optimum and two others; those that were asked for do not matter."""
    data = noisy(name)
    warm = refit(name, data, refit(name, without_last(data), bootstrap=0), bootstrap=0)
    assert warm.diagnostics["starts"] == 3
    assert warm.diagnostics["starts_agree"] >= 2
    assert refit(name, data, bootstrap=0).diagnostics["starts"] == 6


@pytest.mark.parametrize("name", ["lr_annealing", "chinchilla-2e-3"])
def test_a_refit_tries_fewer_starts_than_a_fit_from_nothing(name: str) -> None:
    """A run that landed does not make the search longer: the other starts have as much time as ever."""
    law, _, noise = name.partition("-")
    data = table(noise=float(noise)) if noise else noisy(law)
    before = refit(law, without_last(data), bootstrap=0)
    warm, cold = refit(law, data, before, bootstrap=0), refit(law, data, bootstrap=0)
    assert warm.diagnostics["starts"] < cold.diagnostics["starts"]

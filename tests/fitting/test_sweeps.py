"""Best settings read off sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit
from isoloss.fitting.sweeps.surface import Surface, Sweeps
from isoloss.laws import LAWS, SweepLaw
from isoloss.observations import RunTable
from tests.fitting.synthetic_sweeps import (
    SITES,
    best_batch,
    best_lr,
    best_timescale,
    decays,
    lr_alone,
    lr_and_batch,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
SWEPT: dict[str, tuple[Callable[..., RunTable], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "optimal_lr": (lr_and_batch, best_lr),
    "optimal_batch": (lr_and_batch, lambda size, data: best_batch(data)),
    "timescale": (decays, best_timescale),
}
every_sweep_law = pytest.mark.parametrize("name", sorted(SWEPT))
FAR = {"n_params": 4e9, "n_tokens": 4e11}


def fitted(name: str, seed: int | None = None, **options: Any) -> Fit:
    return isoloss.fit(name, SWEPT[name][0](seed), **options)


def test_every_law_of_sweeps_is_tried_here() -> None:
    """A law that reads optima off sweeps has sweeps to be tried on."""
    assert {name for name, law in LAWS.items() if isinstance(law, SweepLaw)} == SWEPT.keys()


@every_sweep_law
def test_exact_sweeps_give_their_law_back(name: str) -> None:
    """Noiseless sweeps determine the law, with a sound verdict, far beyond them too."""
    found = fitted(name)
    told = found.predict(config=FAR)
    truth = SWEPT[name][1](np.array([FAR["n_params"]]), np.array([FAR["n_tokens"]]))
    np.testing.assert_allclose(told.value, truth, rtol=1e-5)
    assert found.verdict == "sound", found.reasons
    assert told.extrapolation["is_extrapolation"]


@every_sweep_law
def test_intervals_hold_the_truth_most_of_the_time(name: str) -> None:
    """With the noise of real runs the interval of a far run holds the truth in at least 8 of 12 studies of 90
    percent intervals (fewer would happen once in ten thousand)."""
    truth = SWEPT[name][1](np.array([FAR["n_params"]]), np.array([FAR["n_tokens"]]))[0]
    told = [fitted(name, seed, bootstrap=100).predict(config=FAR) for seed in range(12)]
    assert sum(bool(one.lower[0] <= truth <= one.upper[0]) for one in told) >= 8
    assert all(one.upper[0] < 2 * one.lower[0] for one in told)


@every_sweep_law
def test_every_sweep_has_its_own_optimum(name: str) -> None:
    """Groups say what each sweep is of, where its minimum lies with an interval, and what the law costs there."""
    found = fitted(name, 0)
    assert len(found.groups) == len(SITES)
    for group in found.groups:
        size, data = np.array([group["by"]["n_params"]]), np.array([group["by"]["n_tokens"]])
        own = group["parameters"][0]
        assert own["value"] == pytest.approx(SWEPT[name][1](size, data)[0], rel=0.2)
        assert own["interval"][0] < own["value"] < own["interval"][1]
        assert 0 <= group["excess_of_law"] < 1e-3
        assert 0 <= group["regret_of_nearest_run"] < 0.01


@every_sweep_law
def test_nothing_hangs_on_names_order_or_the_seed_of_nothing(name: str) -> None:
    """Runs in another order under other names give the same numbers."""
    one = SWEPT[name][0](3)
    order = np.random.default_rng(0).permutation(one.n_runs)
    other = dataclasses.replace(one.only(order), run_ids=tuple(f"z{9999 - n}" for n in range(one.n_runs)))
    here, there = (isoloss.fit(name, data).predict(config=FAR) for data in (one, other))
    np.testing.assert_allclose(there.value, here.value, rtol=1e-9)
    np.testing.assert_allclose(there.upper, here.upper, rtol=1e-9)


@every_sweep_law
def test_a_fit_survives_its_document(name: str) -> None:
    """What the service stores predicts the same."""
    found = fitted(name, 0)
    again = Fit.from_document(found.as_document())
    np.testing.assert_array_equal(again.predict(config=FAR).upper, found.predict(config=FAR).upper)


@every_sweep_law
def test_an_unchanged_fit_is_given_back(name: str) -> None:
    """The same runs and options are not fitted twice; another loss is."""
    data = SWEPT[name][0](0)
    before = isoloss.fit(name, data, bootstrap=20)
    assert isoloss.fit(name, data, bootstrap=20, previous=before).theta is before.theta
    changed = dataclasses.replace(data, outcome=data.outcome * np.linspace(1, 1.001, data.n_runs))
    assert isoloss.fit(name, changed, bootstrap=20, previous=before).theta is not before.theta


@every_sweep_law
def test_the_largest_runs_are_predicted_from_the_rest(name: str) -> None:
    """The score of the largest sweeps is part of every fit, and that of held-out ones where they are named."""
    found = fitted(name, 0, holdout={"fraction": 0.2})
    assert found.holdout is not None
    assert found.holdout["mean"]["regret_of_nearest_run"] < 0.01
    assert "largest" in found.holdout["training"]["predicted"]
    assert found.holdout["training"]["mean"]["max_relative_error"] < 0.3


def test_the_gradient_of_the_surface_equals_finite_differences() -> None:
    """The Jacobian of residuals, by slopes, shape and offsets."""
    random = np.random.default_rng(0)
    cell = np.repeat(np.arange(3), 8)
    traits = np.vstack([np.ones(3), [0.0, 1.0, 2.5]])
    sweeps = Sweeps(
        cell, random.normal(size=(2, 24)), random.normal(size=24), np.ones(24), (traits, traits[:1])
    )
    surface = Surface(sweeps, 3)
    theta = random.normal(size=surface.n_slopes + surface.n_shape + 3)
    jacobian = surface.model(theta[None])[1][0]
    for index in range(theta.size):
        step = 1e-6 * np.eye(theta.size)[index]
        ends = surface.model(np.stack([theta + step, theta - step]))[0]
        np.testing.assert_allclose(jacobian[:, index], (ends[0] - ends[1]) / 2e-6, atol=1e-7)


def test_a_best_run_on_the_edge_leaves_its_sweep_out() -> None:
    """An optimum that may lie beyond what was tried is censored, and named."""
    whole = lr_alone(0)
    low = whole.column("peak_lr") < 0.9 * best_lr(whole.column("n_params"), whole.column("n_tokens"))
    small = whole.column("n_params") == 1e8
    found = isoloss.fit("optimal_lr", whole.only(np.flatnonzero(~small | low)))
    assert found.diagnostics["n_sweeps_left_out"] == 3
    assert any("the largest that was tried" in one["reason"] for one in found.left_out)
    assert any("on the edge of the sweep" in reason for reason in found.reasons)


def test_runs_that_diverged_were_tried() -> None:
    """A diverged run beyond the best one shows that the best is not on the edge."""
    runs = lr_alone(0)
    top = runs.column("peak_lr") > best_lr(runs.column("n_params"), runs.column("n_tokens")) * 1.01
    outcome = np.where(top, np.nan, runs.outcome)
    silent = dataclasses.replace(runs, outcome=outcome)
    status = tuple("diverged" if one else "finished" for one in top)
    flagged = dataclasses.replace(silent, labels={"status": status})
    assert isoloss.fit("optimal_lr", silent).verdict == "unidentified"
    assert isoloss.fit("optimal_lr", flagged).diagnostics["n_sweeps"] > len(SITES) / 2


def test_a_parabola_through_three_runs_shows_no_noise() -> None:
    """One sweep of three learning rates has nothing left to tell its noise by: no interval without a width."""
    found = isoloss.fit("optimal_lr", lr_alone(0, sites=((1e8, 1e9),), levels=3))
    assert found.verdict == "unidentified"
    assert "nothing shows the noise" in " ".join(found.reasons)


@pytest.mark.parametrize("seed", range(8))
def test_a_given_exponent_does_not_lead_astray(seed: int) -> None:
    """Uneven sweeps at 20 tokens a parameter, with one exponent given: an optimum among what was tried."""
    random = np.random.default_rng(500 + seed)
    size = np.repeat([1e8, 2e8, 4e8, 8e8], 5)
    data = 20 * size
    u = np.tile(np.arange(-2, 3) * np.log(2.0), 4) + np.repeat(random.uniform(-0.3, 0.3, 4), 5)
    loss = (1.7 + 400 * size**-0.34 + 900 * data**-0.31) * np.exp(
        0.012 * u**2 + 0.002 * random.standard_normal(20)
    )
    columns = {"n_params": size, "n_tokens": data, "peak_lr": best_lr(size, data) * np.exp(u)}
    table = RunTable(tuple(f"run-{one}" for one in range(20)), columns, loss, n_params_kind="total")
    found = isoloss.fit("optimal_lr", table, fix={"exponent_n_tokens": 0.15}, bootstrap=50)
    if found.verdict != "unidentified":
        told = found.predict(n_params=1e9, n_tokens=2e10)
        assert 0.2 < told.value[0] / best_lr(np.array([1e9]), np.array([2e10]))[0] < 5


def test_too_few_values_are_no_sweep() -> None:
    """Two learning rates at every site say nothing of an optimum; the verdict says what is needed."""
    found = isoloss.fit("optimal_lr", lr_alone(0, levels=2))
    assert found.verdict == "unidentified"
    assert "has tried 2 values of peak_lr, and three are needed" in found.reasons[0]
    assert all(one.value is None for one in found.parameters.values())
    with pytest.raises(Unidentified):
        found.predict(config=FAR)


def test_one_size_tells_nothing_of_another() -> None:
    """With one model size its exponent is not determined; at that size the law holds, elsewhere it is refused."""
    sites = tuple((1e8, 1e9 * 2.0**k) for k in range(6))
    found = isoloss.fit("optimal_lr", lr_alone(0, sites=sites))
    assert found.parameters["exponent_n_params"].value is None
    told = found.predict(n_params=1e8, n_tokens=1e11)
    assert told.value[0] == pytest.approx(best_lr(np.array([1e8]), np.array([1e11]))[0], rel=0.2)
    with pytest.raises(Unidentified, match="seen runs with n_params of 1e"):
        found.predict(n_params=1e9, n_tokens=1e11)


def test_size_and_data_that_grow_together_are_not_told_apart() -> None:
    """At 20 tokens for each parameter the exponents are unidentified, unless the caller gives one."""
    sites = tuple((1e8 * 1.7**k, 2e9 * 1.7**k) for k in range(8))
    found = isoloss.fit("optimal_lr", lr_alone(0, sites=sites))
    assert found.verdict == "unidentified"
    assert "cannot be told apart" in " ".join(found.reasons)
    given = isoloss.fit("optimal_lr", lr_alone(0, sites=sites), fix={"exponent_n_tokens": 0.15})
    assert given.parameters["exponent_n_params"].value == pytest.approx(-0.6, abs=0.1)
    assert given.parameters["exponent_n_tokens"].value == 0.15


def test_the_batch_goes_with_the_size_only_where_left_out_sweeps_show_it() -> None:
    """Where the truth is one of data alone that reading is chosen; the other may be asked for by name."""
    found = fitted("optimal_batch", 0)
    assert "exponent_n_params" not in found.parameters
    assert set(found.diagnostics["readings"]) == {"data", "size_and_data"}
    assert found.predict(n_tokens=1e11).value[0] > 0
    asked = fitted("optimal_batch", 0, convention="size_and_data")
    low, high = asked.parameters["exponent_n_params"].interval or (1.0, 1.0)
    assert low < 0 < high


def test_other_settings_must_agree_within_a_sweep() -> None:
    """A run with another weight decay than the rest of its sweep is left out, and it is said why."""
    runs = lr_alone(0)
    decay = np.full(runs.n_runs, 0.1)
    decay[3] = 0.2
    found = isoloss.fit(
        "optimal_lr", dataclasses.replace(runs, columns={**runs.columns, "weight_decay": decay})
    )
    assert found.left_out == [
        {"run_id": "run-003", "reason": "its weight_decay differs from the other runs of its sweep"}
    ]


def test_a_batch_that_was_not_swept_is_named() -> None:
    """Where only the learning rate was varied, the law says so."""
    found = isoloss.fit("optimal_lr", lr_alone(0))
    assert any(reason.startswith("fixed batch_tokens") for reason in found.reasons)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bounds": {"exponent_n_params": (-1, 0)}}, "bounds"),
        ({"expr": {"exponent_n_params": "exponent_n_tokens"}}, "expr"),
        ({"backend": "torch"}, "backend"),
        ({"resample": "blocks"}, "resample"),
        ({"fix": {"alpha": 1.0}}, "fix.alpha"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], field: str) -> None:
    """What a reading of sweeps has no use for is not passed over in silence."""
    with pytest.raises(InvalidInput) as caught:
        isoloss.fit("optimal_lr", lr_alone(0), **options)
    assert caught.value.fields["field"] == field


def test_decay_that_is_not_scaled_by_the_learning_rate_is_converted_or_refused() -> None:
    """Independent decay has the timescale of decay over learning rate; decay in the gradient has none."""
    runs = decays(0)
    scaled = isoloss.fit("timescale", runs)
    columns = {**runs.columns, "weight_decay": runs.column("weight_decay") * runs.column("peak_lr")}
    labels = {"weight_decay_kind": ("independent",) * runs.n_runs}
    other = isoloss.fit("timescale", dataclasses.replace(runs, columns=columns, labels=labels))
    np.testing.assert_allclose(other.theta, scaled.theta, rtol=1e-9)
    with pytest.raises(UnusableData, match="of the kind l2"):
        isoloss.fit(
            "timescale", dataclasses.replace(runs, labels={"weight_decay_kind": ("l2",) * runs.n_runs})
        )


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_a_batch_that_is_none_leaves_its_run_out(value: float) -> None:
    """Where the batch is swept too, a run without a usable one is named, and the others are fitted."""
    runs = lr_and_batch(0)
    batch = runs.column("batch_tokens").copy()
    batch[5] = value
    found = isoloss.fit(
        "optimal_lr", dataclasses.replace(runs, columns={**runs.columns, "batch_tokens": batch})
    )
    assert [one["run_id"] for one in found.left_out] == ["run-005"]
    assert "batch_tokens" in found.left_out[0]["reason"]
    assert "batch_tokens" in found.diagnostics["settings"]


def test_what_every_run_lacks_is_said() -> None:
    """Runs without a learning rate cannot be swept over it."""
    runs = lr_alone(0)
    without = dataclasses.replace(
        runs, columns={name: runs.columns[name] for name in ("n_params", "n_tokens")}
    )
    with pytest.raises(UnusableData, match=r"it has no config\.peak_lr"):
        isoloss.fit("optimal_lr", without)


@pytest.mark.skipif(not (DATA / "steplaw").exists(), reason="shared/data/steplaw is absent")
def test_the_published_sweeps_lose_little() -> None:
    """On 17 published grids the nearest run to the law's settings loses at most .08 percent in the mean and .25 at
    worst, and at the largest model, predicted from the others, at most .25 (laws.md 5)."""
    runs = isoloss.read_runs(
        DATA / "steplaw" / "dense.csv",
        map={"n_params": "N", "n_tokens": "D", "final_loss": "smooth_loss", "peak_lr": "lr"},
    )
    found = isoloss.fit("optimal_lr", runs)
    lost = [group["regret_of_nearest_run"] for group in found.groups]
    assert np.mean(lost) <= 0.0008
    assert max(lost) <= 0.0025
    largest = runs.column("n_params") == runs.column("n_params").max()
    smaller = runs.only(np.flatnonzero(~largest))
    rate, batch = (isoloss.fit(name, smaller) for name in ("optimal_lr", "optimal_batch"))
    for data in np.unique(runs.column("n_tokens")[largest]):
        cell = runs.only(np.flatnonzero(largest & (runs.column("n_tokens") == data)))
        asked = {"n_params": float(cell.column("n_params")[0]), "n_tokens": float(data)}
        off = np.log(cell.column("peak_lr") / rate.predict(config=asked).value) ** 2
        off += np.log(cell.column("batch_tokens") / batch.predict(config=asked).value) ** 2
        assert cell.outcome[np.argmin(off)] / cell.outcome.min() - 1 <= 0.0025


@pytest.mark.skipif(not (DATA / "marin_adamw").exists(), reason="shared/data/marin_adamw is absent")
def test_three_weight_decays_are_no_sweep() -> None:
    """The published ablations have at most two weight decays above 0 a cell: no law of the timescale follows."""
    runs = isoloss.read_runs(
        DATA / "marin_adamw" / "ablations.csv", map={"n_tokens": "tokens", "peak_lr": "lr"}
    )
    found = isoloss.fit("timescale", runs)
    assert found.verdict == "unidentified"
    assert "2 values of timescale, and three are needed" in found.reasons[0]


def test_optima_that_bend_over_a_variable_make_a_power_of_it_weak() -> None:
    """Best learning rates that are a parabola of log size are named; those of a power law are not."""
    runs = lr_and_batch(0)
    bend = np.exp(0.1 * np.log(runs.column("n_params") / 2e8) ** 2)
    bent = dataclasses.replace(runs, columns={**runs.columns, "peak_lr": runs.column("peak_lr") * bend})
    found, straight = (isoloss.fit("optimal_lr", one, bootstrap=20) for one in (bent, runs))
    assert found.verdict == "weak"
    assert any(reason.startswith("the optima bend over the model sizes") for reason in found.reasons)
    assert not any("bend" in reason for reason in straight.reasons)


def test_published_exponents_may_be_fixed_where_one_size_was_swept() -> None:
    """One sweep then gives the level, and the law is told at other sizes by the exponents that were given."""
    fixed = {"exponent_n_params": -0.6, "exponent_n_tokens": 0.15}
    found = isoloss.fit("optimal_lr", lr_and_batch(0, sites=((2e8, 4e9),)), fix=fixed, bootstrap=50)
    assert found.parameters["exponent_n_params"].value == -0.6
    told = found.predict(config={"n_params": 4e9, "n_tokens": 1e11})
    truth = float(best_lr(np.array(4e9), np.array(1e11)))
    assert told.lower[0] < truth < told.upper[0]
    assert told.upper[0] < 1.3 * told.lower[0]


def test_sweeps_that_do_not_determine_the_law_still_show_their_own_optima() -> None:
    """Size and data on one line: no parameter has a value, every sweep has."""
    line = tuple((size, 20 * size) for size in (1e8, 2e8, 4e8))
    found = isoloss.fit("optimal_lr", lr_and_batch(0, sites=line), bootstrap=20)
    assert found.verdict == "unidentified"
    assert all(one.value is None for one in found.parameters.values())
    assert (found.metrics["mean"], found.holdout, found.derived, len(found.samples)) == ({}, None, [], 0)
    for group in found.groups:
        truth = best_lr(np.array(group["by"]["n_params"]), np.array(group["by"]["n_tokens"]))
        assert group["parameters"][0]["value"] == pytest.approx(float(truth), rel=0.1)
    with pytest.raises(Unidentified):
        found.predict(config={"n_params": 1e8, "n_tokens": 2e9})

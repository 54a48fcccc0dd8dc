"""Recommendations for a run that has not been trained, and what data, batch and time trade for."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.advice import Recommendation
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.laws.timescale import weight_decay_of_timescale
from isoloss.observations import RunTable
from tests.fitting.synthetic_sweeps import (
    best_batch,
    best_lr,
    best_timescale,
    decays,
    lr_and_batch,
    together,
)
from tests.fitting.test_staged import batches

SITES = (
    (1e8, 1e9),
    (1e8, 4e9),
    (2e8, 2e9),
    (2e8, 1.6e10),
    (4e8, 4e9),
    (4e8, 1.6e10),
    (8e8, 8e9),
    (8e8, 3.2e10),
)
TARGET = {"n_params": 4e9, "n_tokens": 1e11}


def study(seed: int | None = 0) -> RunTable:
    """Sweeps of learning rate and batch, and sweeps of the weight decay, at the same sizes and data."""
    return together(lr_and_batch(seed, sites=SITES), decays(seed, sites=SITES))


@pytest.fixture(scope="module")
def advice() -> Recommendation:
    return isoloss.recommend(study(), **TARGET, bootstrap=100)


def test_every_setting_is_near_the_truth_and_in_its_interval(advice: Recommendation) -> None:
    """Learning rate, batch, timescale, and the weight decay that follows from all three."""
    size, data = np.array([TARGET["n_params"]]), np.array([TARGET["n_tokens"]])
    batch, rate, tau = best_batch(data), best_lr(size, data), best_timescale(size, data)
    truth = {
        "peak_lr": rate,
        "batch_tokens": batch,
        "timescale": tau,
        "weight_decay": weight_decay_of_timescale(tau, batch, rate, data),
    }
    for name, exact in truth.items():
        told = advice.as_dict()[name]
        assert told["value"] == pytest.approx(exact[0], rel=0.3), name
        assert told["interval"][0] < told["value"] < told["interval"][1]
        assert told["interval"][0] / 1.2 < exact[0] < told["interval"][1] * 1.2


def test_the_weight_decay_carries_the_doubt_of_all_that_it_follows_from(advice: Recommendation) -> None:
    """Its interval, as a ratio, is wider than that of the timescale alone, and its basis names all three fits."""
    said = advice.as_dict()
    ratio = {name: np.divide(*said[name]["interval"][::-1]) for name in ("weight_decay", "timescale")}
    assert ratio["weight_decay"] > ratio["timescale"]
    assert {one["law"] for one in said["weight_decay"]["basis"]} == {
        "optimal_batch",
        "optimal_lr",
        "timescale",
    }


def test_what_being_wrong_costs_is_said(advice: Recommendation) -> None:
    """Twice or half the best learning rate costs what the bowl of the sweeps says."""
    cost = advice.as_dict()["peak_lr"]["regret_factor_two"]
    assert cost == pytest.approx(np.expm1(0.012 * np.log(2) ** 2), rel=0.1)


def test_the_answer_is_plain_json(advice: Recommendation) -> None:
    """Every number of it is finite, or null with a reason."""
    said = json.loads(json.dumps(advice.as_dict(), allow_nan=False))
    for name in Recommendation.NAMES:
        assert (said[name]["value"] is None) == (said[name]["reason"] is not None)
    assert said["peak_lr"]["basis"][0]["extrapolation_factor"] == pytest.approx(5.0)


def test_a_largest_batch_takes_the_learning_rate_along() -> None:
    """Below the best batch the best learning rate is lower, along the valley of the sweeps."""
    free = isoloss.recommend(study(), **TARGET, bootstrap=50).as_dict()
    half = free["batch_tokens"]["value"] / 2
    held = isoloss.recommend(
        study(), **TARGET, bootstrap=50, constraints={"max_batch_tokens": half}
    ).as_dict()
    assert held["batch_tokens"]["value"] == pytest.approx(half)
    assert held["batch_tokens"]["interval"][1] <= half * (1 + 1e-9)
    slope = 0.008 / (2 * 0.012)
    assert held["peak_lr"]["value"] / free["peak_lr"]["value"] == pytest.approx(0.5**slope, rel=0.1)


def test_far_below_the_best_batch_neither_loss_nor_learning_rate_are_told() -> None:
    """A batch a thousand times below the best one: what it costs, and how the rate goes along, is not known."""
    said = isoloss.recommend(study(), **TARGET, bootstrap=50, constraints={"max_batch_tokens": 1e3}).as_dict()
    assert said["batch_tokens"]["value"] == pytest.approx(1e3)
    for name in ("peak_lr", "predicted_loss", "weight_decay"):
        assert said[name]["value"] is None, name
    assert "times below the best one" in said["peak_lr"]["reason"]


def test_what_the_runs_do_not_determine_is_null_with_the_runs_that_would() -> None:
    """Without sweeps of the weight decay there is no timescale; the cheapest sweeps that would tell are listed."""
    runs = lr_and_batch(0, sites=SITES)
    runs = dataclasses.replace(runs, columns={**runs.columns, "weight_decay": np.full(runs.n_runs, 0.1)})
    said = isoloss.recommend(runs, **TARGET, bootstrap=50).as_dict()
    assert said["timescale"]["value"] is None
    assert "timescale is missing" in said["weight_decay"]["reason"]
    asked = next(one for one in said["wanted"] if one["law"] == "timescale")
    decays_asked = {run["weight_decay"] for run in asked["runs"]}
    assert decays_asked == {0.025, 0.05, 0.1, 0.2, 0.4}
    assert min(run["n_tokens"] for run in asked["runs"]) == min(data for _, data in SITES)
    assert asked["compute_flops"] > 0


def test_a_run_that_breaks_its_limits_is_told_so() -> None:
    """Cost in operations, hours, device-hours and money; a deadline that does not hold is a warning."""
    limits = {
        "devices": 8, "tokens_per_second": 1e6, "deadline_hours": 10, "price_per_device_hour": 2.0,
    }  # fmt: skip
    said = isoloss.recommend(study(), **TARGET, bootstrap=20, constraints=limits).as_dict()
    hours = 1e11 / 1e6 / 3600
    assert said["cost"] == pytest.approx(
        {"compute_flops": 6 * 4e20, "hours": hours, "device_hours": 8 * hours, "money": 16 * hours}
    )
    assert any("hours, and 10 are allowed" in one for one in said["warnings"])


def test_the_schedule_is_the_one_of_the_runs() -> None:
    """Runs that all state one kind of schedule give the target one of this kind, drawn out."""
    runs = study()
    columns = {**runs.columns, "warmup_share": np.full(runs.n_runs, 0.1)}
    labels = {"schedule_kind": ("linear",) * runs.n_runs}
    said = isoloss.recommend(
        dataclasses.replace(runs, columns=columns, labels=labels), **TARGET, bootstrap=20
    )
    schedule = said.as_dict()["schedule"]["value"]
    assert schedule["kind"] == "linear"
    assert schedule["total_steps"] == pytest.approx(1e11 / said.as_dict()["batch_tokens"]["value"], rel=1e-4)
    assert schedule["warmup_steps"] == pytest.approx(0.1 * schedule["total_steps"], rel=0.01)
    assert isoloss.recommend(runs, **TARGET, bootstrap=20).as_dict()["schedule"]["value"] is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"n_params": 0}, "n_params"),
        ({"n_tokens": float("nan")}, "n_tokens"),
        ({"n_params": "many"}, "n_params"),
        ({"n_params": 1e31}, "n_params"),
        ({"constraints": {"price_per_device_hour": 1e-31}}, "constraints.price_per_device_hour"),
        ({"constraints": {"max_batch": 1}}, "constraints.max_batch"),
        ({"constraints": {"devices": -1}}, "constraints.devices"),
        ({"constraints": [1]}, "constraints"),
        ({"level": 2.0}, "level"),
        ({"bootstraps": 2}, "options.bootstraps"),
    ],
)
def test_wrong_questions_are_refused_by_name(given: dict[str, Any], field: str) -> None:
    """Sizes, constraints and options are checked before anything is fitted."""
    with pytest.raises(InvalidInput) as caught:
        isoloss.recommend(study(), **(TARGET | given))
    assert caught.value.fields["field"] == field


def test_progress_goes_from_law_to_law() -> None:
    """It never falls, stays between 0 and 1, and names the law that is being fitted."""
    heard: list[tuple[float, str]] = []
    isoloss.recommend(
        study(), **TARGET, bootstrap=20, progress=lambda share, message: heard.append((share, message))
    )
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.2 < 0.8 < shares[-1] <= 1
    assert {message.partition(":")[0] for _, message in heard} >= {"optimal_lr", "chinchilla"}


def test_runs_that_say_nothing_are_refused() -> None:
    """Runs without outcomes give no advice."""
    runs = study()
    with pytest.raises(UnusableData):
        isoloss.recommend(dataclasses.replace(runs, outcome=np.full(runs.n_runs, np.nan)), **TARGET)


def test_no_choice_of_a_front_is_beaten_by_another() -> None:
    """Each further choice takes fewer steps and more compute; all reach the target by both laws."""
    front = isoloss.pareto(batches(0, sizes=(1e8, 2e8, 4e8)), target_loss=3.2, bootstrap=50)
    steps = [one.steps for one in front.choices]
    compute = [one.compute_flops for one in front.choices]
    assert len(steps) > 10
    assert steps == sorted(steps, reverse=True)
    assert compute == sorted(compute)
    theta = front.fits["chinchilla"].theta
    for one in front.choices:
        least = one.n_tokens / (1 + one.batch_tokens / one.critical_batch_tokens)
        loss = theta[0] + theta[1] * one.n_params ** -theta[2] + theta[3] * least ** -theta[4]
        assert loss == pytest.approx(3.2, rel=1e-9)
        assert one.compute_interval is not None
        assert one.compute_interval[0] <= one.compute_flops <= one.compute_interval[1]


def test_a_front_holds_its_limits() -> None:
    """A largest batch, a budget of operations and a deadline leave only choices within them."""
    runs = batches(0, sizes=(1e8, 2e8, 4e8))
    limits = {"max_batch_tokens": 1e5, "compute_flops": 1e19, "flops_per_second": 1e15, "deadline_hours": 2.5}
    front = isoloss.pareto(runs, target_loss=3.2, constraints=limits, bootstrap=20)
    assert front.choices
    for one in front.choices:
        assert one.batch_tokens <= 1e5
        assert one.compute_flops <= 1e19
        assert one.hours is not None
        assert one.hours <= 2.5
    none = isoloss.pareto(runs, target_loss=3.2, constraints={"compute_flops": 1.0}, bootstrap=20)
    assert none.as_dict()["warnings"] == ["no choice holds the constraints"]


def test_resamples_that_never_reach_the_loss_leave_the_operations_without_end() -> None:
    """Near the floor of the law they count as infinitely many operations, and are not passed over."""
    runs = batches(0, sizes=(1e8, 2e8, 4e8))
    floor = float(isoloss.fit("chinchilla", runs, bootstrap=0).theta[0])
    front = isoloss.pareto(runs, target_loss=floor + 0.24, bootstrap=50)
    cheapest = front.choices[0]
    assert cheapest.compute_interval is not None
    low, high = cheapest.compute_interval
    assert low <= cheapest.compute_flops
    assert high == np.inf


def test_a_front_says_how_far_it_goes_and_on_what_it_rests() -> None:
    """The edge of the sizes that were tried, data and batches far beyond the runs, and fits that are weak."""
    front = isoloss.pareto(batches(0, sizes=(1e8, 2e8, 4e8)), target_loss=2.05, bootstrap=20)
    assert front.extrapolation["n_params_factor"] == pytest.approx(10)
    assert front.extrapolation["n_tokens_factor"] > 100
    assert front.extrapolation["batch_tokens_factor"] > 30
    told = "\n".join(front.warnings)
    for part in ("edge of the sizes", "least data of the front", "batches of the front", "weak fits"):
        assert part in told, told


def test_the_choices_of_a_front_have_device_hours_and_a_price_where_both_follow() -> None:
    """Hours times devices, and times the price; nothing where no speed was measured."""
    runs = batches(0, sizes=(1e8, 2e8, 4e8))
    limits = {"flops_per_second": 1e15, "devices": 8, "price_per_device_hour": 2.0}
    for one in isoloss.pareto(runs, target_loss=3.2, constraints=limits, bootstrap=0).choices:
        assert one.hours == pytest.approx(one.compute_flops / 1e15 / 3600)
        assert (one.device_hours, one.money) == (pytest.approx(8 * one.hours), pytest.approx(16 * one.hours))
    unpriced = isoloss.pareto(runs, target_loss=3.2, constraints={"devices": 8}, bootstrap=0).choices[0]
    assert (unpriced.hours, unpriced.device_hours, unpriced.money) == (None, None, None)


def test_a_loss_that_no_run_reaches_is_refused() -> None:
    """A target below the law's floor, or a speed in tokens where sizes vary, is no question."""
    runs = batches(0, sizes=(1e8, 2e8, 4e8))
    with pytest.raises(InvalidInput, match="floor"):
        isoloss.pareto(runs, target_loss=1.0, bootstrap=20)
    with pytest.raises(InvalidInput, match="flops_per_second"):
        isoloss.pareto(runs, target_loss=3.2, constraints={"tokens_per_second": 1e6})


def test_a_front_needs_both_laws() -> None:
    """Runs on too few numbers of tokens determine no critical batch, and so no front."""
    with pytest.raises(Unidentified, match="critical_batch"):
        isoloss.pareto(lr_and_batch(0, sites=SITES), target_loss=3.2, bootstrap=20)


def scheduled(shares: list[float], *, kinds: tuple[str, ...] = ("linear",)) -> RunTable:
    """The study of runs that state schedules, their best timescale that of the mean learning rate."""
    runs = together(lr_and_batch(0, sites=SITES), decays(0, sites=SITES, shares=shares))
    labels = {"schedule_kind": tuple(kinds[row % len(kinds)] for row in range(runs.n_runs))}
    return dataclasses.replace(runs, labels=labels)


def test_the_weight_decay_goes_with_the_reading_of_the_timescale() -> None:
    """Of the mean learning rate, B / (mean tau D): as of the peak where all runs have the shape that is asked."""
    one = isoloss.recommend(scheduled([0.5] * 8), **TARGET, bootstrap=50).as_dict()
    several = isoloss.recommend(scheduled([0.5, 0.9] * 4), **TARGET, bootstrap=50).as_dict()
    assert several["weight_decay"]["value"] == pytest.approx(one["weight_decay"]["value"], rel=0.02)
    of_peak, (of_mean,) = one["timescale"], one["timescale"]["readings"]
    assert of_mean["at"] == {"learning_rate": "mean", "mean_lr_share": pytest.approx(0.5, rel=1e-3)}
    assert of_mean["value"] == pytest.approx(of_peak["value"] / of_mean["at"]["mean_lr_share"])
    assert of_mean["value"] == pytest.approx(several["timescale"]["value"], rel=0.02)
    assert several["timescale"]["readings"][0]["at"]["learning_rate"] == "peak"
    assert several["timescale"]["readings"][0]["value"] == pytest.approx(of_peak["value"], rel=0.02)


def test_a_published_timescale_enters_in_the_reading_of_the_runs() -> None:
    """It is of the peak of linear decay, whose mean is half: twice as large where runs are read on the mean."""
    peak, mean = (
        isoloss.recommend(
            scheduled(shares), **TARGET, bootstrap=50, priors=["power_lines.timescale"]
        ).as_dict()["timescale"]["prior"]["value"]
        for shares in ([0.5] * 8, [0.5, 0.9] * 4)
    )
    assert mean == pytest.approx(2 * peak)


def test_a_timescale_of_the_mean_gives_no_weight_decay_without_a_schedule() -> None:
    """The peak of a schedule that is not known has no mean."""
    runs = scheduled([0.5, 0.9] * 4, kinds=("linear", "cosine"))
    said = isoloss.recommend(runs, **TARGET, bootstrap=50).as_dict()
    assert said["weight_decay"]["value"] is None
    assert "no schedule is known: they have cosine, linear" in said["weight_decay"]["reason"]
    assert said["timescale"]["readings"] == []

"""Held-out predictions on public data sets, which lie beside the checkout in CI."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import isoloss
from benchmarks.accuracy import cooldown_errors, multi_power_holdout, runs_at
from benchmarks.datasets import TEST, TRAIN, available, multi_power_curves, scheduled_runs
from benchmarks.peak_lr import choices, fitted_with, trained
from isoloss.fitting import compare

with_multi_power = pytest.mark.skipif(
    not available("multipowerlaw"), reason="the data set multipowerlaw is not beside this checkout"
)
with_lr_scheduling = pytest.mark.skipif(
    not available("lr_scheduling"), reason="the data set lr_scheduling is not beside this checkout"
)


@with_multi_power
@pytest.mark.parametrize(
    ("law", "size", "mae", "worst"),
    [
        ("lr_annealing", "25M", 0.0047, 0.0075),
        ("lr_annealing", "100M", 0.0047, 0.0075),
        ("multi_power", "25M", 0.0050, 0.0052),
        ("multi_power", "100M", 0.0050, 0.0052),
        ("concave_memory", "25M", 0.0035, 0.0040),
        ("concave_memory", "100M", 0.0030, 0.0040),
    ],
)
def test_unseen_schedules_are_predicted(law: str, size: str, mae: float, worst: float) -> None:
    """Six held-out curves: mean MAE, mean of the worst relative errors, and intervals that hold most points."""
    mean = multi_power_holdout(law, size, bootstrap=60)["mean"]
    assert mean["mae"] <= mae
    assert mean["max_relative_error"] <= worst
    assert mean["coverage"] >= 0.7


@with_multi_power
def test_intervals_hold_most_points_whichever_three_runs_are_fitted() -> None:
    """Of five random choices a size, 90 percent intervals of the sharpest law hold .84 of points in the mean."""
    choices_of_three = list(combinations((*TRAIN, *TEST), 3))
    drawn = np.random.default_rng(3).choice(len(choices_of_three), 5, replace=False)
    held = []
    for size in ("25M", "100M"):
        curves = dict(zip((*TRAIN, *TEST), multi_power_curves(size), strict=True))
        for number in drawn:
            held_out = [curves[name].run_id for name in curves if name not in choices_of_three[number]]
            options = {"holdout": {"run_ids": held_out}, "bootstrap": 60, "profile": False}
            found = isoloss.fit("concave_memory", list(curves.values()), **options)
            held.append(found.holdout["mean"]["coverage"])
    assert np.mean(held) >= 0.84


ANNEALING_LIMITS = {1e-4: 0.0035, 5e-4: 0.0035, 1e-3: 0.0035, 2e-3: 0.008}
CONCAVE_LIMITS = {1e-4: 0.0008, 5e-4: 0.0010, 1e-3: 0.0015, 2e-3: 0.0035}
LEFT_OUT_LIMITS = {1e-4: 0.0025, 5e-4: 0.0015, 1e-3: 0.0020, 2e-3: 0.0025}


@with_lr_scheduling
@pytest.mark.parametrize(
    ("law", "limits"), [("lr_annealing", ANNEALING_LIMITS), ("concave_memory", CONCAVE_LIMITS)]
)
@pytest.mark.parametrize("peak_lr", sorted(ANNEALING_LIMITS))
def test_cooldowns_are_predicted_from_cosines_and_constants(
    law: str, limits: dict[float, float], peak_lr: float
) -> None:
    """The median relative error of the last validation point of all cooldown branches of one peak."""
    runs = runs_at(peak_lr)
    errors = cooldown_errors(law, runs, runs, bootstrap=0)["relative_errors"]
    assert np.median(errors) <= limits[peak_lr]


@with_lr_scheduling
def test_one_law_predicts_the_cooldowns_of_all_peaks() -> None:
    """Fitted to all cosines and constants: median error at most .12, worst at most .6 percent."""
    errors = cooldown_errors("effective_lr", scheduled_runs(), scheduled_runs(), bootstrap=0)[
        "relative_errors"
    ]
    assert np.median(errors) <= 0.0012
    assert errors.max() <= 0.006


@with_lr_scheduling
@pytest.mark.parametrize("peak_lr", sorted(LEFT_OUT_LIMITS))
def test_cooldowns_of_a_peak_that_was_never_fitted_are_predicted(peak_lr: float) -> None:
    """Every run of a peak is left out, and its cooldowns are predicted from the other peaks."""
    others = [run for run in scheduled_runs() if not np.isclose(run.peak_lr, peak_lr, rtol=1e-6)]
    errors = cooldown_errors("effective_lr", others, runs_at(peak_lr), bootstrap=0)["relative_errors"]
    assert np.median(errors) <= LEFT_OUT_LIMITS[peak_lr]


@with_lr_scheduling
def test_the_best_peak_of_a_horizon_and_schedule_follows() -> None:
    """Over 26 cells the peak with the lowest predicted loss costs at most .001 nats on average."""
    runs = scheduled_runs()
    made = choices(runs, trained(runs, fitted_with("effective_lr")))
    assert len(made) == 26
    assert np.mean([choice.regret_nats for choice in made]) <= 0.001


@with_multi_power
@pytest.mark.parametrize("size", ["25M", "100M"])
def test_the_law_is_chosen_by_what_it_predicts_from_the_training_curves_alone(size: str) -> None:
    """The choice says its scores; the best is the fit's own, or one of those that are averaged."""
    curves = multi_power_curves(size, TRAIN)
    compared = compare(curves)
    chosen = isoloss.fit("auto", curves, bootstrap=0)
    assert set(compared.scores) == {"lr_annealing", "multi_power", "concave_memory"}
    assert chosen.selection is not None
    assert chosen.selection["scores"] == compared.scores
    assert chosen.law_name == compared.best

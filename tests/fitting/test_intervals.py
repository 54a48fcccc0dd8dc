"""Intervals and resampling, piece by piece."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from isoloss.fitting.intervals import Spread, discrepancy, interval_around, noise_quantiles
from isoloss.fitting.resampling import (
    Resampling,
    block_length,
    correlation_time,
    leave_out,
    schedule_groups,
)
from isoloss.schedules import schedule_from_spec

CENTRE = np.zeros(3)
REACH = np.array([1.0, 1.0, 4.0])
QUIET = Spread(None, 0, noise_quantiles(np.zeros(10)))


def width(spread: Spread, *, new_run: bool = False, members: np.ndarray | None = None) -> np.ndarray:
    members = np.zeros((5, 3)) if members is None else members
    low, high = interval_around(CENTRE, members, spread, REACH, 0.9, new_run=new_run)
    np.testing.assert_allclose(-low, high, atol=1e-12)
    return high - low


def test_without_any_spread_the_interval_is_a_point() -> None:
    """Nothing varies: no width."""
    assert width(QUIET).tolist() == [0, 0, 0]


def test_the_discrepancy_is_one_standard_deviation_and_grows_with_the_root_of_the_reach() -> None:
    """A 90 percent interval is 2 * 1.645 standard deviations, twice that at a reach of four."""
    widths = width(Spread(0.01, 3, QUIET.noise))
    np.testing.assert_allclose(widths, [0.0329, 0.0329, 0.0658], rtol=1e-3)


def test_noise_enters_for_a_new_run_alone() -> None:
    """The quantile of the absolute residuals, on both sides."""
    spread = Spread(None, 0, noise_quantiles(np.linspace(-0.01, 0.01, 2001)))
    assert width(spread).max() == 0
    np.testing.assert_allclose(width(spread, new_run=True), 0.018, rtol=1e-3)


def test_parts_add_in_quadrature() -> None:
    """Resampled spread and discrepancy are independent."""
    members = np.linspace(-0.01, 0.01, 2001)[:, None] * np.ones(3)
    both = width(Spread(0.01, 3, QUIET.noise), members=members)[0] / 2
    assert both == pytest.approx(np.hypot(0.009, 0.016449), rel=1e-3)


def test_the_discrepancy_is_the_worst_schedules() -> None:
    """Two good schedules do not dilute a bad one; noise of single points averages out within blocks."""
    white = np.tile([1.0, -1.0], 50)
    errors = [[np.zeros(100)], [0.01 * white], [np.full(100, 0.02)]]
    assert discrepancy(errors, [[10], [10], [10]]) == (pytest.approx(0.02), 2)
    assert discrepancy(errors[:2], [[10], [10]])[0] == pytest.approx(0.0, abs=1e-12)


def test_an_error_at_the_end_counts_whole() -> None:
    """A curve that is only wrong in its last block is as wrong as that block."""
    late = np.append(np.zeros(90), np.full(10, 0.03))
    assert discrepancy([[late]], [[10]])[0] == pytest.approx(0.03)


def test_the_correlation_time_of_an_autoregression() -> None:
    """White noise has a time of about 1, an AR(1) of coefficient 0.8 of about (1 + 0.8) / (1 - 0.8) = 9."""
    white = np.random.default_rng(0).standard_normal(20_000)
    assert correlation_time(white) == pytest.approx(1, abs=0.2)
    assert correlation_time(lfilter([1], [1, -0.8], white)) == pytest.approx(9, rel=0.25)
    assert correlation_time(np.zeros(10)) == 1.0


def test_blocks_are_within_their_limits() -> None:
    """At least the cube root of the points, at most a quarter."""
    white = np.random.default_rng(1).standard_normal(1000)
    assert block_length(white) == 10
    assert block_length(np.linspace(-1, 1, 1000)) == 250


def test_block_weights_keep_neighbours_together_and_the_total() -> None:
    """Every row of weights sums to the points of each run; neighbours share their block's fate."""
    residuals = np.random.default_rng(2).standard_normal(300)
    resampling = Resampling.of([100, 200], residuals, seed=0)
    assert resampling.unit == "blocks"
    weights = resampling.weights(0, 50)
    np.testing.assert_allclose(weights[:, :100].sum(axis=1), 100)
    np.testing.assert_allclose(weights[:, 100:].sum(axis=1), 200)
    changes = np.mean(np.diff(weights[:, :100], axis=1) != 0)
    assert changes < 0.5


def test_run_weights_are_whole_runs() -> None:
    """All points of a run have one weight, a whole number."""
    resampling = Resampling.of([3] * 8, np.zeros(24), seed=0)
    assert resampling.unit == "runs"
    weights = resampling.weights(0, 20).reshape(20, 8, 3)
    assert np.all(weights == weights[..., :1])
    np.testing.assert_allclose(weights[..., 0].sum(axis=1), 8)


def test_seeds_and_lengths_of_a_constant_are_one_schedule() -> None:
    """Equal as far as the shorter goes is the same; another end or another rate is not."""
    flat = {"kind": "constant", "peak_lr": 1e-3, "warmup_steps": 100}
    specs = [
        flat | {"total_steps": 1000},
        flat | {"total_steps": 2000},
        flat | {"total_steps": 1000, "peak_lr": 2e-3},
        {"kind": "wsd", "peak_lr": 1e-3, "warmup_steps": 100, "total_steps": 1000, "decay_start": 800},
        flat | {"total_steps": 1000},
    ]
    groups = schedule_groups([schedule_from_spec(spec) for spec in specs])
    assert groups == [[0, 1, 4], [2], [3]]
    assert leave_out([1, 2, 1, 1, 1], groups)[0].tolist() == [0, 0, 0, 1, 1, 0]


def test_a_resample_does_not_depend_on_its_batch() -> None:
    """The tenth resample is the same alone and among twenty."""
    resampling = Resampling.of([100, 200], np.zeros(300), seed=4)
    np.testing.assert_array_equal(resampling.weights(0, 20)[10], resampling.weights(10, 11)[0])

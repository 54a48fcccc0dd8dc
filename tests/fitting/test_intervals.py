"""Intervals and resampling, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from isoloss.fitting import fit
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.folds import fold_error
from isoloss.fitting.intervals import Spread, conformal_factor, interval_around, noise_quantiles
from isoloss.fitting.resampling import Resampling, block_length, correlation_time
from isoloss.fitting.schedule_groups import farthest_first, schedule_groups
from isoloss.observations import Curve, RunTable
from isoloss.schedules import schedule_from_spec
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, curve

CENTRE = np.zeros(3)
REACH = np.array([1.0, 1.0, 2.0])
QUIET = Spread(None, 0, noise_quantiles(np.zeros(10)))


def width(
    spread: Spread,
    *,
    new_run: bool = False,
    members: np.ndarray | None = None,
    unlike: Sequence[float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    members = np.zeros((5, 3)) if members is None else members
    options: dict[str, Any] = {"unlike": np.array(unlike), "inflation": np.ones(3), "new_run": new_run}
    low, high = interval_around(CENTRE, members, spread, REACH, 0.9, **options)
    np.testing.assert_allclose(-low, high, atol=1e-12)
    return high - low


def test_without_any_spread_the_interval_is_a_point() -> None:
    """Nothing varies: no width."""
    assert width(QUIET).tolist() == [0, 0, 0]


def test_the_discrepancy_is_one_standard_deviation_and_grows_with_the_reach() -> None:
    """A 90 percent interval is 2 * 1.645 standard deviations, twice that at a reach of two."""
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


def test_the_noise_of_single_points_averages_out_of_a_folds_error() -> None:
    """Within blocks; what is the same along a curve stays."""
    white = np.tile([1.0, -1.0], 50)[None]
    assert fold_error([0.01 * white], [([0], 10)])[0] == pytest.approx(0.0, abs=1e-12)
    assert fold_error([np.full((1, 100), 0.02)], [([0], 10)])[0] == pytest.approx(0.02)


def test_an_error_at_the_end_counts_whole() -> None:
    """A curve that is only wrong in its last block is as wrong as that block."""
    late = np.append(np.zeros(90), np.full(10, 0.03))[None]
    assert fold_error([late], [([0], 10)])[0] == pytest.approx(0.03)


def test_the_conformal_factor_is_the_rank_that_guarantees_the_level() -> None:
    """Of nine scores the largest gives 90 percent; eight are too few to say."""
    assert conformal_factor(np.arange(1.0, 10.0), 0.9) == 9.0
    assert conformal_factor(np.arange(1.0, 9.0), 0.9) is None
    assert conformal_factor(np.arange(1.0, 20.0), 0.9) == 18.0


def test_a_conformal_factor_widens_new_runs_alone_and_never_narrows() -> None:
    """The interval of the mean keeps its width; a factor below one changes nothing."""
    noise = noise_quantiles(np.linspace(-0.01, 0.01, 2001))
    plain, wide, narrow = (Spread(None, 0, noise, conformal=pair) for pair in (None, (0.9, 2.0), (0.9, 0.5)))
    np.testing.assert_allclose(width(wide, new_run=True), 2 * width(plain, new_run=True))
    np.testing.assert_allclose(width(narrow, new_run=True), width(plain, new_run=True))
    np.testing.assert_allclose(width(wide), width(plain))


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


FLAT = {"kind": "constant", "peak_lr": 1e-3, "warmup_steps": 100}


def curves(*lengths: int) -> Dataset:
    """Runs of a constant learning rate with so many points each."""
    schedule = schedule_from_spec(FLAT | {"total_steps": 10_000})
    return CurveDataset(
        [
            Curve(f"run-{number}", np.arange(101, 101 + length), np.full(length, 3.0), schedule)
            for number, length in enumerate(lengths)
        ]
    )


def table(n_tokens: list[float]) -> Dataset:
    names = tuple(f"run-{number}" for number in range(len(n_tokens)))
    outcome = np.full(len(n_tokens), 3.0)
    return TableDataset(RunTable(names, {"n_tokens": np.array(n_tokens)}, outcome), ("n_tokens",))


def test_block_weights_keep_neighbours_together_and_the_total() -> None:
    """Every row of weights sums to the points of each run; neighbours share their block's fate."""
    residuals = np.random.default_rng(2).standard_normal(300)
    resampling = Resampling.of(curves(100, 200), residuals, seed=0)
    assert resampling.unit == "blocks"
    weights = resampling.weights(0, 50)
    np.testing.assert_allclose(weights[:, :100].sum(axis=1), 100)
    np.testing.assert_allclose(weights[:, 100:].sum(axis=1), 200)
    changes = np.mean(np.diff(weights[:, :100], axis=1) != 0)
    assert changes < 0.5


def test_run_weights_are_of_whole_runs_and_never_nothing() -> None:
    """All points of a run have one weight; no resample loses a run."""
    resampling = Resampling.of(curves(*[3] * 8), np.zeros(24), seed=0)
    assert resampling.unit == "runs"
    weights = resampling.weights(0, 20).reshape(20, 8, 3)
    assert np.all(weights == weights[..., :1])
    assert np.all(weights > 0)
    np.testing.assert_allclose(weights[..., 0].sum(axis=1), 8)


def test_repeated_configurations_keep_together() -> None:
    """Runs of a table that differ by their seed alone share a weight; where asked for, they do not."""
    repeated = table([1e9, 1e9, 2e9, 3e9, 4e9, 5e9, 6e9, 7e9, 8e9, 8e9])
    resampling = Resampling.of(repeated, np.zeros(10), seed=0)
    assert (resampling.unit, resampling.n_units) == ("configurations", 8)
    weights = resampling.weights(0, 20)
    assert np.all(weights[:, 0] == weights[:, 1])
    alone = Resampling.of(repeated, np.zeros(10), 0, "runs").weights(0, 20)
    assert not np.any(alone[:, 0] == alone[:, 1])


def test_few_units_widen_the_interval() -> None:
    """Ten runs for three parameters: by Student's t of seven and the root of ten over seven."""
    resampling = Resampling.of(table(list(np.geomspace(1e9, 1e10, 10))), np.zeros(10), seed=0)
    assert resampling.inflation(3, 0.9) == pytest.approx(np.sqrt(10 / 7) * 1.8946 / 1.6449, rel=1e-3)


def test_seeds_and_lengths_of_a_constant_are_one_schedule() -> None:
    """Equal as far as the shorter goes is the same; another end or another rate is not."""
    specs = [
        FLAT | {"total_steps": 1000},
        FLAT | {"total_steps": 2000},
        FLAT | {"total_steps": 1000, "peak_lr": 2e-3},
        {"kind": "wsd", "peak_lr": 1e-3, "warmup_steps": 100, "total_steps": 1000, "decay_start": 800},
        FLAT | {"total_steps": 1000},
    ]
    schedules = [schedule_from_spec(spec) for spec in specs]
    groups = schedule_groups(schedules)
    assert groups == [[0, 1, 4], [2], [3]]
    assert farthest_first(groups, schedules)[0] == [2]


def test_a_resample_does_not_depend_on_its_batch() -> None:
    """The tenth resample is the same alone and among twenty."""
    resampling = Resampling.of(curves(100, 200), np.zeros(300), seed=4)
    np.testing.assert_array_equal(resampling.weights(0, 20)[10], resampling.weights(10, 11)[0])


@pytest.mark.parametrize("n_points", [4_000, 40_000])
def test_a_new_run_has_the_noise_of_single_points_however_long_the_curves(n_points: int) -> None:
    """Long curves are fitted as means of neighbours: nine in ten points of another run lie inside all the same."""
    long = [spec | {"total_steps": n_points} for spec in (CONSTANT, COSINE, LINEAR)]
    curves = [curve(f"run-{row}", spec, noise=2e-2, seed=row, every=1) for row, spec in enumerate(long)]
    found = fit("lr_annealing", curves[:2], bootstrap=20)
    answer = found.predict(schedule=curves[2].schedule, steps=curves[2].step, interval="new_run")
    observed = curves[2].loss_nats
    inside = (answer.lower <= observed) & (observed <= answer.upper)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_what_no_fitted_run_has_shown_adds_its_own_error() -> None:
    """An error in log loss, as one standard deviation, point by point."""
    np.testing.assert_allclose(
        width(QUIET, unlike=[0.0, 0.02, 0.04]), 2 * 1.6449 * np.array([0, 0.02, 0.04]), rtol=1e-4
    )

"""The split-conformal correction: intervals of new runs that held too few of the held-out runs are widened."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from isoloss.fitting import Fit, fit
from isoloss.fitting.ranges import CurveQuestion, CurveQuestions
from isoloss.fitting.result import IntervalKind
from isoloss.observations import RunTable
from tests.fitting.synthetic import COSINE, LINEAR, WSD, curve, three_runs
from tests.fitting.synthetic_tables import table
from tests.fitting.test_refits import indistinct

LARGEST = np.argsort(table().columns["n_params"] * table().columns["n_tokens"], kind="stable")[24:]
"""The twelve largest runs: those that a third holds out."""

ASKED: dict[str, Any] = {name: values[LARGEST] for name, values in table().columns.items()}
THIRD: dict[str, Any] = {"holdout": {"fraction": 1 / 3}}


def disturbed(by: float, seed: int = 0) -> RunTable:
    """A table whose twelve largest runs have errors of their own, of this standard deviation."""
    whole = table(seed=seed)
    outcome = whole.outcome.copy()
    outcome[LARGEST] *= 1 + by * np.random.default_rng(seed + 500).standard_normal(12)
    return dataclasses.replace(whole, outcome=outcome)


@cache
def corrected(by: float, seed: int = 0) -> Fit:
    return fit("chinchilla", disturbed(by, seed), bootstrap=50, profile=False, **THIRD)


def plain(found: Fit) -> Fit:
    """The fit without its correction."""
    return dataclasses.replace(found, spread=dataclasses.replace(found.spread, conformal=None))


def half_widths(found: Fit, kind: IntervalKind = "new_run", level: float | None = None) -> np.ndarray:
    """Below and above the logarithms of the predictions of the largest runs, (2, runs)."""
    said = found.predict(**ASKED, interval=kind, level=level)
    return np.stack([np.log(said.value / said.lower), np.log(said.upper / said.value)])


def misses(found: Fit, observed: np.ndarray) -> np.ndarray:
    """How far the largest runs lie from their predictions, in half widths of their intervals, (runs,)."""
    error = np.log(observed / found.predict(**ASKED).value)
    below, above = half_widths(found)
    return np.asarray(np.abs(error) / np.where(error > 0, above, below))


def test_errors_larger_than_stated_widen_the_interval_by_their_rank() -> None:
    """Twelve runs at 90 percent: the 12th smallest of 13 ranks, so that the widest miss lies on the edge."""
    found = corrected(2e-2)
    factor = found.diagnostics["conformal"]["factor"]
    before = misses(plain(found), disturbed(2e-2).outcome[LARGEST])
    assert found.diagnostics["conformal"]["runs"] == 12
    assert factor == pytest.approx(before.max(), rel=1e-9)
    assert factor > 2
    np.testing.assert_allclose(half_widths(found), factor * half_widths(plain(found)), rtol=1e-9)


def test_the_interval_of_the_mean_is_left_alone() -> None:
    """The correction is about runs, which is what was held out."""
    found = corrected(2e-2)
    np.testing.assert_array_equal(half_widths(found, "mean"), half_widths(plain(found), "mean"))


def test_errors_smaller_than_stated_never_narrow_the_interval() -> None:
    """A factor below one is said, and changes nothing."""
    found = corrected(0.0)
    assert 0 < found.diagnostics["conformal"]["factor"] < 1
    np.testing.assert_array_equal(half_widths(found), half_widths(plain(found)))


def test_corrected_intervals_of_all_levels_hold_each_other() -> None:
    """The factor was measured at one level; a wider interval keeps it, or it would be the narrower one."""
    found = corrected(2e-2)
    factor = found.diagnostics["conformal"]["factor"]
    widths = [half_widths(found, level=level) for level in (0.5, 0.89, 0.9, 0.91, 0.99)]
    assert all(np.all(wider >= narrower) for narrower, wider in pairwise(widths))
    np.testing.assert_allclose(widths[-1], factor * half_widths(plain(found), level=0.99), rtol=1e-9)


def test_corrected_intervals_hold_their_share_of_further_runs() -> None:
    """Of runs that err ten times as much as the fitted ones nine in ten lie inside, uncorrected not half."""
    held: dict[str, list[float]] = {"corrected": [], "plain": []}
    for seed in range(12):
        found, further = corrected(2e-2, seed), disturbed(2e-2, seed + 1_000).outcome[LARGEST]
        held["corrected"].append(float(np.mean(misses(found, further) <= 1)))
        held["plain"].append(float(np.mean(misses(plain(found), further) <= 1)))
    assert np.mean(held["corrected"]) >= 0.85
    assert np.mean(held["plain"]) < 0.5


@pytest.mark.parametrize(("level", "enough"), [(0.9, 9), (0.8, 4)])
@pytest.mark.parametrize("lacking", [0, 1])
def test_only_as_many_held_out_runs_as_the_level_needs_correct_anything(
    level: float, enough: int, lacking: int
) -> None:
    """Nine for nine in ten, four for four in five; one less, and there is no factor to be found anywhere."""
    names = [f"run-{row:03}" for row in LARGEST[: enough - lacking]]
    found = fit("chinchilla", table(), bootstrap=20, profile=False, level=level, holdout={"run_ids": names})
    assert ("conformal" in found.diagnostics) == (not lacking)
    assert (found.spread.conformal is None) == bool(lacking)


def test_without_a_holdout_the_runs_of_the_first_fold_correct() -> None:
    """Three seeds of the three largest configurations are nine runs that were predicted from the others."""
    found = fit("chinchilla", table(seeds=3), bootstrap=20, profile=False)
    assert found.holdout is not None
    assert found.diagnostics["conformal"]["runs"] == len(found.holdout["runs"]) == 9


def test_curves_are_corrected_as_tables_are() -> None:
    """Nine held-out runs of three schedules, a percent above what the law says, widen the interval of a run."""
    specs = [COSINE, WSD, LINEAR]
    unseen = [curve(f"unseen-{number}", specs[number % 3], seed=20 + number) for number in range(9)]
    off = [dataclasses.replace(run, loss_nats=run.loss_nats * 1.01) for run in unseen]
    held = {"run_ids": [run.run_id for run in unseen]}
    found, good = (
        fit("lr_annealing", [*three_runs(), *runs], bootstrap=20, profile=False, holdout=held)
        for runs in (off, unseen)
    )
    assert found.diagnostics["conformal"]["runs"] == 9
    assert found.diagnostics["conformal"]["factor"] > 2 * good.diagnostics["conformal"]["factor"]
    widths = [
        np.log(said.upper / said.lower)
        for said in (one.predict(schedule=LINEAR, interval="new_run") for one in (found, plain(found)))
    ]
    np.testing.assert_allclose(widths[0], found.diagnostics["conformal"]["factor"] * widths[1], rtol=1e-9)


def test_several_runs_are_asked_at_once_as_one_by_one() -> None:
    """The intervals of three curves, at steps in any order, are those of each; the farthest reach is said."""
    found = fit("lr_annealing", three_runs(), bootstrap=20, profile=False)
    steps = ([600], [7_000, 5_000, 7_000], [9_000, 1_000])
    longer = COSINE | {"total_steps": 90_000}
    each = [
        found.fitted_range.ask(found.law, {"schedule": spec, "steps": at}, {})
        for spec, at in zip((COSINE, LINEAR, longer), steps, strict=True)
    ]
    together = CurveQuestions(tuple(one for one in each if isinstance(one, CurveQuestion)))
    alone = [found.log_interval(one, 0.9, new_run=True) for one in each]
    for joined, *parts in zip(found.log_interval(together, 0.9, new_run=True), *alone, strict=True):
        np.testing.assert_allclose(joined, np.concatenate(parts), rtol=1e-14)
    assert together.describe()["area_factor"] == max(one.describe()["area_factor"] for one in each)
    assert set(together.describe()["warnings"]) == {why for one in each for why in one.describe()["warnings"]}


def test_several_runs_may_be_cut_anywhere() -> None:
    """A part of their values that begins inside one run and ends inside another has the features of just those."""
    found = fit("lr_annealing", three_runs(), bootstrap=20, profile=False)
    each = [found.ask({"schedule": spec, "steps": [1_000, 2_000, 3_000]}) for spec in (COSINE, WSD, LINEAR)]
    together = CurveQuestions(tuple(one for one in each if isinstance(one, CurveQuestion)))
    whole = found.law.predict(found.theta[None], together.features(found.law, slice(0, 9)))
    part = found.law.predict(found.theta[None], together.features(found.law, slice(2, 7)))
    np.testing.assert_allclose(part, whole[:, 2:7], rtol=1e-14)


def test_without_resamples_nothing_is_corrected() -> None:
    """There is no interval to widen."""
    found = fit("chinchilla", table(), bootstrap=0, **THIRD)
    assert "conformal" not in found.diagnostics
    assert found.spread.conformal is None


def test_coverage_of_an_average_is_scored_as_that_of_one_law() -> None:
    """Before the correction that the same runs make: after it they are inside by construction."""
    off = [curve(f"off-{row}", LINEAR, noise=1e-2, seed=20 + row) for row in range(10)]
    off = [dataclasses.replace(run, loss_nats=run.loss_nats * 1.05) for run in off]
    asked: dict[str, Any] = {"bootstrap": 20, "holdout": {"run_ids": [run.run_id for run in off]}}
    averaged = fit("auto", [*indistinct(), *off], **asked)
    one = fit(averaged.law_name, [*indistinct(), *off], **asked)
    assert averaged.equals
    assert averaged.spread.conformal is not None
    assert averaged.holdout is not None
    assert one.holdout is not None
    assert averaged.holdout["mean"]["coverage"] == pytest.approx(one.holdout["mean"]["coverage"], abs=0.1)

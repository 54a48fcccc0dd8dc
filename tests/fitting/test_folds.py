"""Runs predicted from others: which from which, and what is said of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from isoloss.fitting import fit
from isoloss.fitting.datasets import STAGES, CurveDataset, TableDataset
from isoloss.fitting.folds import MOST_FOLDS
from isoloss.fitting.one_law import _content
from isoloss.laws import LAWS, TableLaw
from isoloss.observations import Curve
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, WARMED, WSD, curve, three_runs
from tests.fitting.synthetic_tables import SIZES, table

CHINCHILLA, ANNEALING = LAWS["chinchilla"], LAWS["lr_annealing"]


def dataset() -> TableDataset:
    assert isinstance(CHINCHILLA, TableLaw)
    return TableDataset(table(), CHINCHILLA.columns)


def test_the_first_fold_of_a_table_is_its_largest_tenth() -> None:
    """About a tenth of the scales, and every smaller run to predict them from."""
    data = dataset()
    assert isinstance(CHINCHILLA, TableLaw)
    scale = CHINCHILLA.scale(data.columns)
    first = data.folds(CHINCHILLA)[0]
    assert 1 <= len(first.predicted) <= 8
    assert sorted((*first.fitted, *first.predicted)) == list(range(36))
    assert scale[list(first.predicted)].min() > scale[list(first.fitted)].max()


def test_every_other_fold_predicts_the_next_larger_runs_from_all_smaller_ones() -> None:
    """Training small and predicting large rolls through the scales, up to the largest tenth."""
    data = dataset()
    assert isinstance(CHINCHILLA, TableLaw)
    scale = CHINCHILLA.scale(data.columns)
    first, *rolling = data.folds(CHINCHILLA)
    assert len(rolling) == STAGES
    for fold, following in zip(rolling, [*rolling[1:], first], strict=True):
        assert scale[list(fold.fitted)].max() < scale[list(fold.predicted)].min()
        assert sorted((*fold.fitted, *fold.predicted)) == sorted(following.fitted)
        assert f"from the {len(fold.fitted)} smallest" in fold.what


@pytest.mark.parametrize("n_runs", [2, 3, 5, 8])
def test_a_few_runs_have_folds_with_runs_on_both_sides(n_runs: int) -> None:
    """Nothing is predicted from nothing, or from itself; one run alone has no fold."""
    folds = dataset().only(range(n_runs)).folds(CHINCHILLA)
    assert folds
    for fold in folds:
        assert fold.fitted
        assert fold.predicted
        assert not {*fold.fitted} & {*fold.predicted}
    assert dataset().only([0]).folds(CHINCHILLA) == []


def test_folds_that_the_fitted_runs_do_not_determine_are_passed_over() -> None:
    """Of twelve runs nothing is predicted from five or fewer, which is what the law has parameters."""
    few = table().only(np.linspace(0, 35, 12).round().astype(int))
    held = fit("chinchilla", few, bootstrap=0).holdout
    assert held is not None
    asked = dataset().only(np.linspace(0, 35, 12).round().astype(int).tolist()).folds(CHINCHILLA)
    assert min(len(fold.fitted) for fold in asked) <= 5
    assert [one["n_fitted"] for one in held["others"]] == [
        len(fold.fitted) for fold in asked[1:] if len(fold.fitted) > 5
    ]


def test_what_is_predicted_is_said_with_a_score() -> None:
    """The first fold's score and runs, and each other one's, are in the result without being asked for."""
    held = fit("chinchilla", table(), bootstrap=0).holdout
    assert held is not None
    assert held["predicted"] == "the largest tenth of the runs"
    assert held["score"] > 0
    assert held["mean"]["mae"] > 0
    assert len(held["others"]) >= 3
    assert all(one["score"] > 0 and one["n_fitted"] >= 6 for one in held["others"])


def test_the_score_is_the_log_error_of_runs_that_were_not_fitted() -> None:
    """A fit of the other runs alone has the same error on the largest tenth."""
    whole = table()
    held = fit("chinchilla", whole, bootstrap=0).holdout
    assert held is not None
    again = fit("chinchilla", whole, bootstrap=0, holdout={"run_ids": list(held["runs"])})
    predicted = [row for row, name in enumerate(whole.run_ids) if name in held["runs"]]
    columns: dict[str, Any] = {name: values[predicted] for name, values in whole.columns.items()}
    error = np.log(again.predict(**columns).value / whole.outcome[predicted])
    assert held["score"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-2)


def test_curves_are_predicted_by_schedule() -> None:
    """Every schedule is left out once; seeds of one go together."""
    data = CurveDataset([*three_runs(), curve("cosine-again", COSINE, seed=5)])
    folds = data.folds(ANNEALING)
    assert {fold.predicted for fold in folds} == {(0,), (1, 3), (2,)}
    for fold in folds:
        assert sorted((*fold.fitted, *fold.predicted)) == [0, 1, 2, 3]
        assert fold.what == f"the schedule of run {data.run_ids[fold.predicted[0]]!r}"


def test_the_most_different_schedule_is_predicted_first() -> None:
    """The one farthest from its nearest neighbour, wherever it stands in the list; near twins come last."""
    specs = {
        "wsd": WSD,
        "a little later": WSD | {"decay_start": 8_100},
        "linear": LINEAR,
        "far": {"kind": "two_stage", "total_steps": 9_000, "switch_step": 1_000, "second_lr": 2e-5} | WARMED,
    }
    data = CurveDataset([curve(name, spec) for name, spec in specs.items()])
    order = [data.run_ids[fold.predicted[0]] for fold in data.folds(ANNEALING)]
    assert order[:2] == ["far", "linear"]
    assert sorted(order[2:]) == ["a little later", "wsd"]


def test_no_more_folds_are_predicted_than_the_most() -> None:
    """Of thirty schedules the most different one, and of the others some at even distances."""
    runs = [
        thinned(curve(f"run-{number:02}", WSD | {"decay_start": 2_000 + 250 * number}))
        for number in range(30)
    ]
    held = fit("lr_annealing", runs, bootstrap=0).holdout
    assert held is not None
    folds = [fold.what for fold in CurveDataset(sorted(runs, key=_content)).folds(ANNEALING)]
    said = [held["predicted"], *(one["predicted"] for one in held["others"])]
    assert len(folds) == 30
    assert MOST_FOLDS / 2 < len(said) <= MOST_FOLDS
    assert said[0] == folds[0]
    assert set(np.diff([folds.index(what) for what in said[1:]])) == {2}


def thinned(run: Curve) -> Curve:
    """Every tenth point of a curve."""
    return dataclasses.replace(run, step=run.step[::10], loss_nats=run.loss_nats[::10])


def test_enough_sizes_are_predicted_large_from_small() -> None:
    """Of six sizes the largest, then the next ones, each from all smaller ones and never from fewer than three."""
    sizes = [1e7, 3e7, 1e8, 3e8, 1e9, 3e9]
    runs = [
        curve(f"{spec['kind']}-{size:g}", spec, n_params=size) for size in sizes for spec in (COSINE, WSD)
    ]
    folds = CurveDataset(runs).folds(ANNEALING)
    by_size = [fold for fold in folds if "from smaller ones" in fold.what]
    assert folds[: len(by_size)] == by_size
    for fold, largest in zip(by_size, [5, 4, 3], strict=True):
        assert {runs[position].n_params for position in fold.predicted} == {sizes[largest]}
        assert {runs[position].n_params for position in fold.fitted} == set(sizes[:largest])


def test_too_few_sizes_are_predicted_by_schedule() -> None:
    """Three sizes do not show how a fourth would be: every schedule is left out, with all its sizes."""
    runs = [
        curve(f"{spec['kind']}-{size:g}", spec, n_params=size) for size in SIZES[:3] for spec in (COSINE, WSD)
    ]
    folds = CurveDataset(runs).folds(ANNEALING)
    assert {fold.predicted for fold in folds} == {(0, 2, 4), (1, 3, 5)}


def test_a_holdout_that_was_asked_for_keeps_the_score_of_the_training_runs() -> None:
    """Both are told apart by what was predicted."""
    runs = [*three_runs(), curve("unseen", LINEAR, seed=99)]
    held = fit("lr_annealing", runs, bootstrap=20, holdout={"run_ids": ["unseen"]}).holdout
    assert held is not None
    assert held["predicted"] == "the runs that were asked for"
    assert list(held["runs"]) == ["unseen"]
    assert held["training"]["predicted"].startswith("the schedule of run")
    assert held["training"] == fit("lr_annealing", three_runs(), bootstrap=20).holdout


def test_runs_without_which_the_law_is_not_determined_are_not_left_out() -> None:
    """The one annealed run of three is never predicted: without it nothing shows annealing."""
    runs = [
        curve("long", CONSTANT),
        curve("short", CONSTANT | {"total_steps": 9_000}, seed=1),
        three_runs()[2],
    ]
    asked = [fold.predicted for fold in CurveDataset(runs).folds(ANNEALING)]
    assert (2,) in asked
    fitted = fit("lr_annealing", runs, bootstrap=0)
    assert fitted.holdout is not None
    assert set(fitted.holdout["runs"]) == {"long", "short"}
    assert fitted.holdout["others"] == []


def test_no_number_hangs_on_the_names_of_runs() -> None:
    """Rows and curves under other names: the same optimum, folds, scores and intervals, to the last bit."""
    few = table().only(np.linspace(0, 35, 12).round().astype(int))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(12)
        named = dataclasses.replace(few, run_ids=tuple(f"r{one:02}" for one in order))
        one, other = (fit("chinchilla", data, bootstrap=10, profile=False) for data in (few, named))
        assert one.objective == other.objective
        assert [(said["n_fitted"], said["score"]) for said in one.holdout["others"]] == [  # type: ignore[index]
            (said["n_fitted"], said["score"])
            for said in other.holdout["others"]  # type: ignore[index]
        ]
        assert np.array_equal(one.samples, other.samples)
        assert all(said["n_fitted"] > 5 for said in one.holdout["others"])  # type: ignore[index]
    runs = three_runs()
    renamed = [dataclasses.replace(run, run_id=name) for run, name in zip(runs, "zya", strict=True)]
    first, second = (fit("lr_annealing", data, bootstrap=10, profile=False) for data in (runs, renamed))
    assert np.array_equal(first.samples, second.samples)
    assert first.spread.discrepancy == second.spread.discrepancy

"""Fits of curves: what comes out, what is said about it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from isoloss.errors import FitFailed, InvalidExpression, InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit, fit
from isoloss.laws import LAWS
from isoloss.observations import Curve, PlannedRun
from isoloss.schedules import from_log
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, TRUTH, WSD, curve, three_runs

LAW = "lr_annealing"


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(LAW, three_runs(), bootstrap=100, seed=1)


def test_three_noisy_runs_give_the_truth_within_their_intervals(found: Fit) -> None:
    """Values near the truth, intervals that are not degenerate, every start at the same optimum."""
    for name in ("L0", "A", "alpha", "C", "lambda"):
        one = found.parameters[name]
        assert one.value is not None
        assert one.std_error is not None
        assert one.interval is not None
        assert abs(one.value - TRUTH[name]) < 4 * one.std_error + 1e-9
        assert one.interval[0] < one.value < one.interval[1]
    assert found.verdict == "sound", found.reasons
    assert found.metrics["mean"]["mae"] < 5e-3


def test_fewer_than_eight_runs_are_resampled_in_blocks_and_it_is_said(found: Fit) -> None:
    """The statement on blocks stands in the diagnostics and among the reasons."""
    resampling = found.diagnostics["resampling"]
    assert resampling["unit"] == "blocks"
    assert resampling["statement"] in found.reasons
    assert "fewer than 8 runs" in resampling["statement"]


def test_eight_runs_are_resampled_whole() -> None:
    """With enough runs, runs are what is drawn."""
    runs = [curve(f"run-{i}", COSINE if i % 2 else CONSTANT, seed=i) for i in range(8)]
    assert fit(LAW, runs, bootstrap=10).diagnostics["resampling"]["unit"] == "runs"


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(found: Fit) -> None:
    """A fit is a function of its curves, options and seed."""
    again = fit(LAW, three_runs(), bootstrap=100, seed=1)
    assert again.as_document() == found.as_document()
    other = fit(LAW, three_runs(), bootstrap=100, seed=2)
    assert other.parameters["C"].interval != found.parameters["C"].interval
    assert other.parameters["C"].value == found.parameters["C"].value


def test_the_order_of_the_runs_does_not_matter(found: Fit) -> None:
    """Values and intervals are the same, whatever the order of the list."""
    assert fit(LAW, three_runs()[::-1], bootstrap=100, seed=1).as_document() == found.as_document()


def test_a_fit_prints_as_a_short_table(found: Fit) -> None:
    """A notebook shows the verdict and the parameters, not thousands of numbers."""
    shown = repr(found)
    assert shown.startswith("Fit(lr_annealing, sound")
    assert "alpha" in shown
    assert len(shown) < 1000


def test_a_fit_prints_its_reasons_its_held_out_error_and_what_was_left_out() -> None:
    """What a verdict rests on is read where it is read; of many runs and reasons the first few are named."""
    unread = [{"run_id": f"r{number}", "reason": "no learning rate"} for number in range(5)]
    unread += [{"run_id": f"odd-{number}", "reason": f"odd {number}"} for number in range(3)]
    shown = repr(fit(LAW, three_runs(), bootstrap=0, holdout={"run_ids": ["wsd"]}, left_out=unread))
    lines = [line.strip() for line in shown.splitlines()]
    assert "- no resamples were asked for: there are no intervals" in lines
    (predicted,) = (line for line in lines if line.startswith("predicted "))
    assert predicted.startswith("predicted the runs that were asked for: mean absolute error 0.00")
    assert lines[lines.index("left out: 8 runs") + 1 :] == [
        "r0, r1, r2 and 2 more: no learning rate",
        "odd-0: odd 0",
        "odd-1: odd 1",
        "... and more in fit.left_out",
    ]


def test_of_many_reasons_the_first_are_printed(found: Fit) -> None:
    """A note on each of a hundred runs is no short table."""
    shown = repr(dataclasses.replace(found, reasons=[f"note {number}" for number in range(100)]))
    assert "- note 9\n" in shown
    assert "- ... and 90 more in fit.reasons" in shown
    assert "note 10" not in shown


def test_a_note_on_every_run_is_one_reason() -> None:
    """However many runs were thinned, one line of the reasons tells it."""
    noted = [
        dataclasses.replace(run, notes=(f"its {number}00 points were fitted as 20 of them",))
        for number, run in enumerate(three_runs(), start=1)
    ]
    told = [reason for reason in fit("lr_annealing", noted, bootstrap=0).reasons if "fitted as 20" in reason]
    assert len(told) == 1
    assert told[0].endswith("(and so of 2 more runs)")


def test_a_fit_survives_its_document(found: Fit) -> None:
    """What is read back from JSON predicts the same numbers."""
    read = Fit.from_document(json.loads(json.dumps(found.as_document())))
    one, other = (each.predict(schedule=LINEAR, interval="new_run") for each in (found, read))
    assert one.as_dict() == other.as_dict()
    assert read.public() == found.public()


def test_an_unseen_schedule_is_predicted_within_its_interval() -> None:
    """Over twelve draws of noise the mean interval holds the truth about as often as it claims."""
    law = LAWS[LAW]
    theta = np.array([[TRUTH[parameter.name] for parameter in law.parameters]])
    exact = law.predict(theta, law.prepare([curve("x", LINEAR, noise=0).from_step(600)]))[0]
    held = []
    for seed in range(12):
        at = fit(LAW, three_runs(seed=seed), bootstrap=80).predict(
            schedule=LINEAR, steps=range(600, 9001, 50)
        )
        held.append(np.mean((at.lower <= exact) & (exact <= at.upper)))
    assert np.mean(held) > 0.75


def test_the_interval_of_a_new_run_contains_that_of_the_mean(found: Fit) -> None:
    """Noise comes on top."""
    mean, new = (found.predict(schedule=LINEAR, interval=kind) for kind in ("mean", "new_run"))
    assert np.all((new.lower <= mean.lower) & (mean.upper <= new.upper))
    assert (mean.steps[0], mean.steps[-1]) == (500, 9_000)


def test_a_higher_level_gives_a_wider_interval(found: Fit) -> None:
    """Intervals are nested by level."""
    widths = [
        np.ptp([p.lower[-1], p.upper[-1]])
        for p in (found.predict(schedule=LINEAR, level=q) for q in (0.5, 0.9, 0.99))
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]


def test_extrapolation_is_stated_and_widens_the_interval(found: Fit) -> None:
    """A schedule four times as long says so, in factors and words, and has a wider interval."""
    long = CONSTANT | {"total_steps": 48_000}
    far = found.predict(schedule=long, steps=[12_000, 48_000])
    assert far.extrapolation["is_extrapolation"]
    assert far.extrapolation["area_factor"] == pytest.approx(4.06, abs=0.02)
    assert any("times the largest fitted one" in words for words in far.extrapolation["warnings"])
    width = np.log(far.upper) - np.log(far.lower)
    assert width[1] > 1.5 * width[0]


def test_another_peak_is_warned_of(found: Fit) -> None:
    """The law does not carry over between peak learning rates, and a prediction says so."""
    said = found.predict(schedule=LINEAR | {"peak_lr": 3e-4}).extrapolation["warnings"]
    assert any("peak learning rate" in words for words in said)


def test_one_constant_run_leaves_annealing_unidentified() -> None:
    """No number for C and lambda, the reason in words, and no prediction."""
    alone = fit(LAW, [curve("alone", CONSTANT)], bootstrap=20)
    assert alone.verdict == "unidentified"
    for name in ("C", "lambda"):
        one = alone.parameters[name]
        assert (one.value, one.std_error, one.interval) == (None, None, None)
    assert any("the learning rate never falls" in reason for reason in alone.reasons)
    assert alone.derived[0].value is None
    with pytest.raises(Unidentified, match="the learning rate never falls"):
        alone.predict(schedule=COSINE)


def test_one_constant_run_determines_the_rest_when_annealing_is_fixed() -> None:
    """With C and lambda given by the user, L0, A and alpha are fitted and predictions made."""
    alone = fit(LAW, [curve("alone", CONSTANT)], bootstrap=20, fix={"C": 0.6, "lambda": 0.997})
    assert alone.verdict == "weak"
    assert alone.parameters["C"].value == 0.6
    assert alone.predict(schedule=COSINE).value[-1] > 0


def test_two_runs_leave_the_error_on_unseen_schedules_unknown() -> None:
    """Fewer than three schedules make a fit weak, and its predictions say what their interval lacks."""
    two = fit(LAW, three_runs()[:2], bootstrap=20)
    assert two.verdict == "weak"
    assert any("three schedules are needed" in reason for reason in two.reasons)
    said = two.predict(schedule=LINEAR).extrapolation["warnings"]
    assert any("was not measured" in words for words in said)


def test_seeds_of_one_schedule_say_nothing_of_another() -> None:
    """Five seeds of a cosine are one schedule: weak, and the interval's lack is said."""
    seeds = fit(LAW, [curve(f"seed-{seed}", COSINE, seed=seed) for seed in range(5)], bootstrap=20)
    assert seeds.verdict == "weak"
    assert seeds.diagnostics["discrepancy"]["folds"] == 0
    assert seeds.diagnostics["discrepancy"]["log_loss"] is None
    said = seeds.predict(schedule=CONSTANT).extrapolation["warnings"]
    assert any("was not measured" in words for words in said)


def test_one_run_under_two_names_counts_once() -> None:
    """The copy is left out with the name of the run that it repeats."""
    runs = three_runs()
    twice = fit(LAW, [*runs, dataclasses.replace(runs[0], run_id="copy")], bootstrap=0)
    assert twice.left_out == [{"run_id": "copy", "reason": "its points are those of run 'constant'"}]
    assert twice.diagnostics["n_runs"] == 3


def test_fewer_points_than_parameters_are_unidentified() -> None:
    """Four points do not give five parameters."""
    runs = [dataclasses.replace(r, step=r.step[:2], loss_nats=r.loss_nats[:2]) for r in three_runs()[:2]]
    few = fit(LAW, runs, bootstrap=5)
    assert few.verdict == "unidentified"
    assert all(one.value is None for one in few.parameters.values())
    assert any("4 points for 5 parameters" in reason for reason in few.reasons)


@pytest.mark.parametrize("unit", ["runs", "configurations"])
def test_few_curves_that_are_resampled_whole_are_never_sound(unit: Any) -> None:
    """Five curves are too few to draw from, eight are enough; blocks of five are no matter of doubt."""
    specs = [{**LINEAR, "total_steps": 6_000 + 500 * number} for number in range(8)]
    runs = [curve(f"run-{number}", spec, seed=number) for number, spec in enumerate(specs)]
    words = f"5 {unit} of curves are too few to resample"
    few = fit(LAW, runs[:5], bootstrap=20, profile=False, resample=unit)
    assert few.verdict == "weak"
    assert any(words in reason for reason in few.reasons)
    for others, drawn in ((runs, unit), (runs[:5], "blocks")):
        found = fit(LAW, others, bootstrap=20, profile=False, resample=drawn)
        assert not any("of curves are too few to resample" in reason for reason in found.reasons)


def test_identical_losses_are_not_a_law() -> None:
    """A flat curve leaves the exponent without meaning: no sound verdict."""
    flat = [dataclasses.replace(run, loss_nats=np.full(run.n_points, 3.0)) for run in three_runs()]
    assert fit(LAW, flat, bootstrap=10).verdict != "sound"


def test_held_out_runs_are_scored_and_not_fitted() -> None:
    """The named run is predicted: its scores and coverage stand in the result, its points not in the fit."""
    runs = [*three_runs(), curve("unseen", LINEAR, seed=99)]
    with_it = fit(LAW, runs, bootstrap=50, holdout={"run_ids": ["unseen"]})
    assert with_it.holdout is not None
    scores = with_it.holdout["runs"]["unseen"]
    assert scores["mae"] < 0.01
    assert 0.5 < scores["coverage"] <= 1
    assert with_it.parameters["C"].value == fit(LAW, three_runs(), bootstrap=0).parameters["C"].value
    assert with_it.diagnostics["n_runs"] == 3


def test_a_held_out_fraction_is_the_runs_that_trained_furthest() -> None:
    """A third of three runs is the one with the largest sum of learning rates."""
    held = fit(LAW, three_runs(), bootstrap=0, holdout={"fraction": 0.3}).holdout
    assert held is not None
    assert list(held["runs"]) == ["constant"]


def test_fixed_and_bounded_parameters() -> None:
    """A fixed value is kept, a bound that binds is reported and makes the fit weak."""
    held = fit(LAW, three_runs(), bootstrap=10, fix={"lambda": 0.999})
    assert held.parameters["lambda"].value == 0.999
    assert held.parameters["lambda"].interval is None
    bound = fit(LAW, three_runs(), bootstrap=10, bounds={"alpha": [0.6, 0.9]})
    assert bound.parameters["alpha"].at_bound
    assert bound.verdict == "weak"
    assert any("alpha lies at its bound" in reason for reason in bound.reasons)


def test_an_expression_ties_parameters() -> None:
    """A = alpha * 1.05 holds in the optimum and in every resample, lambda stands in expressions by its name."""
    tied = fit(LAW, three_runs(), bootstrap=5, expr={"A": "alpha * 1.05", "C": "lambda * 0.6"})
    values = {name: one.value for name, one in tied.parameters.items()}
    assert values["A"] == pytest.approx(values["alpha"] * 1.05)  # type: ignore[operator]
    assert values["C"] == pytest.approx(values["lambda"] * 0.6)  # type: ignore[operator]
    law = LAWS[LAW]
    ratio = tied.samples[:, law.index("A")] / tied.samples[:, law.index("alpha")]
    np.testing.assert_allclose(ratio, 1.05)


def test_constrained_and_free_fits_agree_where_both_apply() -> None:
    """An expression that the optimum satisfies anyway leads lmfit to the batched solver's optimum."""
    free = fit(LAW, three_runs(), bootstrap=0)
    a, alpha = free.parameters["A"].value, free.parameters["alpha"].value
    assert a is not None
    assert alpha is not None
    tied = fit(LAW, three_runs(), bootstrap=0, expr={"A": f"alpha * {a / alpha!r}"})
    assert tied.objective == pytest.approx(free.objective, rel=1e-6)


def test_several_sizes_have_a_size_term() -> None:
    """Three sizes determine the N term; a prediction needs a size."""
    law = LAWS[LAW]
    theta = np.array([[2.0, 0.5, 0.48, 0.6, 0.997, 40.0, 0.3]])
    runs = []
    for size in (2e7, 6e7, 2e8):
        for spec in (CONSTANT, COSINE):
            blank = curve(f"{spec['kind']}-{size:g}", spec, n_params=size)
            runs.append(dataclasses.replace(blank, loss_nats=law.predict(theta, law.prepare([blank]))[0]))
    sized = fit(LAW, runs, bootstrap=5)
    assert sized.parameters["beta"].value == pytest.approx(0.3, rel=1e-2)
    with pytest.raises(InvalidInput, match="n_params"):
        sized.predict(schedule=LINEAR)
    small, large = (
        sized.predict(schedule=LINEAR, config={"n_params": n, "n_params_kind": "total"}).value[-1]
        for n in (2e7, 1e9)
    )
    assert large < small
    with pytest.raises(InvalidInput, match="n_params_kind"):
        sized.predict(schedule=LINEAR, config={"n_params": 2e7, "n_params_kind": "active"})


def test_two_sizes_predict_themselves_and_no_other() -> None:
    """Two sizes give a difference, not an exponent: null, and other sizes are refused."""
    runs = [
        curve(f"{k}-{n:g}", spec, n_params=n, seed=int(n))
        for n in (1e7, 1e8)
        for k, spec in enumerate((CONSTANT, COSINE))
    ]
    two = fit(LAW, runs, bootstrap=5)
    assert two.parameters["beta"].value is None
    assert two.verdict == "weak"
    assert two.predict(schedule=LINEAR, n_params=1e8).value[-1] > 0
    with pytest.raises(Unidentified, match="not of 1e\\+09"):
        two.predict(schedule=LINEAR, n_params=1e9)


def test_two_sizes_and_a_given_exponent_determine_the_size_term() -> None:
    """With beta fixed by the user the difference gives B, and other sizes can be predicted."""
    runs = [
        curve(f"{k}-{n:g}", spec, n_params=n, seed=int(n))
        for n in (1e7, 1e8)
        for k, spec in enumerate((CONSTANT, COSINE, WSD))
    ]
    given = fit(LAW, runs, bootstrap=5, fix={"beta": 0.3})
    assert given.parameters["B"].value is not None
    assert given.predict(schedule=LINEAR, n_params=1e9).value[-1] > 0


def test_a_fixed_value_that_bounds_exclude_is_refused_in_words() -> None:
    """The law's own bounds, and those that the caller gave beside it."""
    with pytest.raises(InvalidInput, match=r"7 lies outside of the law's own bounds \[0.02, 3\]"):
        fit(LAW, three_runs(), fix={"alpha": 7})
    with pytest.raises(InvalidInput, match=r"0.3 lies outside of the bounds given for it, \[0.4, 3\]"):
        fit(LAW, three_runs(), fix={"alpha": 0.3}, bounds={"alpha": [0.4, None]})


def test_a_constraint_on_a_term_that_is_not_there_is_refused() -> None:
    """Runs of one size have no size term: fixing it would be ignored in silence."""
    with pytest.raises(InvalidInput) as caught:
        fit(LAW, three_runs(), fix={"B": 5.0})
    assert caught.value.fields["field"] == "fix.B"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bootstraps": 3}, "options.bootstraps"),
        ({"bootstrap": -1}, "bootstrap"),
        ({"bootstrap": True}, "bootstrap"),
        ({"bootstrap": 10**9}, "bootstrap"),
        ({"starts": 0}, "starts"),
        ({"level": 1.0}, "level"),
        ({"level": "0.9"}, "level"),
        ({"huber_delta": 0}, "huber_delta"),
        ({"huber_delta": float("nan")}, "huber_delta"),
        ({"skip_steps": -1}, "skip_steps"),
        ({"target": "accuracy"}, "target"),
        ({"seed": 1.5}, "seed"),
        ({"fix": {"gamma": 1}}, "fix.gamma"),
        ({"fix": {"alpha": -1}}, "fix.alpha"),
        ({"fix": {"A": float("inf")}}, "fix.A"),
        ({"fix": {"alpha": 0.3}, "bounds": {"alpha": [0.4, 0.5]}}, "fix.alpha"),
        ({"bounds": {"alpha": [2, 1]}}, "bounds.alpha"),
        ({"bounds": {"alpha": 3}}, "bounds.alpha"),
        ({"bounds": {"gamma": [0, 1]}}, "bounds.gamma"),
        ({"fix": {"A": 1.0}, "expr": {"A": "C"}}, "expr.A"),
        ({"holdout": {"run_ids": ["nobody"]}}, "holdout.run_ids"),
        ({"holdout": {"run_ids": []}}, "holdout.run_ids"),
        ({"holdout": {"fraction": 1.5}}, "holdout.fraction"),
        ({"holdout": {"fraction": 0.51}}, "holdout.fraction"),
        ({"holdout": {"run_ids": ["constant", "cosine", "wsd"]}}, "holdout"),
        ({"holdout": {"best": 1}}, "holdout"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, object], field: str) -> None:
    """Each wrong option is an InvalidInput that names it."""
    with pytest.raises(InvalidInput) as caught:
        fit(LAW, three_runs(), **options)  # type: ignore[arg-type]
    assert caught.value.fields["field"] == field


def test_an_unknown_law_is_refused() -> None:
    """The error lists the known ones."""
    with pytest.raises(InvalidInput, match="lr_annealing"):
        fit("tea_leaves", three_runs())


def test_no_usable_run_is_an_error_with_a_reason() -> None:
    """Nothing to fit, and why."""
    with pytest.raises(UnusableData, match="no points behind the skipped steps"):
        fit(LAW, three_runs(), skip_steps=10**6)
    with pytest.raises(UnusableData, match="no run is left"):
        fit(LAW, [])


def test_mixed_kinds_of_parameter_counts_are_refused() -> None:
    """Total and non-embedding counts do not enter one fit."""
    runs = three_runs()
    mixed = [
        dataclasses.replace(run, n_params=1e7, n_params_kind=kind)
        for run, kind in zip(runs, ["total", "total", "non_embedding"], strict=True)
    ]
    with pytest.raises(InvalidInput, match="non_embedding and total"):
        fit(LAW, mixed)


def test_a_run_may_not_be_fitted_twice() -> None:
    """The same run id twice in one fit is a mistake of the caller."""
    with pytest.raises(InvalidInput, match="stands in it 2 times"):
        fit(LAW, [*three_runs(), three_runs()[0]])


def test_an_expression_without_a_value_is_an_error() -> None:
    """The logarithm of a negative number ends the fit with words, not with NaN."""
    with pytest.raises((FitFailed, InvalidExpression)):
        fit(LAW, three_runs(), expr={"A": "log(-1 - alpha)"}, bootstrap=2)


def test_progress_only_rises() -> None:
    """Reports go from 0 to 1 and say what is done."""
    said: list[tuple[float, str]] = []
    fit(LAW, three_runs(), bootstrap=120, progress=lambda fraction, words: said.append((fraction, words)))
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] <= 1
    assert any("resample 100 of 120" in words for _, words in said)


def test_corrupted_points_do_not_move_a_fit_far() -> None:
    """One point in fifty ten percent off changes the floor by under one percent: the loss is Huber's."""
    runs = three_runs()
    spoiled = []
    for run in runs:
        loss = run.loss_nats.copy()
        loss[::50] *= 1.1
        spoiled.append(dataclasses.replace(run, loss_nats=loss))
    clean, dirty = (fit(LAW, each, bootstrap=0).parameters["L0"].value for each in (runs, spoiled))
    assert clean is not None
    assert dirty == pytest.approx(clean, rel=0.01)


def test_the_data_hash_follows_the_data_and_not_their_order() -> None:
    """Provenance names the data: another point is another hash, another order is not."""
    runs = three_runs()
    hashes = {fit(LAW, each, bootstrap=0).provenance["data_sha256"] for each in (runs, runs[::-1])}
    assert len(hashes) == 1
    moved = [dataclasses.replace(runs[0], loss_nats=runs[0].loss_nats * 1.0001), *runs[1:]]
    assert fit(LAW, moved, bootstrap=0).provenance["data_sha256"] not in hashes


def test_a_curve_refuses_what_is_no_curve() -> None:
    """Unequal columns, steps that do not increase, losses that are not above 0."""
    schedule = three_runs()[0].schedule
    one, two = np.array([1]), np.array([1, 2])
    for step, loss in [
        (two, np.ones(1)),
        (two[::-1], np.ones(2)),
        (one, -np.ones(1)),
        (one, np.array([np.nan])),
    ]:
        with pytest.raises(InvalidInput):
            Curve("x", step, loss, schedule)


def as_branches(n_branches: int) -> list[Curve]:
    """A constant trunk and branches of it, each with the trunk's points before its own."""
    trunk = curve("trunk", CONSTANT)
    early = trunk.step <= 6_000
    branches = []
    for number in range(n_branches):
        spec = WSD | {"decay_start": 6_000, "total_steps": 7_000 + 250 * number}
        own = curve(f"branch-{number}", spec, seed=number + 1)
        late = own.step > 6_000
        step = np.append(trunk.step[early], own.step[late])
        loss = np.append(trunk.loss_nats[early], own.loss_nats[late])
        branches.append(dataclasses.replace(own, step=step, loss_nats=loss))
    return [trunk, *branches]


def test_the_points_of_a_trunk_count_once() -> None:
    """Nine curves that share a trunk hold its points once."""
    runs = as_branches(8)
    fitted = fit(LAW, runs, bootstrap=0)
    own = sum(int((run.step > 6_000).sum()) for run in runs[1:])
    assert fitted.diagnostics["n_points"] == runs[0].n_points + own
    assert fitted.diagnostics["n_runs"] == 9


def test_the_points_of_a_branch_of_a_branch_count_once() -> None:
    """What the second branch has from the first one is neither fitted twice nor scored as unseen."""
    trunk, first = as_branches(1)
    trunk = dataclasses.replace(trunk, run_id="a-trunk")  # it comes first, and the branch loses its part
    early = first.step <= 6_500
    later = curve("later", WSD | {"decay_start": 6_000, "total_steps": 8_000}, seed=9).from_step(6_501)
    step = np.append(first.step[early], later.step)
    loss = np.append(first.loss_nats[early], later.loss_nats)
    second = dataclasses.replace(later, run_id="branch-of-branch-0", step=step, loss_nats=loss)
    runs = [trunk, first, second]
    points = {(s, x) for run in runs for s, x in zip(run.step, run.loss_nats, strict=True)}
    assert fit(LAW, runs, bootstrap=0).diagnostics["n_points"] == len(points)
    held = fit(LAW, runs, bootstrap=0, holdout={"run_ids": [second.run_id]}).holdout
    assert held is not None
    assert held["runs"][second.run_id]["unseen_points"] == later.n_points


def test_a_held_out_branch_is_scored_on_its_own_points() -> None:
    """The trunk was fitted: it says nothing of how well the branch is predicted."""
    runs = as_branches(4)
    held = fit(LAW, runs, bootstrap=20, holdout={"run_ids": ["branch-3"]}).holdout
    assert held is not None
    law = fit(LAW, runs[:-1], bootstrap=0)
    late = runs[-1].from_step(6_001)
    predicted = law.predict(schedule=late.schedule, steps=late.step).value
    scores = held["runs"]["branch-3"]
    assert scores["unseen_mae"] == pytest.approx(np.abs(predicted - late.loss_nats).mean(), rel=1e-6)
    assert scores["unseen_points"] == late.n_points


def test_a_blown_up_run_is_named_and_the_fit_is_not_sound() -> None:
    """A run that jumps to a loss of eight is far from the law: weak, by name."""
    runs = [*three_runs(), curve("blown", LINEAR, seed=5)]
    loss = runs[-1].loss_nats.copy()
    loss[loss.size // 2 :] = 8.0
    spoiled = fit(LAW, [*runs[:-1], dataclasses.replace(runs[-1], loss_nats=loss)], bootstrap=40)
    assert spoiled.verdict == "weak"
    assert any("'blown'" in reason for reason in spoiled.reasons)


def test_losses_that_are_no_nats_are_left_out_without_a_flood_of_warnings() -> None:
    """Values from 1e-300 to 1e300 are named and left out."""
    runs = three_runs()
    wild = dataclasses.replace(
        runs[0], run_id="wild", loss_nats=np.geomspace(1e-300, 1e300, runs[0].n_points)
    )
    assert fit(LAW, [*runs, wild], bootstrap=0).left_out[0]["run_id"] == "wild"
    with pytest.raises(UnusableData, match="no nats per token"):
        fit(LAW, [wild])


def test_jitter_of_a_logged_rate_is_no_annealing() -> None:
    """A constant rate that is logged with a jitter of 1e-4, or a jump upwards, leaves C unidentified."""
    flat = curve("flat", CONSTANT)
    jitter = 1 + 1e-4 * np.sin(flat.step)
    for declared, logged in ((None, 1e-3 * jitter), (flat.schedule, np.full(flat.n_points, 2e-3))):
        schedule, _ = from_log(np.append(1, flat.step), np.append(logged[0], logged), declared)
        alone = fit(LAW, [dataclasses.replace(flat, schedule=schedule)], bootstrap=0)
        assert alone.verdict == "unidentified"


def test_extrapolation_in_size_is_stated_and_widens() -> None:
    """A thousand times the largest fitted size is said, and has a wider interval."""
    law = LAWS[LAW]
    theta = np.array([[2.0, 0.5, 0.48, 0.6, 0.997, 40.0, 0.3]])
    runs = []
    for number, size in enumerate((2e7, 6e7, 2e8)):
        for spec in (CONSTANT, COSINE, WSD):
            noisy = curve(f"{spec['kind']}-{size:g}", spec, n_params=size, seed=number)
            exact = law.predict(theta, law.prepare([noisy]))[0]
            runs.append(dataclasses.replace(noisy, loss_nats=exact * (1 + 1e-3 * np.sin(noisy.step))))
    sized = fit(LAW, runs, bootstrap=200, profile=False)
    near, far = (sized.predict(schedule=WSD, n_params=size, steps=[10_000]) for size in (2e8, 2e11))
    assert not near.extrapolation["is_extrapolation"]
    assert far.extrapolation["n_params_factor"] == pytest.approx(1000)
    assert any("times outside the fitted sizes" in words for words in far.extrapolation["warnings"])
    assert np.log(far.upper / far.lower)[0] > 4 * np.log(near.upper / near.lower)[0]


def test_a_size_without_effect_is_said(found: Fit) -> None:
    """Runs that state no size: a prediction for a size is one for any, with a warning."""
    said = found.predict(schedule=WSD, n_params=7e9).extrapolation["warnings"]
    assert any("has no effect" in words for words in said)


def test_steps_before_the_first_point_are_extrapolation(found: Fit) -> None:
    """Step 1 lies hundreds of times before the data: flagged, and wide."""
    early = found.predict(schedule=WSD | {"warmup_steps": 0}, steps=[1, 5_000])
    assert early.extrapolation["is_extrapolation"]
    assert early.extrapolation["before_first_point"]
    widths = np.log(early.upper / early.lower)
    assert widths[0] > 5 * widths[1]


def test_an_expression_outside_the_laws_bounds_ends_the_fit() -> None:
    """lambda = 2 + A is no decay factor; it is not moved inside in silence."""
    with pytest.raises(FitFailed, match="outside the law's"):
        fit(LAW, three_runs(), expr={"lambda": "2 + A"}, bootstrap=0)


def test_a_law_that_is_given_whole_is_scored_and_predicts() -> None:
    """All parameters fixed: nothing is fitted, nothing is unidentified."""
    values = {name: TRUTH[name] for name in ("L0", "A", "alpha", "C", "lambda")}
    given = fit(LAW, three_runs(), fix=values, bootstrap=40)
    assert given.verdict == "sound", given.reasons
    assert given.metrics["mean"]["mae"] < 5e-3


def test_without_resamples_there_are_no_intervals_and_it_is_said() -> None:
    """No parameter has an interval and no fit is sound; a prediction has the discrepancy's, or none is given."""
    none = fit(LAW, three_runs(), bootstrap=0)
    assert all(one.interval is None for one in none.parameters.values())
    assert none.verdict == "weak"
    assert none.reasons.count("no resamples were asked for: there are no intervals") == 1
    assert any("no resamples" in words for words in none.predict(schedule=LINEAR).extrapolation["warnings"])
    with pytest.raises(Unidentified, match="no interval"):
        fit(LAW, three_runs()[:2], bootstrap=0).predict(schedule=LINEAR)


def test_a_few_resamples_are_too_few() -> None:
    """Two resamples have no 90 percent interval worth the name."""
    assert fit(LAW, three_runs(), bootstrap=2).verdict == "weak"


def test_counts_without_a_kind_do_not_mix_with_others() -> None:
    """A count that does not say what it counts is not taken for a total."""
    runs = three_runs()
    mixed = [
        dataclasses.replace(run, n_params=1e7, n_params_kind=kind)
        for run, kind in zip(runs, ["total", "total", None], strict=True)
    ]
    with pytest.raises(InvalidInput, match="no stated kind"):
        fit(LAW, mixed)


def test_options_that_belong_to_reading_must_agree_with_the_curves() -> None:
    """A target or a kind of count that the curves were not read with is refused, not recorded."""
    with pytest.raises(InvalidInput, match="the curves hold loss"):
        fit(LAW, three_runs(), target="val_loss")
    with pytest.raises(InvalidInput, match="not read with 'total'"):
        fit(LAW, three_runs(), n_params_kind="total")


def test_a_run_of_a_million_points_is_thinned_and_it_is_said() -> None:
    """Such a run is fitted as means of neighbours, to the same law, in seconds."""
    long = CONSTANT | {"total_steps": 1_000_500}
    step = np.arange(501, 1_000_501)
    blank = curve("long", long, noise=0)
    law = LAWS[LAW]
    theta = np.array([[TRUTH[parameter.name] for parameter in law.parameters]])
    exact = law.predict(theta, law.prepare([PlannedRun(step, blank.schedule)]))[0]
    runs = [*three_runs()[1:], Curve("long", step, exact, blank.schedule)]
    fitted = fit(LAW, runs, bootstrap=4)
    assert fitted.diagnostics["n_points"] < 6_000
    assert any("its 1,000,000 points were fitted as" in reason for reason in fitted.reasons)
    assert fitted.parameters["alpha"].value == pytest.approx(TRUTH["alpha"], rel=0.02)


def test_an_interval_holds_its_own_estimate_where_few_runs_are_drawn() -> None:
    """Three curves drawn whole may all move a parameter one way: its interval still begins at the estimate."""
    found = fit("lr_annealing", three_runs(), bootstrap=50, resample="runs", profile=False)
    for one in found.parameters.values():
        if one.interval is not None and one.value is not None:
            assert one.interval[0] <= one.value <= one.interval[1]

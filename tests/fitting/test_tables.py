"""The engine on tables of finished runs: what comes out, what is said about it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting import Fit, fit
from isoloss.laws import LAWS
from isoloss.observations import RunTable
from tests.fitting.synthetic import LINEAR, three_runs
from tests.fitting.synthetic_tables import SIZES, TOKENS, TRUTHS, exact_losses, table

every_table_law = pytest.mark.parametrize("name", sorted(TRUTHS))


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit("chinchilla", table(), bootstrap=200, seed=1)


@every_table_law
def test_noiseless_runs_and_their_repetitions_give_the_truth_to_the_last_digits(name: str) -> None:
    """Parameters, predictions a hundred times beyond the data, and intervals without any width."""
    exact = table(name, noise=0.0, seeds=2)
    read = {column: exact.columns[column] for column in LAWS[name].columns}  # type: ignore[attr-defined]
    every = {"gate": {"duplicates": False}}  # without noise a repetition is its run, number by number
    fitted = fit(name, dataclasses.replace(exact, columns=read), bootstrap=40, **every)
    for parameter, truth in TRUTHS[name].items():
        assert fitted.parameters[parameter].value == pytest.approx(truth, rel=1e-6)
    far = {"n_params": np.array([1e11]), "n_tokens": np.array([1e13])}
    asked: dict[str, Any] = {column: far[column] for column in LAWS[name].columns}  # type: ignore[attr-defined]
    said = fitted.predict(**asked, interval="new_run")
    truths = exact_losses(name, far["n_params"], far["n_tokens"])
    for value in (said.value, said.lower, said.upper):
        np.testing.assert_allclose(value, truths, rtol=1e-6)
    assert fitted.spread.run_noise == pytest.approx(0.0, abs=1e-9)
    assert fitted.verdict == "sound", fitted.reasons


@every_table_law
def test_noisy_runs_give_the_truth_within_their_errors(name: str) -> None:
    """Every parameter lies within four standard errors of the truth, inside an interval of its own."""
    fitted = fit(name, table(name), bootstrap=100)
    for parameter, truth in TRUTHS[name].items():
        one = fitted.parameters[parameter]
        assert one.value is not None
        assert one.std_error is not None
        assert one.interval is not None
        assert abs(one.value - truth) < 4 * one.std_error
        assert one.interval[0] < one.value < one.interval[1]
    assert fitted.verdict != "unidentified"


def test_runs_with_little_noise_are_sound(found: Fit) -> None:
    """Two decades of sizes and tokens with two parts in a thousand of noise determine the law."""
    assert found.verdict == "sound", found.reasons


def test_the_mean_scores_of_a_table_are_those_of_its_rows_together() -> None:
    """Fitted, predicted from smaller ones or held out as asked: RMSE and R2 are of all rows, as is the MAE."""
    observed = table()
    for options in ({}, {"holdout": {"fraction": 0.25}}):
        fitted = fit("chinchilla", observed, bootstrap=20, profile=False, **options)
        assert fitted.holdout is not None
        for scores in (fitted.metrics, fitted.holdout):
            rows = [observed.run_ids.index(name) for name in scores["runs"]]
            columns = {name: values[rows] for name, values in observed.columns.items()}
            worst = [run["max_relative_error"] for run in scores["runs"].values()]
            mean = scores["mean"]
            assert mean["max_relative_error"] == pytest.approx(np.mean(worst))
            assert mean["mae"] < mean["rmse"] < max(run["rmse"] for run in scores["runs"].values())
            if scores is fitted.metrics or options:
                error = fitted.predict(**columns).value - observed.outcome[rows]
                assert mean["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
                assert mean["r2"] == pytest.approx(1 - np.mean(error**2) / np.var(observed.outcome[rows]))


def test_a_size_that_does_not_vary_leaves_its_term_out() -> None:
    """Runs of one size: A, alpha and E are not determined, with the reason, and no value is given."""
    whole = table()
    one_size = whole.only(np.flatnonzero(whole.columns["n_params"] == SIZES[2]))
    fitted = fit("chinchilla", one_size, bootstrap=10)
    assert fitted.verdict == "unidentified"
    assert fitted.parameters["alpha"].value is None
    assert any("all runs have one model size" in reason for reason in fitted.reasons)


@pytest.mark.parametrize(("law", "n_free"), [("chinchilla", 5), ("power_law", 3)])
def test_few_runs_determine_no_law_and_some_more_are_never_sound(law: str, n_free: int) -> None:
    """Two configurations beyond the free parameters give an answer, twice as many one without that doubt."""
    random = np.random.default_rng(1)
    size, tokens = 10 ** random.uniform(7, 9, 12), 10 ** random.uniform(9, 11, 12)
    columns = {"n_params": size, "n_tokens": tokens} if law == "chinchilla" else {"n_tokens": tokens}
    whole = RunTable(tuple("abcdefghijkl"), columns, exact_losses(law, size, tokens))
    few, some, enough = (
        fit(law, whole.only(range(count)), bootstrap=20, profile=False)
        for count in (n_free + 1, n_free + 2, 2 * n_free)
    )
    assert few.verdict == "unidentified"
    words = f"{n_free + 1} runs for {n_free} parameters, at least {n_free + 2} are needed"
    assert any(words in reason for reason in few.reasons)
    lone = fit(law, whole.only([0]), bootstrap=1)
    assert any(f"1 run for {n_free} parameters, at least {n_free + 2}" in reason for reason in lone.reasons)
    assert any("1 resample is too few" in reason for reason in lone.reasons)
    assert not any("schedule" in reason for reason in lone.reasons)
    assert some.verdict == "weak"
    words = f"narrow intervals are so by chance; add runs until there are {n_free + 8}"
    assert any(words in reason for reason in some.reasons)
    assert not any("narrow intervals" in reason for reason in enough.reasons)


@pytest.mark.parametrize(("scale", "sound"), [(1e-4, True), (2e-3, False)])
def test_few_runs_are_sound_only_where_their_intervals_are_narrow_without_luck(
    scale: float, sound: bool
) -> None:
    """Five configurations to spare show the noise to a third: by luck it looks small, and that is no verdict."""
    random = np.random.default_rng(2)
    tokens = 10 ** np.linspace(9, 11, 8)
    verdicts = []
    for _ in range(10):
        losses = (1.8 + 900 * tokens**-0.31) * np.exp(scale * random.standard_normal(8))
        runs = RunTable(tuple("abcdefgh"), {"n_tokens": tokens}, losses)
        verdicts.append(fit("power_law", runs, bootstrap=100, profile=False).verdict)
    assert verdicts == ["sound" if sound else "weak"] * 10


def test_a_question_that_names_two_sizes_is_refused(found: Fit) -> None:
    """A column by name and in the configuration must agree; the same value twice is one value."""
    asked: dict[str, Any] = {"n_params": 1e9, "n_tokens": [1e10]}
    said = found.predict(**asked, config={"n_params": [1e9], "n_tokens": 1e10})
    assert said.value == found.predict(**asked).value
    for name in asked:
        with pytest.raises(InvalidInput, match=f"{name}: differs from config.{name}"):
            found.predict(**asked, config={name: 1e12})


def test_what_follows_from_a_law_that_is_not_determined_is_null(found: Fit) -> None:
    """Of a law that misses its own runs, whose exponents have values all the same, no optimum of compute comes."""
    fitted = fit("chinchilla", table(), bootstrap=10, fix={"E": 6.0})
    assert fitted.verdict == "unidentified"
    assert not fitted.missing
    assert [one.name for one in fitted.derived] == [one.name for one in found.derived] != []
    assert all(one.value is None and one.interval is None for one in fitted.derived)
    assert all(one.value is not None for one in found.derived)


def test_the_largest_tenth_is_predicted_by_default(found: Fit) -> None:
    """Without being asked, the score on the largest runs from the smaller ones is part of the result."""
    assert found.holdout is not None
    assert found.holdout["predicted"] == "the largest tenth of the runs"
    scale = table().columns["n_params"] * table().columns["n_tokens"]
    largest = {
        name for name, one in zip(table().run_ids, scale, strict=True) if one > np.quantile(scale, 0.95)
    }
    assert largest <= set(found.holdout["runs"])
    assert 0 < found.holdout["score"] < 0.02


def test_runs_that_are_named_are_scored_and_not_fitted() -> None:
    """The others alone are fitted; of the named ones the usual run is inside its interval, the spoiled one not."""
    whole = table()
    spoiled = dataclasses.replace(whole, outcome=whole.outcome * np.where(np.arange(36) == 3, 1.1, 1.0))
    held = fit("chinchilla", spoiled, bootstrap=50, holdout={"run_ids": ["run-003", "run-035"]})
    alone = fit("chinchilla", whole.only([row for row in range(36) if row not in (3, 35)]), bootstrap=0)
    np.testing.assert_array_equal(held.theta, alone.theta)
    assert held.holdout is not None
    assert list(held.holdout["runs"]) == ["run-003", "run-035"]
    for row, inside in ((3, 0.0), (35, 1.0)):
        asked: dict[str, Any] = {column: values[[row]] for column, values in whole.columns.items()}
        scores = held.holdout["runs"][f"run-{row:03}"]
        error = abs(held.predict(**asked).value[0] - spoiled.outcome[row])
        assert scores["mae"] == pytest.approx(error, rel=1e-9)
        assert scores["coverage"] == inside


def test_how_the_fitted_runs_predict_each_other_is_kept_beside_a_holdout() -> None:
    """Under `training`, the same as for a fit of those runs alone."""
    whole = table()
    held = fit("chinchilla", whole, bootstrap=0, holdout={"run_ids": ["run-003", "run-035"]}).holdout
    alone = fit("chinchilla", whole.only([row for row in range(36) if row not in (3, 35)]), bootstrap=0)
    assert held is not None
    assert held["training"] == alone.holdout


@every_table_law
def test_a_fraction_holds_out_the_largest_runs(name: str) -> None:
    """By training compute for every law, so that all are tried on the same runs."""
    whole = table(name)
    held = fit(name, whole, bootstrap=0, holdout={"fraction": 0.25}).holdout
    assert held is not None
    inside = np.array([run_id in held["runs"] for run_id in whole.run_ids])
    scale = whole.columns["n_tokens"] * whole.columns["n_params"]
    assert inside.sum() == 9
    assert scale[inside].min() >= scale[~inside].max() * (1 - 1e-9)


def test_repetitions_of_a_configuration_are_resampled_together() -> None:
    """Two seeds of each configuration share their weights, and the statement says so."""
    twice = fit("chinchilla", table(seeds=2), bootstrap=20)
    resampling = twice.diagnostics["resampling"]
    assert resampling["unit"] == "configurations"
    assert "configurations with all their runs were resampled (36)" in resampling["statement"]
    assert fit("chinchilla", table(), bootstrap=20).diagnostics["resampling"]["unit"] == "runs"


def test_a_new_run_lies_farther_off_than_the_mean_and_inside_its_interval() -> None:
    """Nine in ten fresh runs of the same noise lie inside, about; the interval of the mean is narrower."""
    noise, held, wider = 5e-3, [], []
    for seed in range(8):
        fitted = fit("chinchilla", table(noise=noise, seed=seed), bootstrap=100, profile=False)
        asked: dict[str, Any] = dict(table().columns)
        new, mean = (fitted.predict(**asked, interval=kind) for kind in ("new_run", "mean"))
        fresh = table(noise=noise, seed=seed + 1_000).outcome
        held.append(np.mean((new.lower <= fresh) & (fresh <= new.upper)))
        wider.append(np.all((new.lower < mean.lower) & (mean.upper < new.upper)))
    assert 0.8 < np.mean(held) < 0.99
    assert all(wider)


def test_repetitions_show_how_one_run_differs_from_the_next() -> None:
    """The noise between seeds of one configuration is measured where there are some."""
    twice = fit("chinchilla", table(noise=5e-3, seeds=2), bootstrap=0)
    assert twice.spread.run_noise == pytest.approx(5e-3, rel=0.25)
    assert fit("chinchilla", table(noise=5e-3), bootstrap=0).spread.run_noise is None


def test_arrays_are_predicted_as_their_elements_are(found: Fit) -> None:
    """A column of sizes and one number of tokens give a prediction for each size, the same as one by one."""
    sizes = [1e8, 1e9, 1e10]
    together = found.predict(n_params=sizes, n_tokens=1e10)
    alone = [found.predict(config={"n_params": size, "n_tokens": 1e10}) for size in sizes]
    assert together.steps is None
    for column in ("value", "lower", "upper"):
        np.testing.assert_allclose(
            getattr(together, column), [getattr(one, column)[0] for one in alone], rtol=1e-12
        )
    assert np.all(np.diff(together.value) < 0)


def test_how_far_a_prediction_reaches_is_said_and_widens_it(found: Fit) -> None:
    """A size ten times the largest is a factor of ten in numbers and words; inside the range nothing is said."""
    inside = found.predict(n_params=1e8, n_tokens=1e10)
    far = found.predict(n_params=1e10, n_tokens=1e11)
    assert not inside.extrapolation["is_extrapolation"]
    assert inside.extrapolation["warnings"] == []
    assert far.extrapolation["is_extrapolation"]
    assert far.extrapolation["n_params_factor"] == pytest.approx(10)
    assert far.extrapolation["n_tokens_factor"] == pytest.approx(1)
    assert any("n_params is 10 times outside" in words for words in far.extrapolation["warnings"])
    assert np.log(far.upper / far.lower)[0] > 1.5 * np.log(inside.upper / inside.lower)[0]


def test_a_mean_far_beyond_the_data_lies_inside_its_interval() -> None:
    """Ten times the compute of the largest run: the truth is inside in most of ten studies."""
    n_params, n_tokens = np.array([3e9]), np.array([3e11])
    truth = exact_losses("chinchilla", n_params, n_tokens)[0]
    held = []
    for seed in range(10):
        fitted = fit("chinchilla", table(seed=seed), bootstrap=100, profile=False)
        said = fitted.predict(n_params=n_params, n_tokens=n_tokens)
        held.append(said.lower[0] <= truth <= said.upper[0])
    assert np.mean(held) >= 0.7


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"n_params": 1e8}, "config.n_tokens"),
        ({"n_tokens": 1e8}, "config.n_params"),
        ({"n_params": 1e8, "n_tokens": -1.0}, "config.n_tokens"),
        ({"n_params": 1e8, "n_tokens": float("nan")}, "config.n_tokens"),
        ({"n_params": 1e8, "n_tokens": 1e9, "steps": [1]}, "steps"),
        ({"n_params": [1e8, 1e9], "n_tokens": [1e9, 1e10, 1e11]}, "config"),
        ({"config": {"n_params": "small", "n_tokens": 1e9}}, "config.n_params"),
        ({"config": {"n_params": [[1e8]], "n_tokens": 1e9}}, "config.n_params"),
        ({"config": {"n_params": 1e8, "n_params_kind": "active", "n_tokens": 1e9}}, "config.n_params_kind"),
    ],
)
def test_a_question_that_means_nothing_is_refused(found: Fit, asked: dict[str, Any], field: str) -> None:
    """What lacks, what is no number, what the law does not know, and counts of another kind are named."""
    with pytest.raises(InvalidInput) as caught:
        found.predict(**asked)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize("name", ["n_params", "n_params_total"])
def test_sizes_in_a_configuration_may_be_an_array_as_tokens_may(found: Fit, name: str) -> None:
    """The same question in `config` and by name has the same answer."""
    sizes = np.array([1e8, 1e9])
    named = found.predict(n_params=sizes, n_tokens=1e10).value
    np.testing.assert_array_equal(found.predict(config={name: sizes, "n_tokens": 1e10}).value, named)


@pytest.mark.parametrize("asked", [{"n_params": np.array([1e8, 1e9])}, {"config": {"n_params": [1e8, 1e9]}}])
def test_a_curve_has_one_size(asked: dict[str, Any]) -> None:
    """Several sizes for one schedule are refused by the name of the field, wherever they stand."""
    curves = fit("lr_annealing", three_runs(), bootstrap=0)
    with pytest.raises(InvalidInput) as caught:
        curves.predict(schedule=LINEAR, **asked)
    assert caught.value.fields["field"] == "config.n_params"


def specification(run_id: str, **config: Any) -> dict[str, Any]:
    return {"run_id": run_id, "config": config, "summary": {"final_loss": 3.0}}


def test_runs_that_count_in_several_kinds_are_refused() -> None:
    """Total and active parameters do not enter one table, unless one kind is asked for that all runs have."""
    counts = {"n_params_total": 1e8, "n_params_active": 1e7, "n_tokens": 1e9}
    mixed = [
        specification("a", n_params_kind="total", **counts),
        specification("b", n_params_kind="active", **counts),
    ]
    with pytest.raises(InvalidInput, match="active and total"):
        RunTable.from_runs(mixed)
    active = RunTable.from_runs(mixed, n_params_kind="active")
    assert active.columns["n_params"].tolist() == [1e7, 1e7]
    with pytest.raises(InvalidInput) as caught:
        fit("chinchilla", active, n_params_kind="total")
    assert caught.value.fields["field"] == "n_params_kind"


def test_what_lacks_in_a_row_is_said_by_name() -> None:
    """A run without tokens, one without a loss and one without either name what they lack."""
    whole = table()
    tokens, loss = whole.columns["n_tokens"].copy(), whole.outcome.copy()
    tokens[3], loss[5] = np.nan, np.nan
    spoiled = dataclasses.replace(whole, columns={**whole.columns, "n_tokens": tokens}, outcome=loss)
    said = {one["run_id"]: one["reason"] for one in fit("chinchilla", spoiled, bootstrap=0).left_out}
    assert said == {
        "run-003": "it has no config.n_tokens",
        "run-005": "it has no summary.final_loss",
    }
    nothing = dataclasses.replace(whole, columns={"n_params": whole.columns["n_params"]})
    with pytest.raises(UnusableData, match=r"it has no config\.n_tokens"):
        fit("chinchilla", nothing)


def test_a_column_that_the_law_does_not_read_may_lack() -> None:
    """power_law needs no sizes."""
    whole = table("power_law")
    tokens = dataclasses.replace(whole, columns={"n_tokens": whole.columns["n_tokens"]})
    one, other = (fit("power_law", each, bootstrap=0) for each in (whole, tokens))
    np.testing.assert_array_equal(one.theta, other.theta)


def test_the_order_of_the_rows_does_not_matter(found: Fit) -> None:
    """The same table backwards gives the same document."""
    backwards = fit("chinchilla", table().only(range(35, -1, -1)), bootstrap=200, seed=1)
    assert backwards.as_document() == found.as_document()


def test_a_fit_of_a_table_survives_its_document(found: Fit) -> None:
    """What is read back from JSON predicts the same numbers and shows the same."""
    read = Fit.from_document(json.loads(json.dumps(found.as_document(), allow_nan=False)))
    asked: dict[str, Any] = {"n_params": [1e8, 1e12], "n_tokens": TOKENS[-1], "interval": "new_run"}
    assert read.predict(**asked).as_dict() == found.predict(**asked).as_dict()
    assert read.public() == found.public()


def test_a_law_of_tables_does_not_take_curves_nor_the_other_way_round() -> None:
    """The refusal says what to read instead."""
    with pytest.raises(InvalidInput, match="read_runs"):
        fit("chinchilla", [])
    with pytest.raises(InvalidInput, match="read_curves"):
        fit("lr_annealing", table())


def test_a_fit_under_a_bound_is_no_worse_than_one_at_the_bound() -> None:
    """A floor of at most 1.7 may be 1.7: the objective is no higher than with the floor held there."""
    bound = fit("power_law", table("power_law"), bootstrap=0, bounds={"E": (None, 1.7)})
    held = fit("power_law", table("power_law"), bootstrap=0, fix={"E": 1.7})
    assert bound.objective <= held.objective * (1 + 1e-6)


def test_bounds_that_exclude_the_data_leave_no_law() -> None:
    """A floor far above every loss is no fit to trust, and the reason says how far off it is."""
    found = fit("chinchilla", table(), bootstrap=20, bounds={"E": (5.0, 6.0)})
    assert found.verdict == "unidentified"
    assert any("misses the runs that it was fitted to" in reason for reason in found.reasons)


def test_two_model_sizes_do_not_make_an_exponent() -> None:
    """One difference does not tell a coefficient from an exponent: neither they nor the floor have a number."""
    whole = table()
    two = whole.only(np.flatnonzero(np.isin(whole.columns["n_params"], SIZES[[0, 5]])))
    found = fit("chinchilla", two, bootstrap=20)
    assert found.verdict == "unidentified"
    assert {name for name, one in found.parameters.items() if one.value is None} == {"E", "A", "alpha"}


def test_a_run_of_a_table_has_no_blocks() -> None:
    """One point cannot be cut in parts: resampling blocks would give intervals of no width."""
    with pytest.raises(InvalidInput, match="blocks are parts of curves"):
        fit("chinchilla", table(), resample="blocks")


def test_many_runs_far_from_the_law_are_counted() -> None:
    """A few are named, the others counted: a list of hundreds says nothing."""
    whole = table()
    outcome = whole.outcome * np.where(np.arange(whole.n_runs) % 3 == 0, 1.6, 1.0)
    found = fit("chinchilla", dataclasses.replace(whole, outcome=outcome), bootstrap=0)
    assert sum("lies far from the law" in reason for reason in found.reasons) == 5
    assert any(reason.startswith("other runs far from the law: ") for reason in found.reasons)


def test_a_fitted_row_under_another_name_is_not_scored_as_held_out() -> None:
    """Its numbers were fitted: what it would show is not prediction."""
    whole = table()
    names = (*whole.run_ids, "twin", "new")
    columns = {
        name: np.append(values, [values[7], values[3] * 1.1]) for name, values in whole.columns.items()
    }
    more = RunTable(names, columns, np.append(whole.outcome, [whole.outcome[7], 2.9]), n_params_kind="total")
    asked: dict[str, Any] = {"holdout": {"run_ids": ["twin", "new"]}, "gate": {"duplicates": False}}
    found = fit("chinchilla", more, bootstrap=10, profile=False, **asked)
    assert found.holdout is not None
    assert list(found.holdout["runs"]) == ["new"]
    assert found.left_out == [
        {"run_id": "twin", "reason": "held out, not scored: its numbers are those of run 'run-007'"}
    ]

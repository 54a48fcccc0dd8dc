"""Which law: the true one where the data tell, an average of equals where they do not, and what is said."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.fitting import AUTO, Comparison, Fit, compare, fit
from isoloss.fitting.selection import TIE
from isoloss.laws import LAWS, CurveLaw
from isoloss.observations import Curve
from tests.contract.test_laws import noisy
from tests.fitting.synthetic import LINEAR, WSD, curve, three_runs
from tests.fitting.synthetic_tables import table

every_curve_law = pytest.mark.parametrize(
    "name", sorted(name for name, law in LAWS.items() if isinstance(law, CurveLaw))
)
UNSEEN = WSD | {"decay_start": 4_000}
FAR = LINEAR | {"total_steps": 60_000}


def indistinct() -> list[Curve]:
    """Four runs with so much noise that no law stands out."""
    return [*three_runs(noise=1e-2), curve("linear", LINEAR, noise=1e-2, seed=50)]


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare(indistinct())


@pytest.fixture(scope="module")
def averaged() -> Fit:
    """The choice of a law of four indistinct runs, with a fifth held out."""
    runs = [*indistinct(), curve("unseen", UNSEEN, noise=1e-2, seed=60)]
    return fit(AUTO, runs, bootstrap=20, profile=False, holdout={"run_ids": ["unseen"]})


def members(found: Fit) -> list[tuple[float, Fit]]:
    """The fits that an average is of, each alone with its weight."""
    alone = dataclasses.replace(found, equals=())
    return [(1 - sum(weight for weight, _ in found.equals), alone), *found.equals]


@every_curve_law
def test_the_law_that_made_the_curves_wins(name: str) -> None:
    """With a part in a thousand of noise the truth predicts runs from others best, and by how much is said."""
    found = compare(noisy(name))
    assert found.best == name
    assert found.weights == {name: 1.0}
    if name == "lr_annealing":  # which alone knows the three sizes of its runs
        assert list(found.scores) == [name]
        return
    first, second = list(found.scores.values())[:2]
    assert found.margin == pytest.approx(1 - first / second)
    assert found.margin is not None
    assert found.margin > TIE


def test_the_law_that_wins_is_the_fit() -> None:
    """Where runs differ in size, that of sizes wins: `auto` is its fit, and says what it was chosen for."""
    chosen, own = (fit(name, table(), bootstrap=20) for name in (AUTO, "chinchilla"))
    assert chosen.law_name == "chinchilla"
    assert chosen.equals == ()
    assert chosen.selection is not None
    assert chosen.selection["wins"]
    assert chosen.reasons[0].startswith("chinchilla was chosen: ")
    assert chosen.theta == pytest.approx(own.theta, rel=1e-6)


def test_laws_that_none_beats_share_the_weight(compared: Comparison) -> None:
    """All within the tie weigh by the inverse squares of their scores, best first."""
    scores = list(compared.scores.values())
    assert scores == sorted(scores)
    assert scores[-1] <= scores[0] * (1 + TIE)
    inverse = np.array(scores) ** -2.0
    assert list(compared.weights) == list(compared.fits) == list(compared.scores)
    np.testing.assert_allclose(list(compared.weights.values()), inverse / inverse.sum(), rtol=1e-12)


def test_a_score_is_the_error_over_the_folds_that_all_laws_predicted(compared: Comparison) -> None:
    """The root mean square over the named folds of what each fit alone says of them."""
    assert len(compared.folds) == 4
    for name, found in compared.fits.items():
        assert found.holdout is not None
        errors = {one["predicted"]: one["score"] for one in (found.holdout, *found.holdout["others"])}
        squares = [errors[fold] ** 2 for fold in compared.folds]
        assert compared.scores[name] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-12)


def test_a_law_that_cannot_be_scored_is_named_with_why(compared: Comparison) -> None:
    """Runs without weight decay leave one law out, in words, and the others are compared."""
    assert list(compared.not_compared) == ["effective_lr"]
    assert "states no weight_decay" in compared.not_compared["effective_lr"]


def test_only_the_laws_that_are_named_are_compared() -> None:
    """One alone has no margin; a list without any is refused."""
    alone = compare(indistinct(), ["multi_power"])
    assert (alone.best, alone.weights, alone.margin) == ("multi_power", {"multi_power": 1.0}, None)
    with pytest.raises(InvalidInput, match="at least one law"):
        compare(indistinct(), [])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fix", {"L0": 2.0}),
        ("bounds", {"L0": [1, 3]}),
        ("expr", {"A": "L0"}),
        ("priors", {"L0": [2.0, 0.1]}),
        ("prior_strength", 0.1),
        ("convention", "after_warmup"),
    ],
)
def test_options_of_one_law_are_refused_while_none_is_chosen(option: str, value: object) -> None:
    """They name parameters that another law has not, or means otherwise."""
    with pytest.raises(InvalidInput) as caught:
        fit(AUTO, indistinct(), **{option: value})  # type: ignore[arg-type]
    assert caught.value.fields["field"] == option


def test_no_winner_is_said_with_the_weights(averaged: Fit) -> None:
    """The first reason names the laws and their shares; the result has scores, weights and margin."""
    said = averaged.selection
    assert said is not None
    assert not said["wins"]
    assert 0 <= said["margin"] < TIE
    assert averaged.law_name == said["best"]
    assert averaged.reasons[0].startswith("no law wins")
    assert all(f"{name} {weight:.0%}" in averaged.reasons[0] for name, weight in said["weights"].items())
    assert {fitted.law_name: pytest.approx(weight) for weight, fitted in members(averaged)} == said["weights"]


def test_an_averaged_prediction_is_the_weighted_mean_of_the_logarithms(averaged: Fit) -> None:
    """Every member predicts with its weight."""
    single = [(weight, one.predict(schedule=FAR).value) for weight, one in members(averaged)]
    mean = np.exp(sum(weight * np.log(value) for weight, value in single))
    np.testing.assert_allclose(averaged.predict(schedule=FAR).value, mean, rtol=1e-12)


def test_what_the_members_disagree_by_is_in_the_interval(averaged: Fit) -> None:
    """Far beyond the data both sides are at least as long as the spread of the members, and as their own."""
    at: dict[str, Any] = {"schedule": FAR, "steps": [60_000]}
    whole = averaged.predict(**at)
    weights, values, below = (
        np.array(column)
        for column in zip(
            *(
                (weight, one.predict(**at).value[0], one.predict(**at).lower[0])
                for weight, one in members(averaged)
            ),
            strict=True,
        )
    )
    apart = weights @ np.log(values / whole.value[0]) ** 2
    own = weights @ np.log(values / below) ** 2
    assert apart > 1e-10
    assert np.log(whole.value / whole.lower)[0] ** 2 == pytest.approx(apart + own, rel=1e-9)


def test_held_out_runs_are_scored_as_the_average_predicts_them(averaged: Fit) -> None:
    """The score is that of the predictions that the result makes, not that of its first member."""
    held = averaged.holdout
    assert held is not None
    unseen = curve("unseen", UNSEEN, noise=1e-2, seed=60)
    asked: dict[str, Any] = {"schedule": unseen.schedule, "steps": unseen.step}
    whole, first = (one.predict(**asked).value for one in (averaged, members(averaged)[0][1]))
    errors = [np.abs(value - unseen.loss_nats).mean() for value in (whole, first)]
    assert errors[0] != pytest.approx(errors[1], rel=1e-4)
    assert held["runs"]["unseen"]["mae"] == pytest.approx(errors[0], rel=1e-9)
    new = averaged.predict(**asked, interval="new_run")
    inside = (new.lower <= unseen.loss_nats) & (unseen.loss_nats <= new.upper)
    assert held["runs"]["unseen"]["coverage"] == pytest.approx(inside.mean())


def test_an_average_survives_its_document(averaged: Fit) -> None:
    """What is read back predicts with all members."""
    read = Fit.from_document(json.loads(json.dumps(averaged.as_document(), allow_nan=False)))
    assert [weight for weight, _ in read.equals] == [weight for weight, _ in averaged.equals]
    assert read.predict(schedule=FAR).as_dict() == averaged.predict(schedule=FAR).as_dict()


def test_laws_of_tables_are_compared_on_the_same_runs() -> None:
    """A fold that has one name for two laws has the same runs for both."""
    found = compare(table("power_law"))
    for fold in found.folds:
        runs = [
            set(one.holdout["runs"])
            for one in found.fits.values()
            if one.holdout is not None and one.holdout["predicted"] == fold
        ]
        assert all(each == runs[0] for each in runs)

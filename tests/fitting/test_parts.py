"""Laws of which every curve, or every recipe, has parameters of its own."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit
from isoloss.observations import RunTable

DATA = Path(__file__).parents[3] / "shared" / "data"
STEPS = np.arange(0.0, 64.0, 4.0)


def sigmoid(compute: Any, start: float = 0.04, end: float = 0.7, middle: float = 18.0) -> Any:
    """Return exact rewards of steepness 2.2."""
    share = np.asarray(compute) ** 2.2
    return start + (end - start) * share / (share + middle**2.2)


def readings(
    reward: Any, compute: Any = STEPS, curve: Sequence[str] | None = None, noise: float = 0.0
) -> RunTable:
    """Readings with these rewards, of one curve unless they are named."""
    compute = np.asarray(compute, dtype=np.float64)
    off = noise * np.random.default_rng(4).standard_normal(compute.size)
    labels = {} if curve is None else {"curve": tuple(curve)}
    names = tuple(f"reading-{number:03}" for number in range(compute.size))
    rewards = np.asarray(reward, dtype=np.float64) + off
    return RunTable(names, {"compute_flops": compute}, rewards, "reward", labels=labels)


def three_curves() -> RunTable:
    """A curve that saturates, one that is far from it, and one of a constant reward."""
    rewards = [sigmoid(STEPS), sigmoid(STEPS, 0.1, 0.9, 150.0), np.full(STEPS.size, 0.3)]
    names = [name for name in ("done", "early", "flat") for _ in STEPS]
    noise = 0.008 * np.random.default_rng(0).standard_normal(3 * STEPS.size) * (np.arange(48) < 32)
    return readings(np.clip(np.concatenate(rewards) + noise, 0, 1), np.tile(STEPS, 3), names)


def runs(
    losses: Any, recipe: Sequence[str | None], compute: Any = 1e19, column: str = "compute_flops"
) -> RunTable:
    """Runs with these losses and recipes, all of one compute unless it is given."""
    loss = np.asarray(losses, dtype=np.float64)
    columns = {column: np.broadcast_to(np.asarray(compute, dtype=np.float64), loss.shape).copy()}
    names = tuple(f"run-{number:03}" for number in range(loss.size))
    return RunTable(names, columns, loss, labels={"recipe": tuple(recipe)})


CROSSING = 3.564e18


def two_recipes(column: str = "compute_flops", noise: float = 5e-4) -> RunTable:
    """Two recipes that cross at `CROSSING`, ten computes each."""
    compute = np.tile(np.geomspace(1e18, 1e20, 10), 2)
    first = np.arange(20) < 10
    loss = np.where(first, 1.7 + 200 * compute**-0.12, 1.74 + 290 * compute**-0.1295)
    loss = loss * np.exp(noise * np.random.default_rng(2).standard_normal(20))
    return runs(loss, ["a"] * 10 + ["b"] * 10, compute, column)


def group_of(found: Fit, label: str, name: str) -> dict[str, Any]:
    return next(group for group in found.groups if group["by"][label] == name)


def values_of(group: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in group["parameters"]}


def derived_of(found: Fit) -> dict[str, Any]:
    return {one.name: one for one in found.derived}


def test_every_curve_has_a_verdict_of_its_own() -> None:
    """A curve that levels off is determined; an early one and a flat one are not, and say why."""
    found = isoloss.fit("rl_compute", three_curves())
    done, early, flat = (group_of(found, "curve", name) for name in ("done", "early", "flat"))
    assert done["verdict"] == "sound", done["reasons"]
    assert values_of(done)["A"] == pytest.approx(0.7, abs=0.03)
    assert early["verdict"] == flat["verdict"] == "unidentified"
    assert "asymptote" in early["reasons"][0]
    assert values_of(early)["A"] is None
    assert "equal" in flat["reasons"][0]
    assert found.verdict == "weak"


def test_several_curves_have_no_parameters_in_common() -> None:
    """The law's own parameters are missing, and a question must name its curve."""
    found = isoloss.fit("rl_compute", three_curves())
    assert found.parameters["A"].value is None
    assert set(found.missing.values()) == {"each curve has its own: see groups"}
    told = found.predict(config={"curve": "done", "compute_flops": [60.0, 600.0]})
    np.testing.assert_allclose(told.value[1], 0.7, atol=0.02)
    assert told.lower[1] < told.value[1] < told.upper[1]
    for asked in ({"compute_flops": 60.0}, {"curve": "other", "compute_flops": 60.0}, {"curve": 3}):
        with pytest.raises(InvalidInput, match=r"config\.curve"):
            found.predict(config=asked)
    for name in ("early", "flat"):
        with pytest.raises(Unidentified):
            found.predict(config={"curve": name, "compute_flops": 60.0})


def test_one_curve_is_the_law_itself() -> None:
    """Its parameters are the fit's, R0 is the reading of no compute, and no curve need be named."""
    found = isoloss.fit("rl_compute", readings(sigmoid(STEPS), noise=0.004))
    assert found.parameters["R0"].value == readings(sigmoid(STEPS), noise=0.004).outcome[0]
    assert found.parameters["C_mid"].interval is not None
    assert found.predict(config={"compute_flops": 18.0}).value == pytest.approx(0.37, abs=0.03)


def test_without_a_first_reading_its_reward_is_fitted() -> None:
    """A curve that begins at some compute gives R0 with an interval too."""
    later = np.arange(2.0, 66.0, 4.0)
    found = isoloss.fit("rl_compute", readings(sigmoid(later), later, noise=0.004))
    interval = found.parameters["R0"].interval
    assert interval is not None
    assert interval[0] <= 0.04 <= interval[1]


def test_the_noisy_part_before_the_rise_is_left_out() -> None:
    """First readings that lie far below the one of no compute are named, and do not bend the curve."""
    dipped = sigmoid(STEPS, 0.3, 0.8, 30.0)
    dipped[1:3] = 0.1
    found = isoloss.fit("rl_compute", readings(dipped, noise=0.002))
    assert [one["run_id"] for one in found.left_out] == ["reading-001", "reading-002"]
    assert found.parameters["A"].value == pytest.approx(0.8, abs=0.05)


def test_the_end_is_predicted_from_the_first_half() -> None:
    """The held-out score is the error of the last reading, curve by curve, in reward."""
    found = isoloss.fit("rl_compute", three_curves())
    assert found.holdout is not None
    ends = found.holdout["ends"]
    assert set(ends) == {"done", "early"}
    off = [one["predicted"] - one["observed"] for one in ends.values()]
    assert found.holdout["score"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
    assert ends["early"]["verdict"] == "unidentified"


@pytest.mark.parametrize("name", ["rl_compute", "recipe_comparison"])
def test_parts_survive_the_document(name: str) -> None:
    """What is stored as JSON predicts the same for every part."""
    table, asked = {
        "rl_compute": (three_curves(), {"curve": "done", "compute_flops": 99.0}),
        "recipe_comparison": (two_recipes(), {"recipe": "b", "compute_flops": 1e21}),
    }[name]
    found = isoloss.fit(name, table)
    again = Fit.from_document(json.loads(json.dumps(found.as_document())))
    here, there = found.predict(config=asked), again.predict(config=asked)
    assert (here.value, here.lower, here.upper) == (there.value, there.lower, there.upper)
    assert repr(again) == repr(found)


def test_whose_a_row_is_belongs_to_the_data() -> None:
    """The same numbers under other recipes are other data: no earlier fit is given back for them."""
    one = two_recipes()
    other = dataclasses.replace(one, labels={"recipe": ("b",) * 10 + ("a",) * 10})
    found = isoloss.fit("recipe_comparison", one)
    assert isoloss.fit("recipe_comparison", one, previous=found) is found
    assert isoloss.fit("recipe_comparison", other, previous=found) is not found


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        (np.full(16, 0.4), "equal"),
        (sigmoid(STEPS)[::-1].copy(), "do not rise"),
        (np.where(STEPS == 0, 0.1, np.nan), "0 different computes"),
        (np.where(STEPS < 12, sigmoid(STEPS), 1.2), "2 different computes"),
    ],
)
def test_rewards_that_determine_nothing_are_unidentified(reward: Any, why: str) -> None:
    """Equal, falling, missing and impossible rewards give a verdict with its reason, and no number."""
    found = isoloss.fit("rl_compute", readings(reward))
    assert found.verdict == "unidentified"
    assert any(why in reason for reason in found.reasons), found.reasons
    assert found.parameters["A"].value is None
    with pytest.raises(Unidentified):
        found.predict(config={"compute_flops": 50.0})


def test_readings_that_cannot_be_used_are_named() -> None:
    """A reading without compute, of negative compute, or with a reward outside 0 to 1 is left out with why."""
    compute, reward = STEPS.copy(), sigmoid(STEPS)
    compute[3], compute[4], reward[5], reward[6] = np.nan, -4.0, 1.5, -0.1
    found = isoloss.fit("rl_compute", readings(reward, compute))
    said = {one["run_id"]: one["reason"] for one in found.left_out}
    assert set(said) == {f"reading-{number:03}" for number in (3, 4, 5, 6)}
    assert "between 0 and 1" in said["reading-005"]


def test_a_table_without_a_usable_reading_is_refused() -> None:
    """No reward at all is no data, two rows of one run and another target are contradictions."""
    with pytest.raises(UnusableData, match="no reading is left"):
        isoloss.fit("rl_compute", readings(np.full(16, np.nan)))
    with pytest.raises(InvalidInput, match="hold loss"):
        isoloss.fit("rl_compute", dataclasses.replace(readings(sigmoid(STEPS)), target="loss"))
    with pytest.raises(InvalidInput, match="16 times"):
        isoloss.fit("rl_compute", dataclasses.replace(readings(sigmoid(STEPS)), run_ids=("same",) * 16))


@pytest.mark.parametrize("name", ["rl_compute", "recipe_comparison"])
def test_a_held_out_choice_is_refused(name: str) -> None:
    """These laws choose what they predict from the rest themselves."""
    table = three_curves() if name == "rl_compute" else two_recipes()
    with pytest.raises(InvalidInput, match="holdout"):
        isoloss.fit(name, table, holdout={"fraction": 0.2})


def test_a_curve_that_begins_at_nothing_predicts_nothing_there() -> None:
    """Where R0 is 0 and the rise is steep, early rewards are 0 and their intervals stay within 0 and 1."""
    reward = np.where(STEPS < 20, 0.0, sigmoid(STEPS, 0.0, 0.7, 24.0))
    found = isoloss.fit("rl_compute", readings(reward))
    told = found.predict(config={"compute_flops": [1e-6, 30.0]}, interval="new_run")
    assert told.value[0] < 1e-6
    assert np.all((told.lower >= 0) & (told.upper <= 1))


def test_one_reading_is_no_curve() -> None:
    """A curve of one point has a verdict and no sigmoid."""
    found = isoloss.fit("rl_compute", readings([0.3], [5.0]))
    assert found.verdict == "unidentified"
    assert found.holdout is None


def test_without_resamples_nothing_has_an_interval() -> None:
    """The estimate is there, weak, and says that no resamples were drawn."""
    found = isoloss.fit("rl_compute", readings(sigmoid(STEPS), noise=0.004), bootstrap=0)
    assert found.verdict == "weak"
    assert found.parameters["C_mid"].interval is None


def test_very_long_curves_are_fitted_as_means_of_neighbours() -> None:
    """Thousands of readings give the curve back without thousands of columns."""
    compute = np.arange(0.0, 6000.0)
    found = isoloss.fit("rl_compute", readings(sigmoid(compute, middle=900.0), compute, noise=0.01))
    assert found.parameters["C_mid"].value == pytest.approx(900.0, rel=0.02)


@pytest.mark.parametrize("column", ["compute_flops", "n_tokens"])
def test_two_recipes_cross_where_their_laws_do(column: str) -> None:
    """The gap at the largest common compute, the crossing and the compute saved, each with an interval."""
    found = isoloss.fit("recipe_comparison", two_recipes(column))
    said = derived_of(found)
    gap, crossing, saved = (said[f"a vs b.{name}"] for name in ("gap", "crossing", "compute_saved"))
    exact = (1.7 + 200 * 1e20**-0.12) - (1.74 + 290 * 1e20**-0.1295)
    assert gap.interval[0] < exact < gap.interval[1]
    assert crossing.interval[0] < CROSSING < crossing.interval[1]
    assert saved.value < 1
    assert said["a vs b.first_leads"].value < 0.05
    far = found.predict(config={"recipe": "b", column: [1e18, 1e21]})
    leads = far.extrapolation["leads"]
    assert leads["a"][0] > 0.9
    assert leads["b"][1] > 0.9
    with pytest.raises(InvalidInput, match=r"config\.recipe"):
        found.predict(config={"recipe": "c", column: 1e20})


def test_recipes_that_do_not_cross_have_no_crossing() -> None:
    """Where one is better throughout, and ten times beyond, there is no number."""
    compute = np.tile(np.geomspace(1e18, 1e20, 10), 2)
    loss = (1.7 + 200 * compute**-0.12) * np.where(np.arange(20) < 10, 1.0, 1.05)
    loss = loss * np.exp(5e-4 * np.random.default_rng(1).standard_normal(20))
    said = derived_of(isoloss.fit("recipe_comparison", runs(loss, ["a"] * 10 + ["b"] * 10, compute)))
    assert said["a vs b.crossing"].value is None
    assert said["a vs b.first_leads"].value == 1.0


def test_a_recipe_is_not_left_out_because_another_one_is_better() -> None:
    """Recipes that differ in settings, schedule and data are compared; within each the gate holds as ever."""
    table = two_recipes()
    recipe = table.label("recipe")
    first = np.array([name == "a" for name in recipe])
    columns = {
        **table.columns,
        "peak_lr": np.where(first, 1e-3, 2e-3),
        "final_lr_share": np.where(first, 0.1, 1.0),
    }
    labels = {**table.labels, "dataset": tuple("fineweb" if own else "c4" for own in first)}
    unlike = dataclasses.replace(table, columns=columns, labels=labels)
    found = isoloss.fit("recipe_comparison", unlike, bootstrap=20)
    assert found.left_out == []
    assert len(found.parts) == 2
    doubled = dataclasses.replace(unlike.only([*range(20), 0]), run_ids=(*unlike.run_ids, "again"))
    again = isoloss.fit("recipe_comparison", doubled, bootstrap=20)
    assert [one["run_id"] for one in again.left_out] == ["again"]
    kept = isoloss.fit("recipe_comparison", doubled, bootstrap=20, gate={"duplicates": False})
    assert kept.left_out == []


def test_recipes_of_one_compute_are_compared_by_their_means() -> None:
    """Seeds at one compute give a gap with Student's interval, no law and no prediction elsewhere."""
    random = np.random.default_rng(3)
    loss = np.concatenate([3.28 + 1e-3 * random.standard_normal(8), 3.277 + 1e-3 * random.standard_normal(8)])
    found = isoloss.fit("recipe_comparison", runs(loss, ["old"] * 8 + ["new"] * 8))
    said = derived_of(found)
    assert found.verdict == "sound"
    assert said["new vs old.gap"].interval[1] < 0
    assert said["new vs old.first_leads"].value > 0.98
    assert said["new vs old.compute_saved"].value is None
    with pytest.raises(Unidentified, match="too few for a law"):
        found.predict(config={"recipe": "new", "compute_flops": 1e19})


def test_a_single_run_does_not_show_its_chance() -> None:
    """One run against others has a gap without an interval, and nobody is said to lead."""
    found = isoloss.fit("recipe_comparison", runs([3.28, 3.279, 3.27], ["a", "a", "b"]))
    said = derived_of(found)
    assert found.verdict == "unidentified"
    assert said["a vs b.gap"].interval is None
    assert said["a vs b.first_leads"].value is None


def test_recipes_without_a_common_compute_are_not_compared() -> None:
    """Means at different computes say nothing of each other."""
    table = runs([3.28, 3.279, 3.1, 3.101], ["a", "a", "b", "b"], [1e19, 1e19, 1e20, 1e20])
    found = isoloss.fit("recipe_comparison", table)
    assert found.verdict == "unidentified"
    assert any("no compute at which both" in reason for reason in found.reasons)


def test_nobody_leads_where_only_one_recipe_has_a_law() -> None:
    """Beside recipes that are known at one compute alone, a prediction elsewhere names no leader."""
    table = two_recipes().only([*range(10), 19])
    found = isoloss.fit("recipe_comparison", table)
    assert found.predict(config={"recipe": "a", "compute_flops": 1e19}).extrapolation["leads"] == {}


def test_one_recipe_alone_is_compared_with_nothing() -> None:
    """Its own numbers are shown under the verdict unidentified."""
    found = isoloss.fit("recipe_comparison", two_recipes().only(range(10)))
    assert found.verdict == "unidentified"
    assert any("there is one recipe" in reason for reason in found.reasons)
    assert values_of(found.groups[0])["exponent"] == pytest.approx(-0.12, abs=0.05)


def test_runs_without_a_recipe_are_named() -> None:
    """A run that names no recipe is left out; where none does, there is nothing to fit."""
    table = runs([3.28, 3.279, 3.27, 3.271, 3.3], ["a", "a", "b", "b", None])
    found = isoloss.fit("recipe_comparison", table)
    assert found.left_out == [{"run_id": "run-004", "reason": "it has no recipe"}]
    with pytest.raises(UnusableData, match="it has no recipe"):
        isoloss.fit("recipe_comparison", dataclasses.replace(table, labels={}))
    with pytest.raises(UnusableData):
        isoloss.fit("recipe_comparison", dataclasses.replace(table, outcome=np.full(5, np.nan)))


def test_equal_losses_are_no_lead() -> None:
    """Recipes whose runs all show one loss are not told apart."""
    found = isoloss.fit("recipe_comparison", runs([3.28] * 6, ["a"] * 3 + ["b"] * 3))
    assert derived_of(found)["a vs b.gap"].value == 0
    assert derived_of(found)["a vs b.first_leads"].value is None


def test_a_column_names_the_curves_of_a_file(tmp_path: Path) -> None:
    """The field `curve` is text, and numbers name curves as well."""
    path = tmp_path / "readings.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "accuracy", "model"])
        for model in ("1", "2"):
            rows.writerows([step, sigmoid(step), model] for step in STEPS)
    named = {"compute_flops": "step", "reward": "accuracy", "curve": "model"}
    found = isoloss.fit("rl_compute", isoloss.read_runs(path, map=named, target="reward"))
    assert [group["by"]["curve"] for group in found.groups] == ["1", "2"]
    for name in ("2", 2):
        told = found.predict(config={"curve": name, "compute_flops": 18.0})
        assert told.value == pytest.approx(0.37, abs=1e-3)


@pytest.mark.skipif(not (DATA / "rl_sigmoid").exists(), reason="shared/data/rl_sigmoid is absent")
def test_public_curves_whose_asymptote_is_open_are_unidentified() -> None:
    """The two model sizes whose accuracy still rises are unidentified, and no end is outside of its interval."""
    named = {"compute_flops": "step", "reward": "accuracy", "curve": "model"}
    table = isoloss.read_runs(DATA / "rl_sigmoid" / "accuracy.csv", map=named, target="reward")
    found = isoloss.fit("rl_compute", table)
    verdicts = {group["by"]["curve"]: group["verdict"] for group in found.groups}
    assert {name for name, said in verdicts.items() if said == "unidentified"} == {"4b", "14b"}
    assert found.holdout is not None
    ends = found.holdout["ends"].values()
    assert all(one["lower"] <= one["observed"] <= one["upper"] for one in ends)
    assert found.holdout["score"] < 0.04

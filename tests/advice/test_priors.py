"""Published laws that enter by name: what they add where runs say little, and how much of the answer is theirs."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest

import isoloss
from benchmarks.datasets import SHARED, available
from isoloss.advice import PUBLISHED
from isoloss.advice.priors import with_prior
from isoloss.errors import InvalidInput
from isoloss.observations import RunTable
from tests.advice.test_advice import SITES, TARGET, study
from tests.fitting.synthetic_sweeps import best_lr, best_timescale, decays, lr_and_batch

FIRST = {"priors": ["step_law.optimal_lr"]}
LINE = ((1e8, 2e9), (2e8, 4e9), (4e8, 8e9))
"""Twenty tokens per parameter at every size: size and data cannot be told apart."""


def told(runs: RunTable, **asked: Any) -> dict[str, Any]:
    return isoloss.recommend(runs, **TARGET, bootstrap=100, **asked).as_dict()


def test_without_a_name_no_published_law_enters() -> None:
    """What the runs do not determine stays null, and says so."""
    said = told(lr_and_batch(0, sites=LINE))
    assert said["peak_lr"]["value"] is None
    assert said["peak_lr"]["prior"] is None


def test_sweeps_of_one_line_say_what_lies_on_it_and_a_published_law_the_rest() -> None:
    """On the line of the sweeps the share of the law is small; off it, at forty times the tokens, larger."""
    runs, shares = lr_and_batch(0, sites=LINE), []
    for data in (8e10, 3.2e12):
        said = isoloss.recommend(runs, n_params=4e9, n_tokens=data, bootstrap=100, **FIRST).as_dict()[
            "peak_lr"
        ]
        alone = said["prior"]
        assert alone["name"] == "step_law.optimal_lr"
        assert alone["value"] == pytest.approx(1.79 * 4e9**-0.713 * data**0.307)
        assert np.divide(*said["interval"][::-1]) < np.divide(*alone["interval"][::-1])
        truth = float(best_lr(np.array(4e9), np.array(data)))
        assert said["interval"][0] < truth < said["interval"][1]
        shares.append(alone["share"])
    assert shares[0] < 0.02 < 0.08 < shares[1] < 1


def test_runs_that_tell_by_themselves_are_hardly_moved() -> None:
    """A law of eight sites is far surer than a published one of others."""
    alone, both = told(study())["peak_lr"], told(study(), **FIRST)["peak_lr"]
    assert both["prior"]["share"] < 0.05
    assert both["value"] == pytest.approx(alone["value"], rel=0.1)
    assert both["basis"] == alone["basis"]


def test_where_no_run_bears_on_it_all_comes_from_the_published_law() -> None:
    """A critical batch without any batches on several data is the law's: its share is 1, it rests on no fit."""
    runs = lr_and_batch(0, sites=SITES)
    said = told(runs, priors=["power_lines.critical_batch"])["critical_batch_tokens"]
    assert said["prior"]["share"] == 1
    assert said["value"] == pytest.approx(0.0471 * 2048 * 1e11**0.462)
    assert said["interval"] == pytest.approx(said["prior"]["interval"], rel=0.5)
    assert said["basis"] == []


def test_weight_decay_follows_from_a_timescale_that_is_published() -> None:
    """The chain goes on from a prior, with its doubt."""
    said = told(lr_and_batch(0, sites=SITES), priors=["power_lines.timescale"])
    data, batch, rate = TARGET["n_tokens"], said["batch_tokens"]["value"], said["peak_lr"]["value"]
    assert said["weight_decay"]["value"] == pytest.approx(batch / (rate * data * said["timescale"]["value"]))
    assert np.divide(*said["weight_decay"]["interval"][::-1]) > 3
    assert "timescale" in {one["law"] for one in said["wanted"]}
    assert any("100% of the timescale is power_lines.timescale" in one for one in said["warnings"])


def test_what_came_from_a_published_law_is_still_wanted() -> None:
    """The cheapest runs that would make it needless are listed."""
    said = told(lr_and_batch(0, sites=LINE), **FIRST)
    assert "optimal_lr" in {one["law"] for one in said["wanted"]}


def test_runs_that_contradict_a_published_law_say_so() -> None:
    """Learning rates fifty times above the law are named, and which of both says what."""
    runs = study()
    moved = RunTable(
        runs.run_ids,
        {**runs.columns, "peak_lr": 50 * runs.column("peak_lr")},
        runs.outcome,
        n_params_kind="non_embedding",
    )
    warned = told(moved, **FIRST)["warnings"]
    assert any("step_law.optimal_lr says" in one for one in warned)
    assert not any("says" in one for one in told(study(), **FIRST)["warnings"])


def test_the_kind_of_parameters_that_a_published_law_counts_is_minded() -> None:
    runs = RunTable(study().run_ids, study().columns, study().outcome, n_params_kind="total")
    assert any("counts non_embedding parameters" in one for one in told(runs, **FIRST)["warnings"])


@pytest.mark.parametrize(
    ("priors", "said"),
    [
        ("step_law.optimal_lr", "must be a list of names"),
        (["chinchilla"], "is not one of step_law.optimal_lr"),
        ([3], "is not one of"),
        (["step_law.optimal_batch", "power_lines.optimal_batch"], "are both of optimal_batch"),
    ],
)
def test_names_that_mean_no_one_law_are_refused(priors: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        told(study(), priors=priors)


def test_a_name_given_twice_counts_once() -> None:
    assert told(study(), priors=[*FIRST["priors"], *FIRST["priors"]]) == told(study(), **FIRST)


@pytest.mark.parametrize("tokens_per_param", [10, 25])
def test_the_answer_covers_truths_that_are_as_far_off_as_the_published_law_may_be(
    tokens_per_param: int,
) -> None:
    """Truths drawn about the published law: one swept site, asked at its tokens per parameter and at others."""
    name, target = "power_lines.timescale", {"n_params": 4e9, "n_tokens": 4e9 * tokens_per_param}
    law, held = PUBLISHED[name], []
    for seed in range(200):
        errors = np.random.default_rng([5, seed]).standard_normal(len(law.exponent_errors) + 1)

        def truth(of: Any, errors: np.ndarray = errors) -> Any:
            return np.exp(law.log_value(of) + law.loadings(of) @ errors)

        found = isoloss.fit("timescale", _decays_about(truth, seed), bootstrap=0)
        low, high = with_prior(name, None, found, target, 300, "1").interval(0.9) or (0.0, 0.0)
        held.append(low <= float(truth(target)[0]) <= high)
    assert 0.85 <= np.mean(held) <= 0.99


def _decays_about(truth: Any, seed: int) -> RunTable:
    """One site's sweep of weight decays about another truth than that of the simulated studies."""
    runs = decays(seed, sites=((2e8, 2e9),))
    usual = best_timescale(runs.column("n_params"), runs.column("n_tokens"))
    columns = {**runs.columns, "weight_decay": runs.column("weight_decay") * usual / truth(runs.columns)}
    return RunTable(runs.run_ids, columns, runs.outcome, n_params_kind="non_embedding")


@pytest.mark.skipif(
    not available("marin_adamw"), reason="the data set marin_adamw is not beside this checkout"
)
def test_the_widths_of_the_priors_hold_what_others_measured() -> None:
    """At most one in ten of the optima of others lies outside of the 90 percent interval of a published law."""
    with (SHARED / "marin_adamw" / "ablations.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["diverged"] in ("0", "False", "false", "")]
    best: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cell = row["size"], row["chinchilla_multiple"]
        if cell not in best or float(row["loss"]) < float(best[cell]["loss"]):
            best[cell] = row
    inside = []
    for row in best.values():
        at = {"n_params": float(row["n_params"]), "n_tokens": float(row["tokens"])}
        batch = float(row["batch_sequences"]) * 4096
        tau = batch / (float(row["lr"]) * float(row["weight_decay"]) * at["n_tokens"])
        for name, value in (("step_law.optimal_lr", float(row["lr"])), ("power_lines.timescale", tau)):
            law = PUBLISHED[name]
            error = float(np.linalg.norm(law.loadings(at)[0]))
            inside.append(abs(np.log(value) - law.log_value(at)[0]) <= 1.645 * error)
    assert len(inside) == 16
    assert np.mean(inside) >= 0.9

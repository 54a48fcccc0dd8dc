"""What a fit says of parameters that the data do not tell apart, or that end at a bound."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from isoloss.errors import Unidentified
from isoloss.fitting import fit
from isoloss.laws import LAWS
from isoloss.observations import RunTable
from tests.fitting.synthetic import CONSTANT, WARMED, curve, three_runs
from tests.fitting.synthetic_tables import table

JUMP: dict[str, Any] = {"kind": "two_stage", "total_steps": 9_000, "switch_step": 4_000, "second_lr": 2e-4}


@pytest.mark.parametrize(
    ("law", "pair", "remedy"),
    [
        ("chinchilla", "A and alpha", "add runs with a wider range of model sizes"),
        ("chinchilla", "B and beta", "add runs with a wider range of training tokens"),
        ("power_law", "coefficient and exponent", LAWS["power_law"].remedy),
        (
            "lr_annealing",
            "C and lambda",
            "add a run whose learning rate jumps, which shows the memory of annealing",
        ),
    ],
)
def test_parameters_that_trade_off_are_named_with_a_remedy(law: str, pair: str, remedy: str) -> None:
    """The pair, how closely, and what would tell it apart: by the law's words for this pair, where it has some."""
    data = three_runs() if law == "lr_annealing" else table(law)
    words = [one for one in fit(law, data, bootstrap=0).diagnostics["trade_offs"] if one.startswith(pair)]
    assert len(words) == 1
    assert words[0].startswith(f"{pair} trade off (correlation ")
    assert words[0].endswith(f"): fix one, or {remedy}")


def test_the_correlation_that_is_said_is_that_of_the_resamples() -> None:
    """What the curvature at the optimum says is how the parameters move together when runs are drawn anew."""
    found = fit("power_law", table("power_law"), bootstrap=400)
    drawn = np.corrcoef(np.log(found.samples[:, 1]), found.samples[:, 2])[0, 1]
    words = next(one for one in found.diagnostics["trade_offs"] if one.startswith("coefficient and exponent"))
    said = float(words.partition("correlation ")[2].partition(")")[0])
    assert said == pytest.approx(drawn, abs=2e-3)


def test_none_is_named_where_the_data_tell_all_apart() -> None:
    """The remedy works: with a jump of the learning rate nothing trades off, and the fit is sound."""
    found = fit("lr_annealing", [*three_runs(), curve("jump", JUMP | WARMED, seed=77)], bootstrap=50)
    assert found.diagnostics["trade_offs"] == []
    assert not any("trade off" in reason for reason in found.reasons)
    assert found.verdict == "sound", found.reasons


def test_fixing_one_of_a_pair_ends_the_trade_off() -> None:
    """What the words advise works: the pair is gone, and the condition number falls."""
    free, fixed = (fit("chinchilla", table(), bootstrap=0, fix=fix) for fix in ({}, {"alpha": 0.34}))
    assert any("alpha" in words for words in free.diagnostics["trade_offs"])
    assert not any("alpha" in words for words in fixed.diagnostics["trade_offs"])
    assert fixed.diagnostics["condition_number"] < free.diagnostics["condition_number"]


def test_trade_offs_are_reasons_where_a_parameter_is_loose() -> None:
    """They explain a weak verdict, and stand in the diagnostics alone where there is nothing to explain."""
    noisy, quiet = (fit("chinchilla", table(noise=noise), bootstrap=100) for noise in (2e-2, 2e-3))
    assert (noisy.verdict, quiet.verdict) == ("weak", "sound")
    assert quiet.diagnostics["trade_offs"]
    assert any(reason.startswith("A is loosely determined") for reason in noisy.reasons)
    assert set(noisy.diagnostics["trade_offs"]) <= set(noisy.reasons)
    assert not set(quiet.diagnostics["trade_offs"]) & set(quiet.reasons)


def proportional() -> RunTable:
    """Runs whose sizes are in proportion to their tokens, with equal exponents: the two terms are one."""
    tokens = np.geomspace(1e9, 1e11, 30)
    loss = 1.7 + 900 * tokens**-0.31 + 900 * (tokens * 2e-2) ** -0.31
    columns = {"n_params": tokens * 2e-2, "n_tokens": tokens}
    wiggle = 1 + 1e-3 * np.sin(np.arange(30.0))
    return dataclasses.replace(table().only(range(30)), columns=columns, outcome=loss * wiggle)


def test_an_exact_trade_off_is_unidentified() -> None:
    """Where all runs have as many tokens per parameter neither term has a number, and no prediction is made."""
    found = fit("chinchilla", proportional(), bootstrap=20)
    assert found.verdict == "unidentified"
    assert {name for name, one in found.parameters.items() if one.value is None} == {
        "A",
        "alpha",
        "B",
        "beta",
    }
    with pytest.raises(Unidentified, match="cannot be told apart"):
        found.predict(n_params=1e9, n_tokens=1e10)


@pytest.mark.parametrize(("pair", "value"), [([0.4, None], 0.4), ([None, 0.25], 0.25)])
def test_a_parameter_at_its_bound_is_named_with_the_bound(pair: list[float | None], value: float) -> None:
    """On either side: the flag, the value in words, and a weak verdict; no other parameter is named."""
    bound = fit("chinchilla", table(), bootstrap=10, bounds={"beta": pair})
    assert [name for name, one in bound.parameters.items() if one.at_bound] == ["beta"]
    assert bound.parameters["beta"].value == pytest.approx(value)
    assert [reason for reason in bound.reasons if "at its bound" in reason] == [
        f"beta lies at its bound, {value}"
    ]
    assert bound.verdict == "weak"


def test_a_bound_that_does_not_bind_is_not_named() -> None:
    """A parameter inside of its bounds is as if there were none."""
    wide, free = (
        fit("chinchilla", table(), bootstrap=100, **options)  # type: ignore[arg-type]
        for options in ({"bounds": {"beta": [0.1, 0.9]}}, {})
    )
    assert not wide.parameters["beta"].at_bound
    assert wide.verdict == free.verdict == "sound"
    assert wide.theta == pytest.approx(free.theta, rel=1e-6)


def test_a_law_that_is_not_determined_predicts_nothing() -> None:
    """The prediction is refused with the reasons of the verdict."""
    found = fit("chinchilla", table().only(range(4)), bootstrap=5)
    assert found.verdict == "unidentified"
    with pytest.raises(Unidentified, match="not determined"):
        found.predict(n_params=1e9, n_tokens=1e10)


@pytest.mark.parametrize("law", ["lr_annealing", "multi_power", "concave_memory"])
def test_points_of_the_warm_up_are_no_annealing(law: str) -> None:
    """A learning rate that is still low has not fallen: constant runs, read from step 1, show no annealing."""
    runs = [
        curve(f"run-{total}", CONSTANT | {"total_steps": total}, seed=total, every=90)
        for total in (9_000, 12_000, 15_000)
    ]
    early = [dataclasses.replace(one, step=one.step - 500) for one in runs]
    found = fit(law, early, bootstrap=0, skip_steps=0)
    assert found.verdict == "unidentified"
    assert any("no run was annealed" in reason for reason in found.reasons)

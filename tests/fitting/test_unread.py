"""What a law does not read: sizes, batches and peaks that differ are named, and no question is half ignored."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit, fit
from isoloss.observations import RunTable
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, WSD, curve, three_runs
from tests.fitting.synthetic_tables import exact_losses


def along_a_path(noise: float = 1e-3) -> RunTable:
    """Runs that train twenty tokens for each parameter."""
    size = np.geomspace(1e7, 1e9, 12)
    loss = exact_losses("chinchilla", size, 20 * size) * (1 + noise * np.sin(5.0 * np.arange(12)))
    names = tuple(f"run-{row:02}" for row in range(12))
    return RunTable(names, {"n_params": size, "n_tokens": 20 * size}, loss, n_params_kind="total")


@pytest.mark.parametrize("law", ["power_law", "power_law_compute", "auto"])
def test_a_law_without_size_holds_along_the_path_of_its_runs_alone(law: str) -> None:
    """It says so, answers for the sizes on the path, and refuses those off it."""
    found = fit(law, along_a_path(), bootstrap=50, profile=False)
    assert found.verdict == "weak"
    assert any("n_params from 1e+07 to 1e+09" in reason for reason in found.reasons)
    on = found.predict(n_params=[3e8], n_tokens=[6e9])
    assert on.value[0] == pytest.approx(
        exact_losses("chinchilla", np.array([3e8]), np.array([6e9]))[0], rel=5e-3
    )
    with pytest.raises(Unidentified, match="does not read n_params"):
        found.predict(n_params=[3e7], n_tokens=[6e9])


def test_of_one_size_the_same_size_may_be_asked_for() -> None:
    """Where all runs have one size, that one is answered for and no other."""
    tokens = np.geomspace(1e9, 1e11, 10)
    loss = exact_losses("chinchilla", np.full(10, 1e8), tokens)
    columns = {"n_params": np.full(10, 1e8), "n_tokens": tokens}
    found = fit("power_law", RunTable(tuple("abcdefghij"), columns, loss), bootstrap=20)
    assert found.verdict == "sound", found.reasons
    assert found.predict(n_params=[1e8], n_tokens=[1e12]).value[0] > 0
    with pytest.raises(Unidentified, match="of 1e\\+08"):
        found.predict(n_params=[2e8], n_tokens=[1e12])


@pytest.mark.parametrize("law", ["multi_power", "concave_memory"])
def test_a_law_of_curves_without_a_size_term_does_not_mix_sizes(law: str) -> None:
    """Runs of two sizes are no runs of one: no answer for either; a percent apart they count as one size."""
    runs = [*three_runs(), curve("linear", LINEAR, seed=7)]
    mixed, close = (
        [
            dataclasses.replace(one, n_params=sizes[at % 2], n_params_kind="total")
            for at, one in enumerate(runs)
        ]
        for sizes in ((1e8, 4e8), (1e8, 1.005e8))
    )
    found = fit(law, mixed, bootstrap=5, profile=False)
    assert found.verdict == "unidentified"
    assert any("no term for it" in reason for reason in found.reasons)
    assert fit(law, close, bootstrap=5, profile=False).verdict != "unidentified"


def test_batches_that_differ_are_named() -> None:
    """The memory of annealing does not carry over between batch sizes."""
    runs = [
        dataclasses.replace(one, batch_tokens=batch)
        for one, batch in zip(three_runs(), (1e5, 1e5, 4e5), strict=True)
    ]
    found = fit("lr_annealing", runs, bootstrap=5, profile=False)
    assert found.verdict == "weak"
    assert any("batches from 100000 to 400000 tokens" in reason for reason in found.reasons)


def test_the_interval_widens_with_the_distance_from_the_fitted_peaks() -> None:
    """A law that does not carry over between peaks is less sure with every doubling, and says by how much."""
    runs: list[Any] = [
        curve(str(at), spec, seed=at) for at, spec in enumerate((CONSTANT, COSINE, WSD, LINEAR))
    ]
    found = fit("lr_annealing", runs, bootstrap=50, profile=False)
    asked = [
        found.predict(schedule=LINEAR | {"peak_lr": peak}, steps=[9_000]) for peak in (1e-3, 5e-4, 2.5e-4)
    ]
    widths = [np.log(one.upper / one.lower)[0] for one in asked]
    assert widths[1] > 2 * 1.6 * 0.1
    assert widths[2] > 2 * 1.6 * 0.2
    assert not asked[0].extrapolation["is_extrapolation"]
    assert asked[2].extrapolation["peak_lr_factor"] == pytest.approx(4.0)
    assert asked[2].extrapolation["is_extrapolation"]
    assert any("each doubling" in words for words in asked[2].extrapolation["warnings"])


def test_shares_of_the_peak_carry_over_better_than_learning_rates() -> None:
    """Half the peak costs a law of shares 2 percent, one of absolute learning rates 10."""
    runs = [curve(str(at), spec, seed=at) for at, spec in enumerate((CONSTANT, COSINE, WSD, LINEAR))]
    halved = LINEAR | {"peak_lr": 5e-4}
    for law, error in (("concave_memory", 0.02), ("multi_power", 0.1)):
        asked = fit(law, runs, bootstrap=50, profile=False).predict(schedule=halved, steps=[9_000])
        assert np.log(asked.upper / asked.lower)[0] == pytest.approx(2 * 1.645 * error, rel=0.2)
        assert any(f"error of {error:.0%}" in words for words in asked.extrapolation["warnings"])


@pytest.mark.parametrize("law", ["lr_annealing", "multi_power"])
def test_a_peak_at_which_annealing_takes_more_than_there_is_has_no_answer(law: str) -> None:
    """At a peak where the law falls below its own floor it refuses, and at those where it does not it answers."""
    runs = [curve(str(at), spec, seed=at) for at, spec in enumerate((CONSTANT, COSINE, WSD, LINEAR))]
    found = fit(law, runs, bootstrap=20, profile=False)
    for peak in (5e-4, 1e-3, 1.01e-3):
        assert found.predict(schedule=LINEAR | {"peak_lr": peak}, steps=[9_000]).value[0] > 2.4
    with pytest.raises(Unidentified, match="below its own floor"):
        found.predict(schedule=LINEAR | {"peak_lr": 4e-3}, steps=[9_000])


def test_the_warm_up_is_not_predicted_from_what_comes_after_it() -> None:
    """Its steps are refused, but for the last, unless the fit was asked to take such points in."""
    found = fit("lr_annealing", three_runs(), bootstrap=20, profile=False)
    assert found.predict(schedule=LINEAR, steps=[500, 9_000]).value[0] > 0
    with pytest.raises(InvalidInput, match="steps: step 20 lies inside the warm-up, which ends at step 500"):
        found.predict(schedule=LINEAR, steps=[9_000, 20])
    with pytest.raises(InvalidInput, match="inside the warm-up"):
        Fit.from_document(found.as_document()).predict(schedule=LINEAR, steps=[499])
    taken_in = fit("lr_annealing", three_runs(), bootstrap=20, profile=False, skip_steps=10)
    assert taken_in.predict(schedule=LINEAR, steps=[20]).value[0] > 0


def test_a_level_that_the_resamples_do_not_support_is_told() -> None:
    """The ends of an interval of 99.9 percent are not among fifty resamples."""
    found = fit("lr_annealing", three_runs(), bootstrap=50, profile=False)
    usual, high = (
        found.predict(schedule=LINEAR, steps=[9_000], level=level).extrapolation["warnings"]
        for level in (0.9, 0.999)
    )
    assert not any("too few" in words for words in usual)
    assert any("50 resamples are too few" in words for words in high)


def test_what_a_law_of_a_table_does_not_read_is_told_where_it_is_asked_with() -> None:
    """A setting of another law and a word that means nothing are named; what is read, or leads to it, is not."""
    table = along_a_path()
    columns = apart(table)
    losses = exact_losses("chinchilla", columns["n_params"], columns["n_tokens"])
    losses = losses * (1 + 1e-4 * np.sin(5.0 * np.arange(losses.size)))
    table = dataclasses.replace(table, columns=columns, outcome=losses)
    found = fit("chinchilla", table, bootstrap=20, profile=False)
    sizes = {"n_params": 3e8, "n_tokens": 6e9, "n_params_kind": "total"}
    told = found.predict(config={**sizes, "batch_tokens": 1e6, "foo": 3}).extrapolation
    assert told["not_read"] == ["batch_tokens", "foo"]
    assert "chinchilla does not read batch_tokens and foo: without effect" in told["warnings"]
    plain = found.predict(config={**sizes, "batch_tokens": None}).extrapolation
    assert "not_read" not in plain
    assert not any("does not read" in warning for warning in plain["warnings"])
    compute = fit("power_law_compute", along_a_path(), bootstrap=20, profile=False)
    on_path = compute.predict(n_params=3e8, n_tokens=6e9).extrapolation
    assert not any("does not read" in warning for warning in on_path["warnings"])


def apart(table: RunTable) -> dict[str, Any]:
    """Sizes and tokens that do not go together."""
    tokens = table.column("n_tokens") * np.tile([0.3, 1.0, 3.0], 4)
    return {"n_params": table.column("n_params"), "n_tokens": tokens}

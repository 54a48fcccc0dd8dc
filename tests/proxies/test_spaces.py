"""The space of a sweep: its points, and everything that can be wrong with it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.proxies.spaces import MOST_TRIALS, trials_of

FIXED: dict[str, Any] = {
    "width": 64,
    "depth": 2,
    "peak_lr": 0.004,
    "batch_tokens": 2048,
    "n_tokens": 100_000,
}


def space(**more: Any) -> dict[str, Any]:
    return {**FIXED, **more}


def refused(strategy: str = "grid", n_trials: int | None = None, **more: Any) -> tuple[str, str]:
    """The field and the reason for which a space is refused."""
    with pytest.raises(InvalidInput) as caught:
        trials_of(space(**more), strategy, n_trials=n_trials)
    return str(caught.value.fields["field"]), str(caught.value.fields["reason"])


def test_a_grid_has_every_combination_once_the_last_axis_first() -> None:
    """Lists and counted ranges multiply; single values are of all."""
    found = trials_of(space(width=[32, 64], peak_lr={"low": 1e-3, "high": 4e-3, "count": 3}), "grid")
    points = [(one.width, round(one.peak_lr, 9)) for one in found]
    assert points == [(width, lr) for width in (32, 64) for lr in (1e-3, 2e-3, 4e-3)]
    assert {one.depth for one in found} == {2}


def test_a_linear_range_is_even_and_its_ends_are_exact() -> None:
    found = trials_of(space(weight_decay={"low": 0, "high": 0.3, "scale": "linear", "count": 4}), "grid")
    np.testing.assert_allclose([one.weight_decay for one in found], [0, 0.1, 0.2, 0.3], atol=1e-12)
    assert (found[0].weight_decay, found[-1].weight_decay) == (0.0, 0.3)


def test_tokens_per_parameter_follow_the_size_in_whole_batches() -> None:
    given = space(width=[32, 64], tokens_per_param=20)
    del given["n_tokens"]
    for one in trials_of(given, "grid"):
        assert one.n_tokens % one.batch_tokens == 0
        assert one.n_tokens == pytest.approx(20 * one.n_params().non_embedding, abs=one.batch_tokens / 2)


def test_a_random_sweep_covers_every_axis_evenly_and_its_seed_repeats_it() -> None:
    """Each of ten equal parts of a range has its trial; widths are whole heads, batches whole sequences."""
    given = space(
        peak_lr={"low": 1e-4, "high": 1e-2},
        width={"low": 32, "high": 256},
        batch_tokens={"low": 1024, "high": 16384},
        optimizer=["adamw", "sgd"],
    )
    found = trials_of(given, "random", n_trials=10, seed=3)
    parts = np.sort(np.floor(5 * (np.log10([one.peak_lr for one in found]) + 4)).astype(int))
    np.testing.assert_array_equal(parts, np.arange(10))
    assert sorted(one.optimizer for one in found) == ["adamw"] * 5 + ["sgd"] * 5
    assert all(one.width % 32 == 0 and one.batch_tokens % 128 == 0 for one in found)
    assert found == trials_of(given, "random", n_trials=10, seed=3)
    assert found != trials_of(given, "random", n_trials=10, seed=4)


def test_a_random_sweep_of_lists_takes_no_point_twice() -> None:
    given = space(width=[32, 64, 96], seed=[0, 1, 2])
    found = trials_of(given, "random", n_trials=9)
    assert len({(one.width, one.seed) for one in found}) == 9
    assert refused("random", 10, width=[32, 64, 96], seed=[0, 1, 2])[0] == "budget.trials"


def test_schedules_are_listed_or_one_for_all() -> None:
    kinds = [{"kind": "cosine"}, {"kind": "wsd", "decay_start": 0.8}]
    assert [one.schedule["kind"] for one in trials_of(space(schedule=kinds), "grid")] == ["cosine", "wsd"]
    assert trials_of(space(schedule=kinds[1]), "grid")[0].lr_schedule().total_steps == 49


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ({"peak_lr": []}, "space.peak_lr", "no point"),
        ({"peak_lr": {"low": 1e-3, "high": 1e-2}}, "space.peak_lr", "count"),
        ({"peak_lr": {"low": 1e-2, "high": 1e-3, "count": 2}}, "space.peak_lr.high", "above low"),
        ({"peak_lr": {"low": 0, "high": 1e-3, "count": 2}}, "space.peak_lr.low", "above 0"),
        ({"peak_lr": {"low": "a", "high": 1e-3, "count": 2}}, "space.peak_lr.low", "number"),
        ({"peak_lr": {"low": 1e-3, "high": 1e-2, "step": 2}}, "space.peak_lr.step", "unknown"),
        ({"peak_lr": {"low": 1e-3, "high": 1e-2, "count": 0}}, "space.peak_lr.count", "from 1"),
        ({"peak_lr": {"low": 1e-3, "high": 1e-2, "scale": "cubic"}}, "space.peak_lr.scale", "log, linear"),
        ({"peak_lr": [float("nan")]}, "space.peak_lr", "finite"),
        ({"peak_lr": ["0.1"]}, "space.peak_lr", "finite number"),
        ({"peak_lr": [True]}, "space.peak_lr", "finite number"),
        ({"width": [64, 64]}, "space.width", "twice"),
        ({"width": [[64]]}, "space.width", "within"),
        ({"width": 65}, "space.width", "multiple"),
        ({"width": {"low": 32.5, "high": 64, "count": 2}}, "space.width", "whole"),
        ({"depth": 0}, "space.depth", "1.."),
        ({"n_tokens": 1}, "space.n_tokens", "less than one batch"),
        ({"tokens_per_param": 20}, "space.tokens_per_param", "beside n_tokens"),
        ({"optimizer": "adamx"}, "space.optimizer", "adamw"),
        ({"optimizer": {"low": 1, "high": 2, "count": 2}}, "space.optimizer", "list"),
        ({"schedule": {"kind": "wsd"}}, "space.schedule.decay_start", "missing"),
        ({"learning_rate": 0.1}, "space.learning_rate", "unknown"),
        ({"data": "x"}, "space.data", "own"),
        ({"seed": list(range(1001))}, "space.seed", "lists 1,001"),
        ({"seed": list(range(500)), "width": [32, 64, 96]}, "space", f"{MOST_TRIALS:,}"),
    ],
)
def test_a_space_that_cannot_be_trained_is_refused_by_its_field(
    more: dict[str, Any], field: str, said: str
) -> None:
    assert refused(**more)[0] == field
    assert said in refused(**more)[1]


def test_what_is_missing_is_named_and_an_empty_space_refused() -> None:
    for given, field in (({}, "space"), ({"width": 64}, "space.depth"), ([1], "space")):
        with pytest.raises(InvalidInput) as caught:
            trials_of(given, "grid")  # type: ignore[arg-type]
        assert caught.value.fields["field"] == field
    given = space(tokens_per_param=0)
    del given["n_tokens"]
    with pytest.raises(InvalidInput, match="no tokens"):
        trials_of(given, "grid")


def test_a_budget_of_too_few_trials_is_refused() -> None:
    assert refused("grid", 1, width=[32, 64]) == (
        "budget.trials",
        "allows 1 trials, and the grid has 2 points",
    )
    assert refused("grid", 0)[0] == "budget.trials"
    assert refused("random")[0] == "budget.trials"
    assert refused("halving", None, peak_lr={"low": 1e-3, "high": 1e-2})[0] == "budget.trials"
    assert refused("best")[0] == "strategy"


def test_a_service_without_torch_can_check_a_sweep() -> None:
    """Neither spaces nor decisions import torch, at any depth."""
    code = (
        "import sys, isoloss.proxies.spaces, isoloss.proxies.halving, isoloss.proxies.final_losses, app.main, "
        "workers.__main__; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

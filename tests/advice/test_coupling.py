"""Learning rate and batch of sweeps at one weight decay, which are those of the timescale in part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.observations import RunTable
from tests.advice.test_advice import SITES, TARGET
from tests.fitting.synthetic_sweeps import (
    best_batch,
    best_lr,
    best_timescale,
    decays,
    loss_of,
    lr_and_batch,
    together,
)

AT = (np.array([TARGET["n_params"]]), np.array([TARGET["n_tokens"]]))
TRUTH = {
    "peak_lr": float(best_lr(*AT)[0]),
    "batch_tokens": float(best_batch(AT[1])[0]),
    "timescale": float(best_timescale(*AT)[0]),
}
TRUTH["weight_decay"] = TRUTH["batch_tokens"] / (TRUTH["peak_lr"] * TRUTH["timescale"] * TARGET["n_tokens"])


def runs(weight_decay: float, seed: int = 0) -> RunTable:
    return together(
        lr_and_batch(seed, sites=SITES, weight_decay=weight_decay), decays(seed + 50, sites=SITES)
    )


def told(table: RunTable, **asked: Any) -> dict[str, Any]:
    return isoloss.recommend(table, **TARGET, bootstrap=60, **asked).as_dict()


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return told(runs(0.1))


def test_settings_swept_at_one_weight_decay_are_moved_to_the_best_timescale(said: dict[str, Any]) -> None:
    """The sweeps' own best values lie a fifth and more off it."""
    for name, exact in TRUTH.items():
        low, high = said[name]["interval"]
        assert low / 1.05 <= exact <= high * 1.05, name
        assert said[name]["value"] == pytest.approx(exact, rel=0.3), name
    swept = isoloss.fit("optimal_lr", runs(0.1), bootstrap=20).predict(
        n_params=TARGET["n_params"], n_tokens=TARGET["n_tokens"]
    )
    assert abs(np.log(swept.value[0] / TRUTH["peak_lr"])) > 0.15


def test_how_far_the_settings_were_moved_is_said(said: dict[str, Any]) -> None:
    [warning] = [one for one in said["warnings"] if "the sweeps were made at a weight decay of 0.1" in one]
    assert "which multiplies peak_lr by 1." in warning
    assert "and batch_tokens by 0." in warning


def test_a_largest_batch_takes_the_learning_rate_along_the_valley_of_the_best_timescale() -> None:
    largest = TRUTH["batch_tokens"] / 4
    held = told(runs(0.1), constraints={"max_batch_tokens": largest})
    rate = TRUTH["peak_lr"] * 4 ** -(0.008 / 0.024)

    assert held["batch_tokens"]["value"] == pytest.approx(largest)
    low, high = held["peak_lr"]["interval"]
    assert low <= rate <= high
    assert held["peak_lr"]["value"] == pytest.approx(rate, rel=0.3)


def test_sweeps_that_show_the_timescale_alone_determine_no_learning_rate() -> None:
    """The loss goes with batch and timescale alone, and the sweeps have the best timescale in their middle."""
    grid = lr_and_batch(None, sites=SITES)
    size, data, batch = (grid.column(name) for name in ("n_params", "n_tokens", "batch_tokens"))
    middle = best_batch(data) / (0.1 * data * best_timescale(size, data))
    rate = grid.column("peak_lr") / best_lr(size, data) * middle
    off = np.log(batch / (rate * 0.1 * data * best_timescale(size, data)))
    noise = 1e-4 * np.random.default_rng(0).standard_normal(size.size)
    losses = loss_of(size, data, 0.01 * off**2 + 0.01 * np.log(batch / best_batch(data)) ** 2 + noise)
    columns = {**grid.columns, "peak_lr": rate, "weight_decay": np.full(size.size, 0.1)}
    flat = RunTable(grid.run_ids, columns, losses, n_params_kind="non_embedding")
    found = told(together(flat, decays(1, sites=SITES)))

    assert found["peak_lr"]["value"] is None
    assert "what their sweeps show is the timescale's" in found["peak_lr"]["reason"]

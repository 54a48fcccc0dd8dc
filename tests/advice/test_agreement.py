"""Questions that the runs cannot answer, and settings that do not belong together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput
from isoloss.observations import RunTable
from tests.advice.test_advice import SITES, TARGET, study
from tests.fitting.synthetic_sweeps import decays, lr_alone, lr_and_batch, together


def told(runs: RunTable, **asked: Any) -> dict[str, Any]:
    return isoloss.recommend(runs, **{**TARGET, "bootstrap": 20, **asked}).as_dict()


@pytest.mark.parametrize(("name", "value"), [("n_params", 7), ("n_tokens", 140), ("n_tokens", 1e20)])
def test_a_target_in_another_unit_than_the_runs_is_refused(name: str, value: float) -> None:
    """Seven parameters are seven billion of them, and no answer for seven is of use."""
    with pytest.raises(InvalidInput, match="give it in the same unit") as caught:
        told(study(), **{name: value})
    assert caught.value.fields["field"] == name


@pytest.mark.parametrize("count", [0, 1, 9])
def test_hardly_any_resamples_are_refused(count: int) -> None:
    """An interval of one resample has no width."""
    with pytest.raises(InvalidInput, match="at least 10 are needed"):
        told(study(), bootstrap=count)


def test_a_learning_rate_of_one_batch_is_not_given_for_a_batch_far_from_it() -> None:
    """Swept at 65,536 tokens, with a best batch of a million by a published law: there is no rate, and why."""
    swept = lr_alone(0, sites=SITES)
    at = dataclasses.replace(
        swept, columns={**swept.columns, "batch_tokens": np.full(swept.n_runs, 65_536.0)}
    )
    said = told(at, priors=["step_law.optimal_batch"])
    assert said["batch_tokens"]["value"] > 5e5
    assert said["peak_lr"]["value"] is None
    assert "swept at batches of 6.55e+04 tokens alone" in said["peak_lr"]["reason"]
    held = told(at, priors=["step_law.optimal_batch"], constraints={"max_batch_tokens": 65_536})
    assert held["peak_lr"]["value"] is not None


def test_settings_swept_at_several_weight_decays_that_are_not_the_recommended_one_are_a_warning() -> None:
    """Learning rate and batch at .1 or .12, and sweeps of the decay whose best lies far from both."""
    grids = [lr_and_batch(0, sites=SITES[:7]), lr_and_batch(0, sites=SITES[7:])]
    fixed = [
        dataclasses.replace(grid, columns={**grid.columns, "weight_decay": np.full(grid.n_runs, decay)})
        for grid, decay in zip(grids, (0.1, 0.12), strict=True)
    ]
    runs = together(*fixed, decays(0, sites=SITES))
    assert any("swept at a weight decay of 0.1," in one for one in told(runs)["warnings"])


def test_an_independent_weight_decay_is_told_as_one() -> None:
    """Runs that state it so read the recommended one in their own kind too."""
    runs = study()
    rate = runs.column("peak_lr")
    columns = {**runs.columns, "weight_decay": runs.column("weight_decay") * rate}
    labels = {"weight_decay_kind": ("independent",) * runs.n_runs}
    said = told(dataclasses.replace(runs, columns=columns, labels=labels))
    own = said["weight_decay"]["value"] * said["peak_lr"]["value"]
    (warned,) = [one for one in said["warnings"] if "independent" in one]
    assert f"{own:.3g} at the peak" in warned


def test_a_price_without_a_speed_is_a_warning() -> None:
    said = told(study(), constraints={"devices": 8, "price_per_device_hour": 2})
    assert said["cost"]["money"] is None
    assert any(one.startswith("the price is not known") for one in said["warnings"])

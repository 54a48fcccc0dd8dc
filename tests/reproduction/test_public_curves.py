"""Held-out predictions on public data sets, which lie beside the checkout in CI."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import cooldown_errors, multi_power_holdout
from benchmarks.datasets import available

with_multi_power = pytest.mark.skipif(
    not available("multipowerlaw"), reason="the data set multipowerlaw is not beside this checkout"
)
with_lr_scheduling = pytest.mark.skipif(
    not available("lr_scheduling"), reason="the data set lr_scheduling is not beside this checkout"
)


@with_multi_power
@pytest.mark.parametrize("size", ["25M", "100M"])
def test_the_annealing_law_predicts_unseen_schedules(size: str) -> None:
    """Six held-out curves: mean MAE at most 0.0047, mean of the worst relative errors at most 0.0075."""
    mean = multi_power_holdout("lr_annealing", size, bootstrap=60)["mean"]
    assert mean["mae"] <= 0.0047
    assert mean["max_relative_error"] <= 0.0075
    assert mean["coverage"] >= 0.75


@with_lr_scheduling
@pytest.mark.parametrize(
    ("peak_lr", "limit"), [(1e-4, 0.0035), (5e-4, 0.0035), (1e-3, 0.0035), (2e-3, 0.008)]
)
def test_the_annealing_law_predicts_cooldowns_from_cosines_and_constants(
    peak_lr: float, limit: float
) -> None:
    """The median relative error of the last validation point of all cooldown branches of one peak."""
    errors = cooldown_errors("lr_annealing", peak_lr, bootstrap=0)["relative_errors"]
    assert sorted(errors)[len(errors) // 2] <= limit

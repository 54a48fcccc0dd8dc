from __future__ import annotations

import numpy as np
import pytest

from store.columns import Column, Points
from store.thinning import MIN_POINTS, Scale, thin


def _curve(n: int) -> Points:
    step = np.arange(1, n + 1)
    loss = 2 + 8 * step**-0.3 + np.random.default_rng(0).normal(0, 0.01, n)
    return Points(step, {"loss": Column.of(loss)})


@pytest.mark.parametrize("x_scale", ["linear", "log"])
def test_thinned_points_are_real_points_and_keep_the_extremes(x_scale: Scale) -> None:
    """No more points than asked, all of them logged ones, with the first, the last, the highest and the lowest."""
    curve = _curve(20_000)
    spike = curve["loss"].values.copy()
    spike[7_000] = 50.0
    found = thin(Points(curve.step, {"loss": Column.of(spike)}), 500, x_scale).points
    assert 400 <= len(found) <= 500
    assert found.step[0] == 1
    assert found.step[-1] == 20_000
    assert np.all(np.diff(found.step) > 0)
    assert spike[found.step - 1].tolist() == found["loss"].values.tolist()
    assert 50.0 in found["loss"].values


def test_a_log_scale_keeps_the_beginning() -> None:
    """On a log axis the first tenth of the steps gets most of the points."""
    curve = _curve(100_000)
    early = {scale: np.mean(thin(curve, 1000, scale).points.step <= 10_000) for scale in ("linear", "log")}
    assert early["linear"] < 0.15
    assert early["log"] > 0.5


def test_non_finite_points_become_gaps_and_do_not_hide_others() -> None:
    """Stretches of NaN are told by their first and last step, and every other point is still drawn."""
    loss = np.array([3.0, np.nan, np.inf, 2.0, 1.0, np.nan])
    points = Points(
        np.arange(10, 70, 10),
        {"loss": Column.of(loss), "lr": Column.of(np.ones(6), [True] * 3 + [False] * 3)},
    )
    found = thin(points, 100)
    assert found.gaps == {"loss": [(20, 30), (60, 60)]}
    assert found.points.step.tolist() == [10, 20, 30, 40, 50]
    assert found.points["loss"].present.tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("n_columns", [1, 3, 10])
def test_several_columns_share_the_points(n_columns: int) -> None:
    """However many columns there are, and however few points are asked for, no more come back."""
    curve = _curve(5_000)
    random = np.random.default_rng(1)
    columns = {f"c{at}": Column.of(random.normal(size=5_000)) for at in range(n_columns)}
    for max_points in (MIN_POINTS, 51, 1000):
        found = thin(Points(curve.step, columns), max_points).points
        assert 0 < len(found) <= max_points
        assert np.all(np.diff(found.step) > 0)


def test_columns_without_values_and_empty_runs_are_no_trouble() -> None:
    """A column that has nothing in it, and a run without points, thin to what is there."""
    nothing = Points(np.zeros(0, dtype=np.int64), {"loss": Column.empty(0)})
    assert len(thin(nothing, 100).points) == 0
    sparse = Points(np.arange(1000), {"loss": Column.empty(1000), "lr": Column.of(np.arange(1000.0))})
    assert 0 < len(thin(sparse, 10).points) <= 10

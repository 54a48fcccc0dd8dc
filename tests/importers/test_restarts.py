"""Overlapping steps of resumed runs: the recorder's rule, on metrics that were logged apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.client.progress import Progress
from isoloss.importers.logged_runs import Series
from isoloss.importers.restarts import resolve


def series_of(stream, clock=lambda place: float(place), **kept):
    """The metrics of a stream of (step, name, value), each with its times or its order."""
    found = {}
    for place, (step, name, value) in enumerate(stream):
        found.setdefault(name, []).append((step, value, clock(place), place))
    columns = {name: list(zip(*rows, strict=True)) for name, rows in found.items()}
    return {
        name: Series(
            np.array(steps, dtype=np.int64),
            np.array(values, dtype=float),
            np.array(times) if kept.get("times", True) else None,
            np.array(order, dtype=np.int64) if kept.get("order") else None,
        )
        for name, (steps, values, times, order) in columns.items()
    }


def recorded(stream):
    """What the recorder makes of the same stream."""
    progress, points = Progress(), {}
    for step, name, value in stream:
        if progress.advance(step, [name]):
            points = {key: kept for key, kept in points.items() if key[1] <= step}
        points[name, step] = value
    return points


def resolved(series):
    return {
        (name, int(step)): float(value)
        for name, one in resolve(series).series.items()
        for step, value in zip(one.step, one.value, strict=True)
    }


def test_what_an_earlier_attempt_logged_after_the_checkpoint_is_forgotten_of_every_metric():
    first = [(step, "loss", 1.0) for step in range(1, 36)] + [(30, "val_loss", 9.0), (35, "val_loss", 9.0)]
    second = [(step, "loss", 2.0) for step in range(26, 33)]
    found = resolve(series_of(first + second))
    assert found.series["loss"].step.tolist() == list(range(1, 33))
    assert found.series["loss"].value.tolist() == [1.0] * 25 + [2.0] * 7
    assert found.series["val_loss"].step.size == 0
    [restart] = found.restarts
    assert (restart.step, restart.after, restart.forgotten) == (26, 35, 11)
    assert "step 26 comes after step 35" in found.notes()[0]
    assert "1 values were logged again" in found.notes()[1]


def test_a_validation_that_comes_late_is_no_restart():
    stream = [(step, "loss", 1.0) for step in range(1, 30)] + [(20, "val_loss", 2.0)]
    stream += [(step, "loss", 1.0) for step in range(30, 50)] + [(40, "val_loss", 2.0)]
    found = resolve(series_of(stream))
    assert not found.restarts
    assert found.notes() == []
    assert found.series["loss"].step.size == 49


def test_metrics_that_follow_a_restart_are_the_same_restart():
    stream = [(step, name, 1.0) for step in range(1, 20) for name in ("loss", "lr", "grad_norm")]
    stream += [(step, name, 2.0) for step in range(10, 25) for name in ("loss", "lr", "grad_norm")]
    assert len(resolve(series_of(stream)).restarts) == 1


def test_a_clock_that_goes_back_at_a_restart_changes_nothing():
    stream = [(step, name, 1.0) for step in range(1, 20) for name in ("loss", "lr")]
    stream += [(step, name, 2.0) for step in range(10, 15) for name in ("loss", "lr")]
    expected = recorded(stream)
    assert (
        resolved(series_of(stream, clock=lambda place: float(place if place < 38 else place - 30)))
        == expected
    )
    assert resolved(series_of(stream, clock=lambda place: float(place // 200))) == expected


def test_without_clock_or_order_each_metric_tells_for_itself():
    stream = [(step, name, 1.0) for step in range(1, 20) for name in ("loss", "lr")]
    stream += [(step, name, 2.0) for step in range(10, 15) for name in ("loss", "lr")]
    assert resolved(series_of(stream, times=False)) == recorded(stream)


LOGGED = st.tuples(st.integers(0, 12), st.sampled_from(["loss", "val_loss", "lr"]), st.floats(0, 1))


@given(st.lists(LOGGED, max_size=40), st.booleans())
def test_it_is_what_the_recorder_makes_of_the_same_log(stream, by_order):
    """Whatever was logged, in whatever order: by the order or by the clock alone."""
    assert resolved(series_of(stream, order=by_order)) == recorded(stream)


@pytest.mark.timeout(20)
def test_a_metric_in_no_order_at_all_takes_no_time():
    step = np.random.default_rng(0).permutation(200_000).astype(np.int64)
    assert resolve({"loss": Series(step, np.ones(step.size))}).series["loss"].step.size

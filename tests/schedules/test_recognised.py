"""Schedules read off logged rates: the declared shape where the log is one, else lines through it."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.errors import InvalidSchedule
from isoloss.schedules import from_log, schedule_from_spec, spec_of_log

WARMED = {"total_steps": 5000, "peak_lr": 3e-4, "warmup_steps": 137}
DECLARED = [
    {"kind": "constant", "total_steps": 5000, "peak_lr": 3e-4},
    {"kind": "constant", **WARMED},
    {"kind": "linear", **WARMED},
    {"kind": "linear", **WARMED, "end_lr": 3e-5},
    {"kind": "linear", "total_steps": 5000, "peak_lr": 3e-4, "end_lr": 3e-5},
    {"kind": "cosine", **WARMED},
    {"kind": "cosine", **WARMED, "end_lr": 3e-5, "warmup_start_lr": 1e-5},
    {"kind": "cosine", "total_steps": 5000, "peak_lr": 3e-4, "end_lr": 3e-5},
    *(
        {"kind": "wsd", **WARMED, "decay_start": 4013, "decay_shape": shape, "end_lr": 3e-5}
        for shape in ("linear", "cosine", "sqrt", "exponential")
    ),
    {"kind": "wsd", **WARMED, "decay_start": 4013},
    {"kind": "wsd", "total_steps": 5000, "peak_lr": 3e-4, "decay_start": 4000, "decay_shape": "sqrt"},
]


def log_of(spec, every=1, last=None):
    schedule = schedule_from_spec(spec)
    steps = np.arange(every, (last or schedule.total_steps) + 1, every)
    return steps, schedule.lr(steps)


@pytest.mark.parametrize(("every", "precision"), [(1, np.float64), (20, np.float64), (10, np.float32)])
@pytest.mark.parametrize("spec", DECLARED, ids=lambda spec: f"{spec['kind']}-{spec.get('decay_shape', '')}")
def test_a_declared_shape_is_found_again_in_its_log(spec, every, precision):
    """The very declaration, whether every step was logged or every twentieth, as floats of either width."""
    steps, rates = log_of(spec, every)
    found = spec_of_log(steps, rates.astype(precision), [5000]).spec
    assert found["kind"] == spec["kind"]
    truth, seen = schedule_from_spec(spec), schedule_from_spec(found)
    everywhere = np.arange(1, 5001)
    np.testing.assert_allclose(seen.lr(everywhere), truth.lr(everywhere), rtol=2e-6, atol=1e-12)
    if precision is np.float64:
        assert {name: found.get(name) for name in spec} == spec


@pytest.mark.parametrize("spec", DECLARED[5:9], ids=lambda spec: spec["kind"])
def test_the_end_may_lie_a_little_behind_the_last_entry(spec):
    """A stated length is taken where the log agrees with it."""
    steps, rates = log_of(spec, every=24)
    found = spec_of_log(steps, rates, [5000, int(steps[-1])])
    assert found.spec["total_steps"] == 5000
    assert found.spec["kind"] == spec["kind"]


def test_a_run_that_broke_off_keeps_to_what_it_logged():
    """Of a cosine that was left at half its way nothing is said but the half."""
    steps, rates = log_of({"kind": "cosine", **WARMED}, last=2500)
    found = spec_of_log(steps, rates, [2500])
    assert found.spec["kind"] == "piecewise_linear"
    schedule = schedule_from_spec(found.spec)
    assert schedule.total_steps == 2500
    np.testing.assert_allclose(schedule.lr(steps), rates, rtol=1e-6)
    assert len(found.spec["knots"]) < 2500
    assert "straight lines" in found.note
    assert from_log(steps, rates, schedule) == (schedule, None)


def test_a_schedule_in_stairs_is_lines_through_its_log():
    steps = np.arange(1, 2001)
    rates = np.select([steps <= 700, steps <= 1500], [1e-3, 3e-4], 1e-4)
    found = spec_of_log(steps, rates, [2000])
    assert found.spec["kind"] == "piecewise_linear"
    np.testing.assert_allclose(schedule_from_spec(found.spec).lr(steps), rates, rtol=1e-6)


def test_a_warm_up_that_silence_may_hide_is_not_guessed():
    spec = {"kind": "cosine", "total_steps": 5000, "peak_lr": 3e-4, "warmup_steps": 40}
    steps, rates = log_of(spec, every=50)
    with pytest.raises(InvalidSchedule, match="its warm-up is unknown"):
        spec_of_log(steps, rates, [5000])
    found = spec_of_log(steps, rates, [5000], warmup_steps=40).spec
    assert (found["kind"], found["warmup_steps"], found["peak_lr"]) == ("cosine", 40, 3e-4)


@pytest.mark.parametrize(
    ("steps", "rates", "reason"),
    [
        ([1], [1e-3], "two logged"),
        ([1, 2], [0.0, 0.0], "0 at every step"),
        ([1, 2], [1e-3, np.nan], "finite"),
        ([0], [1e-3], "two logged"),
    ],
)
def test_a_log_that_tells_nothing_says_so(steps, rates, reason):
    with pytest.raises(InvalidSchedule, match=reason):
        spec_of_log(steps, rates, [steps[-1]])


@pytest.mark.timeout(20)
def test_a_million_rates_are_read_in_seconds():
    spec = {"kind": "cosine", "total_steps": 1_000_000, "peak_lr": 3e-4, "warmup_steps": 2000}
    steps, rates = log_of(spec)
    assert spec_of_log(steps, rates, [1_000_000]).spec["kind"] == "cosine"
    assert spec_of_log(steps[:700_000], rates[:700_000], [700_000]).spec["kind"] == "piecewise_linear"

"""Areas under schedules against sums that are taken step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.schedules import KINDS, AnnealingAreas, Schedule, branch, schedule_from_spec

PRECISION = 1e-10
"""Of peak_lr * steps: what the closed forms promise."""

peaks = st.floats(1e-6, 1.0)
shares = st.floats(0.0, 1.0)


@st.composite
def warmed(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    total = draw(st.integers(2, 700))
    warmup = draw(st.integers(0, total - 1))
    peak = draw(peaks)
    spec = {"kind": kind, "total_steps": total, "warmup_steps": warmup, "peak_lr": peak}
    return spec | {"warmup_start_lr": peak * draw(shares)}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Any valid declaration of any kind."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    if kind == "values":
        lrs = draw(st.lists(st.floats(0, 1), min_size=1, max_size=600))
        return {"kind": kind, "lr": [*lrs, 0.5]}
    if kind == "piecewise_linear":
        gaps = draw(st.lists(st.integers(1, 200), max_size=6))
        steps = np.cumsum([1, *gaps]).tolist()
        lrs = [0.5, *draw(st.lists(st.floats(0, 1), min_size=len(gaps), max_size=len(gaps)))]
        return {"kind": kind, "knots": [[step, lr] for step, lr in zip(steps, lrs, strict=True)]}
    spec = draw(warmed(kind))
    peak, total, warmup = spec["peak_lr"], spec["total_steps"], spec["warmup_steps"]
    if kind in ("linear", "cosine", "wsd"):
        spec["end_lr"] = peak * draw(shares)
    if kind == "wsd":
        spec["decay_shape"] = draw(st.sampled_from(["linear", "exponential", "sqrt", "cosine"]))
        spec["decay_start"] = draw(st.integers(warmup, total - 1))
        if spec["decay_shape"] == "exponential":
            spec["end_lr"] = max(spec["end_lr"], peak * 1e-3)
    if kind == "two_stage":
        spec |= {"second_lr": draw(st.floats(0, 1)), "switch_step": draw(st.integers(warmup + 1, total))}
    return spec


def summed(schedule: Schedule, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """S1 and S2 at steps 0..total, by the definition."""
    lrs = schedule.lr(np.arange(1, schedule.total_steps + 1))
    forward = [math.fsum(lrs[:step]) for step in range(len(lrs) + 1)]
    memory, memories = 0.0, [0.0] * (schedule.warmup_steps + 1)
    previous = lrs[max(schedule.warmup_steps, 1) - 1]
    for lr in lrs[schedule.warmup_steps :]:
        memory = decay * memory + (previous - lr)
        memories.append(memory)
        previous = lr
    return np.array(forward), np.array([math.fsum(memories[: step + 1]) for step in range(len(memories))])


@settings(max_examples=150, deadline=None)
@given(specs(), st.sampled_from([0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]))
def test_areas_equal_sums_taken_step_by_step(spec: dict[str, Any], decay: float) -> None:
    """S1 and S2 of every kind agree with `math.fsum` over all steps."""
    schedule = schedule_from_spec(spec)
    steps = np.arange(schedule.total_steps + 1)
    forward, annealed = summed(schedule, decay)
    scale = schedule.peak_lr * schedule.total_steps
    assert np.abs(schedule.area(steps) - forward).max() <= PRECISION * scale
    assert np.abs(AnnealingAreas([(schedule, steps)])(decay)[0][0] - annealed).max() <= PRECISION * scale


@settings(max_examples=60, deadline=None)
@given(st.lists(specs(), min_size=1, max_size=4), st.floats(0.5, 0.99999))
def test_runs_are_asked_together_as_one_by_one(several: list[dict[str, Any]], decay: float) -> None:
    """Runs that share sums, as twins do, have the areas that each has alone."""
    schedules = [schedule_from_spec(spec) for spec in (*several, *several)]
    asked = [(schedule, np.arange(schedule.total_steps + 1)) for schedule in schedules]
    alone = [AnnealingAreas([one])(decay) for one in asked]
    for joined, *parts in zip(AnnealingAreas(asked)(decay), *alone, strict=True):
        np.testing.assert_allclose(joined, np.concatenate(parts, axis=1), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(specs(), st.floats(0.5, 0.9995))
def test_the_derivative_by_lambda_is_that_of_the_area(spec: dict[str, Any], decay: float) -> None:
    """The analytic derivative of S2 equals a central difference."""
    schedule = schedule_from_spec(spec)
    area = AnnealingAreas([(schedule, np.arange(1, schedule.total_steps + 1))])
    step = 1e-5 * (1 - decay)
    values, _ = area([decay - step, decay + step])
    _, slope = area(decay)
    difference = (values[1] - values[0]) / (2 * step)
    scale = schedule.peak_lr * schedule.total_steps / (1 - decay)
    assert np.abs(slope[0] - difference).max() <= 1e-5 * max(np.abs(difference).max(), 1e-3 * scale)


@settings(max_examples=40, deadline=None)
@given(specs(), specs(), st.data())
def test_a_branch_has_its_parents_rates_and_then_its_own(
    first: dict[str, Any], second: dict[str, Any], data: st.DataObject
) -> None:
    """A branch's LR history and areas are those of the joined steps."""
    parent, own = schedule_from_spec(first), schedule_from_spec(second)
    if min(parent.total_steps, own.total_steps - 1) < 1:
        return
    at = data.draw(st.integers(1, min(parent.total_steps, own.total_steps - 1)))
    joined = branch(parent, at, own)
    steps = np.arange(1, own.total_steps + 1)
    expected = np.where(steps <= at, parent.lr(np.minimum(steps, parent.total_steps)), own.lr(steps))
    np.testing.assert_allclose(joined.lr(steps), expected, rtol=1e-9, atol=1e-12)
    forward, annealed = summed(joined, 0.99)
    scale = joined.peak_lr * joined.total_steps
    assert np.abs(joined.area(steps) - forward[1:]).max() <= PRECISION * scale
    assert np.abs(AnnealingAreas([(joined, steps)])(0.99)[0][0] - annealed[1:]).max() <= PRECISION * scale


def test_the_cost_grows_with_asked_steps_and_not_with_the_length() -> None:
    """A schedule of ten billion steps answers as one of ten thousand does, and exactly."""
    spec = {"kind": "cosine", "total_steps": 10**10, "peak_lr": 1e-3, "warmup_steps": 10**6}
    schedule = schedule_from_spec(spec)
    # Warm-up and a whole cosine have half the peak on average.
    assert schedule.area([10**10])[0] == pytest.approx(1e-3 * 10**10 / 2, rel=1e-9)
    value, _ = AnnealingAreas([(schedule, [5 * 10**9, 10**10])])([0.99, 0.9999])
    assert np.all(np.isfinite(value))


def test_two_stages_switch_at_their_step() -> None:
    """The second rate holds from the switch step on, that step included."""
    spec = {"kind": "two_stage", "total_steps": 10, "peak_lr": 1.0, "second_lr": 0.5, "switch_step": 4}
    assert schedule_from_spec(spec).lr([3, 4, 10]).tolist() == [1.0, 0.5, 0.5]


def test_warmup_rises_linearly_from_its_start() -> None:
    """Warm-up is start + (peak - start) * s / warmup_steps."""
    spec = {"kind": "constant", "total_steps": 8, "peak_lr": 1.0, "warmup_steps": 4, "warmup_start_lr": 0.2}
    np.testing.assert_allclose(schedule_from_spec(spec).lr(range(1, 6)), [0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", 0.55),
        ("sqrt", 1 - 0.9 * math.sqrt(0.5)),
        ("cosine", 0.55),
        ("exponential", math.sqrt(0.1)),
    ],
)
def test_decay_shapes_at_half_their_progress(shape: str, expected: float) -> None:
    """Each decay shape has its own value half-way from the peak to the end."""
    spec = {
        "kind": "wsd",
        "total_steps": 20,
        "decay_start": 10,
        "peak_lr": 1.0,
        "end_lr": 0.1,
        "decay_shape": shape,
    }
    assert schedule_from_spec(spec).lr([15])[0] == pytest.approx(expected)

"""Logged learning rates against the declared schedule."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.errors import InvalidSchedule
from isoloss.schedules import from_log, schedule_from_spec

COSINE = {"kind": "cosine", "total_steps": 1000, "peak_lr": 1e-3, "warmup_steps": 50, "end_lr": 1e-4}
DECLARED = schedule_from_spec(COSINE)
LOGGED_STEPS = np.arange(10, 1001, 10)


def test_a_log_that_agrees_keeps_the_declared_schedule() -> None:
    """Rates within 1e-6 relative of the declaration leave it as it is, without a word."""
    shaken = DECLARED.lr(LOGGED_STEPS) * (1 + 5e-7)
    schedule, note = from_log(LOGGED_STEPS, shaken, DECLARED)
    assert schedule is DECLARED
    assert note is None


def test_a_log_that_disagrees_is_interpolated_and_reported() -> None:
    """Other rates replace the declaration from the first log on, and the note names a step and both rates."""
    logged = DECLARED.lr(LOGGED_STEPS) * np.where(LOGGED_STEPS > 500, 0.5, 1.0)
    schedule, note = from_log(LOGGED_STEPS, logged, DECLARED)
    assert note is not None
    assert "at step 510 the logged lr is" in note
    np.testing.assert_allclose(schedule.lr(LOGGED_STEPS), logged, rtol=1e-12)
    np.testing.assert_allclose(schedule.lr([505]), [(logged[49] + logged[50]) / 2])
    np.testing.assert_allclose(schedule.lr(range(1, 10)), DECLARED.lr(range(1, 10)))
    assert schedule.warmup_steps == 50


def test_without_a_declaration_the_log_tells_the_warmup() -> None:
    """A log from the first interval on is extended to step 1, and its rise is the warm-up."""
    schedule, note = from_log(LOGGED_STEPS, DECLARED.lr(LOGGED_STEPS))
    assert note is not None
    assert "no learning rate was logged before step 10" in note
    assert schedule.warmup_steps == 50
    np.testing.assert_allclose(schedule.lr(range(1, 11)), DECLARED.lr(range(1, 11)), rtol=1e-9)
    np.testing.assert_allclose(schedule.area([1000]), DECLARED.area([1000]), rtol=1e-4)


def test_a_log_that_starts_late_without_a_declaration_is_refused() -> None:
    """An unknown warm-up is not guessed."""
    late = LOGGED_STEPS[10:]
    with pytest.raises(InvalidSchedule, match="its warm-up is unknown"):
        from_log(late, DECLARED.lr(late))


def test_a_warmup_that_the_first_interval_could_hide_is_not_guessed() -> None:
    """Logged every 500 of 10,000 steps and flat from the first on: a warm-up may have come before it."""
    steps = np.arange(500, 10_001, 500)
    with pytest.raises(InvalidSchedule, match="its warm-up is unknown"):
        from_log(steps, np.full(steps.size, 1e-3))
    schedule, note = from_log(np.arange(10, 10_001, 10), np.full(1000, 1e-3))
    assert note is not None
    assert schedule.area([10_000])[0] == pytest.approx(10.0)


def test_points_after_the_declared_end_are_reported() -> None:
    """A log that goes on after total_steps is used, and said."""
    steps = np.array([900, 1000, 1100])
    schedule, note = from_log(steps, np.array([*DECLARED.lr([900, 1000]), 1e-4]), DECLARED)
    assert note is not None
    assert "after the declared end, step 1000" in note
    assert schedule.total_steps == 1100


def test_a_log_that_begins_after_the_declared_end_starts_from_there() -> None:
    """The gap between a declaration and a later log is a straight line."""
    schedule, _ = from_log([1010, 1020], [2e-4, 3e-4], DECLARED)
    assert schedule.total_steps == 1020
    assert schedule.lr([1000])[0] == pytest.approx(1e-4)
    assert schedule.lr([1005])[0] == pytest.approx(1.5e-4)

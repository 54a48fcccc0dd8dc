"""Declarations that contradict themselves are refused with the field at fault."""

from __future__ import annotations

from typing import Any

import pytest

from isoloss.errors import InvalidInput, InvalidSchedule
from isoloss.schedules import schedule_from_spec

GOOD: dict[str, Any] = {"kind": "cosine", "total_steps": 100, "peak_lr": 1e-3, "warmup_steps": 10}
WSD: dict[str, Any] = {"kind": "wsd", "total_steps": 100, "peak_lr": 1e-3, "decay_start": 80}
TWO: dict[str, Any] = {
    "kind": "two_stage",
    "total_steps": 9,
    "peak_lr": 1.0,
    "second_lr": 0.1,
    "switch_step": 5,
}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "kind"),
        ({"kind": "triangle"}, "kind"),
        ({"kind": ["cosine"]}, "kind"),
        ([], "kind"),
        (GOOD | {"warm_up": 3}, "warm_up"),
        (GOOD | {"decay_start": 3}, "decay_start"),
        (GOOD | {"total_steps": 0}, "total_steps"),
        (GOOD | {"total_steps": -5}, "total_steps"),
        (GOOD | {"total_steps": 10.5}, "total_steps"),
        (GOOD | {"total_steps": "100"}, "total_steps"),
        (GOOD | {"total_steps": True}, "total_steps"),
        (GOOD | {"total_steps": 10**11}, "total_steps"),
        (GOOD | {"warmup_steps": 100}, "warmup_steps"),
        (GOOD | {"warmup_steps": -1}, "warmup_steps"),
        (GOOD | {"peak_lr": 0}, "peak_lr"),
        (GOOD | {"peak_lr": -1e-3}, "peak_lr"),
        (GOOD | {"peak_lr": float("nan")}, "peak_lr"),
        (GOOD | {"peak_lr": float("inf")}, "peak_lr"),
        (GOOD | {"peak_lr": 10**400}, "peak_lr"),
        (GOOD | {"peak_lr": None}, "peak_lr"),
        (GOOD | {"end_lr": 2e-3}, "end_lr"),
        (GOOD | {"warmup_start_lr": 2e-3}, "warmup_start_lr"),
        ({"kind": "constant", "peak_lr": 1.0}, "total_steps"),
        (WSD | {"decay_start": 100}, "decay_start"),
        (WSD | {"decay_start": 5, "warmup_steps": 10}, "decay_start"),
        (WSD | {"decay_shape": "steep"}, "decay_shape"),
        (WSD | {"decay_shape": ["linear"]}, "decay_shape"),
        (WSD | {"decay_shape": "exponential"}, "end_lr"),
        (TWO | {"switch_step": 10}, "switch_step"),
        (TWO | {"switch_step": 0}, "switch_step"),
        (TWO | {"second_lr": -1}, "second_lr"),
        ({"kind": "values", "lr": []}, "lr"),
        ({"kind": "values", "lr": [0.0, 0.0]}, "lr"),
        ({"kind": "values", "lr": [1.0, "2"]}, "lr"),
        ({"kind": "piecewise_linear", "knots": [[2, 1.0]]}, "knots"),
        ({"kind": "piecewise_linear", "knots": [[1, 1.0], [1, 0.5]]}, "knots"),
        ({"kind": "piecewise_linear", "knots": [[1, 1.0], [5]]}, "knots"),
        ({"kind": "piecewise_linear", "knots": "1"}, "knots"),
    ],
)
def test_a_contradiction_names_its_field(spec: Any, field: str) -> None:
    """Every wrong declaration raises InvalidSchedule with the field."""
    with pytest.raises(InvalidSchedule) as caught:
        schedule_from_spec(spec)
    assert caught.value.fields["field"] == field
    assert str(caught.value).startswith(f"schedule.{field}: ")


@pytest.mark.parametrize("steps", [[0], [101], [1.5], [[1, 101]]])
def test_steps_outside_a_schedule_are_refused(steps: Any) -> None:
    """The learning rate is defined at whole steps 1..total_steps alone."""
    with pytest.raises(InvalidInput):
        schedule_from_spec(GOOD).lr(steps)

"""Schedules of finished runs, drawn out to another number of steps."""

from __future__ import annotations

from typing import Any

import pytest

from isoloss.advice.suggested_schedule import drawn_out, why_none
from isoloss.observations import RunTable
from isoloss.schedules import schedule_from_spec

PEAK = {"peak_lr": 1e-3}
DECLARED: list[dict[str, Any]] = [
    {"kind": "constant", "total_steps": 1000, "warmup_steps": 50, **PEAK},
    {"kind": "linear", "total_steps": 1000, "warmup_steps": 100, **PEAK},
    {"kind": "cosine", "total_steps": 1000, "warmup_steps": 20, "end_lr": 1e-4, **PEAK},
    {
        "kind": "wsd",
        "total_steps": 1000,
        "warmup_steps": 20,
        "decay_start": 700,
        "decay_shape": "sqrt",
        **PEAK,
    },
    {
        "kind": "two_stage",
        "total_steps": 1000,
        "warmup_steps": 0,
        "switch_step": 600,
        "second_lr": 2e-4,
        **PEAK,
    },
]


def table(*schedules: dict[str, Any] | None) -> RunTable:
    runs = [
        {"run_id": f"r{number}", "summary": {"final_loss": 3.0}, "schedule": schedule}
        for number, schedule in enumerate(schedules)
    ]
    return RunTable.from_runs(runs)


@pytest.mark.parametrize("spec", DECLARED, ids=lambda spec: spec["kind"])
def test_every_part_keeps_its_share_of_the_steps_and_of_the_peak(spec: dict[str, Any]) -> None:
    """Ten times the steps at half the peak: the mean over the peak stays, and so does the shape at every tenth."""
    long = schedule_from_spec(drawn_out(table(spec, spec, None), 10_000, 5e-4))
    short = schedule_from_spec(spec)
    assert (long.total_steps, long.peak_lr) == (10_000, pytest.approx(5e-4))
    assert long.mean_share == pytest.approx(short.mean_share, abs=2e-3)
    for step in range(100, 1001, 100):
        told, own = (one.lr([at])[0] / one.peak_lr for one, at in ((long, 10 * step), (short, step)))
        assert told == pytest.approx(own, abs=5e-3), step


def test_schedules_of_two_steps_are_still_schedules() -> None:
    for spec in DECLARED:
        assert schedule_from_spec(drawn_out(table(spec), 2, 1e-3)).total_steps == 2


def test_what_cannot_be_drawn_out_says_why() -> None:
    """No schedule, several kinds, and lists of values or knots, which are of one length."""
    assert why_none(table(None)) == "the runs state no schedule"
    assert why_none(table(DECLARED[0], DECLARED[1])) == "they have constant, linear"
    listed = {"kind": "values", "lr": [1e-3, 5e-4, 1e-4]}
    assert (
        why_none(table(listed)) == "a schedule of values is of one length: it cannot be drawn out to another"
    )
    assert why_none(table(DECLARED[0])) is None

"""`isoloss sweep`: how a space is typed, and how a sweep is shown."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

TRIAL = {
    "number": 0,
    "run_id": "lr-000",
    "status": "finished",
    "point": {"peak_lr": 0.004, "schedule": {"kind": "linear"}},
    "pilot": False,
    "step": 20,
    "total_steps": 20,
    "stop_at": 20,
    "forecast": None,
    "final_loss": 2.5,
    "final_val_loss": None,
    "device": "cpu",
    "worker": None,
    "attempts": 1,
    "repeated_steps": 0,
    "device_seconds": 3.0,
    "notes": [],
    "message": None,
    "started_at": None,
    "finished_at": None,
}
WORK = {"trials": 2, "steps": 40, "tokens": 40_960, "device_seconds": 6.0}
NOTHING = {"trials": 0, "steps": 0, "tokens": 0, "device_seconds": 0.0}
SWEEP: dict[str, Any] = {
    "id": "0199a3c8-5d0a-7a53-9a53-0d3e5f0c8c55",
    "name": "lr",
    "status": "running",
    "reason": None,
    "hint": "no worker trains on cpu here",
    "strategy": "halving",
    "device": "cpu",
    "space": {},
    "data": "python-stdlib",
    "measure": [],
    "budget": {},
    "seed": 0,
    "halving": {"eta": 3, "rungs": [0.333]},
    "counts": {"finished": 1, "pruned": 1},
    "planned": WORK,
    "done": {**WORK, "repeated_steps": 4},
    "saved": {**WORK, "trials": 1, "steps": 15},
    "left_undone": NOTHING,
    "created_at": "2026-03-01T12:00:00.000Z",
    "updated_at": "2026-03-01T12:00:00.000Z",
    "finished_at": None,
    "trials": [
        TRIAL,
        {
            **TRIAL,
            "run_id": "lr-001",
            "status": "pruned",
            "step": 5,
            "final_loss": None,
            "message": "it was expected to end at 3.1",
            "forecast": {"value": 3.1, "lower": 3.0, "upper": 3.2, "step": 5},
        },
    ],
}
PATH = "/v1/projects/p/sweeps"
ROUTES = {f"POST {PATH}": {"id": SWEEP["id"]}, f"GET {PATH}/{SWEEP['id']}": SWEEP, f"GET {PATH}/lr": SWEEP}


def sent(invoke: Any, *arguments: str) -> dict[str, Any]:
    """The body that a command sends."""
    requests: list[httpx.Request] = []
    done = invoke("sweep", "create", "lr", "--project", "p", *arguments, routes=ROUTES, requests=requests)
    assert done.exit_code == 0, done.output
    body: dict[str, Any] = json.loads(requests[0].content)
    return body


def test_axes_are_values_lists_ranges_and_json(invoke: Any) -> None:
    body = sent(
        invoke,
        *("--axis", "width=64", "--axis", "depth=1,2", "--axis", "peak_lr=1e-3:1e-2:4"),
        *("--axis", "weight_decay=0.01:0.1", "--axis", "optimizer=adamw"),
        *("--axis", 'schedule=[{"kind": "linear"}, {"kind": "cosine"}]'),
        *("--space", '{"batch_tokens": 4096, "width": 32}', "--strategy", "halving", "--eta", "4"),
        *("--trials", "9", "--device-hours", "2", "--measure", "grad_norm_l1", "--tag", "a", "--seed", "5"),
    )
    assert body["space"] == {
        "batch_tokens": 4096,
        "width": 64,
        "depth": [1, 2],
        "peak_lr": {"low": 1e-3, "high": 1e-2, "scale": "log", "count": 4},
        "weight_decay": {"low": 0.01, "high": 0.1, "scale": "log"},
        "optimizer": "adamw",
        "schedule": [{"kind": "linear"}, {"kind": "cosine"}],
    }
    assert (body["strategy"], body["halving"], body["seed"]) == ("halving", {"eta": 4}, 5)
    assert body["budget"] == {"trials": 9, "device_hours": 2.0}
    assert (body["measure"], body["tags"], body["device"]) == (["grad_norm_l1"], ["a"], "auto")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs a space"),
        (("--axis", "width"), "name=value"),
        (("--axis", "peak_lr=1:2:3:4"), "low:high"),
        (("--axis", "schedule={"), "not JSON"),
        (("--axis", "width=1", "--axis", "width=2"), "twice"),
        (("--space", "[1]"), "object"),
        (("--axis", "width=1", "--strategy", "best"), "best"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_is_sent(
    invoke: Any, arguments: tuple[str, ...], said: str
) -> None:
    requests: list[httpx.Request] = []
    done = invoke("sweep", "create", "lr", "--project", "p", *arguments, routes=ROUTES, requests=requests)
    assert done.exit_code == 2
    assert said in done.output
    assert requests == []


def test_a_sweep_is_shown_with_what_was_spared_and_why(invoke: Any) -> None:
    done = invoke("sweep", "show", "lr", "--project", "p", routes=ROUTES)
    assert done.exit_code == 0, done.output
    for told in (
        "Sweep lr (halving, cpu) is running.",
        "No worker trains on cpu here.",
        "Trials: 1 finished, 1 pruned.",
        "Done: 40 steps, 40,960 tokens, 6.00 s, 4 steps of it twice.",
        "Spared by pruning: 15 steps, 40,960 tokens, 6.00 s, in 1 trials.",
        "~3.100",
        "it was expected to end at 3.1",
    ):
        assert told in done.output
    assert "Left undone" not in done.output
    assert json.loads(invoke("sweep", "show", "lr", "-p", "p", "--json", routes=ROUTES).output) == SWEEP


def test_sweeps_are_listed_and_moved(invoke: Any) -> None:
    brief = {name: value for name, value in SWEEP.items() if name != "trials"}
    listed = invoke(
        "sweep", "list", "-p", "p", routes={f"GET {PATH}": {"items": [brief], "next_cursor": None}}
    )
    assert "2 of 2" in listed.output
    for move in ("pause", "resume", "cancel"):
        done = invoke("sweep", move, "lr", "-p", "p", routes={f"POST {PATH}/lr/{move}": SWEEP})
        assert "Sweep lr is running: 1 finished, 1 pruned." in done.output

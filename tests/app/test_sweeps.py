"""Sweeps over HTTP: what is asked for, refused and shown."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from store import attempts, projects, sweeps, trainers, trials
from tests.app.conftest import Api, fields, problem

SPACE: dict[str, Any] = {
    "width": [32, 64],
    "depth": 1,
    "peak_lr": {"low": 0.002, "high": 0.008, "scale": "log", "count": 3},
    "batch_tokens": 1024,
    "n_tokens": 20_480,
}
NEW = {"name": "lr", "strategy": "grid", "space": SPACE}


def made(client: httpx.Client, project: str, **more: Any) -> dict[str, Any]:
    answer = client.post(f"{project}/sweeps", json={**NEW, **more})
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = client.get(f"{project}/sweeps/{answer.json()['id']}").json()
    return document


def test_a_sweep_is_asked_for_and_shown_with_its_trials(client: httpx.Client, project: str) -> None:
    """Its points along the axes, how each trial stands, and all that is planned; by id and by name."""
    answer = client.post(f"{project}/sweeps", json={**NEW, "tags": ["a"], "budget": {"device_hours": 1}})
    assert answer.status_code == 202
    queued = answer.json()
    assert (queued["status"], queued["trials"], queued["device"]) == ("running", 6, "cpu")
    found = client.get(f"{project}/sweeps/lr").json()
    assert found == client.get(f"{project}/sweeps/{queued['id']}").json()
    assert found["counts"] == {"queued": 6}
    assert found["space"] == SPACE
    assert found["budget"] == {"device_hours": 1}
    planned = {"trials": 6, "steps": 120, "tokens": 6 * 20_480, "device_seconds": None}
    assert found["planned"] == planned
    assert [one["point"]["width"] for one in found["trials"]] == [32, 32, 32, 64, 64, 64]
    assert found["trials"][1]["point"]["peak_lr"] == pytest.approx(0.004)
    assert found["trials"][5]["run_id"] == "lr-005"
    listed = client.get(f"{project}/sweeps", params={"where": 'strategy = "grid"'}).json()["items"]
    assert [one["name"] for one in listed] == ["lr"]
    assert "trials" not in listed[0]


def test_a_sweep_that_nobody_trains_says_how_to_start_who_does(
    api: Api, client: httpx.Client, project: str
) -> None:
    """The hint names the device and the command, and is gone when a worker is there."""
    found = made(client, project)
    assert "isoloss worker --device cpu" in found["hint"]
    key = uuid.uuid4()
    with api.sessions.begin() as session:
        trainers.seen(session, key, "cpu", "host:1")
    assert client.get(f"{project}/sweeps/lr").json()["hint"] is None
    with api.sessions.begin() as session:
        trainers.left(session, key)


def test_a_retry_makes_no_second_sweep(client: httpx.Client, project: str) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = (client.post(f"{project}/sweeps", json=NEW, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, first.json()) == (202, 202, again.json())
    assert (
        problem(client.post(f"{project}/sweeps", json=NEW), 409)["detail"] == "there is a sweep 'lr' already"
    )


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "x" * 91}, "name"),
        ({"name": str(uuid.uuid4())}, "name"),
        ({"strategy": "best"}, "strategy"),
        ({"space": {}}, "space"),
        ({"space": []}, "space"),
        ({"space": {**SPACE, "peak_lr": []}}, "space.peak_lr"),
        ({"space": {**SPACE, "peak_lr": {"low": 1e-3, "high": 1e-2}}}, "space.peak_lr"),
        ({"space": {**SPACE, "width": 33}}, "space.width"),
        ({"space": {**SPACE, "n_tokens": 0}}, "space.n_tokens"),
        ({"space": {**SPACE, "optimizer": "adamx"}}, "space.optimizer"),
        ({"space": {**SPACE, "x": 1}}, "space.x"),
        ({"space": {**SPACE, "seed": list(range(400))}}, "space"),
        ({"strategy": "random"}, "budget.trials"),
        ({"budget": {"trials": 0}}, "budget.trials"),
        ({"budget": {"trials": 5}}, "budget.trials"),
        ({"budget": {"trials": 1001}}, "budget.trials"),
        ({"budget": {"device_hours": 0}}, "budget.device_hours"),
        ({"budget": {"device_hours": "1"}}, "budget.device_hours"),
        ({"budget": {"deadline": "2020-01-01T00:00:00Z"}}, "budget.deadline"),
        ({"budget": {"deadline": "2099-01-01T00:00:00"}}, "budget.deadline"),
        ({"budget": {"deadline": 4102444800}}, "budget.deadline"),
        ({"budget": {"money": 1}}, "budget.money"),
        ({"device": "tpu"}, "device"),
        ({"data": "/etc/passwd"}, "data"),
        ({"data": "../secrets"}, "data"),
        ({"data": "a/../../b"}, "data"),
        ({"measure": ["colour"]}, "measure"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"halving": {"eta": 3}}, "halving"),
        ({"strategy": "halving", "halving": {"eta": 1}}, "halving.eta"),
        ({"strategy": "halving", "halving": {"rungs": [0.5, 0.2]}}, "halving.rungs"),
        ({"strategy": "halving", "halving": {"rungs": []}}, "halving.rungs"),
        ({"tags": "a"}, "tags"),
        ({"trials": 3}, "trials"),
    ],
)
def test_a_sweep_that_cannot_be_trained_is_refused_before_any_training(
    client: httpx.Client, project: str, more: dict[str, Any], field: str
) -> None:
    answer = client.post(f"{project}/sweeps", json={**NEW, **more})
    assert field in fields(answer)
    assert client.get(f"{project}/sweeps").json()["items"] == []


def test_a_sweep_is_paused_resumed_and_cancelled(client: httpx.Client, project: str) -> None:
    """Each answers with the sweep as it stands then; an ended one is not paused, and stays as it is."""
    made(client, project)
    assert client.post(f"{project}/sweeps/lr/pause").json()["counts"] == {"paused": 6}
    paused = client.get(f"{project}/sweeps/lr").json()
    assert (paused["status"], paused["reason"]) == ("paused", "it was paused")
    assert client.post(f"{project}/sweeps/lr/resume").json()["counts"] == {"queued": 6}
    cancelled = client.post(f"{project}/sweeps/lr/cancel").json()
    assert (cancelled["status"], cancelled["counts"]) == ("cancelled", {"cancelled": 6})
    assert cancelled["left_undone"]["steps"] == 120
    assert client.post(f"{project}/sweeps/lr/cancel").json()["status"] == "cancelled"
    for move in ("pause", "resume"):
        assert (
            problem(client.post(f"{project}/sweeps/lr/{move}"), 409)["detail"]
            == "the sweep 'lr' is cancelled"
        )
    for wrong in ("nobody", str(uuid.uuid4())):
        problem(client.get(f"{project}/sweeps/{wrong}"), 404)
        problem(client.post(f"{project}/sweeps/{wrong}/pause"), 404)


def test_a_key_that_may_only_read_asks_for_no_sweep(client: httpx.Client, api: Api, project: str) -> None:
    key = client.post("/v1/keys", json={"name": "r", "scopes": ["read"]}).json()["key"]
    reader = api.client(key)
    problem(reader.post(f"{project}/sweeps", json=NEW), 403)
    assert reader.get(f"{project}/sweeps").status_code == 200


def test_a_halving_sweep_has_pilots_and_stops_at_its_rungs(client: httpx.Client, project: str) -> None:
    """Four trials pass all rungs; the others stop first at a ninth."""
    found = made(client, project, strategy="halving")
    assert found["halving"]["eta"] == 3
    assert found["halving"]["rungs"] == pytest.approx([1 / 9, 1 / 3])
    assert [one["stop_at"] for one in found["trials"]] == [
        20 if one["pilot"] else 3 for one in found["trials"]
    ]
    assert sum(one["pilot"] for one in found["trials"]) == 4


def test_the_work_of_a_sweep_is_counted(api: Api, client: httpx.Client, project: str) -> None:
    """What was done, what pruning has spared by the trial's own pace, and what a failure has left."""
    made(client, project)
    with api.sessions.begin() as session:
        sweep = sweeps.by_name(session, "lr", projects.get(session, project.rpartition("/")[2]).id)
        for number, status in ((0, "pruned"), (1, "failed")):
            trial = trials.of_sweep(session, sweep.id)[number]
            begun = attempts.start(session, trial.id, trial.queue_id or 0, "host:7")
            assert begun is not None
            said = {"config": {}, "schedule": {"kind": "constant", "total_steps": 20, "peak_lr": 1e-3}}
            attempts.begin(session, trial.id, 1, 0, "cpu", said)
            columns = {"step": [1, 2, 3, 4, 5], "loss": [5.0, 4.0, 3.0, 2.5, 2.0]}
            attempts.report(session, trial.id, 1, 5, columns, 10.0, ["step 1: micro-batch halved"])
            attempts.leave(session, trial.id, 1, status, "why")
    found = client.get(f"{project}/sweeps/lr").json()
    assert found["done"]["steps"] == 10
    assert found["done"]["device_seconds"] == 20.0
    assert found["saved"] == {"trials": 1, "steps": 15, "tokens": 15 * 1024, "device_seconds": 30.0}
    assert found["left_undone"]["trials"] == 1
    first = found["trials"][0]
    assert (first["status"], first["message"], first["notes"]) == (
        "pruned",
        "why",
        ["step 1: micro-batch halved"],
    )
    assert client.get(f"{project}/runs/lr-000").json()["status"] == "preempted"
    assert client.get(f"{project}/runs/lr-001").json()["status"] == "failed"

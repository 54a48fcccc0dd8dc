"""Forecasts and webhooks over HTTP."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from store import forecasts, projects, runs
from store.forecasts import Said
from tests.app.conftest import Api, fields, problem

DOCUMENT: dict[str, Any] = {
    "run_id": "r",
    "target": "loss",
    "step": 40,
    "last_step": 100,
    "level": 0.9,
    "value": 2.913,
    "lower": 2.897,
    "upper": 2.933,
    "reasons": [],
    "law": "concave_memory",
    "n_runs": 8,
    "n_families": 8,
    "left_band": None,
    "expected": {"steps": [60.0, 100.0], "value": [3.0, 2.913], "lower": [2.9, 2.897], "upper": [3.1, 2.933]},
}
HOOK = {"url": "https://example.org/hook", "events": ["diverged", "silent"]}


def say(
    api: Api, project: str, run_id: str, document: dict[str, Any] | None, reason: str | None = None
) -> None:
    """Store a forecast as a worker does."""
    with api.sessions.begin() as session:
        run = runs.get(session, projects.get(session, project.rpartition("/")[2]).id, run_id)
        step = 0 if document is None else document["step"]
        forecasts.save(session, Said(run.id, step, document, reason))


def test_a_forecast_is_shown_with_its_trail_and_alarms(
    api: Api, client: httpx.Client, project: str, run: str
) -> None:
    """The last one in full, what was said before, and an alarm that is over when the run is back."""
    say(api, project, "r", {**DOCUMENT, "step": 20, "value": None, "lower": None, "upper": None})
    say(api, project, "r", {**DOCUMENT, "step": 30, "left_band": "its loss lies 3.0% above"})
    say(api, project, "r", DOCUMENT)
    found = client.get(f"{run}/forecast").json()
    assert {name: found[name] for name in DOCUMENT} == DOCUMENT
    assert found["expected"]["steps"] == [60, 100]
    assert [(one["step"], one["value"]) for one in found["trail"]] == [(20, None), (30, 2.913), (40, 2.913)]
    (alarm,) = found["alarms"]
    assert (alarm["kind"], alarm["message"]) == ("left_band", "its loss lies 3.0% above")
    assert alarm["over_at"] is not None


def test_the_forecasts_of_runs_that_train_are_listed(
    api: Api, client: httpx.Client, project: str, run: str
) -> None:
    """Not of those that have ended, nor of those that have none; with the alarms that are not over."""
    for name in ("over", "odd"):
        client.put(f"{project}/runs/{name}", json={"name": name})
    say(api, project, "r", {**DOCUMENT, "left_band": "far above"})
    say(api, project, "over", {**DOCUMENT, "run_id": "over"})
    say(api, project, "odd", None, "too few runs")
    client.put(f"{project}/runs/over", json={"name": "over", "status": "finished"})
    (one,) = client.get(f"{project}/forecasts", params={"where": 'run_id = "r"', "sort": "-step"}).json()[
        "items"
    ]
    assert (one["run_id"], one["left_band"]) == ("r", "far above")
    assert [alarm["kind"] for alarm in one["alarms"]] == ["left_band"]
    assert "trail" not in one
    assert len(client.get(f"{project}/forecasts").json()["items"]) == 1
    assert run.endswith("/r")


def test_without_a_forecast_there_is_a_reason(api: Api, client: httpx.Client, project: str, run: str) -> None:
    """404 before one was tried and for what is not there, 409 with why there is none."""
    assert "forecast of run 'r'" in problem(client.get(f"{run}/forecast"), 404)["detail"]
    problem(client.get(f"{project}/runs/gone/forecast"), 404)
    problem(client.get("/v1/projects/gone/forecasts"), 404)
    say(api, project, "r", None, "a forecast needs 4 finished runs like it")
    found = problem(client.get(f"{run}/forecast"), 409)
    assert found["type"] == "urn:isoloss:not-ready"
    assert "a forecast needs 4 finished runs" in found["detail"]


def test_a_webhook_is_created_listed_tested_and_deleted(api: Api, client: httpx.Client, project: str) -> None:
    """Its secret is shown once; a test is a delivery that waits."""
    made = client.post(f"{project}/webhooks", json={**HOOK, "events": ["silent", "silent"]})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    assert made.json()["events"] == ["silent"]
    path = f"{project}/webhooks/{made.json()['id']}"
    sent = client.post(f"{path}/test")
    assert (sent.status_code, sent.json()["status"], sent.json()["event"]) == (202, "queued", "test")
    listed = client.get(f"{project}/webhooks")
    assert made.json()["secret"] not in listed.text
    (hook,) = listed.json()["items"]
    assert hook == client.get(path).json()
    assert [one["id"] for one in hook["deliveries"]] == [sent.json()["id"]]
    assert client.delete(path).status_code == 204
    for gone in (client.get(path), client.delete(path), client.post(f"{path}/test")):
        problem(gone, 404)
    own = client.post(f"{project}/webhooks", json={**HOOK, "secret": "0123456789abcdef"}).json()
    assert own["secret"] == "0123456789abcdef"


def test_the_same_webhook_is_made_once_where_its_request_is_repeated(
    client: httpx.Client, project: str
) -> None:
    """The secret of the first answer comes again."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [client.post(f"{project}/webhooks", json=HOOK, headers=headers).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(client.get(f"{project}/webhooks").json()["items"]) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "ftp://a.test"}, "url"),
        ({"url": "http://127.0.0.1:1/"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": 7}, "url"),
        ({"events": []}, "events"),
        ({"events": ["left"]}, "events.0"),
        ({"events": "silent"}, "events"),
        ({"secret": "short"}, "secret"),
        ({"secret": "with a blank in the middle"}, "secret"),
        ({"hidden": True}, "hidden"),
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(
    client: httpx.Client, project: str, change: dict[str, Any], field: str
) -> None:
    """By the field that is at fault; a service that does not allow private addresses refuses them too."""
    assert fields(client.post(f"{project}/webhooks", json={**HOOK, **change})) == [field]


def test_a_project_has_at_most_twenty_webhooks(client: httpx.Client, project: str) -> None:
    for _ in range(20):
        assert client.post(f"{project}/webhooks", json=HOOK).status_code == 201
    assert "at most 20" in problem(client.post(f"{project}/webhooks", json=HOOK), 409)["detail"]


def test_webhooks_are_for_those_who_may_write_and_in_their_project(
    api: Api, client: httpx.Client, project: str
) -> None:
    """An address may hold a token of its own: a key that reads does not see it."""
    made = client.post(f"{project}/webhooks", json=HOOK).json()
    reader = client.post("/v1/keys", json={"name": "r", "scopes": ["read"]}).json()["key"]
    with httpx.Client(
        base_url=api.url, headers={"Authorization": f"Bearer {reader}"}, trust_env=False
    ) as other:
        problem(other.get(f"{project}/webhooks"), 403)
        problem(other.post(f"{project}/webhooks", json=HOOK), 403)
        assert other.get(f"{project}/forecasts").json()["items"] == []
    client.post("/v1/projects", json={"name": "another"})
    problem(client.get(f"/v1/projects/another/webhooks/{made['id']}"), 404)
    problem(client.get(f"{project}/webhooks/none"), 404)


def test_points_that_make_a_run_diverge_queue_what_its_webhooks_are_told(
    api: Api, client: httpx.Client, project: str, run: str
) -> None:
    """With the forecast of before, and in the batch's own transaction."""
    hook = client.post(f"{project}/webhooks", json=HOOK).json()
    say(api, project, "r", DOCUMENT)
    client.post(f"{run}/points", json={"step": [41, 42], "loss": [3.0, "NaN"]})
    (delivery,) = client.get(f"{project}/webhooks/{hook['id']}").json()["deliveries"]
    assert (delivery["event"], delivery["status"], delivery["attempts"]) == ("diverged", "queued", 0)
    with api.sessions() as session:
        from store.tables import Delivery

        body = json.loads(session.get_one(Delivery, uuid.UUID(delivery["id"])).body)
    assert (body["run_id"], body["step"], body["message"]) == ("r", 42, "its loss is not finite at step 42")
    assert body["forecast"] == {name: DOCUMENT[name] for name in body["forecast"]}

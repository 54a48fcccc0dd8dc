from __future__ import annotations

import math

import httpx
import numpy as np
import pytest

from isoloss import errors
from isoloss.client.errors import JobCancelled, JobFailed, WaitTimedOut

FIT = {"id": "f", "job_id": "j", "law": "power_law", "status": "queued"}


def job(status: str, progress: float = 0.0, message: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"id": "j", "status": status, "progress": progress, "message": message})


def answer(document: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def test_lists_follow_their_cursors(scripted):
    client, script = scripted(
        answer({"items": [{"run_id": "a"}, {"run_id": "b"}], "next_cursor": "more"}),
        answer({"items": [{"run_id": "c"}], "next_cursor": None}),
    )
    assert [run["run_id"] for run in client.runs.list("p", where="status == 'finished'")] == ["a", "b", "c"]
    assert script.requests[1].url.params["cursor"] == "more"
    assert script.requests[1].url.params["where"] == "status == 'finished'"


def test_every_request_carries_the_key(scripted):
    client, script = scripted(answer({"name": "p"}))
    client.projects.get("p")
    assert script.requests[0].headers["Authorization"] == "Bearer secret-key"


def test_a_specification_holds_what_was_said_and_nothing_else(scripted):
    client, script = scripted(answer({"run_id": "r"}))
    client.runs.put("p", "r", config={"peak_lr": np.float64(0.1)}, tags=["train"])
    assert script.bodies == [{"name": "r", "config": {"peak_lr": 0.1}, "tags": ["train"]}]


def test_a_project_that_exists_is_fine_where_that_was_said(scripted):
    client, _ = scripted(answer({"title": "taken"}, 409), answer({"name": "p"}))
    assert client.projects.create("p", exist_ok=True) == {"name": "p"}


def test_a_project_that_exists_is_a_conflict_otherwise(scripted):
    client, _ = scripted(answer({"title": "taken"}, 409))
    with pytest.raises(errors.Conflict, match="taken"):
        client.projects.create("p")


def test_waiting_for_a_fit_follows_its_job_to_the_end(scripted, pauses):
    done = {**FIT, "status": "succeeded", "objective": "NaN", "verdict": "unidentified"}
    client, script = scripted(
        answer(FIT, 202),
        answer(FIT),
        job("running", 0.5, "start 3 of 6"),
        job("succeeded", 1.0),
        answer(done),
    )
    seen = []
    fit = client.fits.create(
        "p", "power_law", all=True, wait=True, on_progress=lambda state: seen.append(state)
    )
    assert script.bodies[0] == {"law": "power_law", "select": {"all": True}, "options": {}}
    assert math.isnan(fit["objective"])
    assert [state["progress"] for state in seen] == [0.5, 1.0]
    assert len(pauses) == 1


@pytest.mark.parametrize(("status", "kind"), [("failed", JobFailed), ("cancelled", JobCancelled)])
def test_a_fit_that_did_not_succeed_raises_what_became_of_it(scripted, status, kind):
    client, _ = scripted(answer(FIT), job(status, message="no run has a learning rate"))
    with pytest.raises(kind):
        client.fits.wait("p", "f")


def test_a_recommendation_sends_what_was_asked_and_is_waited_for(scripted):
    """The question, the limits and the runs as the API has them; infinite numbers come back as floats."""
    queued = {"id": "r", "job_id": "j", "status": "queued"}
    found = {"value": 0.1, "interval": [0.0, "Infinity"], "basis": [], "reason": None}
    done = {**queued, "status": "succeeded", "peak_lr": found}
    client, script = scripted(
        answer(queued, 202), answer(queued), job("succeeded", 1.0), answer(done), answer({"items": [done]})
    )
    told = client.recommendations.create(
        "p", n_params=7e9, n_tokens=1.4e11, constraints={"devices": 8}, select={"tags": ["a"]}, wait=True
    )
    assert script.bodies == [
        {
            "n_params": 7e9,
            "n_tokens": 1.4e11,
            "constraints": {"devices": 8},
            "options": {},
            "select": {"tags": ["a"]},
        }
    ]
    assert "Idempotency-Key" in script.requests[0].headers
    assert told["peak_lr"]["interval"] == [0.0, math.inf]
    assert [one["id"] for one in client.recommendations.list("p")] == ["r"]
    assert script.requests[-1].url.path == "/v1/projects/p/recommendations"


def test_a_front_that_the_runs_do_not_determine_raises_the_reason(scripted):
    """The job's message is the error's."""
    queued = {"id": "f", "job_id": "j", "status": "queued"}
    client, script = scripted(answer(queued, 202), answer(queued), job("failed", message="no batches"))
    with pytest.raises(JobFailed, match="Pareto front f failed: no batches"):
        client.pareto.create("p", target_loss=2.1, options={"bootstrap": 50}, wait=True)
    assert script.bodies == [{"target_loss": 2.1, "constraints": {}, "options": {"bootstrap": 50}}]
    assert script.requests[1].url.path == "/v1/projects/p/pareto/f"


def test_a_fit_follows_its_runs_only_where_that_was_said(scripted):
    client, script = scripted(answer(FIT, 202), answer(FIT, 202), answer({**FIT, "follow": False}))
    client.fits.create("p", "power_law", all=True)
    client.fits.create("p", "power_law", all=True, follow=True)
    assert [body.get("follow") for body in script.bodies] == [None, True]
    assert client.fits.unfollow("p", "f")["follow"] is False
    assert script.requests[2].url.path == "/v1/projects/p/fits/f/unfollow"


def test_waiting_gives_up_when_it_was_told_to(scripted):
    client, _ = scripted(job("running"))
    with pytest.raises(WaitTimedOut, match="still running"):
        client.jobs.wait("j", timeout=0.0)


def test_a_prediction_is_arrays(scripted):
    document = {
        "quantity": "loss",
        "unit": "nats",
        "steps": [1, 2],
        "value": [3.0, None],
        "lower": [2.0, "NaN"],
    }
    client, script = scripted(answer({**document, "upper": ["Infinity", 5.0], "extrapolation": {}}))
    prediction = client.fits.predict("p", "f", schedule={"kind": "constant"}, steps=np.array([1, 2]))
    assert prediction["steps"].tolist() == [1, 2]
    assert prediction["upper"].tolist() == [math.inf, 5.0]
    assert script.bodies == [{"schedule": {"kind": "constant"}, "steps": [1, 2]}]


def test_a_law_is_found_by_its_name(scripted):
    client, _ = scripted(answer({"items": [{"name": "kaplan"}, {"name": "chinchilla"}]}))
    assert client.laws.get("chinchilla")["name"] == "chinchilla"
    with pytest.raises(errors.NotFound, match="no law 'moore'"):
        client.laws.get("moore")


def test_keys_are_made_with_their_scopes(scripted):
    client, script = scripted(answer({"id": "k", "key": "shown-once"}, 201))
    assert client.keys.create("ci", ["read", "write"], project="p")["key"] == "shown-once"
    assert script.bodies == [{"name": "ci", "scopes": ["read", "write"], "project": "p"}]

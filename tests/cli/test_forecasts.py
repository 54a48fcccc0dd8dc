"""`isoloss forecast` and `isoloss webhook`, against scripted answers."""

from __future__ import annotations

import json

import httpx
import pytest

FORECAST = {
    "run_id": "r[1]",
    "target": "val_loss",
    "step": 1200,
    "last_step": 5000,
    "value": 2.91312,
    "lower": 2.897,
    "upper": 2.933,
    "level": 0.9,
    "reasons": ["its peak learning rate, 0.02, lies outside of those of the finished runs"],
    "law": "concave_memory",
    "n_runs": 12,
    "n_families": 9,
    "left_band": "its loss lies 3.0% above what was to be expected",
    "updated_at": "2026-03-01T12:00:00.000Z",
    "alarms": [
        {
            "id": "a",
            "kind": "left_band",
            "step": 1200,
            "message": "its loss lies 3.0% above",
            "at": "2026-03-01T12:00:00.000Z",
            "over_at": None,
        }
    ],
    "expected": None,
    "trail": [
        {"at": "2026-03-01T11:59:00.000Z", "step": 1000, "value": None, "lower": None, "upper": None},
        {"at": "2026-03-01T12:00:00.000Z", "step": 1200, "value": 2.91312, "lower": 2.897, "upper": 2.933},
    ],
}
UNKNOWN = {
    **FORECAST,
    "value": None,
    "lower": None,
    "upper": None,
    "law": None,
    "left_band": None,
    "alarms": [],
}
ONE = "GET /v1/projects/p/runs/r/forecast"
HOOK = {"id": "h", "url": "https://a.test/", "events": ["diverged", "silent"]}
DELIVERY = {
    "id": "d",
    "event": "diverged",
    "status": "queued",
    "attempts": 2,
    "answered": 500,
    "error": "it answered 500",
    "created_at": "2026-03-01T12:00:00.000Z",
    "finished_at": None,
}


def problem(status: int, detail: str) -> httpx.Response:
    return httpx.Response(status, json={"title": "no", "status": status, "detail": detail})


def test_a_forecast_is_shown_with_its_band_its_notes_and_its_alarms(invoke):
    result = invoke("forecast", "r", "-p", "p", routes={ONE: FORECAST})
    assert result.exit_code == 0, result.output
    for text in (
        "Run r[1], seen to step 1,200 of 5,000.",
        "Final val_loss: 2.913 [2.897, 2.933], at 90 %",
        "concave_memory and 12 finished runs",
        "Note: its peak learning rate",
        "left band: its loss lies 3.0% above",
        "not known",
    ):
        assert text in result.stdout
    shown = invoke("forecast", "r", "-p", "p", "--json", routes={ONE: FORECAST})
    assert json.loads(shown.stdout) == FORECAST


def test_a_value_that_is_not_known_is_said_to_be_so(invoke):
    result = invoke("forecast", "r", "-p", "p", routes={ONE: UNKNOWN})
    assert "Final val_loss: not known" in result.stdout


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (problem(404, "There is no forecast of run 'r'."), "There is no forecast of run 'r'."),
        (problem(409, "The forecast of run 'r' has no result to use: too few runs"), "too few runs"),
    ],
)
def test_a_run_without_a_forecast_tells_why(invoke, answer, text):
    result = invoke("forecast", "r", "-p", "p", routes={ONE: answer})
    assert result.exit_code == 1
    assert text in result.stderr


def test_all_runs_that_train_are_listed(invoke):
    routes = {"GET /v1/projects/p/forecasts": {"items": [FORECAST, UNKNOWN], "next_cursor": None}}
    lines = invoke("forecast", "-p", "p", routes=routes).stdout.splitlines()
    assert "2.913 [2.897, 2.933]" in lines[1]
    assert lines[1].endswith("left band")
    assert "not known" in lines[2]
    assert len(json.loads(invoke("forecast", "-p", "p", "--json", routes=routes).stdout)) == 2


def test_watching_prints_what_is_new_and_ends_with_the_run(invoke, monkeypatch):
    states = iter(["running", "running", "running", "finished"])
    forecasts = iter(
        [None, FORECAST, FORECAST, {**FORECAST, "updated_at": "2026-03-01T12:01:00.000Z", "step": 1300}]
    )

    class Answers(dict):
        def get(self, path, default=None):
            if path == ONE:
                found = next(forecasts)
                return problem(404, "There is no forecast of run 'r'.") if found is None else found
            return {"run_id": "r", "status": next(states)} if path == "GET /v1/projects/p/runs/r" else default

    result = invoke("forecast", "r", "-p", "p", "--watch", "--json", routes=Answers(more=1))
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["step"] for line in result.stdout.splitlines()] == [1200, 1300]


def test_a_webhook_is_added_listed_tested_and_removed(invoke):
    requests: list[httpx.Request] = []
    routes = {
        "POST /v1/projects/p/webhooks": httpx.Response(201, json={**HOOK, "secret": "whsec_x"}),
        "GET /v1/projects/p/webhooks": {"items": [{**HOOK, "deliveries": [DELIVERY]}], "next_cursor": None},
        "POST /v1/projects/p/webhooks/h/test": httpx.Response(202, json=DELIVERY),
        "DELETE /v1/projects/p/webhooks/h": httpx.Response(204),
    }
    ask = {"routes": routes, "requests": requests}
    added = invoke("webhook", "add", "https://a.test/", "-p", "p", "--event", "diverged", **ask)
    assert "whsec_x" in added.stdout
    assert json.loads(requests[0].content) == {"url": "https://a.test/", "events": ["diverged"]}
    assert requests[0].headers["Idempotency-Key"]
    invoke("webhook", "add", "https://a.test/", "-p", "p", **ask)
    assert json.loads(requests[1].content)["events"] == ["left_band", "diverged", "silent", "resumed"]
    listed = invoke("webhook", "list", "-p", "p", **ask).stdout
    assert "diverged, queued: it answered 500" in listed
    assert "Delivery d is on its way" in invoke("webhook", "test", "h", "-p", "p", **ask).stdout
    assert "removed" in invoke("webhook", "remove", "h", "-p", "p", **ask).stdout
    for command in (("add", "https://a.test/"), ("list",), ("test", "h"), ("remove", "h")):
        assert json.loads(invoke("webhook", *command, "-p", "p", "--json", **ask).stdout)
    assert invoke("webhook", "add", "https://a.test/", "-p", "p", "--event", "nonsense", **ask).exit_code == 2

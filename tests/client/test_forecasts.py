"""Forecasts and webhooks through the client, against scripted answers."""

from __future__ import annotations

import math

import httpx
import pytest

from isoloss import errors


def answer(document: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def test_numbers_of_a_forecast_are_numbers_and_names_stay_names(scripted):
    """A run may be called NaN."""
    expected = {"steps": [2], "value": [2.0], "lower": [1.0], "upper": ["Infinity"]}
    trail = [{"at": "t", "step": 1, "value": None, "lower": None, "upper": "Infinity"}]
    document = {"run_id": "NaN", "value": 2.5, "lower": "-Infinity", "upper": "Infinity"}
    client, script = scripted(answer({**document, "expected": expected, "trail": trail}))
    found = client.forecasts.get("p q", "NaN")
    assert script.requests[0].url.raw_path == b"/v1/projects/p%20q/runs/NaN/forecast"
    assert (found["run_id"], found["value"], found["lower"]) == ("NaN", 2.5, -math.inf)
    assert found["expected"]["upper"] == [math.inf]
    assert found["trail"][0]["upper"] == math.inf


def test_forecasts_are_listed_page_by_page(scripted):
    pages = [
        {"items": [{"run_id": "a", "value": None}], "next_cursor": "c"},
        {"items": [], "next_cursor": None},
    ]
    client, script = scripted(*map(answer, pages))
    assert [one["run_id"] for one in client.forecasts.list("p", where="step > 5")] == ["a"]
    assert script.requests[1].url.params["cursor"] == "c"


@pytest.mark.parametrize(("status", "kind"), [(404, errors.NotFound), (409, errors.Conflict)])
def test_a_run_without_a_forecast_raises_why(scripted, status, kind):
    client, _ = scripted(answer({"title": "no", "status": status, "detail": "too few runs"}, status))
    with pytest.raises(kind, match="too few runs"):
        client.forecasts.get("p", "r")


def test_webhooks_are_created_once_and_deleted(scripted, pauses):
    client, script = scripted(
        httpx.ConnectError("gone"),
        answer({"id": "h", "secret": "s"}, 201),
        httpx.Response(204),
        answer({"id": "d"}, 202),
    )
    assert client.webhooks.create("p", "https://a.test", ["silent"], secret="0123456789abcdef")["id"] == "h"
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert len(script.requests) == 2
    assert len(keys) == 1
    assert script.bodies[0] == {"url": "https://a.test", "events": ["silent"], "secret": "0123456789abcdef"}
    client.webhooks.delete("p", "h/../x")
    assert script.requests[2].url.raw_path == b"/v1/projects/p/webhooks/h%2F..%2Fx"
    assert client.webhooks.test("p", "h") == {"id": "d"}

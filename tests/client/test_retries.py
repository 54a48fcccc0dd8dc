from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from isoloss import errors
from isoloss.client.errors import RateLimited, ServerError, ServerUnavailable, ValidationProblem
from isoloss.client.retries import RetryPolicy, retry_after_seconds


def ok(document: object = None, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document if document is not None else {"name": "p"})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again(scripted, status):
    client, script = scripted(httpx.Response(status), ok())
    assert client.projects.get("p") == {"name": "p"}
    assert len(script.requests) == 2


def test_a_lost_connection_is_tried_again(scripted):
    client, script = scripted(httpx.ConnectError("refused"), httpx.ReadError("reset"), ok())
    assert client.projects.get("p") == {"name": "p"}
    assert len(script.requests) == 3


def test_retry_after_is_honoured(scripted, pauses):
    client, _ = scripted(httpx.Response(503, headers={"Retry-After": "7"}), ok())
    client.projects.get("p")
    assert 7 <= pauses[0] <= 8


def test_a_pause_that_is_too_long_is_handed_to_the_caller(scripted, pauses):
    client, _ = scripted(httpx.Response(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimited) as caught:
        client.projects.get("p")
    assert caught.value.retry_after == 3600
    assert pauses == []


def test_attempts_end_and_the_last_answer_is_raised(scripted, pauses):
    client, script = scripted(httpx.Response(503, json={"title": "Database stopped"}), retries=3)
    with pytest.raises(ServerUnavailable, match="Database stopped"):
        client.projects.get("p")
    assert len(script.requests) == 4
    assert pauses == sorted(pauses)


def test_an_unreachable_service_is_unavailable_in_one_sentence(scripted):
    client, _ = scripted(httpx.ConnectError("[Errno 111] Connection refused"), retries=0)
    with pytest.raises(
        errors.Unavailable, match=r"The service at http://service.test cannot be reached: connection refused$"
    ):
        client.projects.get("p")


@pytest.mark.parametrize(("status", "kind"), [(422, ValidationProblem), (500, ServerError)])
def test_what_a_repetition_cannot_mend_is_not_repeated(scripted, status, kind):
    client, script = scripted(httpx.Response(status))
    with pytest.raises(kind):
        client.projects.get("p")
    assert len(script.requests) == 1


def test_every_attempt_to_create_carries_the_same_key_and_every_creation_another(scripted):
    client, script = scripted(httpx.Response(503), ok(status=201), ok(status=201))
    client.projects.create("p")
    client.projects.create("q")
    first, repeated, second = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first == repeated != second


def test_a_deletion_whose_answer_was_lost_has_succeeded(scripted):
    client, _ = scripted(httpx.ReadError("reset"), httpx.Response(404))
    client.runs.delete("p", "r")


def test_a_deletion_of_what_was_never_there_says_so(scripted):
    client, _ = scripted(httpx.Response(404, json={"title": "Not found", "detail": "There is no run 'r'."}))
    with pytest.raises(errors.NotFound, match="no run 'r'"):
        client.runs.delete("p", "r")


def test_readiness_is_asked_once(scripted):
    client, script = scripted(ok({"status": "alive"}), httpx.Response(503, json={"title": "No database"}))
    assert client.health()["ready"] is False
    assert len(script.requests) == 2


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_pauses_double_up_to_a_limit_and_jitter_takes_at_most_half(jitter):
    policy = RetryPolicy(retries=8, first_pause_s=0.25, longest_pause_s=8.0)
    pauses = [policy.pause(attempt, jitter) for attempt in range(9)]
    assert pauses[8] is None
    for attempt, pause in enumerate(pauses[:8]):
        full = min(0.25 * 2**attempt, 8.0)
        assert full / 2 <= pause <= full


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("5", 5), ("1.5", 1.5), ("-3", 0), ("Wed, 01 Jan 2025 00:00:30 GMT", 30), ("soon", None), (None, None)],
)
def test_retry_after_is_read_as_seconds_or_date(header, seconds):
    assert retry_after_seconds(header, now=datetime(2025, 1, 1, tzinfo=UTC)) == seconds

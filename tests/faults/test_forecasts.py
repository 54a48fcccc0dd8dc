"""Forecasts, alarms and webhooks of a real service with real trainings, also when it is killed in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isoloss.client import Client
from isoloss.client.errors import Conflict, NotFound
from isoloss.signatures import is_signed
from tests.faults.service import Service, wait_until
from tests.forecasting.receivers import Receiver, receiving
from tests.forecasting.studies import CONFIG, FINISHED, NEXT, losses

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ["left_band", "diverged", "silent", "resumed", "finished", "failed"]


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that looks after runs every second."""
    monkeypatch.setenv("ISOLOSS_FORECAST_EVERY_S", "1")
    monkeypatch.setenv("ISOLOSS_SILENT_AFTER_S", "4")
    running = Service(data_dir)
    yield running
    running.running.close()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as client:
        client.projects.create("study")
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def put_study(client: Client) -> None:
    """Finished runs, and what they tell learned already."""
    put_finished(client)
    step, loss = losses(NEXT, 5, last=200)
    client.runs.put("study", "first", config=CONFIG, schedule=NEXT)
    client.points.append("study", "first", {"step": step, "loss": loss})
    wait_until(lambda: forecast_of(client, "first") is not None, 90)
    client.runs.put("study", "first", config=CONFIG, schedule=NEXT, status="failed")


def put_finished(client: Client) -> None:
    for number, schedule in enumerate(FINISHED):
        step, loss = losses(schedule, number)
        client.runs.put("study", f"done-{number}", config=CONFIG, schedule=schedule, status="finished")
        client.points.append("study", f"done-{number}", {"step": step, "loss": loss})


def forecast_of(client: Client, run_id: str) -> dict[str, Any] | None:
    try:
        return dict(client.forecasts.get("study", run_id))
    except (NotFound, Conflict):
        return None


def watch(client: Client, service: Service, seen: list[tuple[str, dict[str, Any]]]) -> Callable[[], None]:
    """Follow the event stream of the project in the background."""
    over = threading.Event()
    http = service.running.client

    def follow() -> None:
        kind = ""
        with http.stream("GET", "/v1/projects/study/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    seen.append((kind, json.loads(line.removeprefix("data: "))))
                if over.is_set():
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def stop() -> None:
        over.set()
        client.runs.put("study", "last-event")
        thread.join(10)
        http.close()

    return stop


def test_a_training_that_diverges_is_forecast_and_then_told_to_its_webhook(
    service: Service, client: Client, receiver: Receiver, tmp_path: Path
) -> None:
    """A process trains, the service forecasts it; its NaN arrives once, signed, with the forecast of before."""
    put_study(client)
    secret = client.webhooks.create("study", receiver.url, EVENTS)["secret"]
    seen: list[tuple[str, dict[str, Any]]] = []
    stop = watch(client, service, seen)
    environment = {**os.environ, "ISOLOSS_URL": service.url, "ISOLOSS_API_KEY": service.api_key}
    command = [sys.executable, "-m", "tests.forecasting.trainer", str(tmp_path), "live", "1000", "390"]
    trainer = subprocess.Popen(command, cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: (forecast_of(client, "live") or {}).get("value") is not None, 60)
        forecast = client.forecasts.get("study", "live")
        assert forecast["lower"] <= forecast["value"] <= forecast["upper"]
        assert [one["run_id"] for one in client.forecasts.list("study")] == ["live"]
        wait_until(lambda: "diverged" in receiver.events(), 60)
    finally:
        trainer.wait(60)
    assert client.runs.get("study", "live")["status"] == "diverged"
    time.sleep(2.5)
    assert receiver.events("live") == ["diverged"]
    (told,) = receiver.received
    assert told.document["project"] == "study"
    assert told.document["forecast"]["target"] == "loss"
    assert is_signed(secret, told.body, told.headers["Isoloss-Signature"])
    assert not is_signed(secret, told.body + b" ", told.headers["Isoloss-Signature"])
    assert told.headers["Isoloss-Delivery"] == told.document["id"]
    (hook,) = client.webhooks.list("study")
    assert [(one["status"], one["attempts"], one["answered"]) for one in hook["deliveries"]] == [
        ("succeeded", 1, 204)
    ]
    alarms = client.forecasts.get("study", "live")["alarms"]
    assert [(alarm["kind"], alarm["over_at"]) for alarm in alarms] == [("diverged", None)]
    stop()
    assert [facts["kind"] for kind, facts in seen if kind == "alarm"] == ["diverged"]
    steps = [facts["step"] for kind, facts in seen if kind == "forecast"]
    assert steps == sorted(set(steps))
    assert len(steps) >= 2
    assert all(facts["kind"] != "forecast" for kind, facts in seen if kind == "job")


def test_a_run_that_falls_silent_is_told_once_also_across_a_crash_of_the_service(
    service: Service, client: Client, receiver: Receiver
) -> None:
    """Silent, the service killed and started, still silent: one alarm. Points come again: one more."""
    client.webhooks.create("study", receiver.url, EVENTS)
    client.runs.put("study", "quiet", config=CONFIG, schedule=NEXT)
    step, loss = losses(NEXT, 1, last=40)
    for at, value in zip(step.tolist(), loss.tolist(), strict=True):
        client.points.append("study", "quiet", {"step": [at], "loss": [value]})
        time.sleep(0.05)
    wait_until(lambda: receiver.events() == ["silent"], 20)
    assert "they came every" in receiver.received[0].document["message"]
    service.kill()
    service.start()
    time.sleep(7)
    assert receiver.events() == ["silent"]
    client.points.append("study", "quiet", {"step": [44], "loss": [3.0]})
    wait_until(lambda: receiver.events()[:2] == ["silent", "resumed"], 20)
    client.runs.put("study", "quiet", config=CONFIG, schedule=NEXT, status="finished")
    wait_until(lambda: receiver.events() == ["silent", "resumed", "finished"], 20)
    time.sleep(2)
    assert receiver.events() == ["silent", "resumed", "finished"]


def test_a_hook_that_hangs_keeps_neither_forecasts_nor_other_hooks_waiting(
    service: Service, client: Client, receiver: Receiver
) -> None:
    """One hook takes the connection and says nothing: the other one is told at once, and forecasts go on."""
    put_study(client)
    with receiving() as slow:
        slow.slow_s = 8
        client.webhooks.create("study", slow.url, ["finished"])
        client.webhooks.create("study", receiver.url, ["finished"])
        for number in range(3):
            client.runs.put("study", f"other-{number}", config=CONFIG)
            client.runs.put("study", f"other-{number}", config=CONFIG, status="finished")
        client.runs.put("study", "live", config=CONFIG, schedule=NEXT)
        step, loss = losses(NEXT, 5, last=200)
        client.points.append("study", "live", {"step": step, "loss": loss})
        wait_until(lambda: receiver.events() == ["finished"] * 3, 6)
        wait_until(lambda: forecast_of(client, "live") is not None, 60)
        wait_until(lambda: len(slow.received) == 3, 30)

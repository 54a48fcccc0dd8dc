"""Fits over HTTP on real workers: an answer, a cancel in time, a worker that is killed in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.faults.service import Up, wait_until

Start = Callable[..., Up]

pytestmark = pytest.mark.faults

SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"kind": "cosine", "end_lr": 1e-4},
    "constant": {"kind": "constant"},
    "wsd": {"kind": "wsd", "decay_start": 3000, "decay_shape": "linear"},
}
LONG = {"bootstrap": 20_000, "starts": 2000}


def record_runs(client: httpx.Client) -> None:
    """Three runs whose losses fall as a power of the steps, with a drop where the rate falls."""
    assert client.post("/v1/projects", json={"name": "p"}).status_code == 201
    for name, schedule in SCHEDULES.items():
        spec = {"total_steps": 4000, "peak_lr": 1e-3, "warmup_steps": 100, **schedule}
        run = {"name": name, "status": "finished", "config": {"n_params": 10_000_000}, "schedule": spec}
        assert client.put(f"/v1/projects/p/runs/{name}", json=run).status_code == 201
        steps = list(range(110, 4001, 10))
        drops = {"cosine": 0.1, "constant": 0.0, "wsd": 0.12}
        loss = [2.5 + 4 * s**-0.4 - drops[name] * max(0, s / 4000 - 0.7) + 0.001 * (s % 7) for s in steps]
        answer = client.post(f"/v1/projects/p/runs/{name}/points", json={"step": steps, "loss": loss})
        assert answer.json()["accepted"] == len(steps), answer.text


def ask(client: httpx.Client, **options: Any) -> dict[str, Any]:
    request = {"law": "lr_annealing", "select": {"all": True}, "options": options}
    answer = client.post("/v1/projects/p/fits", json=request)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def job(client: httpx.Client, fit: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = client.get(f"/v1/jobs/{fit['job_id']}").json()
    return document


def test_a_fit_is_answered_and_a_long_one_cancelled_in_time(up: Start) -> None:
    """A small fit succeeds; a long one shows its progress and is gone within 2 s of the cancel."""
    service = up("--workers", "1").wait_until_ready()
    with service.client as client:
        record_runs(client)
        small = ask(client, bootstrap=20)
        wait_until(lambda: job(client, small)["status"] == "succeeded", 30)
        fit = client.get(f"/v1/projects/p/fits/{small['id']}").json()
        assert {one["name"] for one in fit["parameters"]} >= {"L0", "A", "alpha", "C"}

        long = ask(client, **LONG)
        wait_until(lambda: job(client, long)["progress"] > 0, 30)
        begun = time.monotonic()
        assert client.post(f"/v1/jobs/{long['job_id']}/cancel").is_success
        wait_until(lambda: job(client, long)["status"] == "cancelled", 5)
        assert time.monotonic() - begun < 2
        assert client.get(f"/v1/projects/p/fits/{long['id']}").json()["status"] == "cancelled"

        after = ask(client, bootstrap=20)
        wait_until(lambda: job(client, after)["status"] == "succeeded", 30)
    service.interrupt()
    assert service.process.wait(20) == 0


@pytest.mark.soak
def test_a_worker_killed_in_the_middle_of_a_fit_costs_a_minute_at_most(up: Start) -> None:
    """`kill -9` of the worker that fits: the fit is done within 60 s, by one of the others, once."""
    service = up("--workers", "2").wait_until_ready()
    with service.client as client:
        record_runs(client)
        fit = ask(client, bootstrap=1500)
        wait_until(lambda: job(client, fit)["progress"] > 0, 30)
        busy = max(
            (child for child in service.relatives() if "workers" in child.cmdline()),
            key=lambda worker: sum(child.cpu_times().user for child in worker.children()),
        )
        busy.kill()
        wait_until(lambda: job(client, fit)["attempts"] == 2, 60)
        wait_until(lambda: job(client, fit)["status"] == "succeeded", 60)
        assert client.get(f"/v1/projects/p/fits/{fit['id']}").json()["status"] == "succeeded"
    service.interrupt()
    assert service.process.wait(20) == 0

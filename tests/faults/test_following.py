"""Refits on a service that ends in the middle: what was asked for is done by the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import httpx
import pytest

from tests.faults.service import Up, wait_until

Start = Callable[..., Up]

pytestmark = pytest.mark.faults

LONG = {"bootstrap": 10_000, "starts": 500}


def put(client: httpx.Client, name: str, n_params: float, n_tokens: float) -> None:
    loss = 1.8 + 480 * n_params**-0.35 + 2100 * n_tokens**-0.37
    config = {"n_params": n_params, "n_tokens": n_tokens}
    run = {"name": name, "status": "finished", "config": config, "summary": {"final_loss": loss}}
    assert client.put(f"/v1/projects/p/runs/{name}", json=run).is_success


def followed(client: httpx.Client, **options: Any) -> str:
    """The path of a fit that follows twelve runs, with its first result."""
    assert client.post("/v1/projects", json={"name": "p"}).status_code == 201
    for number, (n_params, n_tokens) in enumerate(product((1e7, 3e7, 1e8, 3e8), (2e8, 1e9, 5e9))):
        put(client, f"r{number}", n_params, n_tokens)
    request = {"law": "chinchilla", "select": {"all": True}, "options": options, "follow": True}
    answer = client.post("/v1/projects/p/fits", json=request)
    assert answer.status_code == 202, answer.text
    path = f"/v1/projects/p/fits/{answer.json()['id']}"
    wait_until(lambda: client.get(path).json()["revision"] == 1, 60)
    return path


def test_a_run_that_landed_before_a_crash_is_in_the_fit_after_it(up: Start) -> None:
    """The service is killed at once after the run was put: its refit was stored with it."""
    service = up("--workers", "1").wait_until_ready()
    with service.client as client:
        path = followed(client, bootstrap=20)
        put(client, "late", 1e9, 2e10)
        service.process.kill()
    wait_until(lambda: not service.relatives(), 20)
    with up("--workers", "1").wait_until_ready().client as client:
        wait_until(lambda: client.get(path).json()["revision"] == 2, 60)
        fit = client.get(path).json()
        assert (fit["status"], fit["diagnostics"]["n_runs"]) == ("succeeded", 13)


def test_a_refit_that_was_interrupted_is_done_by_the_next_service(up: Start) -> None:
    """Ctrl-C in the middle of a refit: the old result stays, and the same job makes the next one."""
    service = up("--workers", "1").wait_until_ready()
    with service.client as client:
        path = followed(client, **LONG)
        put(client, "late", 1e9, 2e10)
        wait_until(lambda: _refit(client, path).get("status") == "running", 30)
        time.sleep(0.3)
        job_id = client.get(path).json()["refit_job_id"]
        assert client.get(path).json()["revision"] == 1
    service.interrupt()
    assert service.process.wait(20) == 0
    with up("--workers", "1").wait_until_ready().client as client:
        wait_until(lambda: client.get(path).json()["revision"] == 2, 60)
        fit, job = client.get(path).json(), _refit(client, path)
        assert (fit["diagnostics"]["n_runs"], fit["refit_job_id"]) == (13, job_id)
        assert (job["status"], job["attempts"]) == ("succeeded", 1)


def _refit(client: httpx.Client, path: str) -> dict[str, Any]:
    job_id = client.get(path).json()["refit_job_id"]
    document: dict[str, Any] = {} if job_id is None else client.get(f"/v1/jobs/{job_id}").json()
    return document


@pytest.mark.soak
def test_a_refit_whose_worker_is_killed_is_done_by_another(up: Start) -> None:
    """`kill -9` of the worker that refits, while the next refit waits: both runs are in the fit within a minute."""
    service = up("--workers", "2").wait_until_ready()
    with service.client as client:
        path = followed(client, **LONG)
        put(client, "late", 1e9, 2e10)
        wait_until(lambda: _refit(client, path).get("progress", 0) > 0, 30)
        busy = max(
            (child for child in service.relatives() if "workers" in child.cmdline()),
            key=lambda worker: sum(child.cpu_times().user for child in worker.children()),
        )
        busy.kill()
        put(client, "later", 2e9, 4e10)
        wait_until(lambda: client.get(path).json()["diagnostics"]["n_runs"] == 14, 60)
    service.interrupt()
    assert service.process.wait(20) == 0

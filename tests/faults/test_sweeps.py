"""Sweeps on workers of their own: `isoloss worker`, beside a service that trains nothing itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.service import ISOLOSS, Up, wait_until

pytestmark = pytest.mark.faults

SPACE = {
    "width": 32,
    "depth": 1,
    "head_width": 16,
    "peak_lr": [0.004, 0.008, 0.016],
    "batch_tokens": 512,
    "sequence_length": 32,
    "n_tokens": 10_240,
    "val_tokens": 1024,
}


def database_of(service: Up) -> str:
    url: str = service.child("app.server").environ()["ISOLOSS_DATABASE_URL"]
    return url


def test_workers_of_their_own_train_a_sweep_and_stop_cleanly(up: Callable[..., Up], tmp_path: Path) -> None:
    """The sweep says that nobody trains, then two processes do; Ctrl-C ends both and leaves nothing."""
    service = up("--workers", "0").wait_until_ready()
    with service.client as client:
        assert client.post("/v1/projects", json={"name": "p"}).status_code == 201
        new = {"name": "s", "strategy": "grid", "space": SPACE, "device": "cpu"}
        assert client.post("/v1/projects/p/sweeps", json=new).status_code == 202
        path = "/v1/projects/p/sweeps/s"
        assert "isoloss worker --device cpu" in client.get(path).json()["hint"]
        env = {**os.environ, "ISOLOSS_DATABASE_URL": database_of(service)}
        command = [str(ISOLOSS), "worker", "--device", "cpu", "--processes", "2", "--data-dir", str(tmp_path)]
        worker = psutil.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True)
        try:
            wait_until(lambda: client.get(path).json()["status"] == "finished", 120)
            trained = worker.children()
            assert len(trained) == 2
            worker.send_signal(signal.SIGINT)
            assert worker.wait(20) == 0
        finally:
            if worker.poll() is None:
                worker.terminate()
            worker.stdout.close()
        assert not any(child.is_running() for child in trained)
        found = client.get(path).json()
    assert found["counts"] == {"finished": 3}
    assert {trial["attempts"] for trial in found["trials"]} == {1}
    assert all(trial["final_loss"] < 5 for trial in found["trials"])


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (["--device", "cpu"], {}, "ISOLOSS_DATABASE_URL: is not set"),
        (["--device", "cpu"], {"ISOLOSS_DATABASE_URL": "mysql://a/b"}, "only PostgreSQL"),
        (["--device", "cuda"], {"ISOLOSS_DATABASE_URL": "postgresql:///x"}, "no CUDA device"),
        (["--device", "tpu"], {}, "tpu"),
        (["--processes", "0"], {}, "greater than or equal"),
    ],
)
def test_a_worker_that_cannot_train_says_why(
    flags: list[str], env: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Before anything is started: no database, another kind of one, no device."""
    clean = {name: value for name, value in os.environ.items() if name != "ISOLOSS_DATABASE_URL"}
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(ISOLOSS), "worker", "--data-dir", str(tmp_path), *flags],
        env={**clean, **hidden, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert said in done.stderr

"""`isoloss import` of trackers that give their runs ids of their own, against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isoloss.cli import build
from isoloss.client import Client

CONFIG = {"n_params": 60_000_000, "batch_tokens": 65_536, "optimizer": "adamw"}
STARTS = [(1, 60, 0.0), (41, 100, 0.5)]
"""First and last step of each start of a training that went on from step 40, and what its loss adds."""

TRACKIO = """
import json, sys, trackio
config, starts = json.loads(sys.argv[1])
quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
for number, (first, last, more) in enumerate(starts):
    resume = "must" if number else "never"
    trackio.init(project="pilots", name="pilot", config=config, resume=resume, **quiet)
    for step in range(first, last + 1):
        trackio.log({"train/loss": 2 + more + step**-0.5, "lr": 1e-3}, step=step)
    trackio.finish()
"""


def loss(step: int, more: float) -> float:
    return 2 + more + step**-0.5


def write_mlflow(folder: Path) -> list[str]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    log = MlflowClient((folder / "mlruns").as_uri())
    run = log.create_run(log.create_experiment("pilots"), run_name="pilot").info.run_id
    for name, value in CONFIG.items():
        log.log_param(run, name, value)
    time_ms = 1_750_000_000_000
    for first, last, more in STARTS:
        for step in range(first, last + 1):
            time_ms += 1
            metrics = [
                Metric("train/loss", loss(step, more), time_ms, step),
                Metric("lr", 1e-3, time_ms, step),
            ]
            log.log_batch(run, metrics)
    log.set_terminated(run)
    return ["mlflow", str(folder / "mlruns")]


def write_trackio(folder: Path) -> list[str]:
    command = [sys.executable, "-c", TRACKIO, json.dumps([CONFIG, STARTS])]
    environment = os.environ | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    return ["trackio", str(folder)]


@pytest.fixture
def invoke(live, tmp_path, monkeypatch) -> Callable[..., Result]:
    monkeypatch.setenv("ISOLOSS_URL", live.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", live.api_key)
    monkeypatch.setenv("ISOLOSS_PROJECT", tmp_path.name)
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return lambda *arguments: CliRunner().invoke(build(), ["import", *map(str, arguments), "--json"])


@pytest.mark.parametrize("write", [write_mlflow, write_trackio])
def test_a_resumed_run_is_imported_once_as_the_tracker_has_it_and_undone(write, invoke, live, tmp_path):
    (tmp_path / "source").mkdir()
    arguments = write(tmp_path / "source")
    first = invoke(*arguments)
    assert first.exit_code == 0, first.output + first.stderr
    with Client(live.url, live.api_key) as client:
        [run] = client.runs.list(tmp_path.name)
        points = client.points.read(tmp_path.name, run["run_id"])
        assert run["name"] == "pilot"
        assert {name: run["config"][name] for name in CONFIG} == CONFIG
        assert points["step"].tolist() == list(range(1, 101))
        expected = [loss(step, 0.0 if step <= 40 else 0.5) for step in range(1, 101)]
        assert points["loss"].tolist() == expected
        assert points["lr"].tolist() == [1e-3] * 100
        again = json.loads(invoke(*arguments).stdout)
        assert [(one["state"], one["accepted"]) for one in again["runs"]] == [("unchanged", 0)]
        undone = invoke("undo", json.loads(first.stdout)["import_id"], "--yes")
        assert undone.exit_code == 0
        assert list(client.runs.list(tmp_path.name)) == []


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_source_that_is_not_there_is_one_clear_message(tracker, invoke, tmp_path):
    result = invoke(tracker, tmp_path / "none")
    assert result.exit_code == 1
    assert "there is no such file or folder" in result.output + result.stderr
    assert "Traceback" not in result.output + result.stderr


def test_an_experiment_that_is_not_there_is_named_with_those_that_are(invoke, tmp_path):
    (tmp_path / "source").mkdir()
    result = invoke(*write_mlflow(tmp_path / "source"), "--experiment", "none")
    assert result.exit_code == 1
    assert "it has Default, pilots" in result.output + result.stderr

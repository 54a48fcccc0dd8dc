"""Runs that MLflow itself recorded in a database, in files and on a server, compared with what was logged."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers.logged_runs import LoggedRun, Unreadable
from isoloss.importers.mlflow_runs import read_mlflow

# MLflow maps its tables in a way of which SQLAlchemy warns.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
LOSSES = [9.0, 1 / 3, math.nan, math.inf, -math.inf]
SERVER = "from mlflow.server import app; app.run(host='127.0.0.1', port={port})"


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


def client(address: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(address)


def record(address: str) -> dict[str, str]:
    """Two experiments with runs of every ending; the ids of the runs by name."""
    log = client(address)
    experiment, other = log.create_experiment("pilots"), log.create_experiment("other")
    first = log.create_run(experiment, run_name="first").info.run_id
    for step, loss in enumerate(LOSSES):
        log.log_metric(first, "train/loss", loss, timestamp=1_000_000 + step, step=step)
    for step in (2, 3):  # written again after a restart
        log.log_metric(first, "train/loss", 5.0 - step, timestamp=2_000_000 + step, step=step)
    log.log_metric(first, "system/cpu", 0.5, step=0)
    for name, value in {"lr": "1e-3", "width": 64, "tied": True, "opt": "adamw", "none": None}.items():
        log.log_param(first, name, value)
    log.set_tag(first, "team", "base")
    log.set_tag(first, "mlflow.note.content", "the first")
    log.set_terminated(first, "FINISHED")
    ids = {"first": first}
    for name, status in (("failed", "FAILED"), ("killed", "KILLED"), ("running", None)):
        ids[name] = log.create_run(other, run_name=name).info.run_id
        log.log_metric(ids[name], "loss", 1.0, step=3)
        if status:
            log.set_terminated(ids[name], status)
    log.delete_run(log.create_run(other, run_name="deleted").info.run_id)
    return ids


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> tuple[str, dict[str, str]]:
    address = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return address, record(address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[str, dict[str, str]]:
    place = tmp_path_factory.mktemp("mlflow") / "mlruns"
    return str(place), record(place.as_uri())


@pytest.fixture(scope="module")
def server(database, tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """MLflow's own application of its tracking server, on the database."""
    home = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "_MLFLOW_SERVER_FILE_STORE": database[0],
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(home / "artifacts"),
    }
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-c", SERVER.format(port=port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
        try:
            wait_for(port, process, home / "log")
            yield f"http://127.0.0.1:{port}", database[1]
        finally:
            process.terminate()
            process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"MLflow's server did not start:\n{log.read_text()}")


@pytest.fixture(scope="module", params=["database", "folder", "server"])
def recorded(request) -> tuple[dict[str, LoggedRun], dict[str, str]]:
    address, ids = request.getfixturevalue(request.param)
    found = list(read_mlflow(address))
    assert not [one for one in found if isinstance(one, Unreadable)]
    return {run.name: run for run in found}, ids


def test_every_run_that_is_not_deleted_comes_with_its_id_and_its_ending(recorded):
    runs, ids = recorded
    assert {name: run.key for name, run in runs.items()} == ids
    assert {name: run.status for name, run in runs.items()} == {
        "first": "finished",
        "failed": "failed",
        "killed": "preempted",
        "running": "running",
    }


def test_every_point_comes_as_it_was_logged_and_in_order_of_time(recorded):
    loss = recorded[0]["first"].series["train/loss"]
    assert loss.step.tolist() == [0, 1, 2, 3, 4, 2, 3]
    np.testing.assert_array_equal(loss.value, [*LOSSES, 3.0, 2.0])
    assert loss.time_s.tolist() == [1000 + step / 1000 for step in range(5)] + [2000.002, 2000.003]


def test_parameters_are_numbers_where_they_spell_one(recorded):
    assert recorded[0]["first"].config == {
        "lr": 0.001,
        "width": 64,
        "tied": True,
        "opt": "adamw",
        "none": None,
    }


def test_tags_and_notes_come_without_those_that_mlflow_adds(recorded):
    first = recorded[0]["first"]
    assert first.tags == ("experiment=pilots", "team=base")
    assert first.notes == "the first"


def test_metrics_of_the_machine_are_left_out_and_told(recorded):
    first = recorded[0]["first"]
    assert list(first.series) == ["train/loss"]
    assert "'system/cpu' left out" in first.problems[0]


def test_the_runs_of_one_experiment_can_be_asked_for(database):
    address, _ = database
    assert [run.name for run in read_mlflow(address, ["pilots"])] == ["first"]
    with pytest.raises(InvalidInput, match=r"no experiment 'none' \(it has Default, other, pilots\)"):
        read_mlflow(address, ["none"])


def test_the_file_of_a_database_is_enough(database):
    address, ids = database
    assert {run.key for run in read_mlflow(address.removeprefix("sqlite:///"))} == set(ids.values())


def test_a_history_that_a_server_gives_in_pages_comes_whole(server, monkeypatch):
    from mlflow.tracking._tracking_service import client as asked

    monkeypatch.setattr(asked, "GET_METRIC_HISTORY_MAX_RESULTS", 3)
    first = next(run for run in read_mlflow(server[0]) if run.name == "first")
    assert first.series["train/loss"].step.tolist() == [0, 1, 2, 3, 4, 2, 3]


def test_damaged_runs_and_experiments_of_a_folder_are_told_and_the_others_are_read(tmp_path):
    ids = record((tmp_path / "mlruns").as_uri())
    (file,) = (tmp_path / "mlruns").glob(f"*/{ids['first']}/metrics/train/loss")
    file.write_text("nonsense\n")
    (file,) = (tmp_path / "mlruns").glob(f"*/{ids['failed']}/meta.yaml")
    file.write_text(": [")
    (tmp_path / "mlruns" / "77").mkdir()
    (tmp_path / "mlruns" / "77" / "meta.yaml").write_text("{}")
    found = list(read_mlflow(tmp_path / "mlruns"))
    told = {
        one.place.split()[-1].rpartition("/")[2]: one.reason for one in found if isinstance(one, Unreadable)
    }
    assert told.keys() == {"77", ids["first"], ids["failed"]}
    assert all(told.values())
    assert sorted(one.name for one in found if isinstance(one, LoggedRun)) == ["killed", "running"]


def test_a_place_that_is_not_there_or_of_another_kind_says_so(tmp_path):
    for place in (tmp_path / "none", f"sqlite:///{tmp_path / 'none.db'}"):
        with pytest.raises(InvalidInput, match=r"[Nn]o such file"):
            read_mlflow(place)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match="no folder of MLflow"):
        read_mlflow(tmp_path)
    (tmp_path / "text.db").write_text("step,loss\n")
    with pytest.raises(InvalidInput, match="no SQLite database"):
        read_mlflow(tmp_path / "text.db")
    with pytest.raises(UnusableData, match="cannot open"):
        read_mlflow("nonsense://place")


def test_a_database_of_something_else_is_not_written(tmp_path):
    import sqlite3

    database = sqlite3.connect(tmp_path / "other.db")
    database.execute("CREATE TABLE x (y)")
    database.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(InvalidInput, match="no database of MLflow"):
        read_mlflow(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before


def test_a_database_of_another_version_says_what_to_do_and_is_not_changed(database, tmp_path):
    import sqlite3

    copied = tmp_path / "old.db"
    copied.write_bytes(Path(database[0].removeprefix("sqlite:///")).read_bytes())
    changed = sqlite3.connect(copied)
    changed.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
    changed.commit()
    changed.close()
    before = copied.read_bytes()
    with pytest.raises(UnusableData, match="mlflow db upgrade"):
        read_mlflow(copied)
    assert copied.read_bytes() == before


def test_a_server_that_is_down_says_so_soon():
    began = time.monotonic()
    with pytest.raises(UnusableData, match=r"cannot read http://127\.0\.0\.1:9"):
        read_mlflow("http://127.0.0.1:9")
    assert time.monotonic() - began < 60

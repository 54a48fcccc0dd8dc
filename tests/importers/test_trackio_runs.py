"""Runs that trackio itself recorded, compared with what was logged."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Unreadable
from isoloss.importers.trackio_runs import default_folder, read_trackio

PILOTS = """
import math, trackio
config = {"lr": 0.1, "model": {"width": 64, "heads": [4, 8]}, "none": None}
trackio.init(project="pilots", name="first", group="sweep", config=config, **options)
losses = [9.0, 1 / 3, math.nan, math.inf, -math.inf]
for number, loss in enumerate(losses):
    trackio.log({"loss": loss, "deep": {"down": number}})
trackio.log({"loss": 5.0, "word": "text", "yes": True}, step=2)
trackio.log({"loss": 4.0, "weights": trackio.Histogram([1.0, 2.0])}, step=3)
trackio.finish()
trackio.init(project="pilots", name="second", config={"lr": 0.2}, **options)
trackio.log({"loss": 1.0}, step=10)
trackio.finish()
trackio.init(project="other", name="third", **options)
trackio.log({"loss": 2.0})
trackio.finish()
"""
OPTIONS = "options = {'embed': False, 'auto_log_gpu': False, 'auto_log_cpu': False}\n"


def with_trackio(folder: Path, script: str, **process) -> subprocess.Popen[str]:
    """A script that records with trackio into a folder; its settings are read when it is imported."""
    environment = os.environ | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", OPTIONS + script],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        **process,
    )


def record(folder: Path, script: str) -> None:
    with with_trackio(folder, script, stderr=subprocess.STDOUT) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("trackio")
    record(place, PILOTS)
    return place


@pytest.fixture(scope="module")
def runs(folder) -> dict[str, LoggedRun]:
    found = list(read_trackio(folder))
    assert not [one for one in found if isinstance(one, Unreadable)]
    return {run.name: run for run in found}


def test_every_project_of_the_folder_is_read_and_every_run_in_the_order_in_which_it_began(folder, runs):
    assert list(runs) == ["third", "first", "second"]
    assert [run.name for run in read_trackio(folder / "pilots.db")] == ["first", "second"]
    assert len({run.key for run in runs.values()}) == 3
    assert runs["first"].place == f"{folder / 'pilots.db'}, run first"
    assert [run.status for run in runs.values()] == [None] * 3


def test_every_point_comes_as_it_was_logged_and_in_the_order_of_writing(runs):
    loss = runs["first"].series["loss"]
    assert loss.step.tolist() == [0, 1, 2, 3, 4, 2, 3]
    np.testing.assert_array_equal(loss.value, [9.0, 1 / 3, math.nan, math.inf, -math.inf, 5.0, 4.0])
    assert (abs(loss.time_s - time.time()) < 600).all()
    assert runs["first"].series["deep.down"].value.tolist() == [0, 1, 2, 3, 4]
    assert runs["second"].series["loss"].step.tolist() == [10]


def test_the_configuration_is_flat_and_without_what_trackio_adds(runs):
    assert runs["first"].config == {
        "lr": 0.1,
        "model.width": 64,
        "model.heads": [4, 8],
        "none": None,
        "group": "sweep",
    }
    assert runs["second"].config == {"lr": 0.2}


def test_texts_flags_and_histograms_are_left_out_and_told(runs):
    assert runs["first"].series.keys() == {"loss", "deep.down"}
    assert runs["first"].problems == (
        "1 value of 'word' left out: text",
        "1 value of 'yes' left out: true or false",
        "1 value of 'weights' left out: histogram",
    )


def test_reading_again_gives_the_same_ids(folder, runs):
    assert {run.name: run.key for run in read_trackio(folder)} == {
        name: run.key for name, run in runs.items()
    }


WRITING = """
import sys, trackio
trackio.init(project="live", name="going", config={"lr": 0.1}, **options)
for step in range(100):
    trackio.log({"loss": 100.0 - step})
print("written", flush=True)
sys.stdin.readline()
trackio.log({"loss": 0.0})
trackio.finish()
"""


def test_a_run_is_read_while_trackio_writes_it_and_trackio_goes_on(tmp_path):
    with with_trackio(tmp_path, WRITING, stdin=subprocess.PIPE) as process:
        while "written" not in (process.stdout.readline() or pytest.fail("trackio ended")):
            pass
        deadline = time.monotonic() + 60
        (going,) = written_by(deadline, tmp_path, 100)
        assert going.series["loss"].value.tolist() == [100.0 - step for step in range(100)]
        process.communicate("\n", timeout=60)
    assert process.returncode == 0
    (going,) = read_trackio(tmp_path)
    assert going.series["loss"].value[-1] == 0.0
    assert len(going.series["loss"].step) == 101


def written_by(deadline: float, folder: Path, count: int) -> list[LoggedRun]:
    """The runs once the first has so many points: trackio writes every half second."""
    while time.monotonic() < deadline:
        if list(folder.glob("*.db")):
            found = list(read_trackio(folder))
            if found and len(found[0].series.get("loss", np.zeros(0)).step) == count:
                return found
        time.sleep(0.2)
    return pytest.fail("trackio did not write")


def test_a_folder_that_may_not_be_written_is_read(folder, tmp_path, runs):
    copied = tmp_path / "pilots.db"
    copied.write_bytes((folder / "pilots.db").read_bytes())
    script = (
        "import sys; from isoloss.importers.trackio_runs import read_trackio;"
        "print([run.name for run in read_trackio(sys.argv[1])])"
    )
    # Root may write anywhere unless that is taken from it.
    bound = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [*bound, sys.executable, "-c", script, str(copied)], capture_output=True, text=True, timeout=60
    )
    tmp_path.chmod(0o755)
    assert done.stdout.strip() == "['first', 'second']", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pilots.db"]


def test_the_files_of_versions_that_named_runs_alone_are_read(folder, tmp_path):
    old = sqlite3.connect(tmp_path / "old.db")
    old.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    row = ("2025-08-01T10:00:00", "solo", 3, '{"loss": 1.5}')
    old.execute("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", row)
    old.commit()
    old.close()
    (run,) = read_trackio(tmp_path)
    assert (run.key, run.name, run.config) == ("old-solo", "solo", {})
    assert run.series["loss"].step.tolist() == [3]


def test_a_row_that_is_no_json_is_told_and_the_others_are_read(folder, tmp_path):
    copied = tmp_path / "pilots.db"
    copied.write_bytes((folder / "pilots.db").read_bytes())
    database = sqlite3.connect(copied)
    database.execute("UPDATE metrics SET metrics = '{\"loss\":' WHERE step = 1")
    database.commit()
    database.close()
    first = next(read_trackio(copied))
    assert first.series["loss"].step.tolist() == [0, 2, 3, 4, 2, 3]
    assert first.problems[0] == "what was logged at step 1 cannot be read"


def test_damaged_files_and_files_of_another_kind_are_told_and_the_others_are_read(folder, tmp_path):
    (tmp_path / "a.db").write_text("step,loss\n" * 100)
    sqlite3.connect(tmp_path / "b.db").execute("CREATE TABLE x (y)")
    (tmp_path / "c.db").touch()
    (tmp_path / "pilots.db").write_bytes((folder / "pilots.db").read_bytes())
    found = list(read_trackio(tmp_path))
    reasons = {Path(one.place).name: one.reason for one in found if isinstance(one, Unreadable)}
    assert "not a database" in reasons["a.db"]
    assert "no table of metrics" in reasons["b.db"]
    assert "no table of metrics" in reasons["c.db"]
    assert [run.name for run in found if isinstance(run, LoggedRun)] == ["first", "second"]


def test_without_a_path_the_folder_is_that_of_trackio(folder, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    assert len(list(read_trackio())) == 3
    monkeypatch.delenv("TRACKIO_DIR")
    monkeypatch.setenv("HF_HOME", "/cache/hf")
    assert default_folder() == Path("/cache/hf/trackio")


def test_a_folder_that_is_not_there_or_has_no_project_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="no such file or folder"):
        read_trackio(tmp_path / "none")
    with pytest.raises(InvalidInput, match="no project of trackio"):
        read_trackio(tmp_path)

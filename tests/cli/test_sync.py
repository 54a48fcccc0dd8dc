"""`isoloss sync` against the real service."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import isoloss
from isoloss.cli import build
from isoloss.client import Client


@pytest.fixture
def invoke(live, monkeypatch):
    monkeypatch.setenv("ISOLOSS_URL", live.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", live.api_key)
    monkeypatch.delenv("ISOLOSS_RUN_ID", raising=False)
    return lambda *arguments: CliRunner().invoke(build(), ["sync", *map(str, arguments)])


def record(project, folder, run_id="r"):
    with isoloss.init(project, run_id=run_id, mode="offline", dir=folder) as run:
        for step in range(1, 101):
            run.log({"loss": 2 + 1 / step}, step=step)


def test_what_is_left_is_sent_once_and_told(invoke, project, live, tmp_path):
    record(project, tmp_path, "a")
    record(project, tmp_path, "b")
    done = invoke(tmp_path, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [(run["run_id"], run["accepted"], run["duplicates"]) for run in report["runs"]] == [
        ("a", 100, 0),
        ("b", 100, 0),
    ]
    with Client(live.url, live.api_key) as client:
        assert len(client.points.read(project, "b")["step"]) == 100
    again = invoke(tmp_path)
    assert (again.exit_code, again.stdout) == (0, "Nothing is left to send.\n")


def test_one_runs_folder_alone_may_be_sent(invoke, project, tmp_path):
    record(project, tmp_path, "a")
    record(project, tmp_path, "b")
    done = invoke(tmp_path / project / "b")
    assert done.exit_code == 0
    assert "100" in done.stdout
    assert [path.name for path in (tmp_path / project).iterdir()] == ["a"]


def test_a_run_that_is_being_recorded_is_skipped_and_the_exit_says_so(invoke, project, tmp_path):
    run = isoloss.init(project, run_id="r", mode="offline", dir=tmp_path)
    run.log({"loss": 1.0}, step=1)
    assert run.flush()
    done = invoke(tmp_path)
    assert done.exit_code == 1
    assert "still recording" in done.stderr
    run.finish()


def test_damage_is_told_and_the_rest_is_sent(invoke, project, tmp_path):
    record(project, tmp_path)
    [path] = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"points": {"step": [101], "lo')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.jsonl").write_text('{"text": "not ours"}\n')
    done = invoke(tmp_path)
    assert done.exit_code == 0
    assert "1 damaged line of the spool passed over" in done.stderr
    assert (tmp_path / "other" / "data.jsonl").exists()


def test_what_cannot_be_sent_stays_and_the_reason_is_one_sentence(invoke, project, tmp_path, monkeypatch):
    record(project, tmp_path)
    monkeypatch.setenv("ISOLOSS_API_KEY", "isl_wrong")
    done = invoke(tmp_path)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "ISOLOSS_API_KEY" in done.stderr
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setenv("ISOLOSS_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in invoke(tmp_path).stderr
    assert list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_folder_that_is_none_is_named(invoke, tmp_path, folder):
    (tmp_path / "file").write_text("")
    done = invoke(tmp_path / folder)
    assert done.exit_code == 1
    assert "is no folder" in done.stderr

"""Imports of logged runs against the real service: dry runs, maps, conflicts, kills, and what undoing leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from isoloss.cli import build


@pytest.fixture
def settings(live, project, tmp_path, monkeypatch):
    found = {
        "ISOLOSS_URL": live.url,
        "ISOLOSS_API_KEY": live.api_key,
        "ISOLOSS_PROJECT": project,
        "ISOLOSS_DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def invoke(settings):
    return lambda *arguments, **options: CliRunner().invoke(
        build(), ["import", *map(str, arguments)], **options
    )


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def curve(last=100, first=1, **more):
    lr = 1e-3
    return [{"step": at, "loss": 2 + 1 / at, "lr": lr, **more} for at in range(first, last + 1)]


def imported(invoke, *arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


def test_a_dry_run_shows_what_would_be_and_sends_nothing(invoke, client, project, tmp_path):
    path = write(tmp_path / "a.jsonl", curve(size=7))
    shown = invoke("jsonl", path, "--dry-run", "--save-map", tmp_path / "map.json")
    assert shown.exit_code == 0
    assert f"Would import into {project}: runs 1 new; 100 new points" in shown.stdout
    assert "loss=loss, lr=lr" in shown.stdout
    assert project not in [one["name"] for one in client.projects.list()]
    assert not (tmp_path / "data" / "imports").exists()
    assert json.loads((tmp_path / "map.json").read_text())["metrics"] == {
        "loss": "loss",
        "lr": "lr",
        "size": "size",
    }


def test_a_saved_map_is_used_again_and_what_is_typed_goes_before_it(invoke, client, project, tmp_path):
    rows = [{"it": row["step"], "nll": row["loss"], "other": 1.0} for row in curve()]
    path = write(tmp_path / "a.jsonl", rows)
    saved = tmp_path / "map.json"
    imported(invoke, "jsonl", path, "--map", "it=step", "--map", "nll=loss", "--save-map", saved, "--dry-run")
    report = imported(invoke, "jsonl", path, "--map", f"@{saved}", "--map", "other=-", "--map", "it=step")
    assert report["names"]["metrics"] == {"nll": "loss"}
    assert set(client.points.read(project, "a")) == {"step", "loss"}


def test_a_name_of_the_map_that_no_run_has_is_told(invoke, tmp_path):
    report = imported(invoke, "jsonl", write(tmp_path / "a.jsonl", curve()), "--map", "nothing=val_loss")
    assert report["notes"] == ["the map names 'nothing', which no run has"]


def test_a_metric_that_is_there_under_another_name_too_is_told(invoke, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"step": row["step"], "nll": row["loss"]} for row in curve()])
    imported(invoke, "jsonl", path, "--map", "nll=val_loss")
    [run] = imported(invoke, "jsonl", path, "--map", "nll=loss")["runs"]
    assert (
        "loss is there as val_loss too, as another map named it: `isoloss import undo` takes one back"
        in run["notes"]
    )
    [run] = imported(invoke, "jsonl", path, "--map", "nll=loss")["runs"]
    assert run["state"] == "unchanged"


def test_other_values_at_the_same_steps_are_refused_until_they_are_to_replace(
    invoke, client, project, tmp_path
):
    path = write(tmp_path / "a.jsonl", curve())
    imported(invoke, "jsonl", path)
    changed = [*curve(60), *[{**row, "loss": 1.5} for row in curve(80, 61)]]
    write(path, changed)
    refused = invoke("jsonl", path)
    assert refused.exit_code == 1
    assert "step 61 has another loss there (2.01639, not 1.5); --replace overwrites" in refused.stderr
    report = imported(invoke, "jsonl", path, "--replace")
    points = client.points.read(project, "a")
    assert points["step"].tolist() == list(range(1, 81)), "what the source has no more is gone"
    assert points["loss"][60:].tolist() == [1.5] * 20
    undone = json.loads(invoke("undo", report["import_id"], "--yes", "--json").stdout)
    assert "values replaced among the points that it had stay" in undone["stays"][0]["reason"]


def test_what_is_known_of_a_run_stays_where_the_source_says_nothing(invoke, client, project, tmp_path):
    client.projects.create(project)
    schedule = {"kind": "constant", "total_steps": 100, "peak_lr": 1e-3}
    client.runs.put(project, "a", name="by hand", status="failed", tags=["mine"], notes="n", config={"seed": 4},
                    schedule=schedule)  # fmt: skip
    before = client.runs.get(project, "a")
    report = imported(
        invoke, "jsonl", write(tmp_path / "a.jsonl", curve()), "--tag", "new", "--config", "width=64"
    )
    run = client.runs.get(project, "a")
    assert (run["name"], run["status"], run["tags"], run["notes"]) == (
        "by hand",
        "failed",
        ["mine", "new"],
        "n",
    )
    assert (run["config"], run["schedule"]) == ({"seed": 4, "width": 64}, schedule)
    imported(invoke, "undo", report["import_id"], "--yes")
    after = client.runs.get(project, "a")
    kept = ("name", "status", "tags", "notes", "config", "schedule", "last_step")
    assert {name: after[name] for name in kept[:-1]} == {name: before[name] for name in kept[:-1]}
    assert after["last_step"] is None


def test_a_run_that_went_on_after_its_import_is_not_deleted(invoke, client, project, tmp_path):
    report = imported(invoke, "jsonl", write(tmp_path / "a.jsonl", curve()))
    client.points.append(project, "a", {"step": [101], "loss": [2.0]})
    result = invoke("undo", report["import_id"], "--yes")
    assert result.exit_code == 1
    assert "Stays: a: it has points up to step 101, which this import did not bring" in result.stderr
    assert client.runs.get(project, "a")["last_step"] == 101


def test_values_that_filled_gaps_are_told_when_they_cannot_be_taken_back(invoke, client, project, tmp_path):
    path = write(tmp_path / "a.jsonl", curve())
    imported(invoke, "jsonl", path)
    write(path, [{**row, "grad_norm": 1.0} if row["step"] % 2 else row for row in curve()])
    second = imported(invoke, "jsonl", path)
    assert (second["runs"][0]["accepted"], second["runs"][0]["duplicates"]) == (50, 50)
    result = invoke("undo", second["import_id"], "--yes")
    assert "Stays: a: 50 values added among the points that it had stay as they are" in result.stderr


def test_a_running_run_gets_no_schedule_and_a_diverged_one_its_status(invoke, client, project, tmp_path):
    lost = [*curve(50), {"step": 51, "loss": float("nan"), "grad_norm": float("nan")}]
    running = write(tmp_path / "a.jsonl", [{**row, "state": "running"} for row in curve()])
    report = imported(invoke, "jsonl", running, write(tmp_path / "b.jsonl", lost))
    by_run = {run["run_id"]: run for run in report["runs"]}
    assert "it is still training: its schedule is not read off its log" in by_run["a"]["notes"]
    assert client.runs.get(project, "a")["schedule"] is None
    assert client.runs.get(project, "a")["status"] == "running"
    assert client.runs.get(project, "b")["status"] == "diverged"
    assert by_run["b"]["left_out"] == 1
    again = imported(invoke, "jsonl", tmp_path / "b.jsonl")
    assert again["runs"][0]["state"] == "unchanged"


def test_a_key_for_one_project_imports_into_it(invoke, client, project, tmp_path, monkeypatch):
    client.projects.create(project)
    key = client.keys.create("importer", ["read", "write"], project=project)
    monkeypatch.setenv("ISOLOSS_API_KEY", key["key"])
    assert not imported(invoke, "jsonl", write(tmp_path / "a.jsonl", curve()))["created"]


def test_a_table_of_runs_is_undone_like_any_import(invoke, client, project, tmp_path):
    (tmp_path / "runs.csv").write_text("run_id,N,D,loss\na,1e7,2e8,4.1\nb,3e7,6e8,3.7\n")
    first = imported(invoke, "table", tmp_path / "runs.csv")
    (tmp_path / "runs.csv").write_text("run_id,N,D,loss\na,1e7,2e8,4.0\nb,3e7,6e8,3.7\nc,1e8,2e9,3.3\n")
    second = imported(invoke, "table", tmp_path / "runs.csv")
    undone = imported(invoke, "undo", second["import_id"], "--yes")
    assert (undone["deleted"], undone["restored"]) == (["c"], ["a"])
    assert client.runs.get(project, "a")["summary"] == {"final_loss": 4.1}
    assert sorted(imported(invoke, "undo", first["import_id"], "--yes")["deleted"]) == ["a", "b"]


def test_undoing_asks_first_and_at_another_service_refuses(invoke, client, project, tmp_path, monkeypatch):
    report = imported(invoke, "jsonl", write(tmp_path / "a.jsonl", curve()))
    assert invoke("undo", report["import_id"], input="n\n").exit_code == 1
    assert client.runs.get(project, "a")["last_step"] == 100
    assert "There is no import" in invoke("undo", "20010101-000000-aaaaaa", "--yes").stderr
    monkeypatch.setenv("ISOLOSS_URL", "http://127.0.0.1:9")
    refused = invoke("undo", report["import_id"], "--yes")
    assert (refused.exit_code, "this import went to" in refused.stderr) == (2, True)


def test_a_journal_that_cannot_be_written_stops_the_import_before_it_sends(invoke, client, project, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imports").write_text("a file is in the way")
    result = invoke("jsonl", write(tmp_path / "a.jsonl", curve()))
    assert result.exit_code == 1
    assert "the import's journal cannot be written" in result.stderr
    assert [run["run_id"] for run in client.runs.list(project)] == []


@pytest.fixture
def killed(settings, client, project, tmp_path):
    """A file of a long run, of which an import was killed in the middle."""
    steps = np.arange(1, 60_001)
    rows = [{"step": at, "loss": 2 + at**-0.3} for at in steps.tolist()]
    path = write(tmp_path / "long.jsonl", rows)
    command = [sys.executable, "-m", "isoloss", "import", "jsonl", str(path)]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if (client.runs.get(project, "long")["last_step"] or 0) > 0:
                break
        except Exception:  # neither the project nor the run is there yet
            pass
        time.sleep(0.01)
    process.kill()
    process.wait()
    sent = client.runs.get(project, "long")["last_step"]
    assert 0 < sent < 60_000, "it was killed in the middle"
    return path, sent


def test_an_import_that_was_killed_goes_on_where_it_was(killed, invoke, client, project):
    path, sent = killed
    [run] = imported(invoke, "jsonl", path)["runs"]
    assert run["state"] == "changed"
    assert run["accepted"] + run["duplicates"] == 60_000
    assert run["duplicates"] >= sent, "one more batch may have been on its way"
    assert client.points.read(project, "long")["step"].tolist() == list(range(1, 60_001))


def test_an_import_that_was_killed_can_be_undone(killed, invoke, client, project):
    [past] = json.loads(invoke("list", "--json").stdout)
    assert past["state"] == "broken off"
    assert imported(invoke, "undo", past["import"], "--yes")["deleted"] == ["long"]
    assert list(client.runs.list(project)) == []

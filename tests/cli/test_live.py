"""The client and the command line against the real service: its own process, database and worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from isoloss import errors
from isoloss.cli import build
from isoloss.client import Client
from isoloss.client.errors import Forbidden, TooLarge, Unauthorized, ValidationProblem
from isoloss.importers import import_curves

TOTAL_STEPS = 400
SCHEDULES = {
    "constant": {"kind": "constant", "total_steps": TOTAL_STEPS, "warmup_steps": 10, "peak_lr": 1e-3},
    "cosine": {
        "kind": "cosine",
        "total_steps": TOTAL_STEPS,
        "warmup_steps": 10,
        "peak_lr": 1e-3,
        "end_lr": 1e-4,
    },
    "wsd": {
        "kind": "wsd",
        "total_steps": TOTAL_STEPS,
        "warmup_steps": 10,
        "peak_lr": 1e-3,
        "decay_start": 300,
    },
}
HELD_OUT = {
    "kind": "wsd",
    "total_steps": TOTAL_STEPS,
    "warmup_steps": 10,
    "peak_lr": 1e-3,
    "decay_start": 200,
}


@pytest.fixture
def project(client, project):
    client.projects.create(project)
    return project


@pytest.fixture
def isoloss(live, monkeypatch, tmp_path):
    """Runs the command line against the live service; checks that it succeeds and returns its JSON."""
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("ISOLOSS_URL", live.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", live.api_key)
    app = build()

    def run(*arguments: str, **options):
        result = CliRunner().invoke(app, [*arguments, "--json"], **options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def curve(schedule: dict) -> dict[str, np.ndarray]:
    """A loss that obeys the annealing law, with a little noise."""
    from isoloss.schedules import schedule_from_spec

    declared = schedule_from_spec(schedule)
    steps = np.arange(10, TOTAL_STEPS + 1, 2)
    area = declared.area(steps)
    lr = declared.lr(steps)
    noise = np.random.default_rng(len(schedule)).normal(0, 1e-3, len(steps))
    return {"step": steps, "loss": 2.0 + 0.4 * area**-0.4 - 80 * (1e-3 - lr) + noise, "lr": lr}


def write_curves(folder: Path) -> None:
    for name, schedule in SCHEDULES.items():
        columns = curve(schedule)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        lines = [",".join(columns), *(",".join(map(repr, row)) for row in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    entries = [
        {"file": f"{name}.csv", "name": name, "schedule": schedule, "tags": ["train"], "status": "finished"}
        for name, schedule in SCHEDULES.items()
    ]
    (folder / "runs.json").write_text(json.dumps(entries))


def test_points_come_back_as_they_were_sent(client, project):
    steps = np.arange(1, 10_001)
    loss = np.random.default_rng(0).random(10_000) + 2
    loss[77] = np.nan
    val_loss = np.ma.masked_where(steps % 100 != 0, loss + 0.1)
    client.runs.put(project, "r")
    columns = {"step": steps, "loss": loss, "val_loss": val_loss, "val/perplexity": steps * 0.5}
    answer = client.points.append(project, "r", columns, batch_size=3000)
    assert (answer["accepted"], answer["last_step"]) == (10_000, 10_000)
    read = client.points.read(project, "r")
    assert read["step"].tolist() == steps.tolist()
    assert np.array_equal(read["loss"].data, loss, equal_nan=True)
    assert read["val_loss"].mask.tolist() == val_loss.mask.tolist()
    assert read["val_loss"].compressed().tolist() == val_loss.compressed().tolist()
    assert client.runs.get(project, "r")["status"] == "diverged"
    again = client.points.append(project, "r", columns)
    assert (again["accepted"], again["duplicates"]) == (0, 10_000)


def test_a_conflicting_value_is_refused_unless_it_shall_replace(client, project):
    client.runs.put(project, "r")
    client.points.append(project, "r", {"step": [1, 2], "loss": [9.0, 8.0]})
    with pytest.raises(errors.Conflict):
        client.points.append(project, "r", {"step": [2, 3], "loss": [8.5, 7.0]})
    assert client.points.read(project, "r")["step"].tolist() == [1, 2]
    client.points.append(project, "r", {"step": [2, 3], "loss": [8.5, 7.0]}, on_conflict="replace")
    assert client.points.read(project, "r", columns=["loss"])["loss"].tolist() == [9.0, 8.5, 7.0]
    client.points.rewind(project, "r", 1)
    assert client.points.read(project, "r")["step"].tolist() == [1]


def test_lists_run_through_all_pages(client, project):
    for index in range(120):
        client.runs.put(project, f"r{index}", config={"place": index})
    assert len(list(client.runs.list(project))) == 120
    assert len(list(client.runs.list(project, where="config.place >= 100"))) == 20
    assert project in [each["name"] for each in client.projects.list()]


def test_the_services_problems_are_exceptions_with_a_sentence(client, project, live):
    with pytest.raises(errors.NotFound, match="nowhere"):
        client.runs.get(project, "nowhere")
    with pytest.raises(errors.Conflict):
        client.projects.create(project)
    with pytest.raises(ValidationProblem):
        client.runs.put(project, "r", schedule={"kind": "staircase"})
    with pytest.raises(ValidationProblem):
        client.fits.create(project, "moores_law", all=True)
    with pytest.raises(Unauthorized), Client(live.url, "wrong") as stranger:
        stranger.projects.get(project)


def test_a_key_opens_what_it_was_made_for(client, project, live):
    key = client.keys.create("reader", ["read"], project=project)
    with Client(live.url, key["key"]) as reader:
        assert reader.projects.get(project)["name"] == project
        with pytest.raises(Forbidden):
            reader.runs.put(project, "r")
    assert key["id"] in [each["id"] for each in client.keys.list()]
    client.keys.delete(key["id"])
    with pytest.raises(Unauthorized), Client(live.url, key["key"]) as reader:
        reader.projects.get(project)


def test_health_and_laws_are_told(client):
    assert client.health()["ready"] is True
    law = client.laws.get("lr_annealing")
    assert {"L0", "A", "alpha", "C"} <= {parameter["name"] for parameter in law["parameters"]}


def test_a_creation_that_is_repeated_after_a_lost_answer_happens_once(live, project):
    lost = []

    class LosesFirstAnswer(httpx.HTTPTransport):
        def handle_request(self, request):
            response = super().handle_request(request)
            if request.method == "POST" and not lost:
                lost.append(response.read())
                raise httpx.ReadError("the answer was lost")
            return response

    with Client(live.url, live.api_key, transport=LosesFirstAnswer()) as client:
        client.projects.create(f"{project}-twin")
        assert lost


def test_curves_in_files_are_fitted_and_a_schedule_that_was_not_seen_is_predicted(
    isoloss, client, project, tmp_path
):
    write_curves(tmp_path)
    report = isoloss("import", "csv", "--runs", str(tmp_path / "runs.json"), "-p", project)
    assert sorted(run["run_id"] for run in report["runs"]) == sorted(SCHEDULES)
    again = import_curves(client, project, [], tmp_path / "runs.json")
    assert [(run.accepted, run.duplicates > 0) for run in again.runs] == [(0, True)] * 3

    listed = isoloss("run", "list", "-p", project, "--where", "tags = train")
    assert len(listed) == 3

    fit = isoloss("fit", "create", "lr_annealing", "--tag", "train", "--bootstrap", "30", "-p", project)
    assert fit["status"] == "succeeded"
    assert isoloss("job", "wait", fit["job_id"])["status"] == "succeeded"
    assert fit["id"] in [each["id"] for each in isoloss("fit", "list", "-p", project)]

    shown = ("--schedule", json.dumps(HELD_OUT), "--steps", "100:400:7")
    prediction = isoloss("predict", fit["id"], "-p", project, *shown)
    assert prediction["steps"] == [100, 150, 200, 250, 300, 350, 400]
    truth = curve(HELD_OUT)
    expected = np.interp(prediction["steps"], truth["step"], truth["loss"])
    assert np.max(np.abs(np.array(prediction["value"]) / expected - 1)) < 0.02


def test_a_fit_without_runs_fails_in_one_sentence(isoloss, client, project):
    result = CliRunner().invoke(build(), ["fit", "create", "lr_annealing", "--all", "-p", project])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_constant_curve_alone_is_unidentified_and_predicts_nothing(isoloss, client, project):
    client.runs.put(project, "only", schedule=SCHEDULES["constant"])
    client.points.append(project, "only", curve(SCHEDULES["constant"]))
    fit = isoloss("fit", "create", "lr_annealing", "--all", "--bootstrap", "20", "-p", project)
    assert fit["verdict"] == "unidentified"
    assert fit["reasons"]
    with pytest.raises(errors.Conflict):
        client.fits.predict(project, fit["id"], schedule=HELD_OUT)


def test_a_body_that_is_too_large_is_told_as_such(client, project):
    client.runs.put(project, "r")
    with pytest.raises((TooLarge, ValidationProblem)):
        client.runs.put(project, "r", notes="x" * 40_000_000)


def test_points_are_exported_as_csv_by_the_command_itself(client, project, live, tmp_path):
    client.runs.put(project, "r")
    client.points.append(project, "r", {"step": [1, 2], "loss": [9.5, None], "lr": [0.1, 0.1]})
    environment = {**os.environ, "ISOLOSS_URL": live.url, "ISOLOSS_API_KEY": live.api_key}
    command = [sys.executable, "-m", "isoloss", "run", "points", "r", "-p", project]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    path = tmp_path / "points.csv"
    path.write_text(done.stdout)
    from isoloss.importers import read_columns

    columns = read_columns(path)
    assert columns["step"].tolist() == [1, 2]
    assert columns["loss"].tolist() == [9.5, None]
    assert columns["lr"].tolist() == [0.1, 0.1]

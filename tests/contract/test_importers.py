"""What every importer promises: the same runs, written as each source writes them, are the same in a project.

A source joins by one entry in `WRITERS`: how it writes the runs of `truth`, and the command that reads them.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from isoloss.cli import build
from isoloss.client import Client
from isoloss.schedules import schedule_from_spec

START_S = 1_750_000_000.0
COSINE = {"kind": "cosine", "total_steps": 400, "warmup_steps": 20, "peak_lr": 3e-3, "end_lr": 3e-4}
WSD = {"kind": "wsd", "total_steps": 300, "warmup_steps": 20, "peak_lr": 2e-3, "decay_start": 240}
CONFIG = {
    "n_params": 60_000_000,
    "batch_tokens": 65_536,
    "optimizer": "adamw",
    "seed": 3,
    "model.d_model": 512,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run as it was logged: rows in the order in which they were written."""

    run_id: str
    schedule: dict[str, Any]
    rows: tuple[Row, ...]
    points: dict[tuple[str, int], float]
    """What of it holds: by column and step."""


def logged(schedule: dict[str, Any], first: int, last: int, salt: float) -> list[Row]:
    lr = schedule_from_spec(schedule).lr(np.arange(1, schedule["total_steps"] + 1))
    rows: list[Row] = []
    for step in range(first, last + 1):
        row: Row = {"step": step, "train/loss": 2 + salt + step**-0.4, "lr": float(lr[step - 1])}
        row["tokens"], row["Extra Metric"] = step * 65_536, step / 7
        rows.append(row)
        if step % 50 == 0:
            rows.append({"step": step, "eval/loss": 2.1 + salt + step**-0.4})
    return rows


def points_of(rows: list[Row]) -> dict[tuple[str, int], float]:
    names = {"train/loss": "loss", "eval/loss": "val_loss", "Extra Metric": "extra_metric"}
    return {
        (names.get(name, name), row["step"]): float(value)
        for row in rows
        for name, value in row.items()
        if name != "step"
    }


def truth() -> list[Run]:
    """A run that went through, and one that was killed at step 260 and went on from the checkpoint at 200."""
    whole = logged(COSINE, 1, 400, 0.0)
    lost, resumed = logged(WSD, 1, 260, 0.1), logged(WSD, 201, 300, 0.2)
    kept = [row for row in lost if row["step"] <= 200] + resumed
    return [
        Run("through", COSINE, tuple(whole), points_of(whole)),
        Run("resumed", WSD, tuple(lost + resumed), points_of(kept)),
    ]


def timed(run: Run) -> list[Row]:
    return [{**row, "_timestamp": START_S + at * 0.25} for at, row in enumerate(run.rows)]


def write_json_lines(folder: Path, runs: list[Run]) -> list[str]:
    for run in runs:
        lines = [json.dumps({"config": CONFIG}), *map(json.dumps, run.rows)]
        (folder / f"{run.run_id}.jsonl").write_text("\n".join(lines) + "\n")
    return ["jsonl", str(folder)]


def write_long_json_lines(folder: Path, runs: list[Run]) -> list[str]:
    with gzip.open(folder / "all.jsonl.gz", "wt") as file:
        for rows in itertools.zip_longest(*(run.rows for run in runs)):
            for run, row in zip(runs, rows, strict=True):
                if row is not None:
                    file.write(json.dumps({"run_id": run.run_id, **row, "config": CONFIG}) + "\n")
    return ["jsonl", str(folder / "all.jsonl.gz")]


def write_exported_history(folder: Path, runs: list[Run]) -> list[str]:
    """As the history of a tracker is exported: its own counter and clock beside the columns."""
    for run in runs:
        rows = [
            {
                "_step": row["step"],
                "_timestamp": row["_timestamp"],
                "_runtime": row["_timestamp"] - START_S,
                **row,
            }
            for row in timed(run)
        ]
        for row in rows:
            del row["step"]
        (folder / run.run_id).mkdir(parents=True)
        (folder / run.run_id / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["jsonl", str(folder), "--map", "_runtime=-", *settings()]


def settings() -> list[str]:
    return [part for name, value in CONFIG.items() for part in ("--config", f"{name}={value}")]


def parquet_table(rows: list[Row]) -> Any:
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pyarrow.table({name: [row.get(name) for row in rows] for name in names})


def write_parquet(folder: Path, runs: list[Run]) -> list[str]:
    from pyarrow import parquet

    for run in runs:
        parquet.write_table(parquet_table(timed(run)), folder / f"{run.run_id}.parquet")
    return ["parquet", str(folder), *settings()]


def write_long_parquet(folder: Path, runs: list[Run]) -> list[str]:
    from pyarrow import parquet

    rows = [{"which": run.run_id, **row} for run in runs for row in run.rows]
    parquet.write_table(parquet_table(rows), folder / "all.parquet", row_group_size=100)
    return ["parquet", str(folder / "all.parquet"), "--run-column", "which", *settings()]


def write_trainer_states(folder: Path, runs: list[Run]) -> list[str]:
    for run in runs:
        for checkpoint in (100, run.schedule["total_steps"]):
            history = [{"epoch": 0.1, **row} for row in run.rows if row["step"] <= checkpoint]
            state = {
                "global_step": checkpoint,
                "max_steps": run.schedule["total_steps"],
                "log_history": history,
            }
            place = folder / run.run_id / f"checkpoint-{checkpoint}"
            place.mkdir(parents=True)
            (place / "trainer_state.json").write_text(json.dumps(state, indent=1))
    return ["jsonl", str(folder), "--map", "epoch=-", *settings()]


def write_csv(folder: Path, runs: list[Run]) -> list[str]:
    names = ["step", "train/loss", "eval/loss", "lr", "tokens", "Extra Metric"]
    for run in runs:
        with (folder / f"{run.run_id}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter=";")
            writer.writeheader()
            writer.writerows(run.rows)
    return ["csv", str(folder), *settings()]


def write_long_csv(folder: Path, runs: list[Run]) -> list[str]:
    """All runs in one file, with the names that somebody gave the columns."""
    names = ["it", "run", "nll", "eval/loss", "lr", "tokens", "Extra Metric"]
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for run in runs:
            for row in run.rows:
                renamed = {"step": "it", "train/loss": "nll"}
                writer.writerow({"run": run.run_id} | {renamed.get(name, name): row[name] for name in row})
    return ["csv", str(folder / "all.csv"), "--map", "it=step", "--map", "nll=loss", *settings()]


def write_event_files(folder: Path, runs: list[Run]) -> list[str]:
    """As torch writes them: an event file a start, the settings in a folder of their own."""
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        for rows in starts(run):
            with SummaryWriter(str(folder / run.run_id)) as log:
                for row in rows:
                    for name, value in row.items():
                        if name not in ("step", "_timestamp"):
                            log.add_scalar(
                                name,
                                value,
                                row["step"],
                                row["_timestamp"],
                                new_style=True,
                                double_precision=True,
                            )
        with SummaryWriter(str(folder / run.run_id)) as log:
            log.add_hparams(CONFIG, {})
    return ["tensorboard", str(folder)]


def write_offline_runs(folder: Path, runs: list[Run]) -> list[str]:
    """As W&B writes them: a folder a start, which its name says the time of."""
    import wandb

    options = {
        "mode": "offline",
        "silent": True,
        "console": "off",
        "disable_git": True,
        "x_disable_stats": True,
    }
    for run in runs:
        for number, rows in enumerate(starts(run)):
            settings = wandb.Settings(**options)
            with wandb.init(
                id=run.run_id, dir=str(folder), config=CONFIG, settings=settings, resume="allow"
            ) as log:
                for row in rows:
                    metrics = {
                        name: value for name, value in row.items() if name not in ("step", "_timestamp")
                    }
                    log.log(metrics, step=row["step"])
            place = Path(log.dir).parent
            place.rename(place.with_name(f"offline-run-20260101_00000{number}-{run.run_id}"))
    wandb.teardown()
    return ["wandb", str(folder), "--map", "_runtime=-"]


def starts(run: Run) -> list[list[Row]]:
    """The rows of each start of a training: its steps go back where another begins."""
    parts: list[list[Row]] = [[]]
    for row in timed(run):
        if parts[-1] and row["step"] < parts[-1][-1]["step"]:
            parts.append([])
        parts[-1].append(row)
    return parts


WRITERS: dict[str, Callable[[Path, list[Run]], list[str]]] = {
    "jsonl": write_json_lines,
    "jsonl-long": write_long_json_lines,
    "history": write_exported_history,
    "parquet": write_parquet,
    "parquet-long": write_long_parquet,
    "trainer_state": write_trainer_states,
    "tensorboard": write_event_files,
    "wandb": write_offline_runs,
    "csv": write_csv,
    "csv-long": write_long_csv,
}


@pytest.fixture
def invoke(live, project, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Runs `isoloss import` in the test's project, with journals of its own."""
    monkeypatch.setenv("ISOLOSS_URL", live.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", live.api_key)
    monkeypatch.setenv("ISOLOSS_PROJECT", project)
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path / "data"))
    return lambda *arguments: CliRunner().invoke(build(), ["import", *map(str, arguments)])


@pytest.fixture(params=list(WRITERS))
def written(request, tmp_path) -> list[str]:
    """The runs of the truth, written by one source, and the arguments that import them."""
    return WRITERS[request.param](folder_in(tmp_path), truth())


def folder_in(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def stored(client: Client, project: str) -> dict[str, dict[tuple[str, int], float]]:
    """All points of a project, by run, column and step."""
    found = {}
    for run in client.runs.list(project):
        columns = client.points.read(project, run["run_id"])
        steps = columns.pop("step").tolist()
        found[run["run_id"]] = {
            (name, step): value
            for name, column in columns.items()
            for step, value in zip(steps, column.tolist(), strict=True)
            if value is not None
        }
    return found


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


def test_every_point_is_there_once_and_no_other(written, invoke, client, project):
    report = report_of(invoke(*written, "--json"))
    assert stored(client, project) == {run.run_id: run.points for run in truth()}
    steps = {run.run_id: len({step for _, step in run.points}) for run in truth()}
    assert {run["run_id"]: run["accepted"] for run in report["runs"]} == steps


def test_importing_again_sends_nothing_and_says_so(written, invoke, client, project):
    report_of(invoke(*written, "--json"))
    before = list(client.runs.list(project))
    again = report_of(invoke(*written, "--json"))
    assert {run["accepted"] for run in again["runs"]} == {0}
    assert {run["duplicates"] for run in again["runs"]} == {400, 300}
    assert again["import_id"] is None
    assert list(client.runs.list(project)) == before, "not even the time of the last change"


def test_an_import_is_undone_by_one_command_and_undoing_twice_is_harmless(written, invoke, client, project):
    report = report_of(invoke(*written, "--json"))
    client.runs.put(project, "of-others", status="finished")
    undone = report_of(invoke("undo", report["import_id"], "--yes", "--json"))
    assert sorted(undone["deleted"]) == ["resumed", "through"]
    assert [run["run_id"] for run in client.runs.list(project)] == ["of-others"]
    assert report_of(invoke("undo", report["import_id"], "--json"))["before"]
    [listed] = json.loads(invoke("list", "--json").stdout)
    assert (listed["state"], listed["new_runs"]) == ("undone", 2)


@pytest.mark.parametrize("writer", WRITERS)
def test_schedules_are_read_off_the_logged_rates(writer, invoke, client, project, tmp_path):
    report_of(invoke(*WRITERS[writer](folder_in(tmp_path), truth()), "--json"))
    for run in truth():
        found = client.runs.get(project, run.run_id)["schedule"]
        assert {name: found.get(name) for name in run.schedule} == run.schedule


@pytest.mark.parametrize("writer", WRITERS)
def test_settings_are_named_and_the_rest_is_kept(writer, invoke, client, project, tmp_path):
    report_of(invoke(*WRITERS[writer](folder_in(tmp_path), truth()), "--json"))
    run = client.runs.get(project, "through")
    config = run["config"]
    assert (config["n_params"], config["batch_tokens"], config["optimizer"]) == (60_000_000, 65_536, "adamw")
    assert config["peak_lr"] == 3e-3
    assert (config.get("width") or config["model.d_model"]) == 512
    assert run["status"] == "finished"


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_restart_forgot_is_counted_and_told(writer, invoke, tmp_path):
    report = report_of(invoke(*WRITERS[writer](folder_in(tmp_path), truth()), "--json"))
    [resumed] = [run for run in report["runs"] if run["run_id"] == "resumed"]
    [through] = [run for run in report["runs"] if run["run_id"] == "through"]
    assert resumed["left_out"] == 4 * 59 + 4 + 1
    assert any("step 201 comes after step 260" in note for note in resumed["notes"])
    assert through["left_out"] == 0


@pytest.mark.parametrize("writer", WRITERS)
def test_a_source_that_grew_is_imported_on_and_each_import_undone_for_itself(
    writer, invoke, client, project, tmp_path
):
    whole = truth()[0]
    until = [row for row in whole.rows if row["step"] <= 150]
    begun = Run("through", {**COSINE, "total_steps": 150}, tuple(until), points_of(until))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = report_of(invoke(*WRITERS[writer](tmp_path / "a", [begun]), "--json"))
    begun_as = client.runs.get(project, "through")
    second = report_of(invoke(*WRITERS[writer](tmp_path / "b", [whole]), "--json"))
    [grown] = second["runs"]
    assert (grown["state"], grown["accepted"], grown["duplicates"]) == ("changed", 250, 150)
    assert stored(client, project)["through"] == whole.points
    assert client.runs.get(project, "through")["schedule"]["kind"] == "cosine"
    undone = report_of(invoke("undo", second["import_id"], "--yes", "--json"))
    assert (undone["rewound"], undone["restored"], undone["stays"]) == (["through"], ["through"], [])
    assert stored(client, project)["through"] == begun.points
    changing = {"updated_at"}
    now = client.runs.get(project, "through")
    assert {name: value for name, value in now.items() if name not in changing} == {
        name: value for name, value in begun_as.items() if name not in changing
    }
    assert report_of(invoke("undo", first["import_id"], "--yes", "--json"))["deleted"] == ["through"]

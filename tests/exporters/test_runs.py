"""Exports of runs over a running service: what is written is all there was, and imports as it was."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

import isoloss
from isoloss.cli import build
from isoloss.client import Client
from isoloss.errors import InvalidInput, NotFound, Unavailable
from isoloss.exporters import Selection, export_points, export_runs
from isoloss.importers import import_logged, read_export

COSINE = {"kind": "cosine", "total_steps": 400, "warmup_steps": 20, "peak_lr": 3e-3, "end_lr": 3e-4}
LINEAR = {"kind": "linear", "total_steps": 300, "warmup_steps": 20, "peak_lr": 3e-3}
FORMATS = ("csv", "parquet", "json", "jsonl")
SPECIFICATION = (
    "run_id", "name", "status", "recipe", "tags", "notes", "parent", "config", "schedule", "summary", "last_step",
)  # fmt: skip


@pytest.fixture(scope="module")
def client(live):
    with Client(live.url, live.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def project(client):
    """Runs with all that makes exports go wrong."""
    name = f"exported-{uuid.uuid4().hex[:8]}"
    client.projects.create(name)
    chance = np.random.default_rng(0)
    steps = np.arange(1, 401)
    said = {"n_params": 1.5e9, "seed": 3, "nested": {"list": [1, None, "NaN"]}, "large": 1e22, "none": None}
    texts = {"name": "Trunk, the 1st", "recipe": 'say "r"', "notes": 'a\n"b", é', "tags": ["a", "b, c", 'q"']}
    numbers = {"config": said, "schedule": COSINE, "summary": {"final_loss": 2.1}}
    client.runs.put(name, "Trunk.v1", status="finished", **texts, **numbers)
    columns = {
        "step": steps,
        "loss": 2 + steps**-0.4,
        "lr": isoloss.schedule_from_spec(COSINE).lr(steps),
        "val_loss": np.ma.MaskedArray(2.1 + steps**-0.4, mask=steps % 50 != 0),
        "z.free/one": chance.normal(size=400),
        "train_loss": steps / 7,
    }
    client.points.append(name, "Trunk.v1", columns)
    diverged = 2 + np.arange(201, 301.0) ** -0.4
    diverged[50:53] = np.nan, np.inf, -np.inf
    branch = {
        "parent": {"run_id": "Trunk.v1", "branch_step": 200},
        "schedule": LINEAR,
        "tags": ["a", "branch"],
    }
    client.runs.put(name, "branch", **branch)
    client.points.append(name, "branch", {"step": np.arange(201, 301), "loss": diverged})
    client.runs.put(name, "branch", status="failed", **branch)
    # Names that differ in case alone, that are hidden, and that end as files do; steps that no float holds.
    client.runs.put(name, "trunk.V1", status="running")
    odd = {"step": [0, 5, 2**53 - 1, 2**53], "loss": [None, 1e-300, 5e300, None]}
    odd["grad_norm"] = [0, 0.1, None, None]
    client.points.append(name, "trunk.V1", odd)
    client.runs.put(
        name, ".hidden.csv.gz", summary={"final_loss": 2.0}, config={"n_params": 1, "n_tokens": 2}
    )
    client.runs.put(name, "empty", status="preempted")
    return name


def everything(client, project):
    """All runs of a project, and the bytes of all points."""
    runs = {run["run_id"]: run for run in client.runs.list(project)}
    return {
        name: (repr([run[field] for field in SPECIFICATION]), bits(client.points.read(project, name)))
        for name, run in runs.items()
    }


def bits(points):
    return {
        name: (np.ma.getmaskarray(column).tobytes(), column.compressed().tobytes())
        for name, column in points.items()
        if name == "step" or column.count()
    }


@pytest.mark.parametrize("one_file", [False, True], ids=["files", "one-file"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_was_exported_is_imported_as_it_was_to_the_bit(client, project, tmp_path, format, one_file):
    """Runs, schedules, parents, tags, points, nulls, NaN and steps beyond floats, into an empty project."""
    report = export_runs(client, project, tmp_path / "out", format=format, one_file=one_file)
    assert (report.n_runs, report.n_points) == (5, 504)
    assert report.columns == ("step", "loss", "val_loss", "lr", "grad_norm", "train_loss", "z.free/one")
    assert sorted(report.without_points) == [".hidden.csv.gz", "empty"]
    assert report.training == ("trunk.V1",)
    copy = f"{project}-{format}{one_file}"
    done = import_logged(client, copy, read_export(tmp_path / "out"))
    assert (done.skipped, len(done.runs)) == ((), 5)
    assert everything(client, copy) == everything(client, project)
    again = import_logged(client, copy, read_export(tmp_path / "out"))
    assert [run.state for run in again.runs] == ["unchanged"] * 5


@pytest.mark.parametrize("one_file", [False, True], ids=["files", "one-file"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_metric_may_have_the_name_of_the_column_of_runs(client, tmp_path, format, one_file):
    name = f"exported-{uuid.uuid4().hex[:8]}"
    client.projects.create(name)
    for number in (1, 2):
        client.runs.put(name, f"run-{number}", status="finished")
        client.points.append(
            name, f"run-{number}", {"step": [1, 2], "loss": [3.0, 2.0], "run_id": [7, 7 + number]}
        )
    export_runs(client, name, tmp_path / "out", format=format, one_file=one_file)
    done = import_logged(client, f"{name}-again", read_export(tmp_path / "out"))
    assert done.skipped == ()
    assert everything(client, f"{name}-again") == everything(client, name)


def test_a_row_of_an_export_says_null_where_nothing_was_logged_and_nan_where_nan_was(
    client, project, tmp_path
):
    for format in FORMATS:
        export_points(client, project, tmp_path / f"all.{format}", Selection(run_ids=["branch", "trunk.V1"]))
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert lines[0] == "run_id,step,loss,val_loss,lr,grad_norm,train_loss,z.free/one"
    assert [line for line in lines if line.startswith("trunk.V1")] == [
        "trunk.V1,0,,,,0.0,,", "trunk.V1,5,1e-300,,,0.1,,",
        f"trunk.V1,{2**53 - 1},5e+300,,,,,", f"trunk.V1,{2**53},,,,,,",
    ]  # fmt: skip
    told = {tuple(cells[:2]): cells[2] for cells in (line.split(",") for line in lines)}
    assert (told["branch", "251"], told["branch", "253"]) == ("NaN", "-Infinity")
    rows = json.loads((tmp_path / "all.json").read_text())
    assert rows == [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert rows[-1] == {
        "run_id": "trunk.V1",
        "step": 2**53,
        **dict.fromkeys(rows[0].keys() - {"run_id", "step"}),
    }
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.column_names == lines[0].split(",")
    assert table.column("step").to_pylist()[-1] == 2**53
    assert table.column("loss").to_pylist()[-4:] == [None, 1e-300, 5e300, None]


def test_the_library_reads_an_export_in_csv_as_it_is(client, project, tmp_path):
    export_runs(client, project, tmp_path / "out", Selection(tags=["a", "b, c"]))
    [curve] = isoloss.read_curves(
        str(tmp_path / "out/points/*.csv"), runs_file=tmp_path / "out/runs.json", target="loss"
    )
    assert (curve.run_id, curve.n_points, curve.schedule.total_steps) == ("Trunk.v1", 400, 400)


@pytest.mark.parametrize(
    ("chosen", "names", "ancestors"),
    [
        (Selection(run_ids=["branch"]), {"branch", "Trunk.v1"}, ("Trunk.v1",)),
        (Selection(tags=["a", "branch"]), {"branch", "Trunk.v1"}, ("Trunk.v1",)),
        (Selection(tags=['q"']), {"Trunk.v1"}, ()),
        (Selection(recipe='say "r"'), {"Trunk.v1"}, ()),
        (Selection(where="config.n_params > 1 or status = preempted"), {"Trunk.v1", "empty"}, ()),
    ],
)
def test_a_selection_takes_along_what_its_branches_rest_on(
    client, project, tmp_path, chosen, names, ancestors
):
    report = export_runs(client, project, tmp_path / "out", chosen)
    runs = json.loads((tmp_path / "out/runs.json").read_text())
    assert ({run["run_id"] for run in runs}, report.ancestors) == (names, ancestors)
    assert runs[0]["run_id"] == "Trunk.v1", "parents come before their branches"


def test_a_run_that_has_points_in_many_stretches_is_exported_whole(client, project, tmp_path, monkeypatch):
    """Windows that are narrower than the run, and steps so far apart that most windows are empty."""
    monkeypatch.setattr("isoloss.exporters.chosen.OwnPoints._width", 7)
    monkeypatch.setattr("isoloss.exporters.chosen.FIRST_WIDTH", 7)
    report = export_runs(client, project, tmp_path / "out", one_file=True)
    assert report.n_points == 504
    copy = f"{project}-windows"
    import_logged(client, copy, read_export(tmp_path / "out"))
    assert everything(client, copy) == everything(client, project)


def test_an_export_holds_neither_key_nor_address(client, live, project, tmp_path):
    export_runs(client, project, tmp_path / "out")
    text = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    assert live.api_key not in text
    assert live.url not in text


def test_what_is_there_is_not_overwritten_unless_it_is_an_export_and_force_says_so(client, project, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_runs(client, project, out)  # an empty folder is no loss
    with pytest.raises(InvalidInput, match="there already; --force"):
        export_runs(client, project, out)
    export_runs(client, project, out, Selection(run_ids=["empty"]), force=True)
    assert not any((out / "points").iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match="something else in it"):
        export_runs(client, project, tmp_path / "mine", force=True)
    with pytest.raises(InvalidInput, match="there is a file of this name"):
        export_runs(client, project, tmp_path / "mine/thesis.txt", force=True)
    (tmp_path / "all.csv").write_text("mine")
    with pytest.raises(InvalidInput, match="there already"):
        export_points(client, project, tmp_path / "all.csv")
    with pytest.raises(InvalidInput, match="this is a folder"):
        export_points(client, project, out.rename(tmp_path / "out.csv"), force=True)
    assert (tmp_path / "all.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"folder": "absent/out"}, "there is no folder"),
        ({"format": "xlsx"}, "'xlsx' is not one of csv"),
        ({"selection": Selection(tags=["nobody"])}, "no run of .* is of this selection"),
        ({"selection": Selection(where="config.n_params >")}, "a value is expected"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(client, project, tmp_path, change, reason):
    asked = {"folder": "out", "selection": None, **change}
    with pytest.raises(InvalidInput, match=reason):
        export_runs(client, project, tmp_path / asked.pop("folder"), **asked)
    assert list(tmp_path.iterdir()) == []


def test_projects_runs_and_outcomes_that_are_not_there_are_named(client, project, tmp_path):
    with pytest.raises(NotFound):
        export_runs(client, "no-such-project", tmp_path / "out")
    with pytest.raises(NotFound):
        export_runs(client, project, tmp_path / "out", Selection(run_ids=["nobody"]))
    with pytest.raises(InvalidInput, match="one of run_ids, recipe alone"):
        Selection(run_ids=["a"], recipe="b")
    client.projects.create("nothing-in-it", exist_ok=True)
    with pytest.raises(InvalidInput, match="has no run"):
        export_runs(client, "nothing-in-it", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class DyingService(httpx.HTTPTransport):
    """The real service, until it has answered so often."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    def handle_request(self, request):
        self.answers -= 1
        if self.answers < 0:
            raise httpx.ConnectError("Connection refused")
        return super().handle_request(request)


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_a_service_that_dies_in_the_middle_leaves_nothing(live, project, tmp_path, answers):
    with Client(live.url, live.api_key, transport=DyingService(answers), retries=0) as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            export_runs(client, project, tmp_path / "out")
        with pytest.raises(Unavailable):
            export_points(client, project, tmp_path / "all.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_told_and_leaves_nothing(live, project, tmp_path):
    """A limit on the size of files stands for the end of the disk."""
    environment = os.environ | {"ISOLOSS_URL": live.url, "ISOLOSS_API_KEY": live.api_key}

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    for target in (["runs", "out"], ["points", "all.parquet"], ["points", "all.csv"]):
        done = subprocess.run(
            [sys.executable, "-m", "isoloss", "export", *target, "--project", project],
            cwd=tmp_path, env=environment, capture_output=True, text=True, preexec_fn=limited, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        assert "cannot be written (File too large" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_killed_leaves_nothing_under_its_name(live, project, tmp_path):
    environment = os.environ | {"ISOLOSS_URL": live.url, "ISOLOSS_API_KEY": live.api_key}
    process = subprocess.Popen(
        [sys.executable, "-m", "isoloss", "export", "runs", "out", "--project", project, "--one-file"],
        cwd=tmp_path, env=environment,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.part")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()


def test_an_export_that_was_damaged_says_what_is_wrong_and_imports_the_rest(client, project, tmp_path):
    out = tmp_path / "out"
    export_runs(client, project, out)
    (out / "points/branch.csv").write_text("step,loss\n201,2.0\n203,oops\n")
    entries = json.loads((out / "runs.json").read_text())
    for entry in entries:
        if entry["run_id"] == "trunk.V1":
            entry["file"] = "../../../etc/passwd"
    (out / "runs.json").write_text(json.dumps(entries))
    report = import_logged(client, f"{project}-damaged", read_export(out))
    reasons = {one.place.rpartition(" ")[2]: one.reason for one in report.skipped}
    assert reasons.keys() == {"branch", "trunk.V1"}
    assert "'oops' is no number" in reasons["branch"]
    assert "not in the folder of the export" in reasons["trunk.V1"]
    assert len(report.runs) == 3
    manifest = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps({**manifest, "isoloss_export": 99}))
    with pytest.raises(InvalidInput, match="a later version"):
        list(read_export(out))
    (out / "export.json").unlink()
    with pytest.raises(InvalidInput, match="this is no export"):
        list(read_export(out))


def test_the_command_line_exports_and_imports(live, client, project, tmp_path, monkeypatch):
    for name, value in {"URL": live.url, "API_KEY": live.api_key, "DATA_DIR": str(tmp_path / "data")}.items():
        monkeypatch.setenv(f"ISOLOSS_{name}", value)

    def invoke(*arguments):
        return CliRunner().invoke(build(), [*map(str, arguments)])

    out = tmp_path / "out"
    told = invoke("export", "runs", out, "-p", project, "--tag", "branch", "--format", "parquet")
    assert told.exit_code == 0, told.output
    assert f"Wrote 2 runs of {project} with 500 points" in told.stdout
    assert "There because others branch off them: Trunk.v1" in told.stderr
    assert invoke("export", "runs", out, "-p", project).exit_code == 1
    twice = invoke("export", "runs", out, "-p", project, "--tag", "a", "--run", "branch")
    assert (twice.exit_code, "exactly one of" in twice.stderr) == (2, True)
    points = invoke("export", "points", tmp_path / "a.csv", "-p", project, "--run", "branch", "--json")
    assert json.loads(points.stdout)["n_points"] == 500
    copy = f"{project}-cli"
    done = json.loads(invoke("import", "export", out, "-p", copy, "--tag", "copied", "--json").stdout)
    assert client.runs.get(copy, "branch")["tags"] == ["a", "branch", "copied"]
    assert invoke("import", "undo", done["import_id"], "--yes").exit_code == 0
    assert list(client.runs.list(copy)) == []
    mapped = invoke("import", "export", out, "-p", copy, "--map", "loss=val_loss")
    assert "an export says itself what its columns are" in mapped.stderr

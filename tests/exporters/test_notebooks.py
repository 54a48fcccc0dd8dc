"""Notebooks of fits: executed in a fresh interpreter without a network, they find what the service found."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import isoloss
from isoloss.cli import build
from isoloss.client import Client
from isoloss.errors import InvalidInput, NotFound, NotReady
from isoloss.exporters import export_fit, export_notebook
from isoloss.importers import import_table, read_fit_data
from tests.fitting import synthetic_batches
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, WSD, curve

EXECUTE = """
import json, socket, sys

def refused(*_):
    raise OSError("a notebook asks nobody")

socket.socket.connect = refused
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), globals())
print("drew", type(figure).__name__)
"""


@pytest.fixture(scope="module")
def client(live):
    with Client(live.url, live.api_key) as client:
        yield client


@pytest.fixture
def project(client):
    name = f"notebooks-{uuid.uuid4().hex[:8]}"
    client.projects.create(name)
    return name


def execute(notebook):
    """What the code of a notebook prints, run as its own process beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ISOLOSS")}
    environment["PYTHONPATH"] = str(Path(isoloss.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", EXECUTE, notebook.name],
        cwd=notebook.parent, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def made_again(client, project, fit, path):
    """Export a notebook, execute it, and return what it printed."""
    assert fit["status"] == "succeeded"
    report = export_notebook(client, project, fit["id"], path)
    assert report.notes == ()
    done = execute(path)
    assert done.returncode == 0, done.stderr
    assert "The same data, and the same numbers to the bit." in done.stdout
    return done.stdout


def put(client, project, run_id, one, **said):
    client.runs.put(project, run_id, status="finished", **said)
    client.points.append(project, run_id, {"step": one.step, "loss": one.loss_nats})


def put_curves(client, project):
    for seed, (name, spec) in enumerate({"constant": CONSTANT, "cosine": COSINE}.items()):
        put(client, project, name, curve(name, spec, seed=seed), schedule=spec, tags=["fitted"])
    wsd = curve("wsd", WSD, seed=2)
    early, late = wsd.step <= 5_000, wsd.step > 5_000
    client.runs.put(project, "trunk", schedule=CONSTANT, status="finished")
    client.points.append(project, "trunk", {"step": wsd.step[early], "loss": wsd.loss_nats[early]})
    client.runs.put(project, "wsd", parent={"run_id": "trunk", "branch_step": 5_000}, tags=["fitted"],
                    status="finished")  # fmt: skip
    lr = np.maximum(isoloss.schedule_from_spec(WSD).lr(wsd.step[late]), 1e-9)  # a log that differs at its end
    client.points.append(project, "wsd", {"step": wsd.step[late], "loss": wsd.loss_nats[late], "lr": lr})
    client.runs.put(project, "silent", tags=["fitted"], status="finished")
    client.points.append(project, "silent", {"step": [1, 2], "loss": [3.0, 2.9]})


def test_the_notebook_of_a_fit_of_curves_makes_it_again(client, project, tmp_path):
    """A branch whose parent is not fitted, logged rates, a run without rates, options, a law that was chosen."""
    put_curves(client, project)
    options = {"bootstrap": 20, "seed": 3, "skip_steps": 100, "fix": {"alpha": 0.5}}
    fit = client.fits.create(project, "lr_annealing", tags=["fitted"], options=options, wait=True)
    assert [one["run_id"] for one in fit["left_out"]] == ["silent"]
    told = made_again(client, project, fit, tmp_path / "fit.ipynb")
    assert "drew Figure" in told
    runs = json.loads((tmp_path / "fit-data/runs.json").read_text())
    assert [run["run_id"] for run in runs] == ["constant", "cosine", "silent", "trunk", "wsd"]
    notebook = json.loads((tmp_path / "fit.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    where = 'tags = "fitted"'
    chosen = client.fits.create(project, where=where, options={"bootstrap": 5, "holdout": {"run_ids": ["wsd"]}},
                                wait=True, timeout=200)  # fmt: skip
    made_again(client, project, chosen, tmp_path / "chosen.ipynb")


def test_the_notebook_of_a_fit_that_determines_nothing_finds_nothing_either(client, project, tmp_path):
    put(client, project, "alone", curve("alone", CONSTANT), schedule=CONSTANT)
    fit = client.fits.create(project, "lr_annealing", all=True, options={"bootstrap": 5}, wait=True)
    assert fit["verdict"] == "unidentified"
    assert "drew str" in made_again(client, project, fit, tmp_path / "fit.ipynb")
    assert "do not determine the law" in (tmp_path / "fit.ipynb").read_text()
    export_fit(client, project, fit["id"], tmp_path / "fit.csv")
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "fit.csv").read_text().splitlines())}
    assert (rows["C"]["value"], rows["C"]["interval_low"]) == ("", "")


def test_the_notebook_of_a_fit_of_a_table_makes_it_again(client, project, tmp_path):
    """Final losses over sizes and tokens, and recipes with a group of parameters each; no points are needed."""
    chance = np.random.default_rng(1)
    grid = [(n, d) for n in np.geomspace(1e7, 1e9, 6) for d in np.geomspace(1e9, 1e11, 6)]
    for number, (n, d) in enumerate(grid):
        loss = 1.7 + 400 * n**-0.34 + 410 * d**-0.28 + 0.002 * chance.normal()
        client.runs.put(project, f"run-{number}", status="finished", summary={"final_loss": loss},
                        config={"n_params": n, "n_tokens": d})  # fmt: skip
    fit = client.fits.create(project, "chinchilla", all=True, options={"bootstrap": 20}, wait=True)
    assert "drew Figure" in made_again(client, project, fit, tmp_path / "fit.ipynb")
    assert not any((tmp_path / "fit-data/points").iterdir())
    recipes = tmp_path / "recipes.csv"
    rows = [
        f"{name}-{number},{name},{tokens:.0f},{floor + 400 * tokens**-0.28:.5f}"
        for name, floor in (("a", 2.0), ("b", 2.1))
        for number, tokens in enumerate(np.geomspace(1e9, 6.4e10, 6))
    ]
    recipes.write_text("\n".join(["run_id,recipe,n_tokens,loss", *rows]) + "\n")
    import_table(client, f"{project}-recipes", recipes)
    compared = client.fits.create(
        f"{project}-recipes", "recipe_comparison", all=True, options={"bootstrap": 10}, wait=True
    )
    assert len(compared["groups"]) == 2
    made_again(client, f"{project}-recipes", compared, tmp_path / "recipes.ipynb")
    for end in ("csv", "parquet", "json"):
        report = export_fit(client, f"{project}-recipes", compared["id"], tmp_path / f"fitted.{end}")
        assert (report.rows is None) == (end == "json")
    from pyarrow import parquet

    groups = {row["group"] for row in parquet.read_table(tmp_path / "fitted.parquet").to_pylist()}
    assert {"recipe=a", "recipe=b"} <= groups
    assert json.loads((tmp_path / "fitted.json").read_text())["provenance"] == compared["provenance"]


def test_the_notebook_of_a_fit_of_readings_makes_it_again(client, project, tmp_path):
    """Gradient norms of a trunk and its branch, and a run that has none."""
    table = synthetic_batches.readings(0, count=600, curves=2)
    config = {"batch_small_tokens": synthetic_batches.SMALL, "batch_big_tokens": synthetic_batches.BIG}
    for name, of, part, parent in (
        ("whole", "curve-0", slice(None), None), ("trunk", "curve-1", slice(450), None),
        ("branch", "curve-1", slice(400, None), {"run_id": "trunk", "branch_step": 400}),
    ):  # fmt: skip
        rows = np.flatnonzero([label == of for label in table.label("curve")])[part]
        columns = {"tokens": table.column("n_tokens")[rows], "loss": np.full(rows.size, 3.0)}
        columns |= {norm: table.column(norm)[rows] for norm in ("grad_norm_small", "grad_norm_big")}
        first = 401 if parent else 1
        client.runs.put(project, name, status="finished", config=config, parent=parent)
        client.points.append(project, name, {"step": np.arange(first, first + rows.size), **columns})
    client.runs.put(project, "other", status="finished")
    fit = client.fits.create(project, "noise_scale", all=True, options={"seed": 3}, wait=True)
    assert [one["run_id"] for one in fit["left_out"]] == ["other"]
    made_again(client, project, fit, tmp_path / "noise.ipynb")
    assert "loss" not in (tmp_path / "noise-data/points/whole.csv").read_text().splitlines()[0]
    compute = np.geomspace(1, 200, 60)
    chance = np.random.default_rng(0)
    for name, top in (("small", 0.6), ("large", 0.8)):
        reward = 0.1 + (top - 0.1) / (1 + (12 / compute) ** 1.4) + 0.004 * chance.normal(size=60)
        client.runs.put(f"{project}", f"rl-{name}", status="finished", tags=["rl"])
        columns = {"step": np.arange(1, 61), "compute_flops": compute, "reward": reward}
        client.points.append(project, f"rl-{name}", columns)
    rewards = client.fits.create(project, "rl_compute", tags=["rl"], options={"bootstrap": 10}, wait=True)
    made_again(client, project, rewards, tmp_path / "rl.ipynb")


def test_a_notebook_whose_runs_have_changed_since_says_so_and_stops(client, project, tmp_path):
    put_curves(client, project)
    fit = client.fits.create(project, "lr_annealing", all=True, options={"bootstrap": 0}, wait=True)
    put(client, project, "later", curve("later", LINEAR, seed=5), schedule=LINEAR)
    came = export_notebook(client, project, fit["id"], tmp_path / "later.ipynb")
    assert came.notes == ("1 run of the selection came after the fit: not in the data",)
    assert execute(tmp_path / "later.ipynb").returncode == 0
    client.points.rewind(project, "cosine", 4_000)
    report = export_notebook(client, project, fit["id"], tmp_path / "fit.ipynb")
    assert "1 run changed after the fit (cosine)" in report.notes[1]
    done = execute(tmp_path / "fit.ipynb")
    assert done.returncode == 1
    assert "these are not the data that the service fitted" in done.stderr


def test_what_has_no_result_is_refused_and_what_is_there_stays(client, project, tmp_path, live, monkeypatch):
    put_curves(client, project)
    fit = client.fits.create(project, "lr_annealing", tags=["fitted"], options={"bootstrap": 0}, wait=True)
    with pytest.raises(NotFound):
        export_notebook(client, project, str(uuid.uuid4()), tmp_path / "fit.ipynb")
    with pytest.raises(InvalidInput, match=r"ends in \.ipynb"):
        export_notebook(client, project, fit["id"], tmp_path / "fit.py")
    with pytest.raises(InvalidInput, match="its name must say what it is"):
        export_fit(client, project, fit["id"], tmp_path / "fit.xlsx")
    (tmp_path / "fit-data").mkdir()
    (tmp_path / "fit-data/mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="something else in it"):
        export_notebook(client, project, fit["id"], tmp_path / "fit.ipynb", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["fit-data"]
    many = client.fits.create(project, "multi_power", tags=["fitted"], options={"bootstrap": 5000})
    with pytest.raises(NotReady, match=r"it is still (queued|running)"):
        export_fit(client, project, many["id"], tmp_path / "many.json")
    client.jobs.cancel(many["job_id"])
    with pytest.raises(Exception, match="cancelled"):
        client.fits.wait(project, many["id"], timeout=60)
    with pytest.raises(NotReady, match="it was cancelled"):
        export_notebook(client, project, many["id"], tmp_path / "many.ipynb")
    for name, value in {"URL": live.url, "API_KEY": live.api_key, "PROJECT": project}.items():
        monkeypatch.setenv(f"ISOLOSS_{name}", value)
    target = str(tmp_path / "a.ipynb")
    done = CliRunner().invoke(build(), ["export", "fit", fit["id"], "--notebook", target, "--json"])
    assert json.loads(done.stdout)["notebook"]["n_runs"] == 4
    assert CliRunner().invoke(build(), ["export", "fit", fit["id"]]).exit_code == 2
    isoloss.export_runs(client, project, tmp_path / "runs")
    with pytest.raises(InvalidInput, match="of runs, not of a fit"):
        read_fit_data(tmp_path / "runs")

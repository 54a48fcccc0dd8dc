"""The service fits what the library fits: the same curves, options and seed give the same numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.client import Client, errors
from isoloss.importers import import_curves, import_table
from isoloss.readings import LoggedRun, table_of_readings
from tests.fitting import synthetic_batches
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, WSD, curve
from workers.fits import storable

DATA = Path(__file__).resolve().parents[3] / "shared/data"
CHINCHILLA = DATA / "chinchilla/points.csv"
REWARDS = DATA / "rl_sigmoid/accuracy.csv"
SPECS = {"constant": CONSTANT, "cosine": COSINE, "wsd": WSD}


@pytest.fixture
def client(live: Any) -> Iterator[Client]:
    with Client(live.url, live.api_key) as client:
        yield client


def put(client: Client, project: str, run_id: str, one: isoloss.Curve, **said: Any) -> None:
    client.projects.create(project, exist_ok=True)
    client.runs.put(project, run_id, status="finished", **said)
    client.points.append(project, run_id, {"step": one.step, "loss": one.loss_nats})


def test_a_fit_over_http_is_the_librarys(client: Client) -> None:
    """Parameters, intervals, objective, data hash and a prediction agree to the last bit."""
    curves = [curve(name, spec, seed=seed) for seed, (name, spec) in enumerate(SPECS.items())]
    for one in curves:
        put(client, "same", one.run_id, one, schedule=SPECS[one.run_id])
    options = {"bootstrap": 60, "seed": 3}
    queued = client.fits.create("same", "lr_annealing", all=True, options=options)
    served = client.fits.wait("same", queued["id"], timeout=60)
    own = isoloss.fit("lr_annealing", curves, **options)
    assert served["status"] == "succeeded"
    assert served["verdict"] == own.verdict
    assert served["objective"] == own.objective
    assert served["provenance"]["data_sha256"] == own.provenance["data_sha256"]
    for one in served["parameters"]:
        mine = own.parameters[one["name"]]
        assert (one["value"], one["std_error"], tuple(one["interval"])) == (
            mine.value,
            mine.std_error,
            mine.interval,
        )
    asked = {"schedule": LINEAR, "steps": [1000, 9000], "interval": "new_run"}
    predicted = client.fits.predict("same", served["id"], **asked)
    mine_predicted = own.predict(**asked)
    for column in ("value", "lower", "upper"):
        np.testing.assert_array_equal(predicted[column], getattr(mine_predicted, column))
    assert predicted["extrapolation"] == mine_predicted.extrapolation


def test_recipes_that_state_tokens_alone_are_compared_over_http_as_by_the_library(
    client: Client, tmp_path: Path
) -> None:
    """Two recipes, four numbers of tokens each and no compute: the service takes what the library takes."""
    path = tmp_path / "recipes.csv"
    rows = [
        f"{name}-{number},{name},{tokens:.0f},{floor + 400 * tokens**-0.28:.5f}"
        for name, floor in (("a", 2.0), ("b", 2.1))
        for number, tokens in enumerate(np.geomspace(1e9, 6.4e10, 6))
    ]
    path.write_text("\n".join(["run_id,recipe,n_tokens,loss", *rows]) + "\n")
    import_table(client, "recipes", path, {})
    served = client.fits.create(
        "recipes", "recipe_comparison", all=True, options={"bootstrap": 20}, wait=True, timeout=60
    )
    own = isoloss.fit("recipe_comparison", isoloss.read_runs(path), bootstrap=20)
    assert served["diagnostics"]["compared_over"] == "n_tokens"
    assert served["provenance"]["data_sha256"] == own.provenance["data_sha256"]
    assert [one["value"] for one in served["derived"]] == [one.value for one in own.derived]


@pytest.mark.skipif(not CHINCHILLA.exists(), reason="the public data are not here")
def test_a_fit_of_the_chinchilla_runs_over_http_is_the_librarys(client: Client) -> None:
    """The 240 runs of the replication as a table: parameters, profiles, hash and predictions agree to the bit."""
    named = {"n_params": "n_params", "n_tokens": "tokens", "final_loss": "loss"}
    report = import_table(client, "chinchilla", CHINCHILLA, named, tags=["figure-4"])
    assert (report.new, report.skipped) == (245, ())
    assert import_table(client, "chinchilla", CHINCHILLA, named, tags=["figure-4"]).unchanged == 245
    options = {"bootstrap": 60, "seed": 1}
    kept = "config.dropped_by_replication = 0"
    served = client.fits.create(
        "chinchilla", "chinchilla", where=kept, options=options, wait=True, timeout=60
    )
    table = isoloss.read_runs(CHINCHILLA, named)
    runs = table.only(np.flatnonzero(table.columns["dropped_by_replication"] == 0))
    own = isoloss.fit("chinchilla", runs, **options)
    assert served["diagnostics"]["n_runs"] == 240
    for part in ("objective", "verdict", "provenance", "holdout", "left_out"):
        assert served[part] == own.public()[part], part
    for one in served["parameters"]:
        mine = own.parameters[one["name"]]
        assert (one["value"], one["std_error"]) == (mine.value, mine.std_error)
        assert (tuple(one["interval"]), tuple(one["profile"])) == (mine.interval, mine.profile)
    asked = {"n_params": 7e10, "n_tokens": 1.4e12}
    predicted = client.fits.predict("chinchilla", served["id"], config=asked, interval="new_run")
    mine_predicted = own.predict(config=asked, interval="new_run")
    assert predicted["steps"] is None
    for column in ("value", "lower", "upper"):
        np.testing.assert_array_equal(predicted[column], getattr(mine_predicted, column))
    assert predicted["extrapolation"] == mine_predicted.extrapolation


def test_a_branch_is_fitted_with_its_parents_history(client: Client) -> None:
    """A WSD run stored as a constant parent and a branch at 5,000 gives the fit of the whole run."""
    whole = {name: curve(name, spec, seed=seed) for seed, (name, spec) in enumerate(SPECS.items())}
    wsd = whole["wsd"]
    early, late = wsd.step <= 5_000, wsd.step > 5_000
    for name in ("constant", "cosine"):
        put(client, "branches", name, whole[name], schedule=SPECS[name])
    client.runs.put("branches", "trunk", schedule=CONSTANT, status="finished")
    client.points.append("branches", "trunk", {"step": wsd.step[early], "loss": wsd.loss_nats[early]})
    parent = {"run_id": "trunk", "branch_step": 5_000}
    client.runs.put("branches", "wsd", parent=parent, schedule=WSD, status="finished")
    client.points.append("branches", "wsd", {"step": wsd.step[late], "loss": wsd.loss_nats[late]})
    run_ids = ["constant", "cosine", "wsd"]
    queued = client.fits.create("branches", "lr_annealing", run_ids=run_ids, options={"bootstrap": 0})
    served = client.fits.wait("branches", queued["id"], timeout=60)
    own = isoloss.fit("lr_annealing", list(whole.values()), bootstrap=0)
    assert served["objective"] == pytest.approx(own.objective, rel=1e-9)
    assert served["left_out"] == []


def test_runs_without_a_learning_rate_are_left_out_by_name(client: Client) -> None:
    """One run says nothing of its rates: the others are fitted, and the answer names it with the reason."""
    for seed, (name, spec) in enumerate(SPECS.items()):
        put(client, "gaps", name, curve(name, spec, seed=seed), schedule=spec)
    put(client, "gaps", "silent", curve("silent", COSINE))
    queued = client.fits.create("gaps", "lr_annealing", all=True, options={"bootstrap": 0})
    [left] = client.fits.wait("gaps", queued["id"], timeout=60)["left_out"]
    assert left["run_id"] == "silent"
    assert "no learning rate" in left["reason"]


def test_a_fit_of_nothing_usable_is_refused_with_the_reason(client: Client) -> None:
    """Only runs without learning rates: no job is queued, and the problem says why."""
    put(client, "silence", "silent", curve("silent", COSINE))
    with pytest.raises(errors.ValidationProblem, match="no learning rate"):
        client.fits.create("silence", "lr_annealing", all=True)


def test_predictions_of_an_unidentified_fit_are_refused(client: Client) -> None:
    """One constant run: the fit succeeds with nulls, its prediction is a conflict with the reason."""
    put(client, "alone", "alone", curve("alone", CONSTANT), schedule=CONSTANT)
    queued = client.fits.create("alone", "lr_annealing", all=True, options={"bootstrap": 20})
    fit = client.fits.wait("alone", queued["id"], timeout=60)
    assert fit["verdict"] == "unidentified"
    assert {one["name"]: one["value"] for one in fit["parameters"]}["C"] is None
    with pytest.raises(errors.Conflict, match="never falls"):
        client.fits.predict("alone", fit["id"], schedule=LINEAR)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"expr": {"A": "open('/etc/passwd')"}}, "expr"),
        ({"expr": {"A": "9" * 1000}}, "expr"),
        ({"bootstrap": "many"}, "bootstrap"),
        ({"n_resamples": 3}, "n_resamples"),
        ({"fix": {"gamma": 1}}, "fix"),
        ({"level": 2}, "level"),
        ({"holdout": {"run_ids": ["nobody"]}}, "holdout.run_ids"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_a_job_is_queued(
    client: Client, options: dict[str, Any], field: str
) -> None:
    """A wrong option is a validation problem that names it."""
    client.projects.create("options", exist_ok=True)
    put(client, "options", "run", curve("run", COSINE), schedule=COSINE)
    with pytest.raises(errors.ValidationProblem) as caught:
        client.fits.create("options", "lr_annealing", all=True, options=options)
    assert field in str(caught.value.errors) + str(caught.value)


def test_steps_outside_the_schedule_are_refused(client: Client) -> None:
    """A prediction is asked for within the schedule's length alone."""
    for seed, (name, spec) in enumerate(SPECS.items()):
        put(client, "steps", name, curve(name, spec, seed=seed), schedule=spec)
    queued = client.fits.create("steps", "lr_annealing", all=True, options={"bootstrap": 0})
    fit = client.fits.wait("steps", queued["id"], timeout=60)
    with pytest.raises(errors.ValidationProblem, match=r"1\.\.9000"):
        client.fits.predict("steps", fit["id"], schedule=LINEAR, steps=[9001])


def test_a_law_that_was_chosen_over_http_is_the_librarys_choice(client: Client) -> None:
    """Without a law the service fits the one that predicts runs best from others, and says the scores."""
    curves = [curve(name, spec, seed=seed) for seed, (name, spec) in enumerate(SPECS.items())]
    for one in curves:
        put(client, "chosen", one.run_id, one, schedule=SPECS[one.run_id])
    served = client.fits.create("chosen", all=True, options={"bootstrap": 20}, wait=True, timeout=120)
    own = isoloss.fit("auto", curves, bootstrap=20)
    assert served["selection"] == own.selection
    assert served["reasons"] == own.reasons
    asked = {"schedule": LINEAR, "steps": [1000, 9000]}
    predicted = client.fits.predict("chosen", served["id"], **asked)
    np.testing.assert_array_equal(predicted["value"], own.predict(**asked).value)


def same(served: dict[str, Any], own: isoloss.Fit, *but: str) -> None:
    """What a fit over HTTP shows is what the library's shows, but for some parts."""
    mine = storable(own.public())
    for part in ("parameters", "groups", "objective", "verdict", "reasons", "holdout", "metrics", "left_out"):
        assert part in but or served[part] == mine[part], part
    assert served["provenance"]["data_sha256"] == own.provenance["data_sha256"] or "provenance" in but


def norms_of(curve_name: str, table: isoloss.RunTable) -> dict[str, np.ndarray]:
    rows = np.array([name == curve_name for name in table.label("curve")])
    names = ("grad_norm_small", "grad_norm_big")
    tokens = {"tokens": table.column("n_tokens")[rows]}
    return {
        "step": np.arange(1, rows.sum() + 1),
        **tokens,
        **{name: table.column(name)[rows] for name in names},
    }


def test_a_noise_scale_off_points_over_http_is_the_librarys(client: Client) -> None:
    """Norms at two batches as points of a trunk and its branch: fit, holdout and prediction agree to the bit."""
    table = synthetic_batches.readings(0, count=600, curves=2)
    config = {"batch_small_tokens": synthetic_batches.SMALL, "batch_big_tokens": synthetic_batches.BIG}
    logged = {name: norms_of(name, table) for name in ("curve-0", "curve-1")}
    late = {name: values[400:] for name, values in logged["curve-1"].items()}
    early = {name: values[:450] for name, values in logged["curve-1"].items()}
    client.projects.create("noise")
    runs = []
    for name, columns, parent in (
        ("whole", logged["curve-0"], None), ("trunk", early, None), ("branch", late, ("trunk", 400)),
    ):  # fmt: skip
        said = {} if parent is None else {"parent": {"run_id": parent[0], "branch_step": parent[1]}}
        client.runs.put("noise", name, status="finished", config=config, **said)
        client.points.append("noise", name, columns)
        runs.append(LoggedRun.from_columns(name, columns, config=config, parent=parent))
    readings = table_of_readings("noise_scale", runs)
    for options in ({"seed": 3}, {"holdout": {"run_ids": ["branch"]}}, {"holdout": {"fraction": 0.2}}):
        served = client.fits.create("noise", "noise_scale", all=True, options=options, wait=True, timeout=60)
        own = isoloss.fit("noise_scale", readings, **options)
        same(served, own)
        assert {group["by"]["curve"] for group in served["groups"]} <= {"whole", "trunk", "branch"}
    predicted = client.fits.predict("noise", served["id"], config={"n_tokens": 3e11})
    np.testing.assert_array_equal(predicted["value"], own.predict(n_tokens=3e11).value)
    alone = client.fits.create("noise", "noise_scale", run_ids=["branch"], wait=True, timeout=60)
    assert alone["diagnostics"]["n_runs"] == 600


@pytest.mark.skipif(not REWARDS.exists(), reason="the public data are not here")
def test_public_rewards_as_points_over_http_are_the_fit_of_their_table(
    client: Client, tmp_path: Path
) -> None:
    """Accuracies of five models, a run each with a point for every reading: verdicts, asymptotes, ends and all."""
    named = {"compute_flops": "step", "reward": "accuracy", "curve": "model"}
    table = isoloss.fit("rl_compute", isoloss.read_runs(REWARDS, named, target="reward"))
    rows = list(csv.DictReader(REWARDS.read_text().splitlines()))
    for model in {row["model"] for row in rows}:
        with (tmp_path / f"{model}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["step", "compute_flops", "reward"])
            out.writerows(
                [row["step"], row["step"], row["accuracy"]] for row in rows if row["model"] == model
            )
    report = import_curves(client, "rewards", sorted(tmp_path.glob("*.csv")))
    assert (len(report.runs), report.skipped) == (5, ())
    served = client.fits.create("rewards", "rl_compute", all=True, wait=True, timeout=60)
    points = isoloss.fit("rl_compute", isoloss.read_points("rl_compute", str(tmp_path / "*.csv")))
    same(served, points)
    # The rows of the table have other names, which belong to the data.
    same(served, table, "provenance", "left_out")
    assert {group["by"]["curve"] for group in served["groups"] if group["verdict"] == "unidentified"} == {
        "4b",
        "14b",
    }
    asked = {"curve": "0.6b", "compute_flops": 104.0}
    predicted = client.fits.predict("rewards", served["id"], config=asked)
    np.testing.assert_array_equal(predicted["value"], table.predict(config=asked).value)
    with pytest.raises(errors.Conflict, match="no upper limit below 1 on the asymptote"):
        client.fits.predict("rewards", served["id"], config={"curve": "14b", "compute_flops": 104.0})

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

import isoloss
import isoloss.fitting
from app.fits.routes import MAX_SUMMED_STEPS, bounded
from app.fits.schemas import MAX_PREDICTED_STEPS, Options
from isoloss.errors import InvalidSchedule
from isoloss.fitting import FitOptions
from isoloss.laws import LAWS, TableLaw
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import SUMMARY_COLUMNS
from store import fits, jobs
from tests.app.conftest import Api, fields, problem
from tests.fitting.synthetic_sweeps import decays, lr_alone
from tests.fitting.test_staged import batches, steps
from workers import fits as fit_work

LAW = "lr_annealing"
TOO_LONG = {
    "kind": "wsd",
    "total_steps": MAX_SUMMED_STEPS + 501,
    "decay_start": 500,
    "decay_shape": "sqrt",
    "peak_lr": 1e-3,
}
NAMES = tuple(Options.model_fields)
SCHEDULES = {
    "constant": {"kind": "constant", "total_steps": 2000, "warmup_steps": 100, "peak_lr": 1e-3},
    "cosine": {"kind": "cosine", "total_steps": 2000, "warmup_steps": 100, "peak_lr": 1e-3, "end_lr": 1e-4},
    "wsd": {"kind": "wsd", "total_steps": 2000, "warmup_steps": 100, "decay_start": 1500, "peak_lr": 1e-3},
}


@pytest.fixture
def fit(client: httpx.Client, project: str) -> dict[str, Any]:
    """A queued fit over three runs."""
    for name, schedule in SCHEDULES.items():
        client.put(f"{project}/runs/{name}", json={"name": name, "schedule": schedule})
    response = client.post(
        f"{project}/fits", json={"law": LAW, "select": {"all": True}, "options": {"bootstrap": 20}}
    )
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    return document


def _finished(api: Api, fit: dict[str, Any], constant_only: bool = False) -> None:
    """Do what a worker does, with the library, on curves of a known law."""
    law = LAWS[LAW]
    theta = np.array(
        [
            [
                {"L0": 2.0, "A": 0.6, "alpha": 0.5, "C": 0.4, "lambda": 0.995}.get(p.name, 0.0)
                for p in law.parameters
            ]
        ]
    )
    step = np.arange(200, 2001, 20)
    curves = []
    for name, schedule in SCHEDULES.items():
        empty = Curve.from_columns(name, {"step": step, "loss": np.ones(len(step))}, schedule=schedule)
        loss = law.predict(theta, law.prepare([empty]))[0]
        curves.append(Curve.from_columns(name, {"step": step, "loss": loss}, schedule=schedule))
    found = isoloss.fitting.fit(LAW, curves[:1] if constant_only else curves, bootstrap=20)
    with api.sessions.begin() as session:
        job = uuid.UUID(fit["job_id"])
        attempt = jobs.start(session, job)
        assert attempt is not None
        assert jobs.finish(session, job, attempt, "succeeded")
        fits.save(session, uuid.UUID(fit["id"]), found.public(), found.as_document())


def test_a_fit_is_queued_with_its_job(
    api: Api, client: httpx.Client, project: str, fit: dict[str, Any]
) -> None:
    """202 with ids; the fit, its job and the queue's row are there together, and a prediction must wait."""
    assert fit["status"] == "queued"
    path = f"{project}/fits/{fit['id']}"
    shown = client.get(path).json()
    assert (shown["status"], shown["select"], shown["options"]) == (
        "queued",
        {"all": True},
        {"bootstrap": 20},
    )
    assert shown["parameters"] is None
    assert (shown["follow"], shown["revision"], shown["updated_at"]) == (False, 0, None)
    assert [item["id"] for item in client.get(f"{project}/fits").json()["items"]] == [fit["id"]]
    job = client.get(f"/v1/jobs/{fit['job_id']}").json()
    assert (job["kind"], job["status"], job["progress"], job["attempts"]) == ("fit", "queued", 0.0, 0)
    with api.sessions() as session:
        queued = sa.text("SELECT args->>'job_id' FROM jobs.procrastinate_jobs WHERE task_name = 'fit'")
        assert fit["job_id"] in session.scalars(queued).all()
    body = {"schedule": SCHEDULES["wsd"]}
    assert problem(client.post(f"{path}/predictions", json=body), 409)["type"] == "urn:isoloss:not-ready"


def test_a_waiting_fit_is_cancelled_at_once(client: httpx.Client, project: str, fit: dict[str, Any]) -> None:
    """Cancelling its job cancels the fit; again changes nothing."""
    for _ in range(2):
        response = client.post(f"/v1/jobs/{fit['job_id']}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert client.get(f"{project}/fits/{fit['id']}").json()["status"] == "cancelled"
    where = {"where": "status = cancelled and law = lr_annealing"}
    assert len(client.get(f"{project}/fits", params=where).json()["items"]) == 1
    assert len(client.get(f"{project}/fits", params={"where": "status = queued"}).json()["items"]) == 0


def test_a_finished_fit_shows_what_it_found_and_predicts(
    api: Api, client: httpx.Client, project: str, fit: dict[str, Any]
) -> None:
    """Parameters, verdict and provenance; predictions with intervals for a schedule of one's own."""
    _finished(api, fit)
    path = f"{project}/fits/{fit['id']}"
    shown = client.get(path).json()
    assert shown["status"] == "succeeded"
    assert shown["verdict"] in ("sound", "weak")
    values = {one["name"]: one["value"] for one in shown["parameters"]}
    assert values["L0"] == pytest.approx(2.0, abs=0.05)
    assert shown["provenance"]
    assert shown["revision"] == 1
    body = {
        "schedule": {**SCHEDULES["wsd"], "total_steps": 3000, "decay_start": 2500},
        "steps": [1000, 3000],
        "level": 0.8,
    }
    predicted = client.post(f"{path}/predictions", json=body)
    assert predicted.status_code == 200, predicted.text
    document = predicted.json()
    assert document["steps"] == [1000, 3000]
    for low, value, high in zip(document["lower"], document["value"], document["upper"], strict=True):
        assert low <= value <= high
    assert document["level"] == 0.8
    assert document["extrapolation"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "schedule"),
        ({"schedule": {"kind": "zigzag"}}, "schedule.kind"),
        ({"schedule": SCHEDULES["wsd"], "steps": [2001]}, "steps"),
        ({"schedule": SCHEDULES["wsd"], "steps": [-1]}, "steps.0"),
        ({"schedule": SCHEDULES["wsd"], "steps": []}, "steps"),
        ({"schedule": SCHEDULES["wsd"], "steps": ["5"]}, "steps.0"),
        ({"schedule": SCHEDULES["wsd"], "level": 1.0}, "level"),
        ({"schedule": SCHEDULES["wsd"], "interval": "some"}, "interval"),
        ({"schedule": SCHEDULES["wsd"], "nope": 1}, "nope"),
        ({"schedule": SCHEDULES["wsd"], "steps": [5] * (MAX_PREDICTED_STEPS + 1)}, "steps"),
        (
            {"schedule": {**SCHEDULES["wsd"], "decay_shape": "sqrt", "total_steps": 2_001_501}},
            "schedule.decay_shape",
        ),
        ({"schedule": SCHEDULES["wsd"], "config": {"n_params": "x"}}, "config.n_params"),
        ({"schedule": SCHEDULES["wsd"], "config": {"n_params": [1]}}, "config.n_params"),
        ({"schedule": SCHEDULES["wsd"], "config": {"n_params": True}}, "config.n_params"),
        ({"schedule": SCHEDULES["wsd"], "config": {"n_params_kind": "zz"}}, "config.n_params_kind"),
        ({"schedule": SCHEDULES["wsd"], "config": [1]}, "config"),
        ({"schedule": SCHEDULES["wsd"], "config": True}, "config"),
    ],
)
def test_a_prediction_that_cannot_be_is_refused(
    api: Api, client: httpx.Client, project: str, fit: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    """Steps outside the schedule, levels and schedules that are none: 422 by the field."""
    _finished(api, fit)
    assert fields(client.post(f"{project}/fits/{fit['id']}/predictions", json=body)) == [field]


def test_a_table_of_rates_is_bounded_like_a_decay_that_is_summed() -> None:
    """The longest table and the longest square root that a prediction takes are equally long."""
    with pytest.raises(InvalidSchedule, match=str(MAX_SUMMED_STEPS)):
        bounded({"kind": "values", "lr": [1e-3] * (MAX_SUMMED_STEPS + 1)})
    longest = {**TOO_LONG, "total_steps": MAX_SUMMED_STEPS + 500}
    assert bounded(longest).total_steps == MAX_SUMMED_STEPS + 500


def test_an_unidentified_fit_predicts_nothing(
    api: Api, client: httpx.Client, project: str, fit: dict[str, Any]
) -> None:
    """A fit that the data do not determine succeeds, and its predictions answer 409 with the reason."""
    _finished(api, fit, constant_only=True)
    path = f"{project}/fits/{fit['id']}"
    assert client.get(path).json()["verdict"] == "unidentified"
    answer = problem(client.post(f"{path}/predictions", json={"schedule": SCHEDULES["wsd"]}), 409)
    assert answer["type"] == "urn:isoloss:unidentified"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"law": "gravity"}, "law"),
        ({"law": 5}, "law"),
        ({"nope": 1}, "nope"),
        ({"select": {}}, "select"),
        ({"select": {"all": True, "recipe": "r"}}, "select"),
        ({"select": {"all": False}}, "select.all"),
        ({"select": {"run_ids": ["gone"]}}, "select.run_ids"),
        ({"select": {"run_ids": []}}, "select.run_ids"),
        ({"select": {"tags": ["none"]}}, "select"),
        ({"select": {"where": "nope = 1"}}, "select.where"),
        ({"select": {"run_ids": ["r", "r"]}}, "select.run_ids"),
        ({"follow": 1}, "follow"),
        ({"follow": None}, "follow"),
        ({"options": []}, "options"),
        ({"options": None}, "options"),
        *(({"options": {name: []}}, f"options.{name}") for name in NAMES),
        *(({"options": {name: "abc"}}, f"options.{name}") for name in NAMES),
        *(({"options": {name: True}}, f"options.{name}") for name in NAMES if name != "profile"),
        *(({"options": {name: None}}, f"options.{name}") for name in ("fix", "bounds", "expr", "level")),
        ({"options": {"fix": {"alpha": "0.5"}}}, "options.fix.alpha"),
        ({"options": {"fix": {"alpha": None}}}, "options.fix.alpha"),
        ({"options": {"bounds": {"alpha": 5}}}, "options.bounds.alpha"),
        ({"options": {"bounds": {"alpha": [0.1]}}}, "options.bounds.alpha"),
        ({"options": {"bounds": {"alpha": [0.1, "x"]}}}, "options.bounds.alpha.1"),
        ({"options": {"expr": {"A": 3}}}, "options.expr.A"),
        ({"options": {"expr": {"A": None}}}, "options.expr.A"),
        ({"options": {"expr": {"nope": "A"}}}, "options.expr.nope"),
        ({"options": {"level": 1}}, "options.level"),
        ({"options": {"bootstrap": 10**9}}, "options.bootstrap"),
        ({"options": {"holdout": {}}}, "options.holdout"),
        ({"options": {"holdout": {"run_ids": ["r"], "fraction": 0.5}}}, "options.holdout"),
        ({"options": {"holdout": {"fraction": 1}}}, "options.holdout.fraction"),
        ({"options": {"holdout": {"fraction": 0.51}}}, "options.holdout.fraction"),
        ({"options": {"holdout": {"run_ids": []}}}, "options.holdout.run_ids"),
        ({"options": {"holdout": {"run_ids": ["gone"]}}}, "options.holdout.run_ids"),
        ({"options": {"holdout": {"run_ids": ["r"]}}}, "options.holdout"),
        ({"options": {"holdout": {"fraction": 0.1}}}, "options.holdout"),
        ({"options": {"n_params_kind": "zz"}}, "options.n_params_kind"),
        ({"options": {"n_params_kind": "active"}}, "options.n_params_kind"),
        ({"options": {"resample": "points"}}, "options.resample"),
        ({"options": {"profile": 1}}, "options.profile"),
        ({"options": {"convention": "other"}}, "options.convention"),
        ({"options": {"priors": {"alpha": [0.3]}}}, "options.priors.alpha"),
        ({"options": {"priors": {"alpha": [0.3, 0]}}}, "options.priors.alpha"),
        ({"options": {"priors": {"nope": [0.3, 0.1]}}}, "options.priors.nope"),
        ({"options": {"prior_strength": -1}}, "options.prior_strength"),
        ({"options": {"backend": "tpu"}}, "options.backend"),
        ({"options": {"nope": 1}}, "options.nope"),
        ({"options": {"bootstrap": True}}, "options.bootstrap"),
        ({"options": {"level": "0.9"}}, "options.level"),
        ({"options": {"fix": {"nope": 1}}}, "options.fix.nope"),
        ({"options": {"bounds": {"alpha": [2, 1]}}}, "options.bounds.alpha"),
        ({"options": {"expr": {"A": "open('/etc/passwd').read()"}}}, "options.expr.A"),
        ({"options": {"expr": {"A": "[1 for _ in range(10**9)]"}}}, "options.expr.A"),
        ({"options": {"expr": {"A": "1+" * 500 + "1"}}}, "options.expr.A"),
    ],
)
def test_a_fit_that_cannot_be_is_refused_before_it_is_queued(
    client: httpx.Client, project: str, change: dict[str, Any], field: str
) -> None:
    """Unknown laws, options and runs, and expressions that do more than arithmetic, are 422 and queue nothing."""
    client.put(f"{project}/runs/r", json={"name": "r", "schedule": SCHEDULES["wsd"]})
    body = {"law": LAW, "select": {"all": True}, **change}
    assert fields(client.post(f"{project}/fits", json=body)) == [field]
    assert client.get(f"{project}/fits").json()["items"] == []


def test_runs_that_cannot_be_fitted_together_are_refused(client: httpx.Client, project: str) -> None:
    """No runs, runs without any learning rate, and runs that count their parameters in different ways."""
    body: dict[str, Any] = {"law": LAW, "select": {"all": True}}
    assert fields(client.post(f"{project}/fits", json=body)) == ["select"]
    client.put(f"{project}/runs/a", json={"name": "a"})
    assert "learning rate" in problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    for name, kind in (("a", "total"), ("b", "active")):
        config = {"n_params": 1e8, "n_params_kind": kind, "n_params_total": 1e8}
        said = {"name": name, "schedule": SCHEDULES["wsd"], "config": config}
        client.put(f"{project}/runs/{name}", json=said)
    assert fields(client.post(f"{project}/fits", json=body)) == ["options.n_params_kind"]
    body["options"] = {"n_params_kind": "total"}
    assert client.post(f"{project}/fits", json=body).status_code == 202
    body["options"] = {"n_params_kind": "non_embedding"}
    refused = problem(client.post(f"{project}/fits", json=body), 422)
    assert "n_params_non_embedding" in refused["detail"]
    del body["options"]
    client.put(
        f"{project}/runs/b", json={"name": "b", "schedule": SCHEDULES["wsd"], "config": {"n_params": 1e8}}
    )
    assert fields(client.post(f"{project}/fits", json=body)) == ["options.n_params_kind"]
    client.put(
        f"{project}/runs/a", json={"name": "a", "schedule": SCHEDULES["wsd"], "config": {"n_params": 1e7}}
    )
    assert client.post(f"{project}/fits", json=body).status_code == 202  # neither names a kind


def test_every_option_is_taken_shown_as_sent_and_described(client: httpx.Client, project: str) -> None:
    """A fit with all the options is queued; OpenAPI gives each a type and a description."""
    for name, schedule in SCHEDULES.items():
        config = {"n_params": 10**8, "n_params_kind": "total"}
        client.put(f"{project}/runs/{name}", json={"name": name, "schedule": schedule, "config": config})
    options = {
        "target": "val_loss",
        "fix": {"lambda": 0.999},
        "bounds": {"alpha": [0.1, None]},
        "expr": {"C": "2 * A"},
        "huber_delta": 0.01,
        "skip_steps": 200,
        "starts": 4,
        "bootstrap": 20,
        "level": 0.8,
        "holdout": {"run_ids": ["wsd"]},
        "seed": 7,
        "n_params_kind": "total",
        "resample": "blocks",
        "profile": False,
        "convention": None,
        "priors": {"alpha": [0.4, 0.2], "L0": None},
        "prior_strength": 0.01,
        "gate": {"tuned": False},
        "backend": "numpy",
    }
    assert options.keys() == set(NAMES) == {field.name for field in dataclasses.fields(FitOptions)}
    answer = client.post(f"{project}/fits", json={"law": LAW, "select": {"all": True}, "options": options})
    assert answer.status_code == 202, answer.text
    assert client.get(f"{project}/fits/{answer.json()['id']}").json()["options"] == {
        name: value for name, value in options.items() if name != "convention"
    }
    described = client.get("/openapi.json").json()["components"]["schemas"]["Options"]["properties"]
    assert all(one["description"] for one in described.values())
    defaults = FitOptions()
    assert {name: one["default"] for name, one in described.items() if one.get("default") is not None} == {
        name: getattr(defaults, name)
        for name in ("target", "huber_delta", "starts", "bootstrap", "level", "seed", "profile", "backend")
    }


def test_unknown_fits_and_jobs(client: httpx.Client, project: str) -> None:
    """What is not there, and what is no id, is 404."""
    for name in (uuid.uuid4(), "nonsense"):
        problem(client.get(f"{project}/fits/{name}"), 404)
        problem(client.post(f"{project}/fits/{name}/unfollow"), 404)
        problem(client.post(f"{project}/fits/{name}/predictions", json={"schedule": SCHEDULES["wsd"]}), 404)
        problem(client.get(f"/v1/jobs/{name}"), 404)
        problem(client.post(f"/v1/jobs/{name}/cancel"), 404)


def test_laws_are_described(client: httpx.Client) -> None:
    """Every law has its formula, its parameters with units and bounds, what it needs, and its reference."""
    laws = client.get("/v1/laws").json()["items"]
    assert LAW in [law["name"] for law in laws]
    for law in laws:
        assert law["formula"]
        assert law["reference"]
        assert law["requires"]
        assert law["conventions"] == LAWS[law["name"]].conventions
        assert {"name", "symbol", "unit", "lower", "upper", "meaning"} <= law["parameters"][0].keys()


TABLE_LAW = "chinchilla"
SIZES = (1e7, 3e7, 1e8, 3e8)


def _outcome(n_params: float, n_tokens: float) -> float:
    return float(1.8 + 480 * n_params**-0.35 + 2100 * n_tokens**-0.37)


def _put_row(client: httpx.Client, project: str, name: str, **said: Any) -> None:
    answer = client.put(f"{project}/runs/{name}", json={"name": name, "status": "finished", **said})
    assert answer.is_success, answer.text


def _put_rows(client: httpx.Client, project: str) -> None:
    """Runs of four sizes and four lengths with the losses of a known law."""
    for n_params in SIZES:
        for n_tokens in (2e8, 1e9, 5e9, 2e10):
            config = {"n_params": n_params, "n_tokens": n_tokens}
            summary = {"final_loss": _outcome(n_params, n_tokens)}
            _put_row(client, project, f"n{n_params:.0f}-d{n_tokens:.0f}", config=config, summary=summary)


def _fitted(api: Api, client: httpx.Client, project: str, body: dict[str, Any]) -> dict[str, Any]:
    """A fit that is asked for over HTTP and done as a worker does it."""
    answer = client.post(f"{project}/fits", json=body)
    assert answer.status_code == 202, answer.text
    fit = answer.json()
    with api.sessions.begin() as session:
        job = uuid.UUID(fit["job_id"])
        attempt = jobs.start(session, job)
        documents = fit_work.compute(**fit_work.read(session, job), progress=lambda fraction, message: None)
        assert jobs.finish(session, job, attempt or 0, "succeeded")
        fit_work.write(session, job, documents)
    return dict(client.get(f"{project}/fits/{fit['id']}").json())


def test_a_law_is_chosen_among_those_of_tables_where_the_runs_are_one(
    api: Api, client: httpx.Client, project: str
) -> None:
    """Without points of the target no law of curves can be meant, whether a schedule was declared or not."""
    _put_rows(client, project)
    client.put(f"{project}/runs/planned", json={"name": "planned", "schedule": SCHEDULES["wsd"]})
    body = {"select": {"all": True}, "options": {"bootstrap": 20}}
    shown = _fitted(api, client, project, body)
    assert shown["law"] == "auto"
    assert shown["selection"]["best"] == "chinchilla"
    assert set(shown["selection"]["scores"]) | set(shown["selection"]["not_compared"]) == {
        name for name, law in LAWS.items() if isinstance(law, TableLaw) and law.predicts_outcomes
    }
    assert [one["run_id"] for one in shown["left_out"]] == ["planned"]
    body["options"] = {"holdout": {"run_ids": list(shown["metrics"]["runs"])}}
    assert fields(client.post(f"{project}/fits", json=body)) == ["options.holdout"]
    asked = {"config": {"n_params": 7e9, "n_tokens": 1.4e11}}
    assert client.post(f"{project}/fits/{shown['id']}/predictions", json=asked).status_code == 200


def test_runs_that_no_law_can_be_chosen_for_are_refused(client: httpx.Client, project: str) -> None:
    """What they lack is said of both kinds of laws."""
    body = {"select": {"all": True}}
    _put_row(client, project, "blank")
    said = problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    assert "no learning rate is known" in said
    assert "summary.final_loss" in said
    _put_row(client, project, "sizeless", summary={"final_loss": 3.0})
    said = problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    assert "chinchilla: no run is left to fit" in said
    assert "config.n_params" in said or "config.n_tokens" in said


@pytest.fixture
def table_fit(api: Api, client: httpx.Client, project: str) -> str:
    """The path of a finished fit of final losses, done as a worker does it."""
    _put_rows(client, project)
    _put_row(client, project, "burst", status="diverged", config={"n_params": 1e8, "n_tokens": 1e9})
    body = {"law": TABLE_LAW, "select": {"all": True}, "options": {"bootstrap": 20}}
    return f"{project}/fits/{_fitted(api, client, project, body)['id']}"


def test_a_result_that_another_version_wrote_otherwise_is_not_predicted_from(
    api: Api, client: httpx.Client, table_fit: str
) -> None:
    """It is a conflict that says what to do, no error of the service."""
    with api.sessions.begin() as session:
        fits.save(
            session, uuid.UUID(table_fit.rpartition("/")[2]), {"verdict": "weak"}, {"law": "chinchilla"}
        )
    asked = {"config": {"n_params": 7e9, "n_tokens": 1.4e11}}
    said = problem(client.post(f"{table_fit}/predictions", json=asked), 409)
    assert "ask for the fit again" in said["detail"]


def test_finished_runs_are_fitted_by_what_they_were_and_what_came_of_them(
    client: httpx.Client, table_fit: str
) -> None:
    """Configurations and summaries make the table; a run that diverged is left out and named."""
    shown = client.get(table_fit).json()
    assert {one["name"]: one["value"] for one in shown["parameters"]}["alpha"] == pytest.approx(
        0.35, rel=0.02
    )
    assert shown["diagnostics"]["n_runs"] == 16
    assert shown["left_out"] == [{"run_id": "burst", "reason": "it diverged"}]
    assert shown["holdout"]["predicted"]


def test_a_law_of_finished_runs_predicts_from_a_configuration(client: httpx.Client, table_fit: str) -> None:
    """One outcome with its interval, no steps, and how far it reaches."""
    body = {"config": {"n_params": 7e9, "n_tokens": 1.4e11}, "interval": "new_run"}
    document = client.post(f"{table_fit}/predictions", json=body).json()
    assert document["steps"] is None
    assert (document["quantity"], document["unit"]) == ("loss", "nats/token")
    assert document["value"] == [pytest.approx(_outcome(7e9, 1.4e11), rel=0.01)]
    assert document["lower"][0] <= document["value"][0] <= document["upper"][0]
    assert document["extrapolation"]["n_params_factor"] == pytest.approx(7e9 / 3e8)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "config.n_params"),
        ({"config": {"n_params": 1e9}}, "config.n_tokens"),
        ({"config": {"n_params": 1e9, "n_tokens": 0}}, "config.n_tokens"),
        ({"config": {"n_params": 1e9, "n_tokens": 1e10}, "schedule": SCHEDULES["wsd"]}, "schedule"),
        ({"config": {"n_params": 1e9, "n_tokens": 1e10}, "steps": [5]}, "steps"),
    ],
)
def test_a_law_of_finished_runs_says_what_it_predicts_from(
    client: httpx.Client, table_fit: str, body: dict[str, Any], field: str
) -> None:
    """A field that is missing, and a schedule that the law does not know, are 422 by name."""
    assert fields(client.post(f"{table_fit}/predictions", json=body)) == [field]


def test_runs_that_no_law_of_finished_runs_can_use_are_refused_with_what_they_lack(
    client: httpx.Client, project: str
) -> None:
    """Without tokens, without an outcome, or diverged: nothing is queued, and the answer says what is missing."""
    body: dict[str, Any] = {"law": TABLE_LAW, "select": {"all": True}}
    _put_row(client, project, "a", config={"n_params": 1e8}, summary={"final_loss": 3.0})
    assert "config.n_tokens" in problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    config = {"n_params": 1e8, "n_tokens": 1e9}
    _put_row(client, project, "a", config=config)
    assert "summary.final_loss" in problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    body["options"] = {"target": "val_loss"}
    assert "summary.final_val_loss" in problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    del body["options"]
    _put_row(client, project, "a", config=config, summary={"final_loss": 3.0}, status="diverged")
    assert "diverged" in problem(client.post(f"{project}/fits", json=body), 422)["detail"]
    for status in ("running", "failed", "preempted"):
        _put_row(client, project, "a", config=config, summary={"final_loss": 3.0}, status=status)
        said = problem(client.post(f"{project}/fits", json=body), 422)["detail"]
        assert f"it has not finished: its status is {status}" in said
    assert client.get(f"{project}/fits").json()["items"] == []


@pytest.mark.parametrize(
    ("config", "summary", "lacking"),
    [
        ({"n_params": 1e8}, {"final_loss": "NaN"}, "final_loss"),
        ({"n_params": 1e300}, {"final_loss": 3.0}, "n_params"),
        ({"n_params": 1e8}, {"final_loss": "Infinity"}, "final_loss"),
        ({"n_params": 1e8}, {"final_loss": -3.0}, "final_loss"),
        ({"n_params": 1e8}, {"final_val_loss": 3.0}, "final_loss"),
    ],
)
def test_runs_with_odd_numbers_are_stored_and_said_to_be_of_no_use(
    client: httpx.Client, project: str, config: dict[str, Any], summary: dict[str, Any], lacking: str
) -> None:
    """Outcomes that are no losses are refused with the field, by the run or by the fit."""
    run = {"name": "a", "status": "finished", "config": {**config, "n_tokens": 1e9}, "summary": summary}
    answer = client.put(f"{project}/runs/a", json=run)
    if answer.is_success:
        answer = client.post(f"{project}/fits", json={"law": TABLE_LAW, "select": {"all": True}})
    assert lacking in problem(answer, 422)["detail"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"holdout": {"run_ids": ["gone"]}}, "options.holdout.run_ids"),
        ({"holdout": {"run_ids": ["a"]}}, "options.holdout"),
        ({"n_params_kind": "active"}, "options.n_params_kind"),
        ({"fix": {"L0": 1}}, "options.fix.L0"),
    ],
)
def test_options_of_a_fit_of_finished_runs_are_checked_first(
    client: httpx.Client, project: str, options: dict[str, Any], field: str
) -> None:
    """Held-out runs must be there and leave some; counts and parameters are checked as for curves."""
    _put_row(client, project, "a", config={"n_params": 1e8, "n_tokens": 1e9}, summary={"final_loss": 3.0})
    _put_row(client, project, "b", config={"n_params": 1e8})  # nothing came of it: it cannot be fitted
    body = {"law": TABLE_LAW, "select": {"all": True}, "options": options}
    assert fields(client.post(f"{project}/fits", json=body)) == [field]


def _put_table(client: httpx.Client, project: str, table: RunTable) -> None:
    """Finished runs of a table: columns of a summary go there, the others into the configuration."""
    for row, name in enumerate(table.run_ids):
        values = {column: float(one[row]) for column, one in table.columns.items()}
        summary = {column: values.pop(column) for column in SUMMARY_COLUMNS if column in values}
        summary = {
            column: int(one) if column == "steps_to_target" else one for column, one in summary.items()
        }
        if np.isfinite(table.outcome[row]):
            summary["final_loss"] = float(table.outcome[row])
        counts = {"n_params", "n_tokens", "batch_tokens"} & values.keys()
        config = {**values, **{column: round(values[column]) for column in counts}}
        _put_row(client, project, name, config=config, summary=summary)


SWEPT = ((1e8, 1e9), (1e8, 1e10), (4e8, 4e9), (4e8, 4e10))


@pytest.mark.parametrize(
    ("law", "table", "quantity", "asked"),
    [
        (
            "optimal_lr",
            lr_alone(0, sites=SWEPT),
            "peak_lr",
            {"n_params": 1_000_000_000, "n_tokens": 20_000_000_000},
        ),
        (
            "timescale",
            decays(0, sites=SWEPT),
            "timescale",
            {"n_params": 1_000_000_000, "n_tokens": 20_000_000_000},
        ),
        ("critical_batch", batches(0), "critical_batch_tokens", {"n_tokens": 20_000_000_000}),
        (
            "steps_to_target",
            steps(0),
            "steps_to_target",
            {"n_params": 1_000_000_000, "batch_tokens": 1_000_000},
        ),
    ],
)
def test_laws_of_settings_go_over_http(
    api: Api,
    client: httpx.Client,
    project: str,
    law: str,
    table: RunTable,
    quantity: str,
    asked: dict[str, int],
) -> None:
    """From runs to groups, parameters and a prediction of what a run is best set to, as the library has them."""
    _put_table(client, project, table)
    shown = _fitted(api, client, project, {"law": law, "select": {"all": True}, "options": {"bootstrap": 50}})
    assert shown["status"] == "succeeded", shown
    assert shown["verdict"] in ("sound", "weak"), shown["reasons"]
    assert shown["groups"]
    told = client.post(f"{project}/fits/{shown['id']}/predictions", json={"config": asked}).json()
    assert told["quantity"] == quantity
    assert told["lower"][0] < told["value"][0] < told["upper"][0]
    own = isoloss.fit(law, table, bootstrap=50).predict(config=asked)
    assert told["value"][0] == pytest.approx(float(own.value[0]), rel=1e-3)


def _put_points(
    client: httpx.Client, project: str, name: str, config: dict[str, Any], **columns: Any
) -> None:
    _put_row(client, project, name, config=config)
    answer = client.post(f"{project}/runs/{name}/points", json=columns)
    assert answer.is_success, answer.text


def test_readings_off_points_are_fitted_and_runs_without_them_are_left_out(
    api: Api, client: httpx.Client, project: str
) -> None:
    """The answer names the curve by its run, and each run that lacks something with what it lacks."""
    step = list(range(1, 401))
    scale = [300.0 * one**0.5 * (1.1 if one % 2 else 0.9) for one in step]
    _put_points(client, project, "logged", {"batch_tokens": 1000}, step=step, grad_noise_scale=scale)
    _put_points(client, project, "batchless", {}, step=step, grad_noise_scale=scale)
    shown = _fitted(api, client, project, {"law": "noise_scale", "select": {"all": True}})
    values = {one["name"]: one["value"] for one in shown["parameters"]}
    assert values["exponent"] == pytest.approx(0.5, abs=0.02)
    assert {group["by"]["curve"] for group in shown["groups"]} == {"logged"}
    [left] = shown["left_out"]
    assert left["run_id"] == "batchless"
    assert "no tokens and its config no batch_tokens" in left["reason"]
    told = client.post(f"{project}/fits/{shown['id']}/predictions", json={"config": {"n_tokens": 1e6}}).json()
    assert (told["quantity"], told["unit"]) == ("noise_scale_tokens", "tokens")
    assert told["value"][0] == pytest.approx(300 * 1000**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("law", "options", "field", "reason"),
    [
        ("noise_scale", {}, "select", "its points have no grad_noise_scale"),
        ("noise_scale", {"holdout": {"run_ids": ["nobody"]}}, "select", "no grad_noise_scale"),
        ("rl_compute", {}, "select", "does not follow from size and tokens"),
        ("rl_compute", {"target": "loss"}, "options.target", "rl_compute is a law of reward"),
        ("rl_compute", {"holdout": {"fraction": 0.2}}, "options.holdout", "chooses what it predicts"),
        ("critical_batch", {"holdout": {"fraction": 0.2}}, "options.holdout", "chooses what it predicts"),
        ("noise_scale", {"fix": {"exponent": 0.5}}, "options.fix", "has no use for it"),
        ("optimal_lr", {"bounds": {"coefficient": [1, 2]}}, "options.bounds", "has no use for it"),
    ],
)
def test_readings_that_cannot_be_are_refused_before_a_job_is_queued(
    client: httpx.Client, project: str, law: str, options: dict[str, Any], field: str, reason: str
) -> None:
    """A run with rewards and no compute, and no noise scale: the problem says what is missing, or not to be had."""
    config = {"n_params": 1e9, "n_tokens": 1e9}
    _put_points(client, project, "rewarded", config, step=[0, 1, 2], reward=[0.1, 0.2, 0.3])
    answer = client.post(f"{project}/fits", json={"law": law, "select": {"all": True}, "options": options})
    said = problem(answer, 422)
    assert reason in str(said)
    assert field in str(said) or field == "select"


def test_laws_of_readings_say_which_points_they_need(client: httpx.Client) -> None:
    """Points first, with the unit of a noise scale; then what makes a run one reading."""
    laws = {law["name"]: law["requires"] for law in client.get("/v1/laws").json()["items"]}
    assert laws["noise_scale"][0].startswith(
        "points of grad_noise_scale (B_simple in tokens), or of grad_norm_small"
    )
    assert laws["rl_compute"][0] == "points of reward and compute_flops, the compute spent so far"


def test_declared_schedules_say_which_timescale_is_read(api: Api, client: httpx.Client, project: str) -> None:
    """Linear decay and a late cooldown are read on the mean learning rate, which the schedules give."""
    table = decays(sites=SWEPT, shares=[0.5, 0.9] * (len(SWEPT) // 2))
    shapes = {0.5: {"kind": "linear"}, 0.9: {"kind": "wsd", "decay_start": 80_000}}
    for row, name in enumerate(table.run_ids):
        config = {column: float(values[row]) for column, values in table.columns.items()}
        shape = shapes[config.pop("mean_lr_share")]
        config |= {column: round(config[column]) for column in ("n_params", "n_tokens", "batch_tokens")}
        said = {"n_params_kind": "non_embedding", "weight_decay_kind": "lr_scaled"}
        run = {
            "name": name,
            "status": "finished",
            "config": {**config, **said},
            "schedule": {**shape, "total_steps": 100_000, "peak_lr": config["peak_lr"]},
            "summary": {"final_loss": float(table.outcome[row])},
        }
        assert client.put(f"{project}/runs/{name}", json=run).status_code == 201
    asked = {"law": "timescale", "select": {"all": True}, "options": {"bootstrap": 20}}
    shown = _fitted(api, client, project, asked)
    assert shown["provenance"]["convention"] == "effective"
    assert {one["name"]: one["value"] for one in shown["parameters"]} == pytest.approx(
        {"coefficient": 1.1, "exponent": -0.5}, rel=1e-3
    )
    readings = next(law for law in client.get("/v1/laws").json()["items"] if law["name"] == "timescale")
    assert list(readings["conventions"]) == ["supported", "peak", "effective"]

"""Recommendations and Pareto fronts over HTTP, computed as a worker does it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

import isoloss
from isoloss.advice import Recommendation
from isoloss.errors import Unidentified
from isoloss.observations import RunTable
from store import events, jobs, projects
from store.tables import Advice, Fit, Project, Run
from tests.advice.test_advice import SITES, TARGET, study
from tests.app.conftest import Api, fields, problem
from tests.fitting.synthetic_sweeps import lr_and_batch
from tests.fitting.test_staged import batches
from tests.laws.test_effective_lr import LAW, THETA, run_of
from workers import advice as advice_work

ASKED = {**TARGET, "options": {"bootstrap": 20}}
FRONT = {"target_loss": 3.2, "options": {"bootstrap": 20}}
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
SETTINGS = ("peak_lr", "weight_decay", "batch_tokens", "timescale", "predicted_loss")


def put_table(api: Api, project: str, table: RunTable) -> None:
    """Finished runs of a table, each with its configuration and its final loss, as rows of the store."""
    with api.sessions.begin() as session:
        project_id = projects.get(session, project.rpartition("/")[2]).id
        for row, name in enumerate(table.run_ids):
            values = {column: float(one[row]) for column, one in table.columns.items()}
            config = {column: one for column, one in values.items() if np.isfinite(one)}
            run = Run(project_id=project_id, run_id=name, name=name, status="finished")
            run.config = {**config, "n_params_kind": "non_embedding"}
            run.summary = {"final_loss": float(table.outcome[row])}
            session.add(run)


def given(api: Api, client: httpx.Client, project: str, noun: str, body: dict[str, Any]) -> dict[str, Any]:
    """Advice that is asked for over HTTP and computed as a worker does it."""
    answer = client.post(f"{project}/{noun}", json=body)
    assert answer.status_code == 202, answer.text
    queued = answer.json()
    assert queued.keys() == {"id", "job_id", "status"}
    with api.sessions.begin() as session:
        job = uuid.UUID(queued["job_id"])
        attempt = jobs.start(session, job)
        found = advice_work.compute(**advice_work.read(session, job), progress=lambda *_: None)
        assert jobs.finish(session, job, attempt or 0, "succeeded")
        advice_work.write(session, job, found)
    return dict(client.get(f"{project}/{noun}/{queued['id']}").json())


@pytest.fixture
def swept(api: Api, project: str) -> str:
    """The path of a project with sweeps of learning rate, batch and weight decay."""
    put_table(api, project, study())
    return project


@pytest.fixture
def one_run(client: httpx.Client, project: str) -> str:
    """The path of a project with one finished run, enough to ask."""
    config = {"n_params": 1e8, "n_tokens": 1e9, "peak_lr": 1e-3, "batch_tokens": 2e5}
    said = {"name": "r", "status": "finished", "config": config, "summary": {"final_loss": 3.0}}
    assert client.put(f"{project}/runs/r", json=said).status_code == 201
    return project


def test_a_recommendation_is_the_librarys_and_rests_on_fits_of_the_project(
    api: Api, client: httpx.Client, swept: str
) -> None:
    """Settings, intervals, cost and warnings as `isoloss.recommend` has them; each names its fits."""
    limits = {"devices": 8, "tokens_per_second": 1e6, "price_per_device_hour": 2.0}
    shown = given(api, client, swept, "recommendations", {**ASKED, "constraints": limits})
    assert (shown["status"], shown["error"], shown["select"]) == ("succeeded", None, {"all": True})
    assert (shown["constraints"], shown["options"]) == (limits, {"bootstrap": 20})
    own = isoloss.recommend(study(), **TARGET, constraints=limits, bootstrap=20).as_dict()
    assert shown["cost"] == pytest.approx(own["cost"])
    assert isinstance(shown["cost"]["compute_flops"], float)
    assert shown["warnings"] == own["warnings"]
    for name in SETTINGS:
        told, exact = shown[name], own[name]
        assert told["value"] == pytest.approx(exact["value"], rel=1e-6), name
        assert told["interval"] == pytest.approx(exact["interval"], rel=1e-3), name
        assert [one.pop("fit_id") is not None for one in told["basis"]]
        assert [one["law"] for one in told["basis"]] == [one["law"] for one in exact["basis"]]
        assert all(
            one["extrapolation_factor"] == pytest.approx(other["extrapolation_factor"], rel=1e-9)
            for one, other in zip(told["basis"], exact["basis"], strict=True)
        )


def test_the_fits_of_a_recommendation_are_as_good_as_any(api: Api, client: httpx.Client, swept: str) -> None:
    """They are listed, shown with their verdict, and predict what the recommendation says."""
    shown = given(api, client, swept, "recommendations", ASKED)
    by_law = {one["law"]: one["fit_id"] for name in SETTINGS for one in shown[name]["basis"]}
    listed = client.get(f"{swept}/fits").json()["items"]
    assert {one["id"] for one in listed} >= set(by_law.values())
    assert {one["law"] for one in listed} == {
        "optimal_lr", "optimal_batch", "timescale", "critical_batch", "chinchilla",
    }  # fmt: skip
    with api.sessions() as session:
        project_id = projects.get(session, swept.rpartition("/")[2]).id
        changed = [one.kind for one in events.since(session, project_id, LONG_AGO)]
    assert (changed.count("job"), changed.count("fit")) == (1, 5)
    path = f"{swept}/fits/{by_law['chinchilla']}"
    fit = client.get(path).json()
    assert (fit["status"], fit["revision"], fit["job_id"]) == ("succeeded", 1, shown["job_id"])
    assert fit["verdict"] == shown["predicted_loss"]["basis"][0]["verdict"]
    assert len(fit["select"]["run_ids"]) == len(SITES)  # the best of each size and data
    told = client.post(f"{path}/predictions", json={"config": TARGET}).json()
    assert told["value"][0] == pytest.approx(shown["predicted_loss"]["value"])
    again = client.post(f"{swept}/fits", json={"law": "chinchilla", "select": fit["select"]})
    assert again.status_code == 202, again.text


def test_what_the_runs_do_not_determine_is_null_with_a_reason_and_the_runs_that_would(
    api: Api, client: httpx.Client, project: str
) -> None:
    """Without sweeps of the weight decay the recommendation succeeds without it."""
    put_table(api, project, lr_and_batch(0, sites=SITES[:4]))
    shown = given(api, client, project, "recommendations", ASKED)
    assert shown["status"] == "succeeded"
    assert (shown["timescale"]["value"], shown["timescale"]["interval"]) == (None, None)
    assert shown["timescale"]["reason"].startswith("timescale: ")
    assert "timescale is missing" in shown["weight_decay"]["reason"]
    assert "timescale" in [one["law"] for one in shown["wanted"]]
    assert shown["schedule"] == {"value": None, "reason": "the runs state no schedule"}
    assert shown["peak_lr"]["value"] is not None


def test_a_front_is_the_librarys_and_names_its_fits(api: Api, client: httpx.Client, project: str) -> None:
    """Choices in the order of their operations, within the limits, on two fits of the project."""
    table = batches(0, sizes=(1e8, 2e8, 4e8), levels=5)
    put_table(api, project, table)
    limits = {"max_batch_tokens": 1e5}
    shown = given(api, client, project, "pareto", {**FRONT, "constraints": limits})
    own = isoloss.pareto(table, target_loss=3.2, constraints=limits, bootstrap=20).as_dict()
    assert shown["target_loss"] == 3.2
    assert [one["n_params"] for one in shown["choices"]] == pytest.approx(
        [one["n_params"] for one in own["choices"]]
    )
    assert [one["law"] for one in shown["basis"]] == ["chinchilla", "critical_batch"]
    assert shown["warnings"] == own["warnings"]
    assert shown["extrapolation"] == pytest.approx(own["extrapolation"])
    for one in shown["basis"]:
        assert client.get(f"{project}/fits/{one['fit_id']}").json()["verdict"] == one["verdict"]
    assert [one["id"] for one in client.get(f"{project}/pareto").json()["items"]] == [shown["id"]]
    assert client.get(f"{project}/recommendations").json()["items"] == []


def test_a_front_whose_resamples_never_reach_the_loss_has_an_open_end(
    api: Api, client: httpx.Client, project: str
) -> None:
    """The upper end of its operations is `Infinity`, as every number that JSON has none for."""
    put_table(api, project, batches(0, sizes=(1e8, 2e8, 4e8), levels=5))
    limits = {"flops_per_second": 1e15, "devices": 8, "price_per_device_hour": 2}
    shown = given(api, client, project, "pareto", {**FRONT, "target_loss": 1.98, "constraints": limits})
    first = shown["choices"][0]
    assert first["compute_interval"][1] == "Infinity"
    assert first["money"] == pytest.approx(2 * first["device_hours"]) == pytest.approx(16 * first["hours"])


def test_a_front_without_its_laws_fails_with_the_reason(api: Api, client: httpx.Client, swept: str) -> None:
    """Where the critical batch is not determined the worker ends in one sentence that says so."""
    answer = client.post(f"{swept}/pareto", json=FRONT)
    assert answer.status_code == 202, answer.text
    job = uuid.UUID(answer.json()["job_id"])
    with api.sessions.begin() as session:
        jobs.start(session, job)
        inputs = advice_work.read(session, job)
        with pytest.raises(Unidentified, match="critical_batch") as caught:
            advice_work.compute(**inputs, progress=lambda *_: None)
        assert jobs.finish(session, job, 1, "failed", str(caught.value))
    shown = client.get(f"{swept}/pareto/{answer.json()['id']}").json()
    assert (shown["status"], shown["choices"], shown["basis"]) == ("failed", None, None)
    assert "critical_batch" in shown["error"]


def test_advice_is_queued_with_its_job_and_cancelled_by_it(
    api: Api, client: httpx.Client, one_run: str
) -> None:
    """The queue's row, the job of its own kind and the advice are there together; cancelling ends both."""
    for noun, kind, body in (("recommendations", "recommendation", ASKED), ("pareto", "pareto", FRONT)):
        queued = client.post(f"{one_run}/{noun}", json=body).json()
        shown = client.get(f"{one_run}/{noun}/{queued['id']}").json()
        assert (shown["status"], shown["started_at"], shown["warnings"]) == ("queued", None, None)
        assert {name: shown[name] for name in body} == body
        assert client.get(f"/v1/jobs/{queued['job_id']}").json()["kind"] == kind
        with api.sessions() as session:
            waiting = sa.text("SELECT args->>'job_id' FROM jobs.procrastinate_jobs WHERE task_name = :kind")
            assert queued["job_id"] in session.scalars(waiting, {"kind": kind}).all()
        assert client.post(f"/v1/jobs/{queued['job_id']}/cancel").json()["status"] == "cancelled"
        listed = client.get(f"{one_run}/{noun}", params={"where": "status = cancelled"}).json()["items"]
        assert [one["id"] for one in listed] == [queued["id"]]


def test_the_same_request_twice_is_one_recommendation(client: httpx.Client, one_run: str) -> None:
    """With an Idempotency-Key the second request gets the first answer."""
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answers = [client.post(f"{one_run}/recommendations", json=ASKED, headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(client.get(f"{one_run}/recommendations").json()["items"]) == 1


@pytest.mark.parametrize("noun", ["recommendations", "pareto"])
def test_asking_takes_the_scope_to_write_and_reading_the_one_to_read(
    api: Api, client: httpx.Client, one_run: str, noun: str
) -> None:
    """A key that reads may look and not ask; no key may do neither."""
    scoped = {"name": "k", "scopes": ["read"]}
    reader = api.client(client.post("/v1/keys", json=scoped).json()["key"])
    assert reader.get(f"{one_run}/{noun}").status_code == 200
    problem(reader.post(f"{one_run}/{noun}", json=ASKED if noun != "pareto" else FRONT), 403)
    problem(api.client(None).get(f"{one_run}/{noun}"), 401)


def test_advice_of_another_project_or_kind_is_not_there(client: httpx.Client, one_run: str) -> None:
    """404 for ids of another project, of the other kind, unknown ones, and what is no id."""
    queued = client.post(f"{one_run}/recommendations", json=ASKED).json()["id"]
    other = f"{one_run}-other"
    client.post("/v1/projects", json={"name": other.rpartition("/")[2]})
    problem(client.get(f"{other}/recommendations/{queued}"), 404)
    assert "Pareto front" in problem(client.get(f"{one_run}/pareto/{queued}"), 404)["detail"]
    for noun in ("recommendations", "pareto"):
        for name in (uuid.uuid4(), "nonsense"):
            problem(client.get(f"{one_run}/{noun}/{name}"), 404)


def test_deleting_a_project_deletes_its_advice(api: Api, client: httpx.Client, one_run: str) -> None:
    """Its rows go with it, and with them its jobs."""
    queued = client.post(f"{one_run}/recommendations", json=ASKED).json()["id"]
    assert client.delete(one_run).status_code == 204
    with api.sessions() as session:
        assert session.get(Advice, uuid.UUID(queued)) is None
        named = sa.select(Project.id).where(Project.name == one_run.rpartition("/")[2])
        assert (
            session.scalar(sa.select(sa.func.count()).select_from(Fit).where(Fit.project_id.in_(named))) == 0
        )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"constraints": {"devices": -1}}, "constraints.devices"),
    ({"constraints": {"devices": "8"}}, "constraints.devices"),
    ({"constraints": {"devices": True}}, "constraints.devices"),
    ({"constraints": {"devices": 1e31}}, "constraints.devices"),
    ({"constraints": {"deadline": 3}}, "constraints.deadline"),
    ({"constraints": []}, "constraints"),
    ({"constraints": None}, "constraints"),
    ({"select": None}, "select"),
    ({"select": {}}, "select"),
    ({"select": {"all": True, "recipe": "r"}}, "select"),
    ({"select": {"tags": ["none"]}}, "select"),
    ({"select": {"run_ids": ["gone"]}}, "select.run_ids"),
    ({"select": {"where": "nope = 1"}}, "select.where"),
    ({"options": {"level": 1}}, "options.level"),
    ({"options": {"starts": 5}}, "options.starts"),
    ({"options": {"bootstrap": 10**9}}, "options.bootstrap"),
    ({"options": {"n_params_kind": "active"}}, "options.n_params_kind"),
    ({"nope": 1}, "nope"),
]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *REFUSED,
        ({"n_params": 0}, "n_params"),
        ({"n_params": "7e9"}, "n_params"),
        ({"n_params": 1e31}, "n_params"),
        ({"n_tokens": 1e-31}, "n_tokens"),
        ({"n_tokens": None}, "n_tokens"),
        ({"n_tokens": "NaN"}, "n_tokens"),
    ],
)
def test_a_recommendation_that_cannot_be_is_refused_by_its_field(
    client: httpx.Client, one_run: str, change: dict[str, Any], field: str
) -> None:
    """Sizes, constraints, runs and options are checked before anything is queued."""
    assert fields(client.post(f"{one_run}/recommendations", json={**ASKED, **change})) == [field]
    assert client.get(f"{one_run}/recommendations").json()["items"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *REFUSED,
        ({"target_loss": -1}, "target_loss"),
        ({"target_loss": 1e31}, "target_loss"),
        ({"n_params": 7e9}, "n_params"),
        ({"constraints": {"tokens_per_second": 1e6}}, "constraints.tokens_per_second"),
    ],
)
def test_a_front_that_cannot_be_is_refused_by_its_field(
    client: httpx.Client, one_run: str, change: dict[str, Any], field: str
) -> None:
    """The same, and a speed in tokens, which belongs to one size."""
    assert fields(client.post(f"{one_run}/pareto", json={**FRONT, **change})) == [field]
    assert client.get(f"{one_run}/pareto").json()["items"] == []


def test_runs_that_no_law_can_use_are_refused_with_what_they_lack(client: httpx.Client, project: str) -> None:
    """A project without runs, and runs of which nothing came, are 422 at once."""
    for noun, body in (("recommendations", ASKED), ("pareto", FRONT)):
        assert fields(client.post(f"{project}/{noun}", json=body)) == ["select"]
    config = {"n_params": 1e8, "n_tokens": 1e9, "batch_tokens": 1e5}
    client.put(f"{project}/runs/r", json={"name": "r", "status": "finished", "config": config})
    for noun, body in (("recommendations", ASKED), ("pareto", FRONT)):
        assert "summary.final_loss" in problem(client.post(f"{project}/{noun}", json=body), 422)["detail"]


def test_every_field_is_described_with_an_example(client: httpx.Client) -> None:
    """OpenAPI tells what each field of a question and of an answer means."""
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert set(Recommendation.NAMES) <= schemas["RecommendationDocument"]["properties"].keys()
    for name in ("NewRecommendation", "RecommendationDocument", "NewPareto", "ParetoDocument", "Limits"):
        assert all(one.get("description") for one in schemas[name]["properties"].values()), name
    for noun in ("recommendations", "pareto"):
        assert document["paths"][f"/v1/projects/{{project}}/{noun}"]["post"]["responses"].keys() >= {
            "202",
            "422",
        }


def test_a_published_law_enters_by_its_name_and_its_share_is_shown(
    api: Api, client: httpx.Client, swept: str
) -> None:
    """What was asked for is shown again; the critical batch is the published one, and the others are as before."""
    asked = {**ASKED, "priors": ["power_lines.critical_batch"]}
    shown = given(api, client, swept, "recommendations", asked)
    assert shown["priors"] == ["power_lines.critical_batch"]
    critical = shown["critical_batch_tokens"]
    assert critical["value"] == pytest.approx(0.0471 * 2048 * TARGET["n_tokens"] ** 0.462)
    assert (critical["prior"]["name"], critical["prior"]["share"]) == ("power_lines.critical_batch", 1)
    assert shown["peak_lr"]["prior"] is None
    plain = client.post(f"{swept}/recommendations", json={**ASKED, "priors": ["chinchilla"]})
    assert "is not one of step_law.optimal_lr" in problem(plain, 422)["detail"]
    wrong = client.post(f"{swept}/recommendations", json={**ASKED, "priors": "step_law.optimal_lr"})
    assert fields(wrong) == ["priors"]


def test_curves_of_several_peaks_are_read_beside_the_sweeps(
    api: Api, client: httpx.Client, swept: str
) -> None:
    """Runs with points under several peaks give a second reading; its fit is one of the project, of them alone."""
    for number, (peak, kind) in enumerate((peak, kind) for peak in PEAKS for kind in ("cosine", "constant")):
        put_curve(client, swept, f"curve-{number}", {"kind": kind, **LOGGED, "peak_lr": peak}, number)
    shown = given(api, client, swept, "recommendations", {**ASKED, **HORIZON})
    (reading,) = shown["peak_lr"]["readings"]
    assert (reading["law"], reading["reason"]) == ("effective_lr", None)
    assert reading["at"]["batch_tokens"] == 1e5
    assert PEAKS[0] < reading["interval"][0] < reading["value"] < reading["interval"][1] <= PEAKS[-1]
    assert reading["beside"] > 0
    (basis,) = reading["basis"]
    stored = client.get(f"{swept}/fits/{basis['fit_id']}").json()
    assert (stored["law"], stored["verdict"]) == ("effective_lr", basis["verdict"])
    assert sorted(stored["select"]["run_ids"]) == [f"curve-{number}" for number in range(8)]


def test_what_could_not_be_read_is_named_in_the_fits_of_a_recommendation(
    api: Api, client: httpx.Client, swept: str
) -> None:
    """A run without a size, which no law of sweeps can use, and a curve without a schedule."""
    sizeless = {"name": "sizeless", "config": {"n_tokens": 1e9}, "summary": {"final_loss": 3.0}}
    assert client.put(f"{swept}/runs/sizeless", json=sizeless).status_code == 201
    for number, peak in enumerate(PEAKS):
        put_curve(client, swept, f"curve-{number}", {"kind": "cosine", **LOGGED, "peak_lr": peak}, number)
    config = {"n_params": 1e8, "batch_tokens": 1e5, "peak_lr": 1e-3, "n_params_kind": "non_embedding"}
    assert client.put(f"{swept}/runs/bare", json={"name": "bare", "config": config}).status_code == 201
    points = {"step": [100, 200], "loss": [3.0, 2.9]}
    assert client.post(f"{swept}/runs/bare/points", json=points).status_code == 200

    shown = given(api, client, swept, "recommendations", {**ASKED, **HORIZON})
    (reading,) = shown["peak_lr"]["readings"]
    by_law = {one["law"]: one["fit_id"] for one in [*reading["basis"], *shown["batch_tokens"]["basis"]]}
    left_out = {law: client.get(f"{swept}/fits/{name}").json()["left_out"] for law, name in by_law.items()}
    assert "bare" in [one["run_id"] for one in left_out["effective_lr"]]
    assert "sizeless" in [one["run_id"] for one in left_out["optimal_batch"]]


def test_the_curves_that_are_read_are_evenly_of_all_peaks() -> None:
    peaks = {f"a{number}": 1e-3 for number in range(5)} | {"b0": 2e-3, "b1": 2e-3, "c0": 4e-3}
    assert advice_work.in_turn(peaks) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]


PEAKS = (5e-4, 1e-3, 2e-3, 4e-3)
LOGGED = {"total_steps": 8000, "warmup_steps": 300}
HORIZON = {"n_tokens": 8e8}


def put_curve(client: httpx.Client, project: str, name: str, schedule: dict[str, Any], seed: int) -> None:
    """A finished run whose points follow the law across peaks, with noise."""
    steps = np.arange(200, 8001, 200)
    truth = LAW.predict(THETA, LAW.prepare([run_of(schedule, tuple(steps.tolist()))]))[0]
    losses = truth * np.exp(2e-4 * np.random.default_rng(seed).standard_normal(steps.size))
    config = {"n_params": 1e8, "n_tokens": 8e8, "batch_tokens": 1e5, "weight_decay": 0.1}
    config["n_params_kind"] = "non_embedding"
    said = {"name": name, "status": "finished", "config": config, "schedule": schedule}
    answer = client.put(f"{project}/runs/{name}", json=said)
    assert answer.status_code == 201, answer.text
    columns = {"step": steps.tolist(), "loss": losses.tolist()}
    assert client.post(f"{project}/runs/{name}/points", json=columns).status_code == 200


def test_gradient_noise_that_runs_logged_is_read_beside_the_critical_batch(
    api: Api, client: httpx.Client, swept: str
) -> None:
    """A run whose points have noise scales gives another reading of it, at the tokens that were asked for."""
    step = np.arange(1, 1001)
    scale = 1e5 * (step / 1000) ** 0.5 * np.exp(0.1 * np.random.default_rng(0).standard_normal(step.size))
    config = {"n_params": 1e8, "n_tokens": 1e11, "batch_tokens": 1e8, "n_params_kind": "non_embedding"}
    assert client.put(f"{swept}/runs/logs", json={"name": "logs", "config": config}).status_code == 201
    columns = {"step": step.tolist(), "grad_noise_scale": scale.tolist()}
    assert client.post(f"{swept}/runs/logs/points", json=columns).status_code == 200
    shown = given(api, client, swept, "recommendations", ASKED)["critical_batch_tokens"]
    assert shown["value"] is None
    (reading,) = shown["readings"]
    assert (reading["law"], reading["reason"]) == ("noise_scale", None)
    assert reading["at"] == {"n_tokens": TARGET["n_tokens"]}
    assert reading["value"] == pytest.approx(1e5, rel=0.2)
    stored = client.get(f"{swept}/fits/{reading['basis'][0]['fit_id']}").json()
    assert (stored["law"], stored["diagnostics"]["n_windows"] > 3) == ("noise_scale", True)

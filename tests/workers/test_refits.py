"""Fits that follow their runs, from the store to the store: what the worker does, without its processes."""

from __future__ import annotations

from itertools import count, product

import numpy as np
import pytest
from sqlalchemy.orm import Session

from isoloss.errors import IsolossError
from store import fits, following, jobs, points, projects, runs
from store.columns import Column, Points
from store.tables import Fit, Project
from workers import fits as fit_work
from workers import refits

_queue_ids = count(1000)


def put(session: Session, project: Project, name: str, n_params: float, n_tokens: float) -> None:
    """A finished run with the loss of a known law."""
    loss = 1.8 + 480 * n_params**-0.35 + 2100 * n_tokens**-0.37
    said = runs.Specification(
        name=name,
        status="finished",
        config={"n_params": n_params, "n_tokens": n_tokens},
        summary={"final_loss": loss},
    )
    runs.put(session, project.id, name, said)


@pytest.fixture
def project(session: Session) -> Project:
    project = projects.create(session, "p")
    for number, (n_params, n_tokens) in enumerate(product((1e7, 3e7, 1e8, 3e8), (2e8, 1e9, 5e9))):
        put(session, project, f"r{number:02d}", n_params, n_tokens)
    return project


@pytest.fixture
def fit(session: Session, project: Project) -> Fit:
    """A fit that follows its runs, with its first result."""
    fit = fits.create(session, project.id, "chinchilla", {"all": True}, {"bootstrap": 20}, follow=True)
    assert jobs.start(session, fit.job_id) == 1
    documents = fit_work.compute(
        **fit_work.read(session, fit.job_id), progress=lambda fraction, message: None
    )
    jobs.finish(session, fit.job_id, 1, "succeeded")
    fit_work.write(session, fit.job_id, documents)
    session.refresh(fit)
    return fit


def refit(session: Session, fit: Fit) -> str:
    """Do what a worker does; how it ended."""
    job_id = following.begin(session, fit.id, next(_queue_ids))
    assert job_id is not None
    attempt = jobs.start(session, job_id)
    assert attempt is not None
    try:
        documents = refits.compute(**refits.read(session, job_id), progress=lambda fraction, message: None)
    except IsolossError as error:
        jobs.finish(session, job_id, attempt, "failed", str(error))
        session.expire_all()
        return "failed"
    jobs.finish(session, job_id, attempt, "succeeded")
    outcome = refits.write(session, job_id, documents)["outcome"]
    session.expire_all()
    return str(outcome)


def test_a_run_that_lands_makes_the_next_revision_from_where_the_fit_stood(
    session: Session, project: Project, fit: Fit
) -> None:
    """Result and state are replaced together; the fit keeps its job, and what it was asked to be."""
    before, job_id = fits.state(session, fit.id), fit.job_id
    assert (fit.revision, fit.refits_skipped) == (1, 0)
    put(session, project, "new", 1e9, 2e10)
    assert refit(session, fit) == "replaced"
    assert fit.result is not None
    assert (fit.revision, fit.result["diagnostics"]["n_runs"], fit.job_id) == (2, 13, job_id)
    assert fits.state(session, fit.id)["private"] != before["private"]
    assert fits.state(session, fit.id)["provenance"] == fit.result["provenance"]
    assert fit.updated_at is not None
    assert fit.job.finished_at is not None
    assert fit.updated_at > fit.job.finished_at


def test_a_refit_of_unchanged_data_writes_nothing_and_is_counted(
    session: Session, project: Project, fit: Fit
) -> None:
    """The same runs, put again: the result and its time stay, also after a revision."""
    put(session, project, "r00", 1e7, 2e8)
    stands = (fit.revision, fit.updated_at, fit.result, fits.last_state(session, fit.id))
    assert refit(session, fit) == "unchanged"
    assert stands == (fit.revision, fit.updated_at, fit.result, fits.last_state(session, fit.id))
    assert fit.refits_skipped == 1
    put(session, project, "new", 1e9, 2e10)
    assert [refit(session, fit) for _ in range(2)] == ["replaced", "unchanged"]
    assert (fit.revision, fit.refits_skipped) == (2, 2)


def test_a_refit_of_unchanged_data_tells_what_is_left_out_now(
    session: Session, project: Project, fit: Fit
) -> None:
    """A run without an outcome comes and goes: the list follows, the revision and its numbers stay."""
    stands = (fit.revision, fit.updated_at, fit.result, fits.last_state(session, fit.id))
    assert stands[2] is not None
    runs.put(session, project.id, "blank", runs.Specification(name="blank", status="finished"))
    assert refit(session, fit) == "unchanged"
    assert fit.result is not None
    assert [one["run_id"] for one in fit.result["left_out"]] == ["blank"]
    assert {**fit.result, "left_out": []} == stands[2]
    runs.delete(session, project.id, "blank")
    assert refit(session, fit) == "unchanged"
    assert stands == (fit.revision, fit.updated_at, fit.result, fits.last_state(session, fit.id))
    assert fit.refits_skipped == 2


def test_a_refit_that_fails_leaves_the_last_good_result(session: Session, project: Project, fit: Fit) -> None:
    """All runs gone: the result and its predictions stay, and the job of the refit says why."""
    for run in runs.chosen(session, project.id, {"all": True}):
        runs.delete(session, project.id, run.run_id)
    assert refit(session, fit) == "failed"
    assert fit.refit_job is not None
    assert "no run" in str(fit.refit_job.message)
    assert (fit.revision, fit.job.status) == (1, "succeeded")
    assert fits.state(session, fit.id)["law"] == "chinchilla"
    for name, n_tokens in (("back", 2e8), ("too", 4e8), ("also", 8e8)):
        put(session, project, name, 1e7, n_tokens)
    assert refit(session, fit) == "replaced"
    assert fit.result is not None
    assert fit.result["verdict"] == "unidentified"


def test_a_fit_whose_first_attempt_failed_is_made_by_a_refit(session: Session, project: Project) -> None:
    """It has then succeeded, by the job of the refit."""
    fit = fits.create(session, project.id, "chinchilla", {"all": True}, {"bootstrap": 20}, follow=True)
    assert jobs.start(session, fit.job_id) == 1
    jobs.finish(session, fit.job_id, 1, "failed", "no run is left")
    assert refit(session, fit) == "replaced"
    assert (fit.job.status, fit.job_id, fit.revision) == ("succeeded", fit.refit_job_id, 1)


def test_a_fit_that_is_let_go_during_a_refit_keeps_its_result(
    session: Session, project: Project, fit: Fit
) -> None:
    """What such a refit found is dropped."""
    put(session, project, "new", 1e9, 2e10)
    job_id = following.begin(session, fit.id, next(_queue_ids))
    assert job_id is not None
    documents = refits.compute(**refits.read(session, job_id), progress=lambda fraction, message: None)
    following.stop(session, fit.id, project.id)
    assert refits.write(session, job_id, documents) == {"outcome": "dropped"}
    session.expire_all()
    assert fit.revision == 1


def test_a_result_that_an_older_version_wrote_otherwise_is_no_hindrance(
    session: Session, project: Project, fit: Fit
) -> None:
    """The refit begins afresh."""
    fits.save(session, fit.id, {"verdict": "sound"}, {"law": "chinchilla", "theta": [1.0]})
    session.expire_all()
    assert refit(session, fit) == "replaced"
    assert fit.revision == 3
    assert fits.state(session, fit.id)["private"]["theta"]


def noisy_points(first: int, last: int) -> Points:
    """Noise scales of a run at every step: 300 times the root of the step, a tenth up and down."""
    step = np.arange(first, last + 1)
    scale = 300 * np.sqrt(step) * (1 + 0.1 * np.sin(step))
    return Points(step, {"grad_noise_scale": Column.of(scale)})


def test_a_fit_of_readings_follows_the_points_of_its_runs(session: Session) -> None:
    """Points of another kind change nothing; those of a branch that lands make the next revision."""
    project = projects.create(session, "noise")
    config = {"batch_tokens": 1000}
    runs.put(session, project.id, "trunk", runs.Specification("trunk", status="finished", config=config))
    points.append(session, points.hold(session, project.id, "trunk"), noisy_points(1, 400))
    fit = fits.create(session, project.id, "noise_scale", {"all": True}, {"bootstrap": 20}, follow=True)
    assert jobs.start(session, fit.job_id) == 1
    documents = fit_work.compute(**fit_work.read(session, fit.job_id), progress=lambda share, message: None)
    jobs.finish(session, fit.job_id, 1, "succeeded")
    fit_work.write(session, fit.job_id, documents)
    session.refresh(fit)
    runs.put(session, project.id, "silent", runs.Specification("silent", status="finished"))
    losses = Points(np.arange(1, 9), {"loss": Column.of(np.full(8, 3.0))})
    points.append(session, points.hold(session, project.id, "trunk"), losses)
    assert refit(session, fit) == "unchanged"
    assert fit.result is not None
    assert [one["run_id"] for one in fit.result["left_out"]] == ["silent"]
    runs.delete(session, project.id, "silent")
    assert refit(session, fit) == "unchanged"
    assert (fit.result["left_out"], fit.refits_skipped) == ([], 2)
    said = runs.Specification("branch", status="finished", config=config, parent=("trunk", 300))
    runs.put(session, project.id, "branch", said)
    points.append(session, points.hold(session, project.id, "branch"), noisy_points(301, 700))
    assert refit(session, fit) == "replaced"
    assert (fit.revision, fit.result["diagnostics"]["n_runs"]) == (2, 800)
    assert {group["by"]["curve"] for group in fit.result["groups"]} == {"trunk", "branch"}

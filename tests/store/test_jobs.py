from __future__ import annotations

import uuid

import pytest
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput, NotFound, NotReady
from store import fits, idempotency, jobs, keys
from store.idempotency import Answer
from store.tables import Project


def test_a_job_ends_once_however_many_workers_had_it(session: Session) -> None:
    """A worker that was taken for dead neither reports nor ends the job that another has started again."""
    job = jobs.create(session, "fit")
    first = jobs.start(session, job.id)
    second = jobs.start(session, job.id)
    assert (first, second) == (1, 2)
    assert first is not None
    assert second is not None
    assert not jobs.report(session, job.id, first, 0.5)
    assert not jobs.finish(session, job.id, first, "failed", "late")
    assert jobs.report(session, job.id, second, 2.0, "going on")
    assert jobs.finish(session, job.id, second, "succeeded", result={"n": 1})
    assert not jobs.finish(session, job.id, second, "succeeded")
    session.refresh(job)
    assert (job.status, job.progress, job.attempts, job.result) == ("succeeded", 1.0, 2, {"n": 1})
    assert jobs.start(session, job.id) is None


def test_cancelling_stops_a_waiting_job_at_once_and_asks_a_running_one(session: Session) -> None:
    """A waiting job never starts; a running one is told at its next report; an ended one stays as it is."""
    waiting, running, ended = (jobs.create(session, "fit") for _ in range(3))
    assert jobs.request_cancel(session, waiting.id).status == "cancelled"
    assert jobs.start(session, waiting.id) is None
    attempt = jobs.start(session, running.id)
    assert attempt is not None
    assert jobs.request_cancel(session, running.id).status == "running"
    assert jobs.cancel_requested(session, running.id)
    assert not jobs.report(session, running.id, attempt, 0.1)
    assert jobs.start(session, running.id) is None  # its worker died: the next one ends it
    session.refresh(running)
    assert running.status == "cancelled"
    last = jobs.start(session, ended.id)
    assert last is not None
    jobs.finish(session, ended.id, last, "failed", "why")
    assert jobs.request_cancel(session, ended.id).status == "failed"
    assert not jobs.cancel_requested(session, ended.id)


def test_a_fit_keeps_what_predictions_need(session: Session, project: Project) -> None:
    """The private document comes back as it was, and only once the fit has succeeded."""
    fit = fits.create(session, project.id, "lr_annealing", {"all": True}, {})
    with pytest.raises(NotReady, match="queued"):
        fits.state(session, fit.id)
    attempt = jobs.start(session, fit.job_id)
    assert attempt is not None
    private = {"samples": [[0.1, 2e-300, float("inf")]]}
    fits.save(session, fit.id, {"verdict": "sound"}, private)
    jobs.finish(session, fit.job_id, attempt, "succeeded")
    assert fits.state(session, fit.id) == private
    assert fits.of_job(session, fit.job_id).id == fit.id
    with pytest.raises(NotFound):
        fits.get(session, fit.id, project.id + 1)
    with pytest.raises(NotFound):
        fits.state(session, uuid.uuid4())


def test_keys_are_found_by_their_secret_and_kept_as_a_hash(session: Session, project: Project) -> None:
    """A secret opens until its key is deleted, and stands nowhere in the table."""
    key, secret = keys.create(session, "ci", ["read"], project.id)
    found = keys.find(session, secret, "pilot")
    assert found == keys.Caller(key.id, ["read"], project.id, project.id)
    assert keys.find(session, secret, "other") == keys.Caller(key.id, ["read"], project.id, None)
    assert keys.find(session, secret + "x") is None
    assert secret.encode() not in key.key_hash
    keys.delete(session, key.id)
    assert keys.find(session, secret) is None
    with pytest.raises(NotFound):
        keys.delete(session, key.id)


def test_an_idempotency_key_belongs_to_one_request_of_one_caller(session: Session) -> None:
    """The same request is answered again, another one refused, and another caller's key is another key."""
    assert idempotency.claim(session, "me", "k", b"1") is None
    idempotency.record(session, "me", "k", Answer(201, b"{}"))
    assert idempotency.claim(session, "me", "k", b"1") == Answer(201, b"{}")
    with pytest.raises(InvalidInput, match="another request"):
        idempotency.claim(session, "me", "k", b"2")
    assert idempotency.claim(session, "you", "k", b"2") is None
    assert idempotency.forget_old(session) == 0

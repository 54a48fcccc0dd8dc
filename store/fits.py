"""Fits: what was asked of a law, what came of it, and what predictions are made from."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from isoloss.errors import NotFound, NotReady
from store import jobs
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Fit, Job
from store.where import Field

FIELDS = {
    "law": Field(Fit.law.expression),
    "status": Field(Job.status.expression),
    "created_at": Field(sa.extract("epoch", Fit.created_at)),
}


def create(
    session: Session,
    project_id: int,
    law: str,
    select: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    follow: bool = False,
) -> Fit:
    """A new fit with its queued job; the caller defers the job in the same transaction."""
    job = jobs.create(session, "fit", project_id)
    fit = Fit(
        project_id=project_id, job=job, law=law, select=dict(select), options=dict(options), follow=follow
    )
    session.add(fit)
    session.flush()
    session.refresh(fit)
    return fit


def add(
    session: Session,
    job: Job,
    law: str,
    select: Mapping[str, Any],
    options: Mapping[str, Any],
    result: Mapping[str, Any],
    state: Mapping[str, Any],
) -> uuid.UUID:
    """A fit with its result, of a job of a project that made it on the way to something else; its id."""
    fit = Fit(project_id=job.project_id, job=job, law=law, select=dict(select), options=dict(options))
    session.add(fit)
    session.flush()
    save(session, fit.id, result, state)
    return fit.id


def get(session: Session, fit_id: uuid.UUID, project_id: int | None = None) -> Fit:
    """The fit, within `project_id` where given. Raises NotFound."""
    fit = session.get(Fit, fit_id)
    if fit is None or (project_id is not None and fit.project_id != project_id):
        raise NotFound(kind="fit", name=str(fit_id))
    return fit


def page(session: Session, project_id: int, asked: Asked) -> Page[Fit]:
    """Part of a project's fits."""
    of_project = sa.select(Fit).join(Fit.job).where(Fit.project_id == project_id)
    return page_of(session, of_project, Fit.id, FIELDS, asked)


def of_job(session: Session, job_id: uuid.UUID) -> Fit:
    """The fit that a job is to make. Raises NotFound."""
    fit = session.execute(sa.select(Fit).where(Fit.job_id == job_id)).scalar_one_or_none()
    if fit is None:
        raise NotFound(kind="fit of job", name=str(job_id))
    return fit


def save(session: Session, fit_id: uuid.UUID, result: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Store what the fit found, as its next revision; `jobs.finish` in the same transaction makes it the answer."""
    packed = zlib.compress(json.dumps(state, allow_nan=True).encode())
    found = {"result": dict(result), "state": packed, "revision": Fit.revision + 1}
    session.execute(
        sa.update(Fit)
        .where(Fit.id == fit_id)
        .values(**found, updated_at=sa.func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def last_state(session: Session, fit_id: uuid.UUID) -> dict[str, Any] | None:
    """What predictions are made from, None where no result has been stored yet."""
    return _unpacked(session.execute(sa.select(Fit.state).where(Fit.id == fit_id)).scalar_one())


def state(session: Session, fit_id: uuid.UUID, project_id: int | None = None) -> dict[str, Any]:
    """What predictions are made from. Raises NotFound; NotReady where the fit has not succeeded."""
    fit = session.get(Fit, fit_id, options=[undefer(Fit.state)], populate_existing=True)
    if fit is None or (project_id is not None and fit.project_id != project_id):
        raise NotFound(kind="fit", name=str(fit_id))
    document = _unpacked(fit.state)
    if fit.job.status != "succeeded" or document is None:
        raise NotReady(kind="fit", name=str(fit_id), reason=f"it is {fit.job.status}")
    return document


def _unpacked(state: bytes | None) -> dict[str, Any] | None:
    if state is None:
        return None
    document: dict[str, Any] = json.loads(zlib.decompress(state))
    return document

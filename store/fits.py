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
    session: Session, project_id: int, law: str, select: Mapping[str, Any], options: Mapping[str, Any]
) -> Fit:
    """A new fit with its queued job; the caller defers the job in the same transaction."""
    job = jobs.create(session, "fit", project_id)
    fit = Fit(project_id=project_id, job=job, law=law, select=dict(select), options=dict(options))
    session.add(fit)
    session.flush()
    session.refresh(fit)
    return fit


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
    """Store what the fit found; `jobs.finish` in the same transaction makes it the answer."""
    packed = zlib.compress(json.dumps(state, allow_nan=True).encode())
    session.execute(sa.update(Fit).where(Fit.id == fit_id).values(result=dict(result), state=packed))


def state(session: Session, fit_id: uuid.UUID, project_id: int | None = None) -> dict[str, Any]:
    """What predictions are made from. Raises NotFound; NotReady where the fit has not succeeded."""
    fit = session.get(Fit, fit_id, options=[undefer(Fit.state)], populate_existing=True)
    if fit is None or (project_id is not None and fit.project_id != project_id):
        raise NotFound(kind="fit", name=str(fit_id))
    if fit.job.status != "succeeded" or fit.state is None:
        raise NotReady(kind="fit", name=str(fit_id), reason=f"it is {fit.job.status}")
    document: dict[str, Any] = json.loads(zlib.decompress(fit.state))
    return document

"""Advice: recommendations and Pareto fronts, what was asked and what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import NotFound
from store import jobs
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Advice, Job
from store.where import Field

Kind = Literal["recommendation", "pareto"]
NAMES: Mapping[Kind, str] = {"recommendation": "recommendation", "pareto": "Pareto front"}

FIELDS = {
    "status": Field(Job.status.expression),
    "created_at": Field(sa.extract("epoch", Advice.created_at)),
}


def create(
    session: Session, project_id: int, kind: Kind, select: Mapping[str, Any], asked: Mapping[str, Any]
) -> Advice:
    """New advice with its queued job; the caller defers the job in the same transaction."""
    job = jobs.create(session, kind, project_id)
    advice = Advice(project_id=project_id, job=job, kind=kind, select=dict(select), asked=dict(asked))
    session.add(advice)
    session.flush()
    session.refresh(advice)
    return advice


def get(session: Session, kind: Kind, advice_id: uuid.UUID, project_id: int) -> Advice:
    """The project's advice of this kind. Raises NotFound."""
    advice = session.get(Advice, advice_id)
    if advice is None or (advice.kind, advice.project_id) != (kind, project_id):
        raise NotFound(kind=NAMES[kind], name=str(advice_id))
    return advice


def page(session: Session, kind: Kind, project_id: int, asked: Asked) -> Page[Advice]:
    """Part of a project's advice of this kind."""
    of_kind = sa.select(Advice).join(Advice.job).where(Advice.project_id == project_id, Advice.kind == kind)
    return page_of(session, of_kind, Advice.id, FIELDS, asked)


def of_job(session: Session, job_id: uuid.UUID) -> Advice:
    """The advice that a job is to give. Raises NotFound."""
    advice = session.execute(sa.select(Advice).where(Advice.job_id == job_id)).scalar_one_or_none()
    if advice is None:
        raise NotFound(kind="advice of job", name=str(job_id))
    return advice


def save(session: Session, advice: Advice, result: Mapping[str, Any]) -> None:
    """Store what was found; `jobs.finish` in the same transaction makes it the answer."""
    advice.result = dict(result)
    session.flush()

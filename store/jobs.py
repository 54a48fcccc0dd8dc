"""Jobs: work asked for, followed from the queue to its end.

A worker's part is `start`, `report`, `finish`. The number that `start` returns is the attempt: a worker that
was taken for dead, whose job another has started again, is told by `report` and `finish` that it is no longer
the one that writes.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import NotFound
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Job
from store.where import Field

FIELDS = {
    "kind": Field(Job.kind.expression),
    "status": Field(Job.status.expression),
    "created_at": Field(sa.extract("epoch", Job.created_at)),
}

FinalStatus = Literal["succeeded", "failed", "cancelled"]
ENDED = ("succeeded", "failed", "cancelled")


def create(session: Session, kind: str, project_id: int | None = None) -> Job:
    """A new queued job; the caller defers it on the queue in the same transaction and sets `queue_id`."""
    job = Job(kind=kind, project_id=project_id)
    session.add(job)
    session.flush()
    session.refresh(job)
    return job


def get(session: Session, job_id: uuid.UUID, project_id: int | None = None) -> Job:
    """The job, within `project_id` where given. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None or (project_id is not None and job.project_id != project_id):
        raise NotFound(kind="job", name=str(job_id))
    return job


def page(session: Session, asked: Asked, only: int | None = None) -> Page[Job]:
    """Part of the jobs, of the project `only` where given."""
    chosen = sa.select(Job) if only is None else sa.select(Job).where(Job.project_id == only)
    return page_of(session, chosen, Job.id, FIELDS, asked)


def start(session: Session, job_id: uuid.UUID) -> int | None:
    """Mark the job running and return the number of this attempt; None where there is nothing left to do.

    There is nothing left to do for a job that has ended, that was cancelled, or that is gone.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.status in ENDED:
        return None
    if job.cancel_requested:
        _end(job, "cancelled")
        session.flush()
        return None
    job.status, job.progress, job.message = "running", 0.0, None
    job.attempts += 1
    job.started_at = sa.func.clock_timestamp()
    session.flush()
    return job.attempts


def report(
    session: Session, job_id: uuid.UUID, attempt: int, progress: float, message: str | None = None
) -> bool:
    """Record how far this attempt is (0 to 1); False where it shall stop: cancelled, or taken over."""
    still_ours = (Job.id == job_id, Job.status == "running", Job.attempts == attempt)
    statement = (
        sa.update(Job)
        .where(*still_ours)
        .values(progress=min(max(progress, 0.0), 1.0), message=message)
        .returning(Job.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    cancelled = session.execute(statement).scalar_one_or_none()
    return cancelled is False


def finish(
    session: Session,
    job_id: uuid.UUID,
    attempt: int,
    status: FinalStatus,
    message: str | None = None,
    result: dict[str, Any] | None = None,
) -> bool:
    """End the job; False, and nothing changed, where this attempt is no longer the one that counts.

    Call it in the transaction that stores what the job made, and roll back where it answers False: so a job
    ends once.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.status != "running" or job.attempts != attempt:
        return False
    _end(job, status, message)
    job.result = result
    session.flush()
    return True


def put_back(session: Session, job_id: uuid.UUID, attempt: int) -> None:
    """Make the job wait again: its worker was told to stop, which does not count as an attempt."""
    session.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.status == "running", Job.attempts == attempt)
        .values(status="queued", attempts=attempt - 1, progress=0.0, message=None, started_at=None)
        .execution_options(synchronize_session=False)
    )


def request_cancel(session: Session, job_id: uuid.UUID, project_id: int | None = None) -> Job:
    """Cancel a queued job at once, ask a running one to stop, leave one that has ended. Raises NotFound."""
    get(session, job_id, project_id)
    job = session.get_one(Job, job_id, with_for_update=True, populate_existing=True)
    if job.status == "queued":
        _end(job, "cancelled")
    if job.status not in ("succeeded", "failed"):
        job.cancel_requested = True
    session.flush()
    session.refresh(job)
    return job


def cancel_requested(session: Session, job_id: uuid.UUID) -> bool:
    """Whether someone asked for the job to stop; also where the job was deleted with its project."""
    found = session.execute(sa.select(Job.cancel_requested).where(Job.id == job_id)).scalar_one_or_none()
    return found is not False


def counts(session: Session) -> dict[str, int]:
    """How many jobs there are of each status."""
    rows = session.execute(sa.select(Job.status, sa.func.count()).group_by(Job.status))
    return {status: count for status, count in rows}  # noqa: C416  (rows are not pairs to a type checker)


def _end(job: Job, status: FinalStatus, message: str | None = None) -> None:
    job.status, job.message = status, message
    job.finished_at = sa.func.clock_timestamp()
    if status == "succeeded":
        job.progress = 1.0

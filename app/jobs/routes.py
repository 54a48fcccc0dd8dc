"""Jobs: list, show, cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.auth import Reading, Writing
from app.jobs.schemas import JobDocument
from app.schemas import PageOf, identifier, page_query, problems
from store import jobs, queue
from store.pages import Asked

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(401, 403, 422, 503))
def list_jobs(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[JobDocument]:
    """List the jobs that the key may see, the oldest first.

    `where` and `sort` know `kind`, `status` and `created_at`.
    """
    page = jobs.page(access.session, asked, access.only_project_id)
    return PageOf(items=[JobDocument.model_validate(job) for job in page.items], next_cursor=page.next_cursor)


@router.get("/{job_id}", responses=problems(401, 403, 404, 503))
def get_job(job_id: str, access: Reading) -> JobDocument:
    """Show a job."""
    job = jobs.get(access.session, identifier("job", job_id), access.only_project_id)
    return JobDocument.model_validate(job)


@router.post("/{job_id}/cancel", responses=problems(401, 403, 404, 503))
def cancel_job(job_id: str, access: Writing) -> JobDocument:
    """Cancel a job: at once where it waits, within seconds where it runs; one that has ended stays as it is."""
    job = jobs.request_cancel(access.session, identifier("job", job_id), access.only_project_id)
    if job.status == "cancelled" and job.queue_id is not None:
        queue.abort(access.session, job.queue_id)
    return JobDocument.model_validate(job)

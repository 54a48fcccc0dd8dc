"""`isoloss job`"""

from __future__ import annotations

from typing import Annotated

import typer

from isoloss.cli.output import moment, print_fields
from isoloss.cli.session import Session, command

app = typer.Typer(name="job", help="Jobs: the work that goes on in the background.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.")]


@command(app, "list")
def list_all(session: Session) -> None:
    """List the jobs."""
    jobs = list(session.client.jobs.list())
    rows = [
        [
            job["id"],
            job["kind"],
            job["status"],
            f"{100 * (job.get('progress') or 0):.0f}%",
            moment(job.get("created_at")),
            job.get("message") or "",
        ]
        for job in jobs
    ]
    columns = ["job", "kind", "status", "done", "created", "note"]
    whole = columns[:-1]
    session.output.show(jobs, lambda: session.output.table(columns, rows, right=["done"], whole=whole))


@command(app, "show")
def show(session: Session, job_id: JobId) -> None:
    """Show one job."""
    job = session.client.jobs.get(job_id)
    session.output.show(job, lambda: print_fields(session.output, dict(job)))


@command(app, "cancel")
def cancel(session: Session, job_id: JobId) -> None:
    """Ask a job to stop."""
    job = session.client.jobs.cancel(job_id) or session.client.jobs.get(job_id)
    session.output.show(job, lambda: session.output.line(f"Job {job_id}: {_cancelled(job['status'])}."))


def _cancelled(status: str) -> str:
    if status in ("queued", "running"):
        return f"cancelling was asked for; it is {status} still"
    return "cancelled" if status == "cancelled" else f"it has ended already, {status}"


@command(app, "wait")
def wait(
    session: Session,
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait at most.", show_default="none")
    ] = None,
) -> None:
    """Wait until a job has ended; exit code 1 unless it succeeded."""
    with session.output.progress("Waiting") as advance:
        job = session.client.jobs.wait(
            job_id,
            timeout=timeout,
            on_progress=lambda seen: advance(seen.get("progress") or 0.0, seen.get("message") or ""),
        )
    session.output.show(job, lambda: print_fields(session.output, dict(job)))
    if job["status"] != "succeeded":
        raise typer.Exit(1)

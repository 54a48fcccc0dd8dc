"""Fits that follow their runs: what queues a refit, and what becomes of its result.

Whoever changes a run that has ended calls `runs_changed` in the same transaction. The queue then holds one refit a
fit, which begins after that transaction has committed, so that no change is missed and a burst makes one refit.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import NotFound
from store import fits, jobs, queue
from store.arrays import cursor
from store.tables import Fit

TASK = "refit"
SETTLES_S = 1.0
"""How long a refit waits for more runs of the same burst."""

LESS_URGENT = -1
FOLLOWING_LOCK = 7_461_004

WAIT_FOR_NEW_FITS = "SELECT pg_advisory_xact_lock_shared(%s, %s::integer)"
FOLLOWED = """
    SELECT fit.id FROM public.fit JOIN public.job ON job.id = fit.job_id
    WHERE fit.project_id = %s AND fit.follow AND job.status <> 'cancelled'
    ORDER BY fit.id -- one order for all, so that none waits for another in a circle
"""


def start(session: Session, project_id: int) -> None:
    """Wait for changes of runs that are under way: those that follow will see the fit that is about to be made."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(FOLLOWING_LOCK, project_id)))


def lock_of(fit_id: uuid.UUID) -> str:
    """The lock that keeps a fit and its refits from running at once."""
    return f"{TASK} {fit_id}"


def runs_changed(session: Session, project_id: int) -> None:
    """Queue a refit of every fit of the project that follows its runs."""
    session.flush()
    with cursor(session) as statements:  # plainly, for every run that ends passes here
        statements.execute(WAIT_FOR_NEW_FITS, (FOLLOWING_LOCK, project_id))
        followed = [fit_id for (fit_id,) in statements.execute(FOLLOWED, (project_id,)).fetchall()]
    for fit_id in followed:
        queue.defer_once(
            session,
            TASK,
            {"fit_id": str(fit_id)},
            lock=lock_of(fit_id),
            after_s=SETTLES_S,
            priority=LESS_URGENT,
        )


def stop(session: Session, fit_id: uuid.UUID, project_id: int) -> Fit:
    """Make the fit keep its result from now on; a refit that is under way is cancelled. Raises NotFound."""
    fits.get(session, fit_id, project_id)
    fit = session.get_one(Fit, fit_id, with_for_update={"of": Fit}, populate_existing=True)
    fit.follow = False
    if fit.refit_job_id is not None:
        jobs.request_cancel(session, fit.refit_job_id)
    session.flush()
    session.refresh(fit)
    return fit


def begin(session: Session, fit_id: uuid.UUID, queue_id: int) -> uuid.UUID | None:
    """The job of a refit that the queue hands out, the same when it is handed out again.

    None where there is nothing to do: the fit is gone, was cancelled, or follows its runs no more.
    """
    fit = session.get(Fit, fit_id, with_for_update={"of": Fit}, populate_existing=True)
    if fit is None or not fit.follows:
        return None
    if fit.refit_job is None or fit.refit_job.queue_id != queue_id:
        fit.refit_job = jobs.create(session, TASK, fit.project_id)
        fit.refit_job.queue_id = queue_id
        session.flush()
    return fit.refit_job.id


def of_refit(session: Session, job_id: uuid.UUID, *, lock: bool = False) -> Fit:
    """The fit that a refit is for. Raises NotFound."""
    asked = sa.select(Fit).where(Fit.refit_job_id == job_id)
    if lock:
        asked = asked.with_for_update(of=Fit).execution_options(populate_existing=True)
    fit = session.execute(asked).scalar_one_or_none()
    if fit is None:
        raise NotFound(kind="fit of job", name=str(job_id))
    return fit


def replace(session: Session, fit: Fit, result: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Store what a refit found in the place of the last result; where there was none its job made the fit."""
    if fit.job.status != "succeeded":
        fit.job = fit.refit_job or fit.job
    session.flush()
    fits.save(session, fit.id, result, state)


def count_skipped(session: Session, fit: Fit, left_out: Sequence[Mapping[str, str]]) -> None:
    """Note that a refit found the data as they were, and which runs are left out of them now.

    Only what is shown is brought up to date: no prediction is made from that list.
    """
    fit.refits_skipped += 1
    if fit.result is not None and fit.result["left_out"] != left_out:
        fit.result = {**fit.result, "left_out": [dict(one) for one in left_out]}
    session.flush()

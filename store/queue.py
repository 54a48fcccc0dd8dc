"""Putting work on the queue, and taking it off, in the caller's own transaction.

The queue is procrastinate's; here it is only written to. `workers/` reads it, and names there what each task
does, so that nothing in this room needs to know a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import procrastinate
import psycopg
import sqlalchemy as sa
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy.orm import Session

from store.tables import Job

WORK = "work"  # what users ask for, one job at a time in a worker
UPKEEP = "upkeep"  # our own housekeeping, never kept waiting by the former
DELIVERIES = "deliveries"  # to others, who may be slow: they keep nobody else waiting
LOST = "the queue no longer knows it (the workers' log tells more); ask for it again"

# A worker passes over a job that someone holds.
HOLD_WAITING = sa.text(
    "SELECT id FROM jobs.procrastinate_jobs"
    " WHERE lock = :lock AND task_name = :task AND status = 'todo' FOR SHARE"
)
ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0))")

# Never opened: every statement goes through the caller's connection.
_queue = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def defer(
    session: Session,
    task_name: str,
    args: Mapping[str, Any],
    *,
    queue: str = WORK,
    queueing_lock: str | None = None,
    lock: str | None = None,
    priority: int = 0,
    after_s: float = 0.0,
) -> int:
    """Queues `task_name` to run with `args` once the session commits, and returns the queue's number for it.

    `args` must be JSON. Jobs of one `lock` never run at once. Where a job with the same `queueing_lock` waits
    already this adds none and returns 0. It begins after `after_s` seconds.
    """
    options: dict[str, Any] = {"queue": queue, "lock": lock, "priority": priority}
    options["queueing_lock"] = queueing_lock
    if after_s:
        options["schedule_in"] = {"seconds": after_s}
    if queueing_lock is None:
        return _defer(session, task_name, args, options)
    try:
        with session.begin_nested():  # the refusal must not spoil the caller's transaction
            return _defer(session, task_name, args, options)
    except AlreadyEnqueued:
        return 0


def defer_once(
    session: Session,
    task_name: str,
    args: Mapping[str, Any],
    *,
    lock: str,
    after_s: float,
    queue: str = WORK,
    priority: int = 0,
) -> None:
    """Sees to it that a job of this `lock` begins after the session has committed: one for all that ask.

    One that waits already is kept waiting until the commit, so that it sees what the session has changed; where
    none waits a new one is queued, to begin in `after_s` seconds. Jobs of one `lock` never run at once.
    """
    names = {"lock": lock, "task": task_name}
    if session.execute(HOLD_WAITING, names).first() is not None:
        return
    session.execute(ONE_AT_A_TIME, {"lock": lock})
    if session.execute(HOLD_WAITING, names).first() is None:
        # No queueing lock: a job that runs could not go back to the queue while the next one waits.
        options = {"queue": queue, "lock": lock, "priority": priority, "schedule_in": {"seconds": after_s}}
        _defer(session, task_name, args, options)


def abort(session: Session, queue_id: int) -> bool:
    """Takes a job that still waits off the queue once the session commits; False where it no longer waits.

    A job that runs is not touched: its worker sees `cancel_requested` on our own row of it.
    """
    return _queue.job_manager.cancel_job_by_id(queue_id, connection=_connection(session))


def fail_lost(session: Session) -> int:
    """Ends every job that waits or runs on our books and is not on the queue; returns how many.

    A worker ends our row of a job before the queue's, so that none is lost unless something broke.
    """
    queued = sa.table("procrastinate_jobs", sa.column("id"), schema="jobs")
    on_queue = sa.exists().where(queued.c.id == Job.queue_id)
    lost = sa.and_(Job.status.in_(("queued", "running")), Job.queue_id.is_not(None), ~on_queue)
    ended = session.execute(
        sa.update(Job)
        .where(lost)
        .values(status="failed", message=LOST, finished_at=sa.func.clock_timestamp())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return len(ended.all())


def _defer(session: Session, task_name: str, args: Mapping[str, Any], options: dict[str, Any]) -> int:
    return _queue.configure_task(task_name, connection=_connection(session), **options).defer(**args)


def _connection(session: Session) -> psycopg.Connection[Any]:
    # `session.connection()` begins the transaction that the statement must be part of.
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection

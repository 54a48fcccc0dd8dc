from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from store import jobs, queue


def waiting(session: Session) -> list[tuple[str, str, dict[str, object]]]:
    columns, table = "task_name, queue_name, args", "jobs.procrastinate_jobs"
    rows = session.execute(text(f"SELECT {columns} FROM {table} WHERE status = 'todo' ORDER BY id"))
    return [(task, name, args) for task, name, args in rows]


def test_a_deferred_job_is_part_of_the_transaction(session: Session) -> None:
    """A job that was deferred in a transaction that is rolled back never existed."""
    savepoint = session.begin_nested()
    queue.defer(session, "fit", {"fit_id": "a"})
    savepoint.rollback()
    number = queue.defer(session, "fit", {"fit_id": "b"})
    assert number > 0
    assert waiting(session) == [("fit", queue.WORK, {"fit_id": "b"})]


def test_a_queueing_lock_keeps_one_job_and_the_transaction(session: Session) -> None:
    """Deferring twice under one queueing lock leaves one job, and the transaction goes on."""
    numbers = [queue.defer(session, "compact", {"run": 1}, queueing_lock="run 1") for _ in range(2)]
    assert numbers[0] > 0
    assert numbers[1] == 0
    assert len(waiting(session)) == 1


def test_a_waiting_job_can_be_taken_off_once(session: Session) -> None:
    """Aborting a waiting job removes it; a second time there is nothing left to do."""
    number = queue.defer(session, "fit", {})
    assert queue.abort(session, number)
    assert not queue.abort(session, number)
    assert waiting(session) == []


def test_a_job_that_the_queue_lost_is_ended_and_no_other(session: Session) -> None:
    """What waits or runs without being on the queue fails with the reason; what is queued stays."""
    lost, kept = jobs.create(session, "fit"), jobs.create(session, "fit")
    lost.queue_id = 10**9
    kept.queue_id = queue.defer(session, "fit", {})
    jobs.start(session, lost.id)
    assert queue.fail_lost(session) == 1
    session.expire_all()
    assert (lost.status, lost.message, kept.status) == ("failed", queue.LOST, "queued")
    assert queue.fail_lost(session) == 0

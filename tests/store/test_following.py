"""Refits on the queue: one a fit, in the transaction that changed a run, and none missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from store import fits, following, jobs, projects, queue
from store.engine import create_engine, create_sessions
from store.tables import Fit, Project

FETCH = text("SELECT id FROM jobs.procrastinate_fetch_job_v2(ARRAY['work'], NULL)")


def waiting(session: Session) -> list[tuple[str, dict[str, str], float]]:
    """Task, arguments and seconds until it may begin, of the jobs that wait."""
    rows = session.execute(
        text(
            "SELECT task_name, args, extract(epoch FROM scheduled_at - clock_timestamp())"
            " FROM jobs.procrastinate_jobs WHERE status = 'todo' ORDER BY id"
        )
    )
    return [(task, args, float(seconds or 0)) for task, args, seconds in rows]


def followed(session: Session, project: Project) -> Fit:
    return fits.create(session, project.id, "chinchilla", {"all": True}, {}, follow=True)


def test_every_fit_that_follows_is_refitted_once_however_many_runs_change(
    session: Session, project: Project
) -> None:
    """A burst leaves one refit a fit, a little later; other fits and other projects get none."""
    wanted = [followed(session, project), followed(session, project)]
    fits.create(session, project.id, "chinchilla", {"all": True}, {})
    followed(session, projects.create(session, "other"))
    for _ in range(5):
        following.runs_changed(session, project.id)
    found = waiting(session)
    assert [(task, args) for task, args, _ in found] == [
        (following.TASK, {"fit_id": str(fit.id)}) for fit in wanted
    ]
    assert all(0 < seconds <= following.SETTLES_S for *_, seconds in found)


def test_a_refit_is_queued_with_the_change_or_not_at_all(session: Session, project: Project) -> None:
    """Where the transaction that changed a run is rolled back, nothing is queued."""
    followed(session, project)
    savepoint = session.begin_nested()
    following.runs_changed(session, project.id)
    savepoint.rollback()
    assert waiting(session) == []


def test_a_fit_that_was_cancelled_or_let_go_is_not_refitted(session: Session, project: Project) -> None:
    """Neither is queued, and one that waits on the queue already finds nothing to do."""
    cancelled, stopped = followed(session, project), followed(session, project)
    jobs.request_cancel(session, cancelled.job_id)
    begun = following.begin(session, stopped.id, 7)
    assert begun is not None
    assert following.stop(session, stopped.id, project.id).follow is False
    assert jobs.get(session, begun).status == "cancelled"
    following.runs_changed(session, project.id)
    assert waiting(session) == []
    assert following.begin(session, stopped.id, 8) is None
    assert following.begin(session, cancelled.id, 9) is None


def test_a_refit_that_the_queue_hands_out_again_is_the_same_job(session: Session, project: Project) -> None:
    """After a worker died its refit goes on as the next attempt of one job; the next refit is another."""
    fit = followed(session, project)
    first = following.begin(session, fit.id, 7)
    assert following.begin(session, fit.id, 7) == first
    assert first is not None
    assert jobs.get(session, first).queue_id == 7
    assert following.of_refit(session, first).id == fit.id
    assert following.begin(session, fit.id, 8) not in (None, first)
    session.delete(fit)
    session.flush()
    assert following.begin(session, fit.id, 9) is None


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, pool_size=4)
    yield engine
    engine.dispose()


def test_a_waiting_refit_does_not_begin_before_the_change_that_it_is_to_see(engine: Engine) -> None:
    """While a transaction that changed a run is open no worker gets the refit that waits for it."""
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "p")
        fit = followed(session, project)
        queue.defer_once(session, following.TASK, {}, lock=following.lock_of(fit.id), after_s=0)
    with sessions.begin() as changing:
        following.runs_changed(changing, project.id)
        assert _fetched(sessions) is None
    assert _fetched(sessions) is not None
    with sessions.begin() as session:  # it runs, and so the next change queues another
        following.runs_changed(session, project.id)
        assert len(waiting(session)) == 1
    assert _fetched(sessions) is None  # not while the first one runs


def test_a_refit_goes_back_to_the_queue_also_while_the_next_one_waits(engine: Engine) -> None:
    """Its worker died or was told to stop: both wait, and the first goes first."""
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "p")
        fit = followed(session, project)
        queue.defer_once(session, following.TASK, {}, lock=following.lock_of(fit.id), after_s=0)
    first = _fetched(sessions)
    with sessions.begin() as session:
        following.runs_changed(session, project.id)
        back = text("SELECT jobs.procrastinate_retry_job_v1(:id, now(), NULL, NULL, NULL)")
        session.execute(text("SET LOCAL search_path TO jobs, public"))
        session.execute(back, {"id": first})
        assert len(waiting(session)) == 2
    assert _fetched(sessions) == first


def test_changes_at_once_queue_one_refit(engine: Engine) -> None:
    """Many writers together leave one job, and none of them fails."""
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "p")
        followed(session, project)
        followed(session, project)
    failures: list[BaseException] = []

    def change() -> None:
        try:
            for _ in range(10):
                with sessions.begin() as session:
                    following.runs_changed(session, project.id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    with sessions() as session:
        assert len(waiting(session)) == 2


def test_a_fit_that_is_to_follow_waits_for_changes_that_are_under_way(engine: Engine) -> None:
    """Between a change and its commit no fit can begin to follow: it would never hear of it."""
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "p")
    made = threading.Event()

    def make() -> None:
        with sessions.begin() as session:
            following.start(session, project.id)
            made.set()

    with sessions.begin() as changing:
        following.runs_changed(changing, project.id)
        thread = threading.Thread(target=make)
        thread.start()
        assert not made.wait(0.3)
    assert made.wait(5)
    thread.join()


def _fetched(sessions: sessionmaker[Session]) -> int | None:
    """What a worker that asks now is given."""
    with sessions.begin() as session:
        session.execute(text("SET LOCAL search_path TO jobs, public"))
        return session.execute(FETCH).scalar_one_or_none()

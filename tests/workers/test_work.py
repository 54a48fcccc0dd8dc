"""Jobs on real workers: done once, stopped, taken over, and run again after a failure."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from store import fits, jobs, queue
from store.embedded import EmbeddedPostgres
from store.engine import create_engine, normalise_url
from store.migrate import upgrade
from store.tables import Job, Project
from workers.work import REFUSED

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
"""How long a busy machine may take for what takes a second; no test waits so long for what it expects not to be."""

Start = Callable[..., psutil.Popen]

pytestmark = pytest.mark.faults


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections to this test's own database."""
    engine = create_engine(database_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def start_worker(database_url: str) -> Iterator[Start]:
    """Starts workers of chores, and leaves none."""
    yield from _starter(database_url)


def _starter(database_url: str) -> Iterator[Start]:
    started: list[psutil.Popen] = []

    def start(*flags: str) -> psutil.Popen:
        env = {**os.environ, "ISOLOSS_DATABASE_URL": database_url}
        started.append(
            psutil.Popen([sys.executable, "-m", "tests.workers.chore_worker", *flags], cwd=ROOT, env=env)
        )
        return started[-1]

    yield start
    for worker in started:
        if worker.poll() is None:
            worker.terminate()
    for worker in started:
        assert worker.wait(PATIENCE_S) is not None


def ask(engine: Engine, chore: str, **keywords: Any) -> uuid.UUID:
    """Queues a chore as the API queues a fit, and returns its job."""
    with Session(engine) as session, session.begin():
        project = session.query(Project).one_or_none() or Project(name="p")
        session.add(project)
        session.flush()
        fit = fits.create(session, project.id, "lr_annealing", {"all": True}, {"chore": chore, **keywords})
        fit.job.queue_id = queue.defer(session, "fit", {"job_id": str(fit.job_id)})
        return fit.job_id


def see(engine: Engine, job_id: uuid.UUID) -> Job:
    with Session(engine) as session:
        return jobs.get(session, job_id)


def outcome(engine: Engine, job_id: uuid.UUID) -> Any:
    with Session(engine) as session:
        result = fits.of_job(session, job_id).result
    return result and result["outcome"]


def wait_for(engine: Engine, job_id: uuid.UUID, *statuses: str, patience_s: float = PATIENCE_S) -> Job:
    return wait_until(engine, job_id, lambda job: job.status in statuses, patience_s)


def wait_until(
    engine: Engine, job_id: uuid.UUID, holds: Callable[[Job], bool], patience_s: float = PATIENCE_S
) -> Job:
    deadline = time.monotonic() + patience_s
    while True:
        job = see(engine, job_id)
        if holds(job):
            return job
        assert time.monotonic() < deadline, (job.status, job.progress, job.message, job.attempts)
        time.sleep(0.05)


def wait_until_it_works(engine: Engine, job_id: uuid.UUID) -> None:
    """A chore that tells how far it is has begun in the child process."""
    wait_until(engine, job_id, lambda job: job.progress > 0.1)


def n_queued(engine: Engine) -> int:
    with engine.connect() as connection:
        table = "jobs.procrastinate_jobs"
        return int(connection.scalar(text(f"SELECT count(*) FROM {table} WHERE task_name = 'fit'")) or 0)


def test_a_job_runs_and_ends_and_leaves_the_queue(engine: Engine, start_worker: Start) -> None:
    """A queued fit is started, tells how far it is, and stores its result with its end."""
    start_worker()
    job_id = ask(engine, "sleep", seconds=1.5)
    seen = wait_until(engine, job_id, lambda job: job.progress > 0.2)
    assert seen.status == "running"
    assert seen.message is not None
    assert seen.message.startswith("step ")
    job = wait_for(engine, job_id, "succeeded")
    assert (job.progress, job.attempts, outcome(engine, job_id)) == (1.0, 1, "slept")
    deadline = time.monotonic() + PATIENCE_S
    while n_queued(engine):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_failures_are_told_and_the_worker_goes_on(engine: Engine, start_worker: Start) -> None:
    """The user's errors, surprises and crashes end the job with a sentence; the next job runs."""
    start_worker()
    told = {}
    mute = [(chore, {}) for chore in ("refuse", "stumble", "mumble", "no_such", "overflow")]
    for chore, keywords in (*mute, ("die", {"signum": 9})):
        told[chore] = wait_for(engine, ask(engine, chore, **keywords), "failed").message
    assert told["refuse"] == "the curve has no learning rate"
    assert "KeyError: 'surprise'" in str(told["stumble"])
    assert "killed (signal 9)" in str(told["die"])
    assert "AttributeError" in str(told["no_such"])
    assert "an unexpected error, RuntimeError (more" in str(told["mumble"])
    # Of a statement that the database refused the job says neither the text nor the values.
    assert told["overflow"] == REFUSED
    assert wait_for(engine, ask(engine, "double", n=4), "succeeded").attempts == 1


def test_a_running_job_is_cancelled_within_two_seconds(engine: Engine, start_worker: Start) -> None:
    """Cancel stops the child process and the job is cancelled, also when it is stuck in native code."""
    worker = start_worker()
    job_id = ask(engine, "hang_in_native_code")
    wait_until_it_works(engine, job_id)
    (child,) = worker.children()
    begun = time.monotonic()
    with Session(engine) as session, session.begin():
        jobs.request_cancel(session, job_id)
    wait_for(engine, job_id, "cancelled")
    assert time.monotonic() - begun < 2
    assert not child.is_running()
    assert wait_for(engine, ask(engine, "double", n=1), "succeeded").attempts == 1


def test_a_job_cancelled_before_it_starts_never_runs(engine: Engine, start_worker: Start) -> None:
    """What was cancelled while it waited is not started."""
    job_id = ask(engine, "double", n=1)
    with Session(engine) as session, session.begin():
        jobs.request_cancel(session, job_id)
    start_worker()
    wait_for(engine, ask(engine, "double", n=2), "succeeded")
    job = see(engine, job_id)
    assert (job.status, job.attempts) == ("cancelled", 0)


def test_a_worker_that_is_asked_to_stop_gives_its_job_back(
    engine: Engine, start_worker: Start, tmp_path: Path
) -> None:
    """SIGTERM ends a busy worker, which waits for no job; its job waits again, uncounted, and another does it."""
    first = start_worker()
    job_id = ask(engine, "hold", path=str(tmp_path / "go"))
    wait_until_it_works(engine, job_id)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_S) == 0
    assert (see(engine, job_id).status, see(engine, job_id).attempts) == ("queued", 0)
    (tmp_path / "go").touch()
    start_worker()
    assert wait_for(engine, job_id, "succeeded").attempts == 1


def test_the_job_of_a_killed_worker_is_done_by_the_other(
    engine: Engine, start_worker: Start, tmp_path: Path
) -> None:
    """`kill -9` of a worker in the middle of a fit: the other runs it again and it ends once."""
    first = start_worker("--impatient")
    job_id = ask(engine, "hold", path=str(tmp_path / "go"))
    wait_until_it_works(engine, job_id)
    (child,) = first.children()
    start_worker("--impatient")
    first.kill()
    first.wait()
    child.wait(PATIENCE_S)  # before it was let go
    (tmp_path / "go").touch()
    job = wait_for(engine, job_id, "succeeded")
    assert (job.attempts, outcome(engine, job_id)) == (2, "let go")


@pytest.mark.soak
def test_a_killed_worker_is_replaced_within_a_minute(engine: Engine, start_worker: Start) -> None:
    """The same with the times that users get."""
    first = start_worker()
    job_id = ask(engine, "sleep", seconds=2)
    wait_for(engine, job_id, "running")
    start_worker()
    first.kill()
    first.wait()
    assert wait_for(engine, job_id, "succeeded", patience_s=60).attempts == 2


def test_a_worker_taken_for_dead_does_not_write(engine: Engine, start_worker: Start, tmp_path: Path) -> None:
    """A worker that froze while another took its job over stores nothing when it thaws."""
    frozen = start_worker("--impatient")
    job_id = ask(engine, "hold", path=str(tmp_path / "go"))
    wait_until_it_works(engine, job_id)
    frozen.suspend()
    start_worker("--impatient")
    wait_until(engine, job_id, lambda job: job.attempts == 2)
    frozen.resume()
    time.sleep(1.5)
    assert (see(engine, job_id).status, n_queued(engine)) == ("running", 1)  # it did not take the job away
    (tmp_path / "go").touch()
    job = wait_for(engine, job_id, "succeeded")
    assert job.attempts == 2
    ended = job.finished_at
    time.sleep(3)
    assert see(engine, job_id).finished_at == ended


def test_a_job_that_kills_its_workers_fails_in_the_end(engine: Engine, start_worker: Start) -> None:
    """After three attempts that ended in a dead worker the job is given up with the reason."""
    job_id = ask(engine, "double", n=1)
    with Session(engine) as session, session.begin():
        session.get_one(Job, job_id).attempts = 3
    start_worker()
    job = wait_for(engine, job_id, "failed")
    assert "begun 3 times and never ended" in str(job.message)


def test_a_database_that_restarts_costs_no_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The postmaster is killed and started again: the same worker goes on, and every job ends."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("outage")) as server:
        upgrade(normalise_url(server.url).render_as_string(hide_password=False))
        engine = create_engine(server.url, pool_size=2)
        starter = _starter(server.url)
        worker = next(starter)("--impatient")
        running = ask(engine, "sleep", seconds=4)
        wait_for(engine, running, "running")
        waiting = ask(engine, "double", n=3)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        time.sleep(1.5)
        server.start()
        assert wait_for(engine, waiting, "succeeded").status == "succeeded"
        assert wait_for(engine, running, "succeeded").status == "succeeded"
        assert worker.is_running()
        engine.dispose()
        next(starter, None)

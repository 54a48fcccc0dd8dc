"""One job from its start to its end, whatever it does.

A kind of work says what it reads, what it computes and what it writes. Only the worker touches the
database, and it writes what came of a job in the transaction that ends it: so a job ends once, also when it
was run twice.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from procrastinate import BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from isoloss.errors import IsolossError
from store import jobs
from workers.child import unexpected
from workers.isolation import Isolation, Stopped

if TYPE_CHECKING:
    from workers.trials import Trainer

MAX_ATTEMPTS = 3
WORN_OUT = (
    f"it was begun {MAX_ATTEMPTS} times and never ended, for its worker died or lost the database; it may "
    "need more memory than the machine has (the workers' log tells more)"
)
# What a database that restarts, or that cannot be reached, raises; and what is worth another try anyway.
OUTAGE = (
    OperationalError,
    InterfaceError,
    TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
DATABASE_ERRORS = (SQLAlchemyError, psycopg.Error)
REFUSED = "the database refused to read or to store what the job needs (the worker's log tells more)"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A kind of work.

    `read(session, job_id)` gives the keywords of `compute`, which runs in the child process and touches no
    database; `write(session, job_id, outcome)` stores what it returned and gives the job's own result, if
    any.
    """

    read: Callable[[Session, uuid.UUID], Mapping[str, Any]]
    compute: Callable[..., Any]
    write: Callable[[Session, uuid.UUID, Any], dict[str, Any] | None]


@dataclass(frozen=True)
class Tools:
    """What a worker lends to its jobs."""

    sessions: sessionmaker[Session]
    isolation: Isolation
    trainer: Trainer | None = None

    @classmethod
    def of(cls, context: JobContext) -> Tools:
        tools = context.additional_context["tools"]
        assert isinstance(tools, cls)
        return tools


class RunAgainAfterOutage(BaseRetryStrategy):
    """What the database interrupted goes back to the queue; of all else its own row tells what becomes of it."""

    def get_retry_decision(
        self,
        *,
        exception: BaseException,
        job: Job,  # noqa: ARG002
    ) -> RetryDecision | None:
        if isinstance(exception, (*OUTAGE, ConnectorException)):
            return RetryDecision(retry_in={"seconds": 3})
        return None


class RunAgain(RunAgainAfterOutage):
    """A job that its worker had to let go of goes back to the queue; every other error has been recorded."""

    def get_retry_decision(
        self,
        *,
        exception: BaseException,
        job: Job,
    ) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):  # the worker was told to stop
            return RetryDecision(retry_in={"seconds": 0})
        return super().get_retry_decision(exception=exception, job=job)


async def carry_out(work: Work, context: JobContext, job_id: uuid.UUID) -> None:
    """Runs the job unless it has ended, and records how it ended.

    Raises what the database raises, for the queue to run the job again.
    """
    tools = Tools.of(context)
    attempt = await in_transaction(tools, jobs.start, job_id)
    if attempt is None:
        return
    log.info("job %s: %s, attempt %d", job_id, context.job.task_name, attempt)
    if attempt > MAX_ATTEMPTS:
        await _end(tools, job_id, attempt, "failed", WORN_OUT)
        return
    try:
        await _try(work, tools, job_id, attempt)
    except Stopped:
        # Where another worker took the job over this changes nothing.
        await _end(tools, job_id, attempt, "cancelled")
    except IsolossError as error:
        await _end(tools, job_id, attempt, "failed", str(error))
    except asyncio.CancelledError:
        await in_transaction(tools, jobs.put_back, job_id, attempt)
        raise
    except OUTAGE:
        raise
    except Exception as error:
        log.exception("job %s failed unexpectedly", job_id)
        # The text of a database error holds the statement and its parameters: that is for the log alone.
        reason = REFUSED if isinstance(error, DATABASE_ERRORS) else unexpected(error)
        await _end(tools, job_id, attempt, "failed", reason)


async def _try(work: Work, tools: Tools, job_id: uuid.UUID, attempt: int) -> None:
    keywords = await in_transaction(tools, work.read, job_id)

    async def beat(fraction: float, message: str) -> bool:
        try:
            return bool(await in_transaction(tools, jobs.report, job_id, attempt, fraction, message or None))
        except OUTAGE:
            log.warning("job %s: its progress cannot be stored now", job_id)
            return True  # the database may well be back when the work is done

    outcome = await tools.isolation.run(work.compute, beat=beat, **keywords)
    if await in_transaction(tools, _succeed, work, job_id, attempt, outcome):
        log.info("job %s: succeeded", job_id)
    else:
        log.warning("job %s: another worker has taken it over; this result is dropped", job_id)


def _succeed(session: Session, work: Work, job_id: uuid.UUID, attempt: int, outcome: Any) -> bool:
    # First the end, which locks the job: an attempt that no longer counts must not write.
    if not jobs.finish(session, job_id, attempt, "succeeded"):
        return False
    result = work.write(session, job_id, outcome)
    if result is not None:
        jobs.get(session, job_id).result = result
    return True


async def _end(
    tools: Tools, job_id: uuid.UUID, attempt: int, status: jobs.FinalStatus, message: str | None = None
) -> None:
    if await in_transaction(tools, jobs.finish, job_id, attempt, status, message):
        log.info("job %s: %s%s", job_id, status, f", {message}" if message else "")


async def in_transaction(tools: Tools, act: Callable[..., Any], *args: Any) -> Any:
    """What `act(session, *args)` returns, committed, from a thread: the store is synchronous."""

    def run() -> Any:
        with tools.sessions.begin() as session:
            return act(session, *args)

    return await asyncio.to_thread(run)

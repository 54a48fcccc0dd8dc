"""The queue as the workers see it: every task, its name, its queue and its times."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import procrastinate
from procrastinate import exceptions
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager

from store import sweeps
from store.engine import conninfo
from store.queue import DELIVERIES, UPKEEP, WORK
from store.tables import ADVICE_KINDS
from store.trials import DEVICES, queue_of
from store.trials import TASK as TRIAL
from store.watch import Watching
from workers import (
    advice,
    compact,
    deliveries,
    fits,
    forecasts,
    forget,
    judging,
    recover,
    refits,
    trials,
    watch,
)
from workers.work import RunAgain, RunAgainAfterOutage

T = TypeVar("T")
HELD = (
    "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE id = %(job_id)s AND status = 'doing'"
    " AND worker_id IS NOT DISTINCT FROM %(worker_id)s::bigint) AS held"
)


class Connector(procrastinate.PsycopgConnector):
    """Tells when a statement of the queue's own failed.

    A job whose end could not be written, or that was fetched by a statement whose answer was lost, would stay
    "doing" for as long as its worker lives. So a worker that meets a failure begins anew
    (`workers/__main__.py`), and what it held is found stalled.
    """

    def __init__(self, on_failure: Callable[[], None], **pool: Any) -> None:
        super().__init__(**pool)
        self._on_failure = on_failure

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        await self._watch(super().execute_query_async(query, **arguments))

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        return await self._watch(super().execute_query_one_async(query, **arguments))

    async def execute_query_all_async(self, query: Any, **arguments: Any) -> list[dict[str, Any]]:
        return await self._watch(super().execute_query_all_async(query, **arguments))

    async def _watch(self, statement: Awaitable[T]) -> T:
        try:
            return await statement
        except exceptions.UniqueViolation:  # an answer, not a failure: the job is queued already
            raise
        except exceptions.ConnectorException:
            self._on_failure()
            raise


class Manager(JobManager):
    """Leaves alone a job that is no longer its worker's.

    The queue itself does not ask who ends a job: a worker that froze, was taken for dead and thawed would take
    away the job that another is at. (Should the job change hands between question and answer, our own row of
    it, which counts attempts, still ends only once.)
    """

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        if await self._is_held(job):
            await super().finish_job(job, status, delete_job)

    async def retry_job(self, job: Job, *args: Any, **keywords: Any) -> None:
        if await self._is_held(job):
            await super().retry_job(job, *args, **keywords)

    async def _is_held(self, job: Job) -> bool:
        row = await self.connector.execute_query_one_async(HELD, job_id=job.id, worker_id=job.worker_id)
        return bool(row["held"])


def create_app(
    database_url: str, on_failure: Callable[[], None] = lambda: None, *, periodic: bool = True
) -> procrastinate.App:
    """The queue on `database_url`, with every task; `on_failure` is called when the database fails it.

    `periodic` False leaves housekeeping to other workers.
    """
    pool = {"conninfo": conninfo(database_url), "min_size": 1, "max_size": 8, "timeout": 10.0}
    app = procrastinate.App(connector=Connector(on_failure, **pool))
    app.job_manager = Manager(app.connector)
    app.task(name="fit", queue=WORK, retry=RunAgain(), pass_context=True)(fits.run)
    app.task(name="refit", queue=WORK, retry=RunAgain(), pass_context=True)(refits.run)
    for kind in ADVICE_KINDS:
        app.task(name=kind, queue=WORK, retry=RunAgain(), pass_context=True)(advice.run)
    app.task(name="forecast", queue=WORK, retry=RunAgain(), pass_context=True)(forecasts.run)
    app.task(name=sweeps.JUDGING, queue=WORK, retry=RunAgain(), pass_context=True)(judging.run)
    app.task(name=TRIAL, queue=queue_of(DEVICES[0]), retry=RunAgainAfterOutage(), pass_context=True)(
        trials.run
    )
    app.task(name="deliver", queue=DELIVERIES, retry=RunAgain(), pass_context=True)(deliveries.run)
    compacting = app.task(
        name="compact", queue=UPKEEP, pass_context=True, lock="compact", queueing_lock="compact"
    )(compact.run)
    recovering = app.task(name="recover", queue=UPKEEP, pass_context=True, queueing_lock="recover")(
        recover.run
    )
    forgetting = app.task(name="forget", queue=UPKEEP, pass_context=True, queueing_lock="forget")(forget.run)
    watching = app.task(name="watch", queue=UPKEEP, pass_context=True, queueing_lock="watch")(watch.run)
    if not periodic:
        return app
    app.periodic(cron="* * * * *")(compacting)
    app.periodic(cron=watch.cron(Watching.from_environment(os.environ)))(watching)
    app.periodic(cron="17 * * * *")(forgetting)
    app.periodic(cron=f"* * * * * */{recover.EVERY_S}")(recovering)
    return app

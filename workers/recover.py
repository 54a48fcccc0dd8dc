"""Jobs of workers that died go back to the queue."""

from __future__ import annotations

import logging

from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status

from store import sweeps
from store.queue import UPKEEP, fail_lost
from workers.work import Tools, in_transaction

EVERY_S = 10
HEARTBEAT_S = 5.0
# Six missed heartbeats: a machine that swaps or a database that restarts is not a dead worker.
STALLED_AFTER_S = 30.0

log = logging.getLogger(__name__)


async def run(context: JobContext, timestamp: int) -> None:  # noqa: ARG001
    """The periodic task `recover`: finds what was running on workers that no longer tell that they live."""
    for job in await context.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_AFTER_S):
        try:
            await _recover(context, job)
        except ConnectorException as error:
            # It ended, or another worker was faster.
            log.info("job %s could not be recovered: %s", job.call_string, error.__cause__ or error)
    if n_lost := await in_transaction(Tools.of(context), fail_lost):
        log.error("%d jobs were lost by the queue and have failed", n_lost)
    if n_lost := await in_transaction(Tools.of(context), sweeps.tend):
        log.error("%d trials were lost by the queue and are on it again", n_lost)
    await context.app.job_manager.prune_stalled_workers(2 * STALLED_AFTER_S)


async def _recover(context: JobContext, job: Job) -> None:
    manager = context.app.job_manager
    if job.queue == UPKEEP:  # it comes again by itself
        await manager.finish_job(job=job, status=Status.FAILED, delete_job=True)
    else:
        await manager.retry_job(job=job)
        log.warning("%s was running on a worker that died; it runs again", job.call_string)

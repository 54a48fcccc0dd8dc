"""Looks after the runs that train, tick by tick."""

from __future__ import annotations

import os

from procrastinate import JobContext
from sqlalchemy.orm import Session

from store import forecasts, watch
from store.watch import Watching
from workers.work import Tools, in_transaction


async def run(context: JobContext, timestamp: int = 0) -> None:  # noqa: ARG001
    """The periodic task `watch`: alarms of silence, and a job for each project with runs to forecast."""
    watching = Watching.from_environment(os.environ)
    tools = Tools.of(context)
    await in_transaction(tools, watch.look, watching)
    await in_transaction(tools, queue_forecasts, watching)


def queue_forecasts(session: Session, watching: Watching) -> None:
    for project_id in watch.due(session, watching):
        forecasts.queue_job(session, project_id)


def cron(watching: Watching) -> str:
    """When to look: every minute, or as often as settings say."""
    return "* * * * *" if watching.tick_s >= 60 else f"* * * * * */{watching.tick_s}"

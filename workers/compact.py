"""The points of runs that have ended become compressed chunks."""

from __future__ import annotations

import asyncio

from procrastinate import JobContext
from sqlalchemy.orm import Session, sessionmaker

from store import points
from workers.work import Tools


async def run(context: JobContext, timestamp: int = 0) -> None:  # noqa: ARG001
    """The task `compact`, periodic and deferred when a run ends: every run that has ended and has rows."""
    await asyncio.to_thread(compact_all, Tools.of(context).sessions)


def compact_all(sessions: sessionmaker[Session]) -> int:
    """Compacts one run a transaction, so that a writer waits for its own run alone; returns how many rows."""
    n_rows = 0
    with sessions() as session:
        chosen = points.to_compact(session)
    for run in chosen:
        with sessions.begin() as session:
            n_rows += points.compact(session, run)
    return n_rows

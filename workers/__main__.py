"""One worker: `python -m workers`, with the database's address in ISOLOSS_DATABASE_URL.

SIGTERM and SIGINT stop it: what it is at goes back to the queue. When the database goes away it waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from contextlib import suppress

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException

from store.engine import create_engine, create_sessions
from store.processes import die_with_parent
from store.queue import DELIVERIES, UPKEEP, WORK
from workers.app import create_app
from workers.isolation import Isolation, Limits
from workers.recover import HEARTBEAT_S, STALLED_AFTER_S
from workers.work import Tools

log = logging.getLogger("workers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--parent", type=int, help="the process id to die with")
    asked = parser.parse_args()
    if asked.parent is not None:
        die_with_parent(signal.SIGTERM, asked.parent)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("procrastinate").setLevel(logging.WARNING)  # it tells of every heartbeat's errand
    url = os.environ.get("ISOLOSS_DATABASE_URL")
    if not url:
        parser.error("ISOLOSS_DATABASE_URL is not set")
    asyncio.run(work(url))


async def work(database_url: str) -> None:
    """Works until a signal says stop; begins anew when the database fails."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    engine = create_engine(database_url, pool_size=4, max_overflow=4, application_name="isoloss worker")
    isolation = Isolation(Limits.from_environment(), preload=["isoloss.fitting"])
    try:
        await isolation.warm()
        while not stop.is_set():
            await _one_life(database_url, Tools(create_sessions(engine), isolation), stop)
    finally:
        await isolation.close()
        engine.dispose()


async def _one_life(database_url: str, tools: Tools, stop: asyncio.Event) -> None:
    """As one worker in the queue's books, until `stop` or until the database fails."""
    failed = asyncio.Event()
    log.info("waiting for work")
    app = create_app(database_url, on_failure=failed.set)
    try:
        async with app.open_async():
            await _until_first(stop, failed, *_start(app, tools))
    except (ConnectorException, psycopg.Error) as error:
        log.warning("the database cannot be reached: %s", error.__cause__ or error)
        failed.set()
    if failed.is_set() and not stop.is_set():
        log.warning("beginning anew in a second")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


def _start(app: procrastinate.App, tools: Tools) -> list[asyncio.Task[None]]:
    return [
        asyncio.create_task(
            app.run_worker_async(
                queues=[queue],
                name=queue,
                concurrency=concurrency,
                additional_context={"tools": tools},
                install_signal_handlers=False,
                fetch_job_polling_interval=2.0,
                shutdown_graceful_timeout=0.5,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_AFTER_S,
                delete_jobs="always",
            )
        )
        for queue, concurrency in ((WORK, 1), (UPKEEP, 2), (DELIVERIES, 4))
    ]


async def _until_first(stop: asyncio.Event, failed: asyncio.Event, *lives: asyncio.Task[None]) -> None:
    """Runs all queues until one ends or an event is set, then ends the rest."""
    events = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    await asyncio.wait([*events, *lives], return_when=asyncio.FIRST_COMPLETED)
    for task in (*events, *lives):
        task.cancel()
    ends = await asyncio.gather(*lives, return_exceptions=True)
    await asyncio.gather(*events, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


if __name__ == "__main__":
    main()

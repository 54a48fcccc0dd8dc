"""One worker: `python -m workers`, with the database's address in ISOLOSS_DATABASE_URL.

It also trains trials of sweeps, on the CPU where torch is installed, on another device with `--device`.
SIGTERM and SIGINT stop it: what it is at goes back to the queue. When the database goes away it waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException

from store import trainers
from store.engine import create_engine, create_sessions
from store.processes import die_with_parent
from store.queue import DELIVERIES, UPKEEP, WORK
from store.trials import DEVICES, queue_of
from workers.app import create_app
from workers.isolation import Isolation, Limits
from workers.recover import HEARTBEAT_S, STALLED_AFTER_S
from workers.trials import GRACEFUL_S, Places, Trainer, limits
from workers.work import OUTAGE, Tools, in_transaction

PRELOADED = ["isoloss.fitting"]

log = logging.getLogger("workers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--parent", type=int, help="the process id to die with")
    parser.add_argument(
        "--device",
        choices=(*DEVICES, "none"),
        help="what it trains trials on; cpu where torch is installed, else none",
    )
    parser.add_argument("--trials-alone", action="store_true", help="do nothing but train trials")
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
    device = asked.device or ("cpu" if importlib.util.find_spec("torch") else "none")
    if asked.trials_alone and device == "none":
        parser.error("it trains on no device: torch is not installed here, or --device is none")
    asyncio.run(work(url, None if device == "none" else device, asked.trials_alone))


async def work(database_url: str, device: str | None = None, trials_alone: bool = False) -> None:
    """Works until a signal says stop; begins anew when the database fails. Trains on `device`, None: not at all."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    engine = create_engine(database_url, pool_size=4, max_overflow=4, application_name="isoloss worker")
    isolation = Isolation(Limits.from_environment(), preload=PRELOADED)
    trainer = None if device is None else _trainer(device, stop)
    tools = Tools(create_sessions(engine), isolation, trainer)
    try:
        if not trials_alone:
            await isolation.warm()
        async with _seen(tools):
            while not stop.is_set():
                await _one_life(database_url, tools, stop, trials_alone)
    finally:
        await isolation.close()
        if trainer is not None:
            await trainer.isolation.close()
        engine.dispose()


def _trainer(device: str, stop: asyncio.Event) -> Trainer:
    name = f"{socket.gethostname()}:{os.getpid()}"
    isolation = Isolation(limits(device), preload=["isoloss.proxies.training"])
    return Trainer(device, name, isolation, Places.from_environment(), stop)


@asynccontextmanager
async def _seen(tools: Tools) -> AsyncIterator[None]:
    """Tells every few seconds that this worker trains, so that a sweep can say whether anybody does."""
    trainer = tools.trainer
    if trainer is None:
        yield
        return

    async def tell() -> None:
        while True:
            with suppress(*OUTAGE):
                await in_transaction(tools, trainers.seen, trainer.id, trainer.device, trainer.name)
            await trainer.rest()
            await asyncio.sleep(trainers.EVERY_S)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        with suppress(*OUTAGE):
            await in_transaction(tools, trainers.left, trainer.id)


async def _one_life(database_url: str, tools: Tools, stop: asyncio.Event, trials_alone: bool) -> None:
    """As one worker in the queue's books, until `stop` or until the database fails."""
    failed = asyncio.Event()
    log.info("waiting for work")
    app = create_app(database_url, on_failure=failed.set, periodic=not trials_alone)
    try:
        async with app.open_async():
            await _until_first(stop, failed, *_start(app, tools, trials_alone))
    except (ConnectorException, psycopg.Error) as error:
        log.warning("the database cannot be reached: %s", error.__cause__ or error)
        failed.set()
    if failed.is_set() and not stop.is_set():
        log.warning("beginning anew in a second")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


def _start(app: procrastinate.App, tools: Tools, trials_alone: bool) -> list[asyncio.Task[None]]:
    queues = [] if trials_alone else [(WORK, 1, 0.5), (UPKEEP, 2, 0.5), (DELIVERIES, 4, 0.5)]
    if tools.trainer is not None:
        queues.append((queue_of(tools.trainer.device), 1, GRACEFUL_S))
    return [
        asyncio.create_task(
            app.run_worker_async(
                queues=[queue],
                name=queue,
                concurrency=concurrency,
                additional_context={"tools": tools},
                install_signal_handlers=False,
                fetch_job_polling_interval=2.0,
                shutdown_graceful_timeout=graceful_s,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_AFTER_S,
                delete_jobs="always",
            )
        )
        for queue, concurrency, graceful_s in queues
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

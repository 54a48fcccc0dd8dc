"""Trials: a model of a sweep, trained in the child process a second at a time.

Points are stored before the checkpoint that has them, so that a run never lacks a step that its training has behind
it. What a dead worker had done since its last checkpoint is trained again, to the same numbers, by another.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.client.settings import data_dir
from isoloss.errors import InvalidInput, IsolossError, JobFailed
from store import attempts, trials
from store.attempts import Begun, Order, TakenOver
from workers import trainer
from workers.isolation import Isolation, Limits
from workers.trainer import Stand
from workers.work import OUTAGE, Tools, in_transaction

STRETCH_S = 1.0
"""How long is trained between two reports."""

GRACEFUL_S = 8.0
"""How long a worker that is told to stop has for a checkpoint; whoever tells it waits for ten."""

SAVE_SHARE = 30.0
SOONEST_S, LATEST_S = 2.0, 120.0
"""A checkpoint is written when so many times its own time have passed, within these bounds."""

REQUEST_S = 3600.0
"""The longest that one request to the child may take: data are read, a model is compiled, a step is done."""

STANDARD = "python-stdlib"
CHECKPOINT = re.compile(r"([0-9a-f-]{36})\.(\d+)\.pt")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where a worker keeps checkpoints and finds data, and how often it writes the former; None: as cost allows."""

    checkpoints: Path
    data: Path | None = None
    every_s: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Places:
        """What ISOLOSS_CHECKPOINT_DIR, _PROXY_DATA and _CHECKPOINT_EVERY_S say. Raises InvalidInput."""
        checkpoints, data = (environment.get(f"ISOLOSS_{name}") for name in ("CHECKPOINT_DIR", "PROXY_DATA"))
        every = environment.get("ISOLOSS_CHECKPOINT_EVERY_S")
        return cls(
            checkpoints=Path(checkpoints) if checkpoints else data_dir() / "checkpoints",
            data=Path(data) if data else None,
            every_s=_seconds(every) if every else None,
        )

    def checkpoint(self, begun: Begun) -> Path:
        """Where this attempt writes: none writes over another's, which may be the one to go on from."""
        return self.checkpoints / f"{begun.trial_id}.{begun.attempt}.pt"

    def source(self, name: str) -> str:
        """The data set of a name, as training takes it. Raises InvalidInput where it is not there."""
        if name == STANDARD:
            return name
        if self.data is None:
            reason = f"{name!r} is a folder or file below ISOLOSS_PROXY_DATA, which this worker has not set"
            raise InvalidInput(field="data", reason=reason)
        root = self.data.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.exists():
            raise InvalidInput(field="data", reason=f"there is no {name!r} in {root}")
        return str(path)


def limits(device: str, environment: Mapping[str, str] = os.environ) -> Limits:
    """What a trial may take: the memory of ISOLOSS_TRIAL_MEMORY_MB, else what the machine has; time as it needs."""
    megabytes = environment.get("ISOLOSS_TRIAL_MEMORY_MB")
    if megabytes:
        memory_bytes = round(Limits.from_environment({"ISOLOSS_JOB_MEMORY_MB": megabytes}).memory_bytes)
    elif device == "cpu":
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        memory_bytes = 2**62  # a driver of devices maps far more than it uses
    return Limits(seconds=REQUEST_S, memory_bytes=memory_bytes, nice=10)


@dataclass
class Trainer:
    """What a worker trains with; its child is let go of when there was no trial for a while."""

    device: str
    name: str
    isolation: Isolation
    places: Places
    stop: asyncio.Event
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    busy: bool = False
    idle_since: float = 0.0

    IDLE_S = 60.0

    async def rest(self) -> None:
        """End the child where it has been idle for long: it holds a few hundred megabytes."""
        if not self.busy and time.monotonic() - self.idle_since > self.IDLE_S:
            await self.isolation.close()


@dataclass
class Part:
    """One attempt at a trial under way."""

    tools: Tools
    trainer: Trainer
    begun: Begun
    stand: Stand
    counted_at: float
    """Up to when the device's time stands in the books."""

    saved_at: float = field(default_factory=time.monotonic)
    cost_s: float = 0.0

    async def tell(self, act: Callable[..., Any], *args: Any) -> Any:
        """What `act` returns, committed; raises TakenOver where the trial is another's by now."""
        return await in_transaction(self.tools, act, self.begun.trial_id, self.begun.attempt, *args)

    async def ask(self, function: Callable[..., Any], **keywords: Any) -> Any:
        """What the child returns."""
        return await self.trainer.isolation.run(function, beat=_go_on, **keywords)

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        every_s = self.trainer.places.every_s
        wanted = min(max(SAVE_SHARE * self.cost_s, SOONEST_S), LATEST_S) if every_s is None else every_s
        return time.monotonic() - self.saved_at >= wanted

    async def advance(self) -> Order:
        """Train a stretch and store its points; returns what is to be done next."""
        trained = await self.ask(trainer.advance, until_step=self.begun.stop_at, seconds=STRETCH_S)
        self.stand = trained.stand
        before, self.counted_at = self.counted_at, time.monotonic()
        seconds = self.counted_at - before
        order: Order = await self.tell(
            attempts.report, self.stand.step, trained.columns, seconds, self.stand.notes
        )
        return order

    async def save(self) -> str | None:
        """Write a checkpoint of what is stored; returns why it could not be written, if so."""
        path = self.trainer.places.checkpoint(self.begun)
        self.cost_s, failed = await self.ask(trainer.save, path=path)
        self.saved_at = time.monotonic()
        if failed is not None:
            return f"no checkpoint could be written to {path.parent}: {failed}; it goes on from the last one"
        before = await self.tell(attempts.saved, path.name, self.stand.step)
        if before is not None:
            (path.parent / before).unlink(missing_ok=True)
        return None


async def run(context: JobContext, *, trial_id: str) -> None:
    """The task `trial`."""
    tools = Tools.of(context)
    lent = tools.trainer
    assert lent is not None
    assert context.job.id is not None
    begun = await in_transaction(tools, attempts.start, uuid.UUID(trial_id), context.job.id, lent.name)
    if begun is None:
        return
    log.info("trial %s: attempt %d on %s", begun.name, begun.attempt, lent.device)
    lent.busy = True
    try:
        await _carry_out(tools, lent, begun)
    except TakenOver:
        log.warning(
            "trial %s: attempt %d is no longer ours; nothing more is written", begun.name, begun.attempt
        )
    finally:
        lent.busy, lent.idle_since = False, time.monotonic()
    await _clean(tools, lent.places)


async def _carry_out(tools: Tools, lent: Trainer, begun: Begun) -> None:
    """Trains it, and records how that ended; raises what the database raises."""

    async def tell(act: Callable[..., Any], *args: Any) -> None:
        await in_transaction(tools, act, begun.trial_id, begun.attempt, *args)

    try:
        await _train(await _begin(tools, lent, begun))
    except JobFailed as error:
        log.warning("trial %s: %s", begun.name, error)
        await tell(attempts.died, str(error.fields["reason"]))
    except InvalidInput as error:
        # Data and device are this worker's: elsewhere, or later, they may be there.
        here = error.fields["field"] in ("data", "device")
        await tell(attempts.leave, "paused" if here else "failed", f"{error} (on {lent.name})")
    except IsolossError as error:
        await tell(attempts.leave, "failed", str(error))
    except asyncio.CancelledError:  # told to stop, and no time was left for a checkpoint
        await tell(attempts.put_back)
        raise
    except (TakenOver, *OUTAGE):
        raise
    except Exception as error:
        log.exception("trial %s stumbled", begun.name)
        await tell(attempts.died, f"an unexpected error, {type(error).__name__} (more in the worker's log)")


async def _begin(tools: Tools, lent: Trainer, begun: Begun) -> Part:
    """Takes the training up where its run can go on, else at its beginning."""
    source = lent.places.source(str(begun.config["data"]))
    path = None if begun.checkpoint is None else lent.places.checkpoints / begun.checkpoint
    notes: list[str] = []
    began = time.monotonic()
    while True:
        keywords = {"config": begun.config, "data": source, "device": lent.device, "checkpoint": path}
        stand, said = await lent.isolation.run(trainer.begin, beat=_go_on, **keywords)
        part = Part(tools, lent, begun, stand, began)
        if await part.tell(attempts.begin, stand.step, stand.device, said, [*stand.notes, *notes]):
            return part
        path, notes = (
            None,
            ["begun again from its beginning: its run has lost points that its checkpoint has"],
        )


async def _train(part: Part) -> None:
    while True:
        order = await part.advance()
        if part.stand.status != "running":
            await part.tell(attempts.leave, part.stand.status)
            return
        if order in ("cancelled", "unfinished"):
            await part.tell(attempts.leave, order)
            return
        at_rung = part.stand.step >= part.begun.stop_at
        leaves = order == "paused" or at_rung or part.trainer.stop.is_set()
        if not (leaves or part.is_due):
            continue
        failed = await part.save()
        if failed is not None:
            await part.tell(attempts.leave, "paused", failed)
            return
        if leaves:
            await _leave(part, order, at_rung)
            return


async def _leave(part: Part, order: Order, at_rung: bool) -> None:
    """Let go of a trial that is not done, its checkpoint written."""
    if order == "paused":
        await part.tell(attempts.leave, "paused")
    elif at_rung:
        await part.tell(attempts.leave, "held")
    else:
        await part.tell(attempts.put_back)


async def _clean(tools: Tools, places: Places) -> None:
    """Delete the checkpoints that no trial goes on from."""
    files: dict[uuid.UUID, list[tuple[int, str]]] = {}
    for path in places.checkpoints.glob("*.pt"):
        if found := CHECKPOINT.fullmatch(path.name):
            files.setdefault(uuid.UUID(found[1]), []).append((int(found[2]), path.name))
    for name in await in_transaction(tools, _over, files):
        (places.checkpoints / name).unlink(missing_ok=True)


def _over(session: Session, files: Mapping[uuid.UUID, list[tuple[int, str]]]) -> list[str]:
    return trials.checkpoints_over(session, files)


async def _go_on(fraction: float, message: str) -> bool:  # noqa: ARG001
    return True


def _seconds(written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidInput(field="ISOLOSS_CHECKPOINT_EVERY_S", reason="must be a number of seconds above 0")
    return value

"""Sending what recordings left on disk: after an outage, a crash, or a training without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isoloss.client import spool as spools
from isoloss.client.backlog import Backlog
from isoloss.client.messages import Messages
from isoloss.client.operations import Operation
from isoloss.client.sender import Sender, Stopped
from isoloss.client.session import Client
from isoloss.client.spool import SEGMENTS, OtherFormat, Spool, identity_of
from isoloss.client.stale import send_stale
from isoloss.errors import InvalidInput, IsolossError
from isoloss.notes import counted

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SyncedRun:
    """A run whose spool was sent; `duplicates` of its points were at the service before."""

    path: Path
    project: str
    run_id: str
    accepted: int
    duplicates: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SkippedSpool:
    """A spool that is still there, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SyncReport:
    """What became of the spools of a folder."""

    runs: tuple[SyncedRun, ...]
    skipped: tuple[SkippedSpool, ...]


def sync(client: Client, folder: str | Path, on_progress: Progress | None = None) -> SyncReport:
    """Send every spool in a folder, at any depth, and delete what is sent; doing it again is harmless.

    A spool that a process is still recording into is left alone. A run whose process ended without a word
    is marked failed. `on_progress(done, total, run_id)` follows the runs. Raises InvalidInput for a folder that
    is none, and IsolossError where the service cannot be reached or refuses the key.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InvalidInput(field="folder", reason=f"{root} is no folder")
    found = sorted({path.parent for path in root.rglob(SEGMENTS)})
    runs: list[SyncedRun] = []
    skipped: list[SkippedSpool] = []
    for done, path in enumerate(found):
        if on_progress is not None:
            on_progress(done, len(found), path.name)
        outcome = _sync_one(client, path)
        if isinstance(outcome, SyncedRun):
            runs.append(outcome)
        elif outcome is not None:
            skipped.append(outcome)
    return SyncReport(tuple(runs), tuple(skipped))


def _sync_one(client: Client, path: Path) -> SyncedRun | SkippedSpool | None:
    """What became of one spool; None for a folder that is none of ours."""
    try:
        identity = identity_of(path)
    except OtherFormat as error:
        return SkippedSpool(path, str(error))
    if identity is None:
        return None
    lock = spools.lock(path)
    if lock is None:
        return SkippedSpool(path, "a process is still recording into it")
    try:
        return _send(client, Spool(path, identity).open())
    except Stopped as why:
        if isinstance(why.__cause__, IsolossError):
            raise why.__cause__ from None
        return SkippedSpool(path, str(why))
    finally:
        spools.unlock(path, lock)


def _send(client: Client, spool: Spool) -> SyncedRun:
    messages = Messages(f"run {spool.identity.run_id}")
    sender = Sender(client, spool.identity, messages)
    backlog = Backlog(spool, messages)
    went_on_elsewhere = send_stale(sender, backlog)
    while (chunk := backlog.next()) is not None:
        sender.send(chunk.operation)
        backlog.acknowledge(sender.last_step)
    notes = backlog.losses()
    if sender.refused:
        notes.append(f"{counted(sender.refused, 'point')} refused by the service")
    if went_on_elsewhere:
        notes.append("the run went on elsewhere: only what was missing was sent")
    elif sender.is_running():
        sender.send(Operation("run", {"status": "failed"}))
        notes.append("its process ended without a word: it is marked failed")
    backlog.close()
    identity = spool.identity
    return SyncedRun(
        spool.folder, identity.project, identity.run_id, sender.sent, sender.duplicates, tuple(notes)
    )

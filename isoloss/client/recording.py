"""The two threads behind a recorder: one writes what was logged to the spool, the other sends the spool.

They are two so that a service that is slow or gone never keeps a point from the disk. The training's thread gives
and reads plain attributes alone: it takes no lock that a signal's handler, which runs inside it, could wait for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from isoloss.client import spool as spools
from isoloss.client.backlog import MOST_SPOOL_BYTES, Backlog
from isoloss.client.errors import ApiError
from isoloss.client.init_arguments import moved
from isoloss.client.intake import MOST_AT_ONCE, Intake, Record
from isoloss.client.messages import SENDING_THREAD, Messages, quieten_requests
from isoloss.client.readings import Readings
from isoloss.client.retries import RetryPolicy
from isoloss.client.sender import Sender, Stopped
from isoloss.client.session import Client
from isoloss.client.spool import SEGMENT_BYTES, Identity, Spool
from isoloss.client.stale import send_stale
from isoloss.errors import IsolossError
from isoloss.notes import counted
from isoloss.schedules import Schedule

WRITE_EVERY_S = 0.5
SEND_EVERY_S = 2.0
LOCK_WITHIN_S = 10.0
PAUSES = RetryPolicy(retries=2**31, first_pause_s=0.5, longest_pause_s=30.0, longest_wait_s=300.0)

Connect = Callable[[], Client]


@dataclass(frozen=True)
class Plan:
    """What a recording is told at its start. `connect` None: nothing is sent.

    `may_exist`: the run may have points already, so that its first step says where it goes on.
    """

    identity: Identity
    root: Path
    connect: Connect | None
    schedule: Schedule | None = None
    may_exist: bool = False
    most_bytes: int = MOST_SPOOL_BYTES


@dataclass
class Recording:
    """Takes what is logged out of `queue`; ends when `closing` is set and all is written and sent, or given up."""

    plan: Plan
    messages: Messages
    queue: deque[Record] = field(default_factory=deque)
    skipped: int = 0  # records that came while the queue was full
    closing: bool = False
    hurry: bool = False
    accepts: bool = True
    reached: int = 0  # the highest mark before which all is in the backlog
    written: bool = False
    gave_up: bool = False
    ended: bool = False

    def __post_init__(self) -> None:
        readings = Readings(self.messages, self.plan.schedule)
        self._intake = Intake(self.messages, readings, self.plan.may_exist)
        self._wake_writer: SimpleQueue[None] = SimpleQueue()
        self._wake_sender: SimpleQueue[None] = SimpleQueue()
        self._lock_file: IO[str] | None = None
        self._sender: Sender | None = None
        self._backlog: Backlog | None = None
        self._taken = self._appended = self._sent_through = 0  # rounds of the writing thread
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("isoloss-write", self._write), (SENDING_THREAD, self._send))
        ]

    def start(self) -> None:
        quieten_requests()
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Let both threads look at once; safe in a signal's handler."""
        self.hurry = True
        self._wake_writer.put(None)
        self._wake_sender.put(None)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing more will be sent soon: all is, or the service is not there, or none is wanted."""
        return self.ended or self.gave_up or not self.accepts or self._sent_through == self._taken

    def let_go(self) -> None:
        """In a forked child: close what is the parent's."""
        for file in (self._lock_file, None if self._backlog is None else self._backlog.spool):
            if file is not None:
                file.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a fault of ours must not go on in silence, nor reach the training
            self.messages.warn(
                "fault", f"recording stopped on a fault of its own ({type(error).__name__}: {error})"
            )
            self.accepts, self.gave_up, self.written = False, True, True
            if work == self._write:
                self._discard()
        finally:
            if work == self._send:
                self.ended = True

    # The writing thread.

    def _write(self) -> None:
        backlog = self._open()
        if backlog is None:
            self._discard()
            return
        self._backlog = backlog
        self._wake_sender.put(None)
        while True:
            closing = self.closing
            self._taken += bool(self.queue)
            backlog.append(self._intake.take(self.queue, may_wait=closing))
            self.reached = self._intake.mark
            if self._appended != self._taken:
                self._appended = self._taken
                self._wake_sender.put(None)
            if closing and not self.queue:
                break
            if not closing and len(self.queue) < MOST_AT_ONCE:
                _wait(self._wake_writer, WRITE_EVERY_S)
        self.written = True
        self._wake_sender.put(None)

    def _discard(self) -> None:
        while not self.closing:
            self.queue.clear()
            _wait(self._wake_writer, WRITE_EVERY_S)

    def _open(self) -> Backlog | None:
        plan = self.plan
        folder = plan.identity.folder_in(plan.root)
        try:
            self._lock_file = self._locked(folder)
            if self._lock_file is None:
                self.accepts = False
                self.messages.warn(
                    "lock", f"another process is recording this run in {folder}; this one records nothing"
                )
                return None
            segment_bytes = max(min(SEGMENT_BYTES, plan.most_bytes // 16), 4096)
            spool = Spool(folder, plan.identity, segment_bytes).open()
        except OSError as error:
            self.messages.warn(
                "disk",
                f"{folder} cannot be used ({error.strerror}); what is logged is kept in memory until it is sent",
            )
            return Backlog(None, self.messages)
        return Backlog(spool, self.messages, plan.most_bytes)

    def _locked(self, folder: Path) -> IO[str] | None:
        deadline = time.monotonic() + LOCK_WITHIN_S
        while True:
            file = spools.lock(folder)
            if file is not None or time.monotonic() > deadline:
                return file
            _wait(self._wake_writer, 0.1)

    # The sending thread.

    def _send(self) -> None:
        try:
            while self._backlog is None and self.accepts:
                _wait(self._wake_sender, 1.0)
            if self._backlog is not None:
                self._send_all(self._backlog)
                self._report(self._backlog)
        finally:
            self._put_away()

    def _send_all(self, backlog: Backlog) -> None:
        attempt, connect = 0, self.plan.connect
        while True:
            final, pause = self.written, SEND_EVERY_S
            try:
                if connect is not None:
                    self._send_backlog(backlog, connect)
                    attempt = 0
            except Stopped as why:
                self.messages.warn("stopped", f"{why}; what is logged goes to {self._place()} alone")
                connect = None
            except IsolossError as error:
                if self._has_moved(error, connect):
                    continue
                pause = self._pause_after(error, attempt)
                attempt += 1
            except Exception as error:  # a fault of ours must not go on in silence, nor cost what is logged
                what = f"sending stopped on a fault of its own ({type(error).__name__}: {error})"
                self.messages.warn("fault", f"{what}; what is logged goes to {self._place()} alone")
                connect = None
            self.gave_up = self.gave_up or connect is None
            if final:
                return
            self._pause(pause)

    def _pause_after(self, error: IsolossError, attempt: int) -> float:
        """Seconds to leave the service alone that failed `attempt` times before."""
        said = str(error).rstrip(".")
        said = f"the service cannot take it now: {said}" if isinstance(error, ApiError) else said
        self.messages.warn("outage", f"{said}; what is logged is kept in {self._place()} until it answers")
        self.gave_up = True  # whoever waits for it goes on, and finds it said
        asked = getattr(error, "retry_after", None)
        return PAUSES.pause(attempt, random.random(), asked) or PAUSES.longest_wait_s

    def _send_backlog(self, backlog: Backlog, connect: Connect) -> None:
        sender = self._sender = self._sender or self._connected(connect)
        send_stale(sender, backlog)
        while True:
            appended, chunk = self._appended, backlog.next()
            if chunk is None:
                self._sent_through = appended
                return
            sender.send(chunk.operation)
            backlog.acknowledge(sender.last_step)
            if self.gave_up:
                self.gave_up = False
                self.messages.forget("outage")
                self.messages.tell("the service answers again")

    def _has_moved(self, error: IsolossError, connect: Connect | None) -> bool:
        """Whether the service that does not answer is known at another address now."""
        sender = self._sender
        if sender is None or connect is None or isinstance(error, ApiError):
            return False
        client = moved(sender.client, connect)
        if client is None:
            return False
        sender.client.close()
        sender.client = client
        return True

    def _connected(self, connect: Connect) -> Sender:
        try:
            return Sender(connect(), self.plan.identity, self.messages)
        except IsolossError as error:
            raise Stopped(str(error).rstrip(".")) from error

    def _pause(self, seconds: float) -> None:
        """Wait so long, unless somebody waits for what is unsent, or all is written and the last attempt is due."""
        until = time.monotonic() + seconds
        while not self.written and (left := until - time.monotonic()) > 0:
            if self.hurry and self._sent_through != self._appended:
                break
            _wait(self._wake_sender, left)
        self.hurry = False

    def _place(self) -> str:
        backlog = self._backlog
        return "memory" if backlog is None or backlog.spool is None else str(backlog.spool.folder)

    def _report(self, backlog: Backlog) -> None:
        """Say at the end what is not at the service."""
        n_left, n_lost = backlog.n_points, backlog.n_points_in_memory
        said = backlog.losses()
        if self._sender is not None and self._sender.refused:
            said.append(f"{counted(self._sender.refused, 'point')} refused by the service")
        if self.skipped:
            said.append(
                f"{counted(self.skipped, 'record')} left out because they came faster than they were written"
            )
        if n_lost:
            said.append(f"{counted(n_lost, 'point')} lost: neither disk nor service took them")
        if said:
            self.messages.warn("losses", "; ".join(said))
        if backlog.spool is not None and not backlog.is_empty:
            what = counted(n_left - n_lost, "point") if n_left > n_lost else "the last that was said of it"
            text = f"not sent yet: {what}, kept in {self._place()}; `isoloss sync {self.plan.root}` sends it"
            if self.plan.connect is None:
                self.messages.tell(text)
            else:
                self.messages.warn("left", text)

    def _put_away(self) -> None:
        if self._sender is not None:
            self._sender.client.close()
        if self._backlog is not None:
            self._backlog.close()
        if self._lock_file is not None:
            spools.unlock(self.plan.identity.folder_in(self.plan.root), self._lock_file, self.plan.root)


def _wait(queue: SimpleQueue[None], seconds: float) -> None:
    try:
        queue.get(timeout=max(seconds, 0.0))
    except Empty:
        return
    while not queue.empty():
        queue.get()

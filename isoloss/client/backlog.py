"""What a run still has to send: on disk while that can be written, in memory while it cannot, within bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeVar

from isoloss.client.fresh import FreshLines
from isoloss.client.messages import Messages
from isoloss.client.operations import (
    Operation,
    joined,
    line_of,
    may_follow,
    operation_of,
    thinned,
    with_cells,
)
from isoloss.client.spool import Place, Spool
from isoloss.client.thinning import next_to_thin
from isoloss.notes import counted

MOST_SPOOL_BYTES = 256 << 20
MOST_MEMORY_BYTES = 32 << 20
PART_BYTES = 64 << 10
MOST_POINTS = 4000

Where = TypeVar("Where")


@dataclass(frozen=True)
class Chunk:
    """The next thing to send: one operation, and where it ends on disk or how many parts of memory it takes."""

    operation: Operation
    end: Place | None
    parts: int = 0


@dataclass
class Part:
    """Lines in memory; `thinned` says how often they were halved."""

    lines: bytes
    thinned: int = 0


@dataclass
class Backlog:
    """Operations in their order, from the thread that writes them to the thread that sends them."""

    spool: Spool | None
    messages: Messages
    most_bytes: int = MOST_SPOOL_BYTES
    most_memory: int = MOST_MEMORY_BYTES
    thinned_points: int = 0
    lost_points: int = 0
    _memory: list[Part] = field(default_factory=list)
    _fresh: FreshLines = field(default_factory=FreshLines)
    _taken: Chunk | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened_at: Place | None = None

    def __post_init__(self) -> None:
        self._opened_at = None if self.spool is None else self.spool.end

    def append(self, operations: list[Operation]) -> None:
        """Add operations; never raises for a disk that is full or gone."""
        with self._lock:
            written = [with_cells(operation) for operation in operations]
            lines = [line_of(operation) for operation in written]
            before = None if self._memory or self.spool is None else self.spool.end
            if lines:
                self._memory.append(Part(b"".join(lines)))
            self._move_to_disk()
            if self.spool is None or before is None or self._memory or self.spool.was_deleted:
                self._fresh.forget()
            elif lines:
                self._fresh.add(before, self.spool.end, written, list(map(len, lines)))
            self._keep_bounds()

    def leftover(self) -> list[tuple[Operation, Place]]:
        """What earlier processes left in the spool; empty once it was dealt with."""
        with self._lock:
            opened_at = self._opened_at
            if self.spool is None or opened_at is None or opened_at <= self.spool.sent:
                return []
            return list(takewhile(lambda each: each[1] <= opened_at, self.spool.read(self.spool.sent)))

    @property
    def last_step_sent(self) -> int | None:
        """The run's last step at the service when this spool was last sent."""
        return None if self.spool is None else self.spool.last_step

    def keep_leftover(self, *, is_sent: bool = False, last_step: int | None = None) -> None:
        """Let what earlier processes left be sent like what comes after it, or take note that it is sent."""
        with self._lock:
            opened_at, self._opened_at = self._opened_at, None
            if is_sent and self.spool is not None and opened_at is not None:
                with suppress(OSError):
                    self.spool.acknowledge(opened_at, last_step)

    def next(self) -> Chunk | None:
        """The next thing to send, None where all is sent; the same again until it is acknowledged."""
        with self._lock:
            if self._taken is None:
                self._taken = self._from_disk() or self._from_memory()
            return self._taken

    def acknowledge(self, last_step: int | None) -> None:
        """Forget what `next` gave: the service has it, and `last_step` is the run's last step there now."""
        with self._lock:
            taken, self._taken = self._taken, None
            if taken is None:
                return
            del self._memory[: taken.parts]
            if taken.end is not None and self.spool is not None:
                self._fresh.drop_through(taken.end)
                with suppress(OSError):  # what is not noted as sent is sent again, which is harmless
                    self.spool.acknowledge(taken.end, last_step)

    @property
    def is_empty(self) -> bool:
        """Whether all is sent."""
        return self.next() is None

    @property
    def n_points(self) -> int:
        """Points that are not sent yet."""
        with self._lock:
            on_disk = () if self.spool is None else self.spool.read(self.spool.sent)
            return sum(each.n_points for each, _ in on_disk) + self._n_points_in_memory()

    @property
    def n_points_in_memory(self) -> int:
        """Points that are not sent and in no file: the end of the process loses them."""
        with self._lock:
            return self._n_points_in_memory()

    def _n_points_in_memory(self) -> int:
        return sum(each.n_points for part in self._memory for each in _operations_of(part))

    def close(self) -> None:
        """Close the files; they are deleted where all is sent."""
        empty = self.is_empty
        with self._lock:
            if self.spool is not None:
                (self.spool.remove if empty else self.spool.close)()

    def _from_disk(self) -> Chunk | None:
        if self.spool is None:
            return None
        fresh = self._fresh.after(self.spool.sent)
        found = list(_together(fresh or self.spool.read(self.spool.sent)))
        if self.spool.damaged:
            lines = counted(len(self.spool.damaged), "damaged line")
            self.messages.warn("damaged", f"passed over {lines} in {self.spool.folder}")
        return Chunk(joined([operation for operation, _ in found]), found[-1][1]) if found else None

    def _from_memory(self) -> Chunk | None:
        # The oldest operation alone; a part that holds several is taken apart first.
        if not self._memory:
            return None
        lines = self._memory[0].lines.splitlines(keepends=True)
        if len(lines) > 1:
            self._memory[:1] = [Part(line, self._memory[0].thinned) for line in lines]
        return Chunk(_operations_of(self._memory[0])[0], None, 1)

    def _move_to_disk(self) -> None:
        if self.spool is None or (self._taken is not None and self._taken.parts):
            return
        try:
            while self._memory:
                self.spool.append(self._memory[0].lines)
                del self._memory[0]
        except OSError as error:
            where = f"{self.spool.folder} cannot be written ({error.strerror})"
            self.messages.warn("disk", f"{where}; what is logged is kept in memory until it is sent")
        else:
            self.messages.forget("disk")
        if self.spool.was_deleted:
            self.messages.warn(
                "deleted", f"{self.spool.folder} was deleted while it was in use; it is begun anew"
            )

    def _keep_bounds(self) -> None:
        while self.spool is not None and self.spool.size > self.most_bytes and self._thin_disk():
            pass
        while sum(len(part.lines) for part in self._memory) > self.most_memory and self._thin_memory():
            pass

    def _thin_disk(self) -> bool:
        assert self.spool is not None
        reading = (
            self._taken.end.segment
            if self._taken is not None and self._taken.end
            else self.spool.sent.segment
        )
        closed = [segment for segment in self.spool.segments[:-1] if segment.number > reading]
        chosen = next_to_thin([segment.thinned for segment in closed])
        if chosen is None:
            return False
        try:
            self._fresh.forget()
            self.thinned_points += self.spool.thin(closed[chosen])
        except OSError:
            return False
        self._say_thinned(f"the spool holds {self.most_bytes / 2**20:g} MiB, its bound")
        return True

    def _thin_memory(self) -> bool:
        first = self._taken.parts if self._taken is not None else 0
        self._gather_parts(first)
        chosen = next_to_thin([part.thinned for part in self._memory[first:]])
        if chosen is None:
            return False
        part = self._memory[first + chosen]
        before = _operations_of(part)
        after = thinned(before)
        part.lines, part.thinned = b"".join(map(line_of, after)), part.thinned + 1
        lost = sum(each.n_points for each in before) - sum(each.n_points for each in after)
        self.lost_points += lost
        self._say_thinned("neither disk nor service takes what is logged, and the memory for it is full")
        return True

    def _gather_parts(self, first: int) -> None:
        """Join small neighbours, so that there is something in a part to leave out."""
        gathered = self._memory[:first]
        for part in self._memory[first:]:
            last = gathered[-1] if len(gathered) > first else None
            if last is not None and last.thinned == part.thinned and len(last.lines) < PART_BYTES:
                last.lines += part.lines
            else:
                gathered.append(part)
        self._memory = gathered

    def _say_thinned(self, why: str) -> None:
        what = f"{why}: every other point is left out, the newest first and the oldest last"
        self.messages.warn("thinned", f"{what}; how many is said at the end")

    def losses(self) -> list[str]:
        """What did not stay whole, in words."""
        said = []
        if self.thinned_points:
            said.append(f"{counted(self.thinned_points, 'point')} left out of a full spool")
        if self.lost_points:
            said.append(f"{counted(self.lost_points, 'point')} lost while neither disk nor service took them")
        if self.spool is not None and self.spool.damaged:
            said.append(f"{counted(len(self.spool.damaged), 'damaged line')} of the spool passed over")
        return said


def _operations_of(part: Part) -> list[Operation]:
    found = map(operation_of, part.lines.splitlines(keepends=True))
    return [operation for operation in found if operation is not None]


def _together(found: Iterable[tuple[Operation, Where]]) -> Iterator[tuple[Operation, Where]]:
    """The first operation; where it is points, with the points that follow it, up to what one request takes."""
    n_points = 0
    before: Operation | None = None
    for operation, where in found:
        n_points += operation.n_points
        if before is not None and not (may_follow(operation, before) and n_points <= MOST_POINTS):
            return
        yield operation, where
        before = operation

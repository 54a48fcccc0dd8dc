"""What `log` put in its queue, turned into operations in their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from isoloss.client.captures import Kept
from isoloss.client.messages import Messages
from isoloss.client.operations import Operation, points
from isoloss.client.progress import Progress
from isoloss.client.readings import Readings, Row
from isoloss.observations.point_columns import MAX_STEP
from isoloss.schedules import Schedule

MOST_AT_ONCE = 50_000

Record = tuple[Any, Any]
"""A step and its metrics, or None and a Change."""


@dataclass(frozen=True)
class Change:
    """In the queue: operations between the points, `schedule` if it is another from here on, a mark to reach."""

    operations: tuple[Operation, ...] = ()
    schedule: Schedule | None = None
    mark: int = 0


@dataclass
class Intake:
    """Takes records out of a queue; `mark` is the highest that came by.

    `may_exist`: the run may have points already, so that the first step says where it goes on.
    """

    messages: Messages
    readings: Readings
    may_exist: bool = False
    mark: int = 0
    _progress: Progress = field(default_factory=Progress)
    _rows: list[tuple[int, Row]] = field(default_factory=list)
    _operations: list[Operation] = field(default_factory=list)

    def take(self, queue: deque[Record], *, may_wait: bool = False) -> list[Operation]:
        """The operations of the records that are there, up to one that a device has not computed yet."""
        for _ in range(min(len(queue), MOST_AT_ONCE)):
            if not may_wait and _waits_for_device(queue[0][1]):
                break
            step, metrics = queue.popleft()
            if isinstance(metrics, Change):
                self._change(metrics)
            else:
                self._point(step, metrics)
        self._end_points()
        operations, self._operations = self._operations, []
        return operations

    def _change(self, change: Change) -> None:
        self._end_points()
        self._operations += change.operations
        self.readings.schedule = change.schedule or self.readings.schedule
        self.mark = max(self.mark, change.mark)

    def _point(self, step: Any, metrics: Any) -> None:
        at = step if type(step) is int and 0 <= step <= MAX_STEP else self.readings.step(step)
        row = {} if at is None else self.readings.row(metrics, at)
        if at is None or not row:
            return
        if self._goes_back(at, row):
            self._end_points()
            self._operations.append(Operation("rewind", at))
        if self._rows and self._rows[-1][0] == at:
            self._rows[-1][1].update(row)
        else:
            self._rows.append((at, row))

    def _goes_back(self, step: int, row: Row) -> bool:
        """Whether what came after a step is to be forgotten before its values are taken."""
        last = self._progress.last
        if self._progress.advance(step, row):
            told = f"step {step} comes after step {last}: the run goes on from there"
            self.messages.warn("back", f"{told}, and what came after it is removed")
            return True
        is_first, self.may_exist = self.may_exist, False
        return is_first

    def _end_points(self) -> None:
        if self._rows:
            self._operations.append(points(self._rows))
            self._rows = []


def _waits_for_device(metrics: Any) -> bool:
    if type(metrics) is not dict or Kept not in map(type, metrics.values()):
        return False
    return any(type(value) is Kept and not value.is_ready() for value in metrics.values())

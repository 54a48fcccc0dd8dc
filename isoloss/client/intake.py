"""What `log` put in its queue, turned into operations in their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from isoloss.client.captures import PLAIN, Awaited
from isoloss.client.messages import Messages
from isoloss.client.operations import Columns, Operation, points, stacked
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
    _ahead: dict[int, dict[Any, Any]] = field(default_factory=dict)
    _highest: int = 0
    _rows: list[tuple[int, Row]] = field(default_factory=list)
    _blocks: list[Columns] = field(default_factory=list)
    _operations: list[Operation] = field(default_factory=list)

    def take(self, queue: deque[Record], *, may_wait: bool = False) -> list[Operation]:
        """The operations of the records that are there, up to one that a device has not computed yet."""
        for _ in range(min(len(queue), MOST_AT_ONCE)):
            step, metrics = record = queue.popleft()
            if type(metrics) is Awaited and not may_wait and not metrics.is_ready():
                queue.appendleft(record)
                break
            if type(step) is int and self._goes_ahead(step, metrics):
                continue
            if isinstance(metrics, Change):
                self._change(metrics)
            else:
                self._end_ahead()
                self._point(step, metrics)
                self._highest = self._progress.last or 0
        self._end_points()
        operations, self._operations = self._operations, []
        return operations

    def _change(self, change: Change) -> None:
        self._end_points()
        self._operations += change.operations
        self.readings.schedule = change.schedule or self.readings.schedule
        self.mark = max(self.mark, change.mark)

    def _goes_ahead(self, step: int, metrics: Any) -> bool:
        """Put metrics that are not behind any others aside, to be read together; whether they are."""
        if not self._highest <= step <= MAX_STEP or self.may_exist or type(metrics) not in (dict, Awaited):
            return False
        there = self._ahead.get(step)
        if there is None:
            self._end_rows()
            self._ahead[step], self._highest = metrics, step
            return True
        if not (there.keys().isdisjoint(metrics) or PLAIN.issuperset(map(type, metrics.values()))):
            return False
        self._ahead[step] = {**there, **metrics}
        return True

    def _end_ahead(self) -> None:
        if not self._ahead:
            return
        columns = self.readings.columns(list(self._ahead), list(self._ahead.values()))
        self._ahead = {}
        if columns:
            self._progress.advance_through(columns)
            self._blocks.append(columns)

    def _end_rows(self) -> None:
        if self._rows:
            self._blocks.append(points(self._rows).content)
            self._rows = []

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
        self._end_ahead()
        self._end_rows()
        if self._blocks:
            self._operations.append(Operation("points", stacked(self._blocks)))
            self._blocks = []

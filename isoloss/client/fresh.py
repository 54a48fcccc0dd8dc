"""The end of a spool as the process that wrote it still has it, so that it is not read from the disk again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from isoloss.client.operations import Operation
from isoloss.client.spool import Place

MOST_FRESH_BYTES = 1 << 20


@dataclass
class FreshLines:
    """Operations that follow the place `start` without a gap, each with the place behind it and its bytes.

    Beyond a mebibyte, as in an outage, all are forgotten: the disk has them.
    """

    start: Place | None = None
    _lines: list[tuple[Operation, Place, int]] = field(default_factory=list)

    def add(self, start: Place, end: Place, operations: Sequence[Operation], sizes: Sequence[int]) -> None:
        """Keep operations that were written together, between two places, behind the others."""
        if not self._lines:
            self.start = start
        offset = end.offset - sum(sizes)
        for operation, size in zip(operations, sizes, strict=True):
            offset += size
            self._lines.append((operation, Place(end.segment, offset), size))
        if sum(size for _, _, size in self._lines) > MOST_FRESH_BYTES:
            self.forget()

    def after(self, place: Place) -> list[tuple[Operation, Place]]:
        """All of them where they are what follows a place, else nothing."""
        return [(operation, end) for operation, end, _ in self._lines] if self.start == place else []

    def drop_through(self, place: Place) -> None:
        """Forget what stands before a place."""
        if self.start is not None and place >= self.start:
            self._lines = [line for line in self._lines if line[1] > place]
            self.start = place

    def forget(self) -> None:
        """Forget all: the lines have moved, or are not what stands on the disk."""
        self.start, self._lines = None, []

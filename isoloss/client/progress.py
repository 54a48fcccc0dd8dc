"""Where a training has come to, and whether a step that goes back means a restart from a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


class Progress:
    """The last step of every column.

    A column that goes back says that the training did. One that is merely behind others, as an evaluation that
    ends late, does not: it has not been at that step before.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._highest = -1

    @property
    def last(self) -> int | None:
        """The highest step so far."""
        return self._highest if self._last else None

    def advance_through(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Note columns, null where there is no value, whose steps increase from the highest so far."""
        steps = columns["step"]
        for name, cells in columns.items():
            if name != "step":
                self._last[name] = next(
                    step
                    for step, cell in zip(reversed(steps), reversed(cells), strict=True)
                    if cell is not None
                )
        self._highest = steps[-1]

    def advance(self, step: int, columns: Collection[str]) -> bool:
        """Note the columns' values at a step; whether what came after it is to be forgotten first."""
        went_back = False
        if step > self._highest:
            self._highest = step
        elif any(self._last.get(name, step) > step for name in columns):
            went_back = True
            self._last = {name: min(last, step) for name, last in self._last.items()}
            self._highest = step
        self._last.update(dict.fromkeys(columns, step))
        return went_back

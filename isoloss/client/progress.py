"""Where a training has come to, and whether a step that goes back means a restart from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable


class Progress:
    """The last step of every column.

    A column that goes back says that the training did. One that is merely behind others, as an evaluation that
    ends late, does not: it has not been at that step before.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    @property
    def last(self) -> int | None:
        """The highest step so far."""
        return max(self._last.values(), default=None)

    def advance(self, step: int, columns: Iterable[str]) -> bool:
        """Note the columns' values at a step; whether what came after it is to be forgotten first."""
        names = list(columns)
        went_back = any(self._last.get(name, step) > step for name in names)
        if went_back:
            self._last = {name: min(last, step) for name, last in self._last.items()}
        for name in names:
            self._last[name] = step
        return went_back

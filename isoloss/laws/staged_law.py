"""Laws of what is read off groups of runs in a first stage, and follows a power of what they are in a second."""

from __future__ import annotations

from typing import Any, ClassVar

from isoloss.laws.law import TableLaw


class StagedLaw(TableLaw[Any]):
    """A law whose parameters come out of several fits, one on what the other found; see `fitting.staged`."""

    predicts_outcomes = False
    reads: ClassVar[str | None] = None
    """The column that runs are measured by where it is not their outcome."""

"""Laws of what is read off groups of runs in a first stage, and follows a power of what they are in a second."""

from __future__ import annotations

from typing import Any, ClassVar

from isoloss.laws.law import TableLaw
from isoloss.laws.sweep_law import SweepLaw


class StagedLaw(TableLaw[Any]):
    """A law whose parameters come out of several fits, one on what the other found; see `fitting.staged`."""

    predicts_outcomes = False
    reads: ClassVar[str | None] = None
    """The column that runs are measured by where it is not their outcome."""

    sweeps: ClassVar[SweepLaw | None] = None
    """The sweeps that its runs make, where the first stage reads optima off them."""

    cut_by: ClassVar[str] = "n_params"
    """The column whose largest values are predicted from the smaller ones."""

    label: ClassVar[str | None] = None
    """The field in words that says to which part a row belongs, where every part has parameters of its own."""

    target: ClassVar[str | None] = None
    """The outcome that it is a law of, where that is no loss: runs are read with it unless another is asked for."""

    holds_out: ClassVar[bool] = False
    """Whether runs can be held out; other laws choose what they predict from the rest themselves."""

    compares: ClassVar[bool] = False
    """Whether the parts are rivals: then a prediction says how likely each leads."""

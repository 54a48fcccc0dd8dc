"""What a law's readings are read by, off the points of one run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.notes import counted


@dataclass(frozen=True)
class Readings:
    """Readings of a run in time: `step` (n,), `columns` of (n,), and the `outcome` (n,), NaN for a law of none.

    `dropped` says in words which points are no readings that could be.
    """

    step: IntArray
    columns: Mapping[str, FloatArray]
    outcome: FloatArray
    dropped: tuple[str, ...] = ()

    def where(self, kept: BoolArray) -> Readings:
        """Return the readings that are kept (n,)."""
        columns = {name: values[kept] for name, values in self.columns.items()}
        return Readings(self.step[kept], columns, self.outcome[kept], self.dropped)


class Reader(ABC):
    """Reads readings of one law off logged points."""

    law: ClassVar[str]
    points: ClassVar[tuple[str, ...]]
    """The columns of points that it looks at."""

    counter: ClassVar[str]
    """The one among them that counts from the beginning of the training."""

    counts_once: ClassVar[bool]
    """Whether points that several runs have in common count once, and not in the curve of each."""

    target: ClassVar[str]
    """Of what the outcome is, as `RunTable.target`."""

    row: ClassVar[str]
    """The fields, in words, by which a run is a reading itself."""

    @abstractmethod
    def lacking(self, columns: Collection[str], config: Mapping[str, Any]) -> str | None:
        """Return what a run with these columns of points lacks, None where they may do."""

    @abstractmethod
    def has_row(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
        """Return whether what a run was, and what came of it, is a reading by itself."""

    @abstractmethod
    def per_step(self, config: Mapping[str, Any]) -> float:
        """Return what a step adds to the counter, NaN where a run does not say. Raises InvalidInput."""

    @abstractmethod
    def read(
        self,
        step: IntArray,
        columns: Mapping[str, FloatArray],
        counted: FloatArray,
        config: Mapping[str, Any],
    ) -> Readings:
        """Return the readings of points: `step` (n,), `columns` (n,) each, `counted` (n,) the counter. Raises
        InvalidInput."""

    @abstractmethod
    def averaged(self, readings: Readings, edges: IntArray) -> Readings:
        """Return the readings that stand for blocks of neighbours, which begin at `edges[:-1]`."""

    def apart(self, readings: Readings) -> int:  # noqa: ARG002
        """Return how many readings at the beginning are never averaged."""
        return 0


def without(readings: Readings, wrong: BoolArray, why: str) -> Readings:
    """Return the readings but those that are wrong (n,), and say how many there were and where."""
    if not wrong.any():
        return readings
    first = int(readings.step[np.argmax(wrong)])
    many = int(wrong.sum())
    where = f"at step {first}" if many == 1 else f"the first at step {first}"
    kept = readings.where(~wrong)
    said = f"{counted(many, 'point')} left out, {where}: {why}"
    return Readings(kept.step, kept.columns, kept.outcome, (*readings.dropped, said))


def block_means(values: FloatArray, edges: IntArray) -> FloatArray:
    """Return the means (blocks,) of values (n,) between neighbouring edges."""
    return np.asarray(np.add.reduceat(values, edges[:-1]) / np.diff(edges))

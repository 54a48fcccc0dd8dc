"""Laws of the best setting, which is read off sweeps: the same run trained at several values of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from isoloss.arrays import FloatArray
from isoloss.laws.power_product import PowerProduct

Labels = Mapping[str, tuple[str | None, ...]]
"""Fields of runs that are text, a value for each run."""


@dataclass(frozen=True)
class Axis:
    """A setting that runs are swept over, in a column of its own; its best value is a power of each of `of`."""

    column: str
    symbol: str
    unit: str
    of: tuple[str, ...]


class SweepLaw(PowerProduct):
    """The value of the first axis at which the loss is least, as a product of powers of what a run is.

    Runs that agree in the columns `cell` are one sweep: they differ in the axes alone. `site` are those of them
    that say what is trained; sweeps of one site that differ in the others compete for the least loss.
    """

    predicts_outcomes = False
    axes: ClassVar[tuple[Axis, ...]]
    cell: ClassVar[tuple[str, ...]]
    site: ClassVar[tuple[str, ...]] = ("n_params", "n_tokens")

    alike: tuple[str, ...] = ()
    """Columns beside the settings in which the runs of a sweep must agree."""

    readings: ClassVar[tuple[str, ...]] = ()
    """Conventions that the usual one chooses from by how they predict sweeps from others, the simplest first."""

    @property
    def run_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.site, *self.cell, self.main.column)))

    def with_settings(self, columns: Mapping[str, FloatArray], labels: Labels) -> Mapping[str, FloatArray]:  # noqa: ARG002
        """Return the columns (runs,) of runs, and beside them settings that follow from several of them."""
        return columns

    def refused(self, columns: Mapping[str, FloatArray], labels: Labels) -> Mapping[int, str]:  # noqa: ARG002
        """Return the runs, by their rows, that the law does not hold for, with why."""
        return {}

    def read_for(self, columns: Mapping[str, FloatArray], labels: Labels) -> Self:  # noqa: ARG002
        """Return the law in the reading that these runs ask for, where the usual one leaves it to them."""
        return self

    def remarks(self, columns: Mapping[str, FloatArray]) -> Iterator[str]:  # noqa: ARG002
        """Yield what a reader must know of these runs to use what the law says."""
        yield from ()

    def other_readings(self, columns: Mapping[str, FloatArray]) -> Mapping[str, float]:  # noqa: ARG002
        """Return what the coefficient is times as large in other readings, by a name, where these runs say so."""
        return {}

    @property
    def main(self) -> Axis:
        return self.axes[0]

    @property
    def swept_by(self) -> str:
        """The column that runs of a sweep are trained with different values of."""
        return self.main.column

    @abstractmethod
    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray: ...

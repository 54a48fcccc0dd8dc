"""What a fit of sweeps has to do, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.datasets import Fold, TableDataset
from isoloss.fitting.intervals import Spread
from isoloss.fitting.options import FitOptions
from isoloss.fitting.ranges import TableRange
from isoloss.fitting.sweeps.cells import Screened
from isoloss.fitting.sweeps.surface import Noise, OwnOptima, Surface, Sweeps
from isoloss.fitting.units import Units
from isoloss.laws.sweep_law import SweepLaw
from isoloss.observations import RunTable

LEVELS_FOR_CUBIC = 5
"""Values of every setting that half of the sweeps must have for a surface of the third degree."""

SPARE_FOR_CUBIC = 3
"""Runs of weight 1 that must be left over beyond the parameters of a surface of the third degree."""


@dataclass(frozen=True)
class SweepTask:
    """A law over the sweeps that count.

    `missing` are the parameters that they cannot determine, with why, `absent` these and those that do not enter;
    `rows` are the runs of `sweeps`, and `trait_names` the columns that each axis goes with.
    """

    law: SweepLaw
    screened: Screened
    asked: FitOptions
    missing: dict[str, str]
    absent: frozenset[str]
    sweeps: Sweeps
    rows: list[int]
    trait_names: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def cells(self) -> TableDataset:
        """The sweeps as a table: their columns, and the best value tried of the law's setting as their outcome."""
        screened, values = self.screened, self.screened.table.column(self.law.main.column)
        best = [min(cell.rows, key=lambda row: float(screened.table.outcome[row])) for cell in screened.cells]
        names = tuple(cell.name for cell in screened.cells)
        kind = screened.table.n_params_kind
        table = RunTable(names, screened.columns(), values[best], "loss", kind)
        return TableDataset(table, self.law.columns)

    @cached_property
    def degree(self) -> int:
        """The degree of the surface: the third where the sweeps are fine enough, and enough, to show it."""
        table, cells = self.screened.table, self.screened.cells
        fine = [
            all(
                np.unique(table.column(axis.column)[list(cell.rows)]).size >= LEVELS_FOR_CUBIC
                for axis in self.screened.axes
            )
            for cell in cells
        ]
        cubic = Surface(self.sweeps, 3)
        count = cubic.n_slopes + cubic.n_shape + self.sweeps.n_cells - len(self.held)
        enough = self.sweeps.weights.sum() >= count + SPARE_FOR_CUBIC
        return 3 if enough and 2 * sum(fine) >= len(cells) else 2

    @cached_property
    def free(self) -> list[int]:
        """The positions, among the law's parameters, of the slopes of the first axis."""
        names = [parameter.name for parameter in self.law.parameters]
        return [number for number, name in enumerate(names) if name not in self.absent]

    @cached_property
    def held(self) -> dict[int, float]:
        """The positions of slopes that the caller fixed, with their values in logarithms."""
        held = {}
        for position, number in enumerate(self.free):
            name = self.law.parameters[number].name
            if name in self.asked.fix:
                value = self.asked.fix[name]
                held[position] = float(np.log(value)) if number == 0 else float(value)
        return held

    @property
    def unknown(self) -> list[int]:
        """The positions of the slopes of the first axis that the sweeps are to tell."""
        return [position for position in range(len(self.free)) if position not in self.held]

    @property
    def n_fitted(self) -> int:
        """Parameters of the surface that the runs are to tell."""
        surface = self.surface()
        return surface.n_slopes + surface.n_shape + self.sweeps.n_cells - len(self.held)

    @property
    def shows_noise(self) -> bool:
        """Whether more runs lie near the best of their sweeps than the surface has parameters."""
        return len(self.rows) > 0 and len(self.rows) > self.n_fitted

    def fitted_range(self) -> TableRange:
        """Return where the sweeps lie; a law that does not read the size claims to hold for any."""
        columns, law = self.screened.columns(), self.law
        if not self.screened.cells:
            nowhere = (float("nan"), float("nan"))
            return TableRange(dict.fromkeys(law.columns, nowhere), nowhere, self.screened.table.n_params_kind)
        chosen = {name: columns[name] for name in law.columns}
        return TableRange.of(chosen, law.scale(columns), self.screened.table.n_params_kind, None)

    @cached_property
    def sites(self) -> IntArray:
        """The number of the site that each sweep is of, (sweeps,)."""
        return np.asarray(np.unique(self._sites, axis=0, return_inverse=True)[1].ravel(), dtype=np.int64)

    @property
    def of_sites(self) -> tuple[tuple[float, ...], ...]:
        """The numbers that tell each site, in the order of `sites`."""
        return tuple(map(tuple, np.unique(self._sites, axis=0).tolist()))

    @property
    def _sites(self) -> FloatArray:
        columns = self.screened.columns()
        return np.stack([columns[name] for name in self.law.site], axis=1)

    def regret(self, number: int, at: FloatArray) -> float:
        """Return by how much the run of a sweep that is nearest to settings `at` (axes,), in logarithms, loses to
        the best one, relative to its loss."""
        table, rows = self.screened.table, list(self.screened.cells[number].rows)
        settings = np.log(np.stack([table.column(axis.column)[rows] for axis in self.screened.axes]))
        nearest = rows[int(np.argmin(np.sum((settings - at[:, None]) ** 2, axis=0)))]
        return float(table.outcome[nearest] / self.screened.cells[number].best - 1)

    def surface(self, cells: Sequence[int] | IntArray | None = None) -> Surface:
        return Surface(self.sweeps if cells is None else self.sweeps.only(cells), self.degree)

    def theta(self, slopes: FloatArray) -> FloatArray:
        """Return the law's parameters (members, parameters) of slopes of the first axis (members, traits)."""
        theta = np.zeros((len(slopes), len(self.law.parameters)))
        theta[:, self.free] = slopes
        with np.errstate(over="ignore"):
            theta[:, 0] = np.exp(theta[:, 0])
        return theta


@dataclass(frozen=True)
class SweepEstimate:
    """The surface at its best, `theta` (parameters,) of its own, with resamples and what it predicts of others.

    `noise` is that of log loss about the surface, `scatter` that of the sweeps' own optima about
    the law beyond their errors, `left_out_error` the root mean square error of sites that are predicted from all
    others, in logarithms of the setting.
    """

    surface: Surface
    theta: FloatArray
    objective: float
    converged: bool
    samples: FloatArray
    failed: float
    units: Units
    noise: Noise
    own: OwnOptima
    scatter: float
    left_out_error: float | None
    folds: tuple[Fold, ...]
    fold_errors: tuple[FloatArray, ...]
    spread: Spread

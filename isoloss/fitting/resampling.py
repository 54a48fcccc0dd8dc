"""Resampling as weights: of whole runs or configurations where there are enough, else of blocks of curves.

Neighbouring points of a curve are correlated, so single points are never resampled (laws.md 1.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile, students_quantile
from isoloss.errors import InvalidInput
from isoloss.fitting.datasets import Dataset
from isoloss.fitting.options import Unit
from isoloss.notes import counted

RUNS_NEEDED = 8
"""With fewer runs than this, drawing runs gives too few distinct samples: blocks of curves are drawn instead."""


@dataclass(frozen=True)
class Resampling:
    """How resamples are drawn: `groups` of runs that keep together, or blocks of `block_points` in each run.

    Runs and configurations get weights from an exponential distribution (Rubin 1981, the Bayesian bootstrap):
    none is ever lost altogether, so that few runs of unlike schedules still determine the law in every
    resample. Every resample has a seed of its own, so that it does not depend on how many are drawn together.
    """

    run_lengths: tuple[int, ...]
    seed: int
    unit: Unit
    groups: tuple[int, ...]
    block_points: tuple[int, ...] | None

    @classmethod
    def of(cls, dataset: Dataset, residuals: FloatArray, seed: int, unit: Unit | None = None) -> Resampling:
        """Return the way for these runs; `residuals` (points,) of the fit set the length of blocks."""
        alike = dataset.alike()
        chosen: Unit = unit if unit is not None else _usual(dataset, len(alike))
        if chosen == "blocks" and max(dataset.lengths) == 1:
            raise InvalidInput(
                field="resample", reason="a run of a table is one point: blocks are parts of curves"
            )
        if chosen == "blocks":
            edges = np.cumsum([0, *dataset.lengths])
            blocks = tuple(block_length(residuals[low:high]) for low, high in pairwise(edges))
            return cls(dataset.lengths, seed, chosen, (), blocks)
        groups = _labels(alike, dataset.n_runs) if chosen == "configurations" else range(dataset.n_runs)
        return cls(dataset.lengths, seed, chosen, tuple(groups), None)

    @property
    def n_units(self) -> int:
        """How many units vary independently."""
        if self.block_points is None:
            return len(set(self.groups))
        pairs = zip(self.run_lengths, self.block_points, strict=True)
        return sum(-(-length // block) for length, block in pairs)

    @property
    def of_whole_curves(self) -> bool:
        return self.unit != "blocks" and max(self.run_lengths) > 1

    @property
    def statement(self) -> str:
        if self.block_points is None:
            what = "whole runs" if self.unit == "runs" else "configurations with all their runs"
            return f"{what} were resampled ({self.n_units})"
        low, high = min(self.block_points), max(self.block_points)
        lengths = (
            counted(low, "neighbouring point") if low == high else f"{low} to {high} neighbouring points"
        )
        return (
            f"blocks of {lengths} were resampled: with fewer than {RUNS_NEEDED} runs their "
            "spread does not show how one run differs from the next"
        )

    def inflation(self, n_free: float, level: float) -> float:
        """Return by how much the spread of resamples is too narrow for few units and `n_free` parameters.

        Resampled residuals are smaller than errors by the parameters that were fitted to them, and the normal
        quantile smaller than Student's. A curve has more than one point to tell parameters apart, so that each
        costs less than a unit: a third, by simulation (benchmarks/RESULTS.md, coverage).
        """
        n = self.n_units
        left = n - max(1.0, n_free / 3) if self.of_whole_curves else float(n - n_free)
        if left < 1:
            return 1.0
        tail = (1 + level) / 2
        return float(np.sqrt(n / left) * students_quantile(tail, left) / normal_quantile(tail))

    def weights(self, first: int, last: int) -> FloatArray:
        """Return the weights (resamples, points) of the resamples first..last, the last one excluded."""
        return np.stack(
            [self._row(np.random.default_rng([self.seed, number])) for number in range(first, last)]
        )

    def normal(self, first: int, last: int, count: int) -> FloatArray:
        """Return standard normal draws (resamples, count) for the same resamples, independent of their weights."""
        return np.stack(
            [
                np.random.default_rng([self.seed, number, 1]).standard_normal(count)
                for number in range(first, last)
            ]
        )

    def _row(self, random: np.random.Generator) -> FloatArray:
        if self.block_points is None:
            drawn = random.exponential(size=self.n_units)
            return np.repeat((drawn / drawn.mean())[list(self.groups)], self.run_lengths)
        pairs = zip(self.run_lengths, self.block_points, strict=True)
        return np.concatenate([_block_weights(length, block, random) for length, block in pairs])


def _usual(dataset: Dataset, n_alike: int) -> Unit:
    if max(dataset.lengths) == 1:
        return "configurations" if n_alike < dataset.n_runs and n_alike >= RUNS_NEEDED else "runs"
    return "runs" if dataset.n_runs >= RUNS_NEEDED else "blocks"


def _labels(groups: Sequence[Sequence[int]], n_runs: int) -> list[int]:
    labels = [0] * n_runs
    for label, positions in enumerate(groups):
        for position in positions:
            labels[position] = label
    return labels


def block_length(residuals: FloatArray) -> int:
    """Return how many neighbouring points belong together: twice the correlation time, within n^(1/3) and n/4."""
    n = residuals.size
    longest = max(1, n // 4)
    return int(
        np.clip(np.ceil(2 * correlation_time(residuals)), short_block(n), max(short_block(n), longest))
    )


def short_block(n_points: int) -> int:
    """Return the length of blocks that keep the correlation of neighbouring points and nothing slower."""
    return max(1, int(np.cbrt(n_points).round()))


def correlation_time(residuals: FloatArray) -> float:
    """Return 1 + 2 sum of autocorrelations up to the first that is not above 0, in points."""
    centred = residuals - residuals.mean()
    power = np.abs(np.fft.rfft(centred, 2 * centred.size)) ** 2
    covariance = np.fft.irfft(power)[: centred.size]
    if covariance[0] <= 0:
        return 1.0
    correlation = covariance / covariance[0]
    below = np.flatnonzero(correlation <= 0)
    stop = below[0] if below.size else correlation.size
    return float(1 + 2 * correlation[1:stop].sum())


def _block_weights(n_points: int, block: int, random: np.random.Generator) -> FloatArray:
    """Count how often circular blocks cover each point, scaled to a sum of n_points."""
    n_blocks = -(-n_points // block)
    starts = random.integers(0, n_points, size=n_blocks)
    covered = (starts[:, None] + np.arange(block)) % n_points
    counts = np.bincount(covered.ravel(), minlength=n_points)
    return np.asarray(counts * (n_points / (n_blocks * block)), dtype=np.float64)

"""Resampling as weights: whole runs where there are enough of them, else blocks of their curves.

Neighbouring points of a curve are correlated, so single points are never resampled (laws.md 1.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from isoloss.schedules import Schedule

FloatArray = npt.NDArray[np.float64]

RUNS_NEEDED = 8
"""With fewer runs than this, drawing runs gives too few distinct samples: blocks of curves are drawn instead."""

COMPARED_STEPS = 200
SAME_LR = 1e-3
"""Schedules whose rates differ by less than this share of the peak at `COMPARED_STEPS` steps are the same."""


@dataclass(frozen=True)
class Resampling:
    """How resamples are drawn from runs of `run_lengths` points: whole `runs`, or `blocks` of so many points.

    Every resample has a seed of its own, so that it does not depend on how many are drawn together.
    """

    run_lengths: tuple[int, ...]
    seed: int
    block_points: tuple[int, ...] | None

    @classmethod
    def of(cls, run_lengths: Sequence[int], residuals: FloatArray, seed: int) -> Resampling:
        """Return the way for these runs; `residuals` (points,) of the fit set the length of blocks."""
        if len(run_lengths) >= RUNS_NEEDED:
            return cls(tuple(run_lengths), seed, None)
        edges = np.cumsum([0, *run_lengths])
        blocks = tuple(block_length(residuals[low:high]) for low, high in pairwise(edges))
        return cls(tuple(run_lengths), seed, blocks)

    @property
    def unit(self) -> str:
        return "runs" if self.block_points is None else "blocks"

    @property
    def statement(self) -> str:
        if self.block_points is None:
            return "whole runs were resampled"
        lengths = f"{min(self.block_points)} to {max(self.block_points)}"
        return (
            f"blocks of {lengths} neighbouring points were resampled: with fewer than {RUNS_NEEDED} runs their "
            "spread does not show how one run differs from the next"
        )

    def weights(self, first: int, last: int) -> FloatArray:
        """Return the weights (resamples, points) of the resamples first..last, the last one excluded."""
        return np.stack(
            [self._row(np.random.default_rng([self.seed, number])) for number in range(first, last)]
        )

    def _row(self, random: np.random.Generator) -> FloatArray:
        if self.block_points is None:
            n_runs = len(self.run_lengths)
            drawn = random.multinomial(n_runs, np.full(n_runs, 1 / n_runs))
            return np.repeat(drawn.astype(np.float64), self.run_lengths)
        pairs = zip(self.run_lengths, self.block_points, strict=True)
        return np.concatenate([_block_weights(length, block, random) for length, block in pairs])


def block_length(residuals: FloatArray) -> int:
    """Return how many neighbouring points belong together: twice the correlation time, within n^(1/3) and n/4."""
    n = residuals.size
    shortest, longest = max(1, round(n ** (1 / 3))), max(1, n // 4)
    return int(np.clip(np.ceil(2 * correlation_time(residuals)), shortest, max(shortest, longest)))


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


def schedule_groups(schedules: Sequence[Schedule]) -> list[list[int]]:
    """Return the positions of the schedules in groups that agree as far as the shorter one goes.

    Seeds of one schedule, and constant runs of several lengths, are one group: to leave out one of them while
    its twin stays would not show how far off a law is on a schedule that it has not seen.
    """
    groups: list[list[int]] = []
    for position, schedule in enumerate(schedules):
        home = next((group for group in groups if _agree(schedules[group[0]], schedule)), None)
        if home is None:
            groups.append([position])
        else:
            home.append(position)
    return groups


def _agree(one: Schedule, other: Schedule) -> bool:
    shared = min(one.total_steps, other.total_steps)
    steps = np.unique(np.linspace(1, shared, COMPARED_STEPS).astype(np.int64))
    apart = np.abs(one.lr(steps) - other.lr(steps))
    return bool(np.all(apart <= SAME_LR * max(one.peak_lr, other.peak_lr)))


def leave_out(run_lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> FloatArray:
    """Return weights (groups, points) that leave out one group of runs each."""
    owner = np.repeat(np.arange(len(run_lengths)), run_lengths)
    return np.stack([np.where(np.isin(owner, group), 0.0, 1.0) for group in groups])

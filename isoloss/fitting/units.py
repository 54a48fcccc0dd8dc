"""Intervals from what each independent part of the runs does to an estimate, one draw of chance for each part."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.intervals import students_factor
from isoloss.fitting.options import FitOptions, Unit


def draws(parts: Sequence[tuple[float, ...]], seed: int, count: int) -> FloatArray:
    """Return standard normal draws (count, parts), the same for a part of the same numbers in whatever fit.

    So the resamples of several laws that were fitted to the same runs belong together, one by one.
    """
    if not parts or not count:
        return np.zeros((count, len(parts)))
    keys = [zlib.crc32(np.array(part, dtype=np.float64).tobytes()) for part in parts]
    return np.stack([np.random.default_rng([seed, key]).standard_normal(count) for key in keys], axis=1)


@dataclass(frozen=True)
class Units:
    """What of the runs varies independently: `groups` (runs,) of those that keep together, by their `unit`.

    `parts` are the numbers that tell what each group is.
    """

    unit: Unit
    groups: IntArray
    parts: tuple[tuple[float, ...], ...]

    @property
    def count(self) -> int:
        return len(self.parts)

    def samples(self, theta: FloatArray, without: FloatArray, asked: FitOptions) -> FloatArray:
        """Return estimates that spread as the jackknife says, (resamples, parameters), around theta (parameters,).

        `without` (units, parameters) are the estimates that leave out one unit each, NaN where there is none:
        every resample moves by a normal deviate times the move that leaving out a unit makes. With few units this
        variance is nearer the truth than that of resamples. Source: Bell and McCaffrey 2002, 'Bias Reduction in
        Standard Errors for Linear Regression with Multi-Stage Samples' (CR3); Efron and Stein 1981, 'The Jackknife
        Estimate of Variance'.
        """
        usable = np.all(np.isfinite(without), axis=1)
        count = int(usable.sum())
        moves = np.sqrt((count - 1) / max(1, count)) * np.where(usable[:, None], without - theta, 0.0)
        return theta + draws(self.parts, asked.seed, asked.bootstrap) @ moves

    def inflation(self, n_known: int, level: float) -> float:
        """Return by how much Student's quantile exceeds the normal one, for `n_known` parameters of these units."""
        return students_factor(max(1, self.count - n_known), level)

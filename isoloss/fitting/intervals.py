"""Prediction intervals: resampled parameters, what the law gets wrong on a run it has not seen, and noise.

Resampling alone shows how the parameters move, not how far the law is from the truth on another schedule: on
public curves a 90 percent interval of resamples held 2 to 60 percent of the points (benchmarks/RESULTS.md). So
every run is also predicted from the others, and the error of that, its discrepancy, widens the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

NOISE_QUANTILES = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Spread:
    """What resampled parameters do not show, in log loss.

    `discrepancy` is the root mean square error, over blocks, of runs predicted from the other runs, None where
    fewer than three runs could be; `folds` how many were. `noise` are quantiles of the absolute residuals.
    """

    discrepancy: float | None
    folds: int
    noise: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Spread:
        return cls(document["discrepancy"], document["folds"], tuple(document["noise"]))


def noise_quantiles(residuals: FloatArray) -> tuple[float, ...]:
    """Return the quantiles of absolute residuals that `Spread` keeps."""
    return tuple(float(q) for q in np.quantile(np.abs(residuals), NOISE_QUANTILES))


def discrepancy(errors: list[FloatArray], blocks: list[int]) -> float:
    """Return how far off, in log loss, the law is on a run that it has not seen.

    `errors` are log errors of each run under the fit to the others. Averaging them over blocks of neighbouring
    points removes the noise of single points and keeps what the law gets wrong. It errs most where the
    learning rate has fallen, at the end, which is also what is asked for: the root mean square over runs is
    taken of whole curves and of last blocks, and the larger one counts.
    """
    means = [_block_means(error, block) for error, block in zip(errors, blocks, strict=True)]
    whole = np.mean([np.mean(mean**2) for mean in means])
    last = np.mean([mean[-1] ** 2 for mean in means])
    return float(np.sqrt(max(whole, last)))


def _block_means(values: FloatArray, block: int) -> FloatArray:
    edges = np.arange(0, values.size, block)
    return np.add.reduceat(values, edges) / np.diff(np.append(edges, values.size))


def interval_around(
    centre: FloatArray,
    members: FloatArray,
    spread: Spread,
    reach: FloatArray,
    level: float,
    *,
    new_run: bool,
) -> tuple[FloatArray, FloatArray]:
    """Return the ends (points,) of an interval of `level` around log predictions `centre` (points,).

    `members` (resamples, points) are the resamples' log predictions; `reach` (points,) at least 1 is how many
    times beyond the data a point lies. The discrepancy is taken to grow like a random walk, with the square
    root of the reach, and has Student's quantile of its few folds. Independent parts add in quadrature.
    """
    tail = (1 - level) / 2
    if len(members):
        low, high = np.nanquantile(members, [tail, 1 - tail], axis=0)
        below, above = np.maximum(centre - low, 0.0), np.maximum(high - centre, 0.0)
    else:
        below = above = np.zeros_like(centre)
    extra = np.zeros_like(centre)
    if spread.discrepancy is not None:
        extra += (stats.t.ppf(1 - tail, spread.folds) * spread.discrepancy) ** 2 * reach
    if new_run:
        extra += np.interp(level, NOISE_QUANTILES, spread.noise) ** 2
    return centre - np.sqrt(below**2 + extra), centre + np.sqrt(above**2 + extra)

"""Prediction intervals: resampled parameters, what the law gets wrong on a run it has not seen, and noise.

Resampling alone shows how the parameters move, not how far the law is from the truth on another schedule: on
public curves a 90 percent interval of resamples held 2 to 60 percent of the points (benchmarks/RESULTS.md). So
each schedule is also predicted from the others, and the error of that, the discrepancy, widens the interval.
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

    `discrepancy` is the error of the schedule that is predicted worst from the others, None where fewer than
    three could be, and `worst_run` a run of it; `folds` how many were predicted. `noise` are quantiles of the
    absolute residuals.
    """

    discrepancy: float | None
    folds: int
    noise: tuple[float, ...]
    worst_run: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Spread:
        return cls(**{**document, "noise": tuple(document["noise"])})


def noise_quantiles(residuals: FloatArray) -> tuple[float, ...]:
    """Return the quantiles of absolute residuals that `Spread` keeps."""
    return tuple(float(q) for q in np.quantile(np.abs(residuals), NOISE_QUANTILES))


def discrepancy(errors: list[list[FloatArray]], blocks: list[list[int]]) -> tuple[float, int]:
    """Return how far off, in log loss, the law is on a schedule that it has not seen, and the worst one's place.

    `errors` are, for each schedule, the log errors of its runs under the fit to the others. Averaging them over
    `blocks` of neighbouring points removes the noise of single points and keeps what the law gets wrong. It
    errs most where the learning rate has fallen, at the end, which is also what is asked for: of each schedule
    the larger counts of whole curves and last blocks, root mean square. The answer is the worst schedule's:
    the one that is asked for may be as unlike the fitted ones as that, however many of them are alike.
    """
    each = []
    for runs, lengths in zip(errors, blocks, strict=True):
        means = [_block_means(error, block) for error, block in zip(runs, lengths, strict=True)]
        whole = np.mean([np.mean(mean**2) for mean in means])
        last = np.mean([mean[-1] ** 2 for mean in means])
        each.append(float(np.sqrt(max(whole, last))))
    worst = int(np.argmax(each))
    return each[worst], worst


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
    times beyond the data a point lies: the discrepancy is taken to grow like a random walk, with the square
    root of the reach. It is read as one standard deviation. Independent parts add in quadrature.
    """
    tail = (1 - level) / 2
    if len(members):
        # A resample without a positive loss counts as a loss of 0: it must not shorten the tail.
        ordered = np.sort(np.where(np.isfinite(members), members, -np.inf), axis=0)
        beyond = int(tail * (len(members) - 1) + 1e-9)
        low, high = ordered[beyond], ordered[-1 - beyond]
        below, above = np.maximum(centre - low, 0.0), np.maximum(high - centre, 0.0)
    else:
        below = above = np.zeros_like(centre)
    extra = np.zeros_like(centre)
    if spread.discrepancy is not None:
        extra += (stats.norm.ppf(1 - tail) * spread.discrepancy) ** 2 * reach
    if new_run:
        extra += np.interp(level, NOISE_QUANTILES, spread.noise) ** 2
    return centre - np.sqrt(below**2 + extra), centre + np.sqrt(above**2 + extra)

"""Prediction intervals: resampled parameters, what the law gets wrong on a run it has not seen, and noise.

Resampling alone shows how the parameters move, not how far the law is from the truth on another schedule: on
public curves a 90 percent interval of resamples held 2 to 60 percent of the points (benchmarks/RESULTS.md). So
runs are also predicted from others, and the part of their error that noise does not explain, the discrepancy,
widens the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile, students_quantile

NOISE_QUANTILES = np.linspace(0, 1, 201)


def students_factor(spare: float, level: float) -> float:
    """Return by how much Student's quantile exceeds the normal one, for noise that so many spare runs show."""
    tail = (1 + level) / 2
    return float(students_quantile(tail, spare) / normal_quantile(tail))


@dataclass(frozen=True)
class Spread:
    """What resampled parameters do not show, in log loss.

    `discrepancy` is what noise leaves unexplained of the error of the runs that are predicted worst from others:
    0 where noise explains all of it, None where it could not be measured. `error` is that error, `explained` what
    noise alone would hardly exceed, `worst` the runs in words, `folds` how many times
    runs were predicted from others. `noise` are quantiles of the absolute residuals, `run_noise` the standard
    deviation between runs of one configuration, None where no two are alike. `conformal` (level, factor) widens
    the interval of a new run so that it held its share of the held-out runs.
    """

    discrepancy: float | None
    folds: int
    noise: tuple[float, ...]
    error: float | None = None
    explained: float | None = None
    worst: str | None = None
    run_noise: float | None = None
    conformal: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Spread:
        pair = document.get("conformal")
        return cls(
            **{**document, "noise": tuple(document["noise"]), "conformal": tuple(pair) if pair else None}
        )

    def of_new_run(self, level: float) -> float:
        """Return how far, in log loss, a point of one more run lies from the mean, at this level."""
        within = float(np.interp(level, NOISE_QUANTILES, self.noise))
        between = float(normal_quantile((1 + level) / 2)) * (self.run_noise or 0.0)
        return max(within, between)  # the residuals hold what differs between runs as well

    @property
    def widening(self) -> float:
        """Return the factor of the conformal correction for an interval of a new run, at least 1.

        It was measured at the level of the fit. Wider intervals keep it, so that they hold the narrower ones.
        """
        return 1.0 if self.conformal is None else max(1.0, self.conformal[1])


def noise_quantiles(residuals: FloatArray) -> tuple[float, ...]:
    """Return the quantiles of absolute residuals that `Spread` keeps."""
    return tuple(float(q) for q in np.quantile(np.abs(residuals), NOISE_QUANTILES))


def interval_around(
    centre: FloatArray,
    members: FloatArray,
    spread: Spread,
    reach: FloatArray,
    level: float,
    *,
    unlike: FloatArray,
    inflation: FloatArray,
    new_run: bool,
) -> tuple[FloatArray, FloatArray]:
    """Return the ends (points,) of an interval of `level` around log predictions `centre` (points,).

    `members` (resamples, points) are the resamples' log predictions; `inflation` (points,) widens their spread;
    `reach` (points,) at least 1 is by what factor the discrepancy has grown at a point beyond the data, `unlike`
    (points,) an error that no fitted run has shown; both are read as one standard deviation. Independent parts add
    in quadrature.
    """
    tail = (1 - level) / 2
    if len(members):
        # A resample without a positive loss counts as a loss of 0: it must not shorten the tail.
        ordered = np.sort(np.where(np.isfinite(members), members, -np.inf), axis=0)
        beyond = int(tail * (len(members) - 1) + 1e-9)
        low, high = ordered[beyond], ordered[-1 - beyond]
        below, above = np.maximum(centre - low, 0.0) * inflation, np.maximum(high - centre, 0.0) * inflation
    else:
        below = above = np.zeros_like(centre)
    z = normal_quantile(1 - tail)
    extra = (z * unlike) ** 2
    if spread.discrepancy is not None:
        extra += (z * spread.discrepancy * reach) ** 2
    if new_run:
        extra += spread.of_new_run(level) ** 2
    wider = spread.widening if new_run else 1.0
    return centre - wider * np.sqrt(below**2 + extra), centre + wider * np.sqrt(above**2 + extra)


def widened(inflation: float, prior_share: FloatArray) -> FloatArray:
    """Return the factor of a spread of whose variance a share is the priors', and only the rest is too narrow."""
    return np.asarray(np.sqrt(inflation**2 * (1 - prior_share) + prior_share))


Ends = tuple[FloatArray, FloatArray, FloatArray]
"""Log prediction and the ends of its interval, (points,) each."""


def averaged(members: Sequence[tuple[float, Ends]]) -> Ends:
    """Return the average of weighted predictions, with what they disagree by in its interval."""
    weights = np.array([weight for weight, _ in members])[:, None]
    centres, lower, upper = (np.stack([ends[part] for _, ends in members]) for part in range(3))
    centre = np.sum(weights * centres, axis=0)
    apart = (centres - centre) ** 2
    below = np.sqrt(np.sum(weights * ((centres - lower) ** 2 + apart), axis=0))
    above = np.sqrt(np.sum(weights * ((upper - centres) ** 2 + apart), axis=0))
    return centre, centre - below, centre + above


def conformal_factor(scores: FloatArray, level: float) -> float | None:
    """Return the split-conformal factor of held-out scores |error| / half width, None where there are too few.

    The ceil((n + 1) level)-th smallest of n scores: an interval widened by it holds a further run with at least
    this probability, if held-out and further runs are exchangeable. Source: Lei et al. 2018, 'Distribution-Free
    Predictive Inference for Regression', section 2.2.
    """
    rank = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1]) if 0 < rank <= len(scores) else None

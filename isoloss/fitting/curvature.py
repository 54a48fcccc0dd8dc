"""How strongly the Huber objective of an estimate curves, by the density of its noise near 0."""

from __future__ import annotations

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile

BANDWIDTH = (1.5 * normal_quantile(0.95) ** 2 * (1 / np.sqrt(2 * np.pi)) ** 2) ** (1 / 3)
"""Hall and Sheather's bandwidth at the median of normal errors for intervals of 90 percent, times n^(1/3): the
share of the points that it takes in on either side."""

LEAST = 1e-3
"""Where hardly a point is left, the curvature counts as this much."""


def mean_curvature(residuals: FloatArray, delta: float, n_fitted: int) -> float:
    """Return the expectation of the Huber loss's second derivative, for residuals (points,) of an estimate.

    That is the share of errors within delta. Where noise is far larger than delta the loss is nearly |r|: as many
    residuals as parameters were fitted are about 0, which says nothing of the noise, and hardly another lies
    within delta. So the `n_fitted` smallest are left out, and the density of the others near 0 is taken over a
    window that is no narrower than the bandwidth asks for. Sources: McKean and Schrader 1987, 'Least Absolute
    Errors Analysis of Variance', for the residuals left out; Hall and Sheather 1988, 'On the Distribution of a
    Studentized Quantile', for the bandwidth; Koenker 2005, 'Quantile Regression', 3.4.
    """
    size = np.sort(np.abs(residuals))[min(n_fitted, residuals.size - 1) :]
    share = min(1.0, 2 * BANDWIDTH * size.size ** (-1 / 3))
    window = max(delta, float(np.quantile(size, share)))
    return max(delta / window * float(np.mean(size <= window)), LEAST)

"""The gradient noise scale over training, from gradient norms at two batches: an estimate of the critical batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput
from isoloss.laws.power_product import PowerProduct, scaling, slope
from isoloss.laws.staged_law import StagedLaw

RATIO = "grad_noise_scale"
SMALL, BIG = "grad_norm_small", "grad_norm_big"
SMALL_BATCH, BIG_BATCH = "batch_small_tokens", "batch_big_tokens"
BATCHES = (SMALL_BATCH, BIG_BATCH)
NORMS = (SMALL, BIG, *BATCHES)
GRADIENT, NOISE = "squared_gradient", "gradient_noise"
"""Columns of readings whose |G|^2 and tr(Sigma) have been worked out already, or averaged."""


def squared_gradient(
    small: FloatArray, big: FloatArray, small_batch: FloatArray, big_batch: FloatArray
) -> FloatArray:
    """Return estimates of |G|^2, the squared norm of the true gradient: unbiased, and below 0 by chance.

    `small` and `big` are norms (not squared) of the gradient before clipping over batches of `small_batch` <
    `big_batch` tokens; all (readings,) or broadcast. Source: McCandlish et al. 2018, arXiv 1812.06162, A.1.
    """
    return (big_batch * big**2 - small_batch * small**2) / (big_batch - small_batch)


def gradient_noise(
    small: FloatArray, big: FloatArray, small_batch: FloatArray, big_batch: FloatArray
) -> FloatArray:
    """Return estimates of tr(Sigma), the variance of the gradient of one token summed over parameters: unbiased.

    Arguments and source as of `squared_gradient`.
    """
    return (small**2 - big**2) / (1 / small_batch - 1 / big_batch)


def simple_noise_scale(
    small: FloatArray, big: FloatArray, small_batch: FloatArray | float, big_batch: FloatArray | float
) -> float | None:
    """Return B_simple = tr(Sigma) / |G|^2 in tokens, each averaged over the readings before the ratio.

    None where it is undetermined: where the average of |G|^2 is not above 0. Arguments and source as of
    `squared_gradient`. Raises InvalidInput where there is no reading, for norms that are negative or not finite,
    and for batches of which the small one is not above 0 and below the big one.
    """
    norms = [np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (small, big)]
    batches = [np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (small_batch, big_batch)]
    for name, values in zip((SMALL, BIG), norms, strict=True):
        if not values.size or not np.all(np.isfinite(values) & (values >= 0)):
            raise InvalidInput(field=name, reason="must be norms, finite and not below 0, at least one")
    if not np.all((batches[0] > 0) & (batches[0] < batches[1]) & np.isfinite(batches[1])):
        raise InvalidInput(field=SMALL_BATCH, reason=f"must lie above 0 and below {BIG_BATCH}")
    gradient, noise = (
        float(np.mean(estimate(*norms, *batches))) for estimate in (squared_gradient, gradient_noise)
    )
    return noise / gradient if gradient > 0 else None


class NoiseScale(PowerProduct, StagedLaw):
    """B_simple(D) = coefficient D^exponent over training, D the tokens seen so far; both in tokens.

    A row is a reading in time, of a table or of the points of a run (`isoloss.readings`). B_simple = tr(Sigma)
    / |G|^2 is what one gradient says at one moment: it takes the curvature to be the same in all directions,
    holds for the moment and not for the whole run, and costs no second run. `steps_to_target` and
    `critical_batch` measure what batches cost a whole run, from many runs: where they differ from it, they are
    right. Source: McCandlish et al. 2018, arXiv 1812.06162, appendix A.1 (laws.md 4).
    """

    name = "noise_scale"
    title = "Gradient noise scale over training"
    formula = "B_simple(D) = coefficient * D^exponent, B_simple = tr(Sigma) / |G|^2"
    reference = "McCandlish et al. 2018, 'An Empirical Model of Large-Batch Training', arXiv:1812.06162, A.1"
    quantity = "noise_scale_tokens"
    unit = "tokens"
    columns = ("n_tokens",)
    needs_outcome = False
    of_runs = False
    holds_out = True
    cut_by = "window"
    varies = ("the numbers of tokens seen",)
    remedy = "log the norms of the gradient at two batches more often, over a longer part of training"
    requires = (
        "points of grad_noise_scale (B_simple in tokens), or of grad_norm_small and grad_norm_big with "
        "batch_small_tokens and batch_big_tokens in points or config",
        "points of tokens, or config.batch_tokens",
        "of a run that is one reading: config.n_tokens, and the same fields in config",
    )
    parameters = (
        scaling("c", "tokens / tokens^exponent", "sets the level"),
        slope("exponent", "m", "how the noise scale grows with the tokens D seen so far"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_tokens"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the tokens seen."""
        return columns["n_tokens"]

"""Iso-FLOP profiles: the loss over model sizes at one compute, and the size and data at which it is least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.advice.constraints import positive
from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit

SIZES = 400
"""Model sizes at which a profile is worked out, evenly spaced in logarithms."""

FEWEST, MOST = 3, 2001
"""Points of a profile that may be asked for."""

DECADES = 4.0
"""How many decades of sizes, either way of the middle, are looked at for the least loss."""


@dataclass(frozen=True)
class IsoFlopProfile:
    """The loss at `n_params` (n,) and n_tokens = C / (6 n_params), with an interval, and where it is least.

    `optimal_n_params` and `optimal_n_tokens` are (value, lower, upper), without a limit (0 or infinity) where
    resamples have no optimum between; `extrapolation` says by how many times the optimum lies outside of the fitted
    sizes and data.
    """

    compute_flops: float
    n_params: FloatArray
    n_tokens: FloatArray
    loss: FloatArray
    lower: FloatArray
    upper: FloatArray
    optimal_n_params: tuple[float, float, float]
    optimal_n_tokens: tuple[float, float, float]
    extrapolation: dict[str, Any]


def iso_flop_profile(fit: Fit, compute_flops: float, *, points: int = 41) -> IsoFlopProfile:
    """Return the loss over model sizes at a compute C = 6 N D, by a fit of a law of size and data.

    Raises InvalidInput for a fit of another law, Unidentified where its data do not determine it or where the
    loss has no least value over sizes.
    """
    compute = positive(compute_flops, "compute_flops")
    if not isinstance(points, int) or isinstance(points, bool) or not FEWEST <= points <= MOST:
        raise InvalidInput(field="points", reason=f"must be a whole number in {FEWEST}..{MOST}")
    if set(getattr(fit.law, "columns", ())) != {"n_params", "n_tokens"}:
        raise InvalidInput(field="fit", reason=f"{fit.law_name} is no law of model size and data")
    middle = np.sqrt(compute / 6)
    sizes = middle * np.logspace(-DECADES, DECADES, SIZES)
    centre, members = fit.log_members({"n_params": sizes, "n_tokens": compute / 6 / sizes})
    best = float(np.exp(_least(np.log(sizes), centre[None])[0]))
    resampled = np.exp(_least(np.log(sizes), members))
    if not 0 < best < np.inf:
        raise Unidentified(reason="the loss falls towards an end of all sizes: there is no best one")
    level = float(fit.provenance["options"]["level"])
    tail = [(1 - level) / 2, (1 + level) / 2]
    # The nearest resample, not between two: one of them may be without end.
    low, high = np.quantile(resampled, tail, method="inverted_cdf") if resampled.size else (np.nan, np.nan)
    shown = best * np.logspace(-1, 1, points)
    told = fit.predict(n_params=shown, n_tokens=compute / 6 / shown)
    data = compute / 6
    return IsoFlopProfile(
        compute,
        shown,
        data / shown,
        told.value,
        told.lower,
        told.upper,
        (best, float(low), float(high)),
        (data / best, float(data / high), float(data / low) if low else np.inf),
        fit.ask({"n_params": best, "n_tokens": data / best}).describe(),
    )


def _least(log_size: FloatArray, log_loss: FloatArray) -> FloatArray:
    """Return where each member's loss (members, sizes) is least, by a parabola; infinite at an end."""
    lowest = np.argmin(np.where(np.isfinite(log_loss), log_loss, np.inf), axis=1)
    inside = (lowest > 0) & (lowest < log_size.size - 1)
    at = np.clip(lowest, 1, log_size.size - 2)
    rows = np.arange(len(log_loss))
    before, here, after = (log_loss[rows, at + shift] for shift in (-1, 0, 1))
    step = log_size[1] - log_size[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = (before - after) / (2 * (before - 2 * here + after))
    end = np.where(lowest == 0, -np.inf, np.inf)
    return np.asarray(np.where(inside, log_size[at] + step * np.clip(shift, -1, 1), end))

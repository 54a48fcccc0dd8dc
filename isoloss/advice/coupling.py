"""What a sweep of learning rate and batch at one weight decay owes to the timescale, and what remains without it.

At a fixed weight decay lambda a larger learning rate or a smaller batch also shortens the timescale
tau = B / (eta lambda D). So the surface of such a sweep is that of learning rate and batch at the best timescale,
plus the timescale's own bowl kappa / 2 (ln tau - ln tau_opt)^2 (laws.md 3). With c the slopes of ln tau by the
logarithms of the settings, H the second derivatives of the sweep's surface and d = ln tau - ln tau_opt at its
minimum, the minimum that goes with the best timescale, to which the weight decay is set afterwards, lies at

    H^-1 c kappa d / (1 - s)   from the sweep's,   s = kappa c' H^-1 c

(Sherman-Morrison of H - kappa c c'). `s` is the share of the surface's rise along the timescale that is the
timescale's: near 1 the sweep shows the timescale alone, and where the rest has its minimum is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoloss.advice.quantities import Quantity, is_of_mean
from isoloss.arrays import FloatArray
from isoloss.fitting import Fit

SLOPES = {"peak_lr": -1.0, "batch_tokens": 1.0}
"""Of ln tau by the logarithm of each setting."""

MOST_SHARE = 0.9
"""Share of the timescale in the rise of a sweep's surface from which the rest is not known."""


@dataclass(frozen=True)
class Coupling:
    """How far the minima of a sweep at one `weight_decay` move once the timescale is at its best.

    `log_shift` (axes,) of `axes` and its resamples `log_shifts` (resamples, axes); `valley` (1 + resamples,) how
    the best learning rate then goes with a batch that is not the best, None where the batch was not swept.
    """

    weight_decay: float
    axes: tuple[str, ...]
    log_shift: FloatArray
    log_shifts: FloatArray
    valley: FloatArray | None

    def moved(self, name: str, quantity: Quantity) -> Quantity:
        """Return a setting at the best timescale."""
        if name not in self.axes:
            return quantity
        at = self.axes.index(name)
        count = min(len(self.log_shifts), quantity.log_samples.size)
        return replace(
            quantity,
            log_value=quantity.log_value + float(self.log_shift[at]),
            log_samples=quantity.log_samples[:count] + self.log_shifts[:count, at],
        )


def coupling(
    found: Mapping[str, Quantity],
    fits: Mapping[str, Fit],
    n_tokens: float,
    mean_lr_share: float | None,
) -> Coupling | str | None:
    """Return how the settings of sweeps at one weight decay go with the timescale.

    None where nothing couples them: a setting is missing, or comes from a published law in part, or the sweeps were
    made at several weight decays. Why not, in words, where the sweeps show the timescale alone.
    """
    parts = [found.get(name) for name in ("batch_tokens", "peak_lr", "timescale")]
    decay = decay_held(fits.get("optimal_lr"))
    if decay is None or any(one is None or one.prior is not None for one in parts):
        return None
    batch, rate, tau = (one for one in parts if one is not None)
    if is_of_mean(tau) and mean_lr_share is None:
        return None
    share = float(np.log(mean_lr_share)) if is_of_mean(tau) and mean_lr_share else 0.0
    surface, bowl = fits["optimal_lr"].curvature, fits["timescale"].curvature
    if surface is None or bowl is None:
        return None
    n = 1 + min(len(surface) - 1, len(bowl) - 1, *(one.log_samples.size for one in (batch, rate, tau)))
    b, eta, best = (np.append(one.log_value, one.log_samples)[:n] for one in (batch, rate, tau))
    off = b - eta - share - np.log(decay) - np.log(n_tokens) - best
    axes = tuple(fits["optimal_lr"].diagnostics["settings"])
    slopes = np.array([SLOPES[name] for name in axes])
    kappa = bowl[:n, 0, 0]
    toward = np.linalg.solve(surface[:n], np.broadcast_to(slopes[:, None], (n, slopes.size, 1)))[..., 0]
    of_timescale = kappa * (toward @ slopes)
    if not of_timescale[0] < MOST_SHARE:
        return (
            f"learning rate and batch were swept at a weight decay of {decay:.3g} alone, and what their sweeps "
            "show is the timescale's: sweep them at the weight decay that follows from it too"
        )
    kept = np.clip(of_timescale, 0.0, MOST_SHARE)
    shift = toward * (kappa * off / (1 - kept))[:, None]
    rest = surface[:n] - kappa[:, None, None] * np.outer(slopes, slopes)
    return Coupling(decay, axes, shift[0], shift[1:], valley(rest, axes))


def decay_held(fit: Fit | None) -> float | None:
    """Return the weight decay at which all sweeps of a fit were made, None where it is not one above 0."""
    if fit is None or fit.verdict == "unidentified":
        return None
    held = fit.diagnostics.get("held", {})
    decay, kind = held.get("weight_decay"), held.get("weight_decay_kind", "lr_scaled")
    known = decay is not None and decay > 0 and kind == "lr_scaled"
    known = known and set(fit.diagnostics["settings"]) <= SLOPES.keys()
    return float(decay) if known else None


def valley(surface: FloatArray, axes: Sequence[str]) -> FloatArray | None:
    """Return how the best learning rate goes with a batch that is not the best; None where that was not swept.

    An exponent, (members,), of the second derivatives `surface` (members, axes, axes).
    """
    if "batch_tokens" not in axes:
        return None
    lr, batch = axes.index("peak_lr"), axes.index("batch_tokens")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-surface[:, lr, batch] / surface[:, lr, lr])

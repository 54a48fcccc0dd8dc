"""Every quantity of a recommendation, each resample of the runs pushed through all laws that it hangs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.advice.constraints import Constraints
from isoloss.advice.coupling import Coupling, coupling, valley
from isoloss.advice.priors import with_prior
from isoloss.advice.quantities import Quantity, is_of_mean, predicted, reason_of
from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit

LAWS_OF = {
    "batch_tokens": ("optimal_batch", "tokens"),
    "peak_lr": ("optimal_lr", "1"),
    "timescale": ("timescale", "1"),
    "critical_batch_tokens": ("critical_batch", "tokens"),
    "predicted_loss": ("chinchilla", "nats/token"),
}
"""The law that each quantity is read off, and its unit."""

PARTS_OF_DECAY = ("batch_tokens", "peak_lr", "timescale")
"""The quantities that a weight decay follows from."""

NEAR_BEST = 2.0
"""How many times below the best batch a largest one may lie before the loss is not that of the loss law."""

ALONG_VALLEY = 16.0
"""How many times below the best batch the learning rate is taken along: about as far as sweeps reach."""


def chain(
    fits: Mapping[str, Fit],
    target: Mapping[str, float],
    limits: Constraints,
    reasons: dict[str, str],
    priors: Mapping[str, str],
    resamples: int,
    mean_lr_share: float | None = None,
) -> tuple[dict[str, Quantity], Coupling | None]:
    """Return every quantity that the fits determine, and what couples them; `reasons` gets why not of the others.

    `reasons` has why laws without a fit have none. `priors` are the names of published laws by the law that each is
    a prior of: with it the quantity is what both say together, from `resamples` where the runs have none.
    """
    found: dict[str, Quantity] = {}
    for name, (law, unit) in LAWS_OF.items():
        try:
            if law in fits:
                found[name] = predicted(fits[law], target, unit)
            else:
                reasons[name] = f"{law}: {reasons[law]}"
        except (Unidentified, InvalidInput) as error:
            reasons[name] = f"{law}: {reason_of(error)}"
        if law in priors:
            found[name] = with_prior(
                priors[law], found.get(name), fits.get(law), target, resamples, unit, mean_lr_share
            )
    coupled = coupling(found, fits, target["n_tokens"], mean_lr_share)
    if isinstance(coupled, str):
        del found["peak_lr"]
        reasons["peak_lr"] = coupled
        coupled = None
    if coupled is not None:
        found.update({name: coupled.moved(name, found[name]) for name in coupled.axes})
    _limit_batch(found, valley_of(fits) if coupled is None else coupled.valley, limits, reasons)
    return found, coupled


def _limit_batch(
    found: dict[str, Quantity], valley: FloatArray | None, limits: Constraints, reasons: dict[str, str]
) -> None:
    """Hold the batch to the largest one that is allowed, and take the learning rate along its valley.

    Far below the best batch neither that valley nor the loss are known: they are left out.
    """
    batch = found.get("batch_tokens")
    if batch is None or limits.max_batch_tokens is None:
        return
    highest = float(np.log(limits.max_batch_tokens))
    held = replace(
        batch, log_value=min(batch.log_value, highest), log_samples=np.minimum(batch.log_samples, highest)
    )
    found["batch_tokens"] = held
    times = float(np.exp(batch.log_value - held.log_value))
    far = f"the largest batch allowed is {times:.3g} times below the best one"
    if times > NEAR_BEST and found.pop("predicted_loss", None) is not None:
        reasons["predicted_loss"] = f"{far}: what that costs is not in the law of the loss"
    rate = found.get("peak_lr")
    if rate is None or valley is None or held.log_value == batch.log_value:
        return
    if times > ALONG_VALLEY:
        del found["peak_lr"]
        reasons["peak_lr"] = f"{far}: how the learning rate goes along is known near the best batch alone"
        return
    rates, before, after, slopes = _paired(
        [rate.log_samples, batch.log_samples, held.log_samples, valley[1:]]
    )
    found["peak_lr"] = replace(
        rate,
        log_value=rate.log_value + float(valley[0]) * (held.log_value - batch.log_value),
        log_samples=rates + slopes * (after - before),
    )


def valley_of(fits: Mapping[str, Fit]) -> FloatArray | None:
    """Return how the best learning rate goes with a batch that is not the best; None where that was not swept.

    An exponent, of the estimate and of its resamples, (1 + resamples,).
    """
    fit = fits.get("optimal_lr")
    if fit is None or fit.curvature is None:
        return None
    return valley(fit.curvature, fit.diagnostics["settings"])


def add_weight_decay(
    found: dict[str, Quantity], n_tokens: float, mean_lr_share: float | None, reasons: dict[str, str]
) -> None:
    """Add the weight decay that the timescale asks for.

    `mean_lr_share` is the mean learning rate of the recommended schedule as a share of its peak, None where there
    is none: a timescale of the mean then asks for no weight decay.
    """
    parts = {name: found.get(name) for name in PARTS_OF_DECAY}
    lacking = [name for name, one in parts.items() if one is None]
    if lacking:
        reasons["weight_decay"] = (
            f"it follows from {', '.join(parts)}, of which {' and '.join(lacking)} is missing"
        )
        return
    batch, rate, tau = (one for one in parts.values() if one is not None)
    of_mean = is_of_mean(tau)
    if of_mean and mean_lr_share is None:
        why = "the timescale is that of the mean learning rate, and no schedule is known"
        reasons["weight_decay"] = f"{why}: {reasons['schedule']}" if "schedule" in reasons else why
        return
    log_share = float(np.log(mean_lr_share)) if of_mean and mean_lr_share is not None else 0.0

    def decay(b: Any, eta: Any, timescale: Any) -> Any:
        return b - eta - log_share - timescale - np.log(n_tokens)

    found["weight_decay"] = Quantity(
        decay(batch.log_value, rate.log_value, tau.log_value),
        decay(*_paired([batch.log_samples, rate.log_samples, tau.log_samples])),
        "1",
        (*batch.basis, *rate.basis, *tau.basis),
        tau.regret_factor_two,
    )


def _paired(samples: Sequence[FloatArray]) -> list[FloatArray]:
    """Return as many resamples of each as all have: they belong together one by one."""
    count = min(one.size for one in samples)
    return [one[:count] for one in samples]

"""Whether a question is one that the runs can answer, and whether settings of several sweeps belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from isoloss.advice.coupling import Coupling
from isoloss.advice.quantities import Quantity
from isoloss.errors import InvalidInput
from isoloss.fitting import Fit, FitOptions
from isoloss.observations import RunTable

FARTHEST = 1e4
"""How many times beyond all runs a target may lie: farther it is in another unit."""

FEWEST_RESAMPLES = 10
"""Resamples without which no end of an interval is known."""

SAME_BATCH = 2.0
"""How many times apart two batches may lie that have about one best learning rate."""

MOVED = 1.05
"""How many times a setting is moved by its weight decay before that is said."""

SAME_DECAY = 1.5
"""How many times apart two weight decays may lie under which the best settings are about the same."""


def check_resamples(asked: FitOptions) -> None:
    """Raise InvalidInput for hardly any resamples."""
    if asked.bootstrap < FEWEST_RESAMPLES:
        reason = f"a recommendation is made of resamples: at least {FEWEST_RESAMPLES} are needed"
        raise InvalidInput(field="bootstrap", reason=reason)


def check_reach(runs: RunTable, n_params: float, n_tokens: float) -> None:
    """Raise InvalidInput for a target so far from all runs that its unit is wrong."""
    for name, target in (("n_params", n_params), ("n_tokens", n_tokens)):
        known = runs.column(name)[np.isfinite(runs.column(name))]
        if known.size and not known.min() / FARTHEST <= target <= known.max() * FARTHEST:
            between = f"between {known.min():.3g} and {known.max():.3g}"
            reason = (
                f"is {target:.3g}, and those of the runs lie {between}: give it in the same unit, one by one"
            )
            raise InvalidInput(field=name, reason=reason)


def keep_to_batch(
    quantities: dict[str, Quantity], fits: Mapping[str, Fit], runs: RunTable, reasons: dict[str, str]
) -> None:
    """Leave out a learning rate that was swept at other batches than the recommended one, and at those alone."""
    batch, rate = quantities.get("batch_tokens"), quantities.get("peak_lr")
    swept = runs.column("batch_tokens")[np.isfinite(runs.column("peak_lr"))]
    swept = swept[np.isfinite(swept)]
    both = "optimal_lr" in fits and "batch_tokens" in fits["optimal_lr"].diagnostics["settings"]
    if batch is None or rate is None or not swept.size or both:
        return
    at = float(np.exp(batch.log_value))
    if swept.min() / SAME_BATCH <= at <= swept.max() * SAME_BATCH:
        return
    del quantities["peak_lr"]
    between = (
        f"{swept.min():.3g}" if swept.min() == swept.max() else f"{swept.min():.3g} to {swept.max():.3g}"
    )
    reasons["peak_lr"] = (
        f"the learning rate was swept at batches of {between} tokens alone, and the batch is {at:.3g}: sweep both "
        "together"
    )


def unlike_decays(
    quantities: Mapping[str, Quantity], runs: RunTable, coupled: Coupling | None
) -> Iterator[str]:
    """Say where learning rate and batch were swept at another weight decay than the one that follows, or kind.

    Where they were `coupled` with the timescale, how far that moved them.
    """
    decay, rate = quantities.get("weight_decay"), quantities.get("peak_lr")
    if decay is None or rate is None:
        return
    told = float(np.exp(decay.log_value))
    if "independent" in runs.label("weight_decay_kind"):
        independent = told * float(np.exp(rate.log_value))
        yield (
            "the weight decay is the one that is multiplied by the learning rate; as an independent one, which "
            f"runs have, it is {independent:.3g} at the peak"
        )
        return
    if coupled is not None:
        times = [
            f"{name} by {np.exp(shift):.3g}"
            for name, shift in zip(coupled.axes, coupled.log_shift, strict=True)
        ]
        if np.any(np.abs(coupled.log_shift) > np.log(MOVED)):
            yield (
                f"the sweeps were made at a weight decay of {coupled.weight_decay:.3g}, and {told:.3g} follows "
                "from the timescale: at that one the best values are others, which multiplies "
                f"{' and '.join(times)}"
            )
        return
    usual = _usual_decay(runs)
    if usual is not None and max(told / usual, usual / told) > SAME_DECAY:
        yield (
            f"learning rate and batch were swept at a weight decay of {usual:.3g}, and {told:.3g} follows from the "
            "timescale: at that one their best values may be others, by more than the intervals say"
        )


def _usual_decay(runs: RunTable) -> float | None:
    """Return the weight decay of most runs, None where they state none."""
    known = runs.column("weight_decay")[runs.column("weight_decay") > 0]
    if not known.size:
        return None
    values, counts = np.unique(known.round(12), return_counts=True)
    return float(values[np.argmax(counts)])

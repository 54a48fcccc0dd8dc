"""The best peak learning rate of a horizon and schedule, by the final loss that a law of curves predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit
from isoloss.fitting.ranges import SAME_PEAK
from isoloss.schedules import schedule_from_spec

PEAKS = 25
"""Peak learning rates that are tried, evenly spaced in logarithms between the least and the largest fitted one."""


@dataclass(frozen=True)
class BestPeak:
    """The peak of the least predicted final loss: `log_value`, and `log_samples` (resamples,) of it.

    `on_edge` is the share of resamples whose best peak is the least or the largest that was fitted.
    """

    log_value: float
    log_samples: FloatArray
    on_edge: float


def best_peak(fit: Fit, schedule: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> BestPeak:
    """Return the peak learning rate of a declared schedule at which a fit predicts the least final loss.

    `schedule` is a declaration whose `peak_lr` is what is searched; between the tried peaks the loss is a parabola
    in the logarithm. Every resample of the fit has its own best. Raises InvalidInput for a law that does not carry
    over peaks and Unidentified where the best lies beyond those that were fitted: a trend outside is no optimum.
    """
    if not getattr(fit.law, "carries_over_peaks", False):
        raise InvalidInput(field="fit", reason=f"{fit.law_name} does not carry over peak learning rates")
    low, high = _fitted_peaks(fit)
    logs = np.linspace(np.log(low), np.log(high), PEAKS)
    losses = np.stack([_final_losses(fit, schedule, float(np.exp(one)), config) for one in logs], axis=1)
    best, inside = _least(logs, losses)
    if not inside[0]:
        which = "largest" if best[0] > logs.mean() else "least"
        at = f"the {which} that was trained ({np.exp(best[0]):.3g})"
        reason = f"the best peak learning rate is {at}: it may lie beyond"
        raise Unidentified(reason=reason)
    return BestPeak(float(best[0]), best[1:], float(1 - inside[1:].mean()) if best.size > 1 else 0.0)


def _fitted_peaks(fit: Fit) -> tuple[float, float]:
    peaks = fit.fitted_range.peak_lrs  # type: ignore[attr-defined]
    low, high = min(peaks), max(peaks)
    if high <= low * (1 + SAME_PEAK):
        raise Unidentified(
            reason="the curves have one peak learning rate: where the best one lies is not shown"
        )
    return float(low), float(high)


def _final_losses(
    fit: Fit, spec: Mapping[str, Any], peak_lr: float, config: Mapping[str, Any] | None
) -> FloatArray:
    """Return the log loss at the end, (1 + resamples,), the estimate first."""
    schedule = schedule_from_spec({**spec, "peak_lr": peak_lr})
    asked = {"schedule": schedule, "steps": np.array([schedule.total_steps]), "config": config}
    centre, members = fit.log_members(asked)
    return np.concatenate([centre, members[:, 0]])


def _least(logs: FloatArray, losses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return where each row of losses (members, peaks) is least, and whether that is between two peaks."""
    at = np.argmin(losses, axis=1)
    inside = (at > 0) & (at < logs.size - 1)
    middle = np.clip(at, 1, logs.size - 2)
    rows = np.arange(len(losses))
    before, here, after = (losses[rows, middle + off] for off in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1.0), 0.0)
    step = logs[1] - logs[0]
    return np.where(inside, logs[middle] + np.clip(shift, -0.5, 0.5) * step, logs[at]), inside

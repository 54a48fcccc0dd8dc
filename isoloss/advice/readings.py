"""What other laws read a recommended setting as, beside the one that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.advice.best_peak import best_peak
from isoloss.advice.quantities import Basis, Quantity, interval_of, is_of_mean, predicted, reason_of
from isoloss.advice.suggested_schedule import drawn_out, kind_of, why_none
from isoloss.arrays import FloatArray
from isoloss.errors import FitFailed, InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit, fit
from isoloss.fitting.estimate import Progress
from isoloss.laws.steps_to_target import b_crit
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import LeftOut

USUAL_SCHEDULE = "linear"
"""The schedule of which the best peak is told where the runs have none in common: it decays to 0."""


@dataclass(frozen=True)
class Reading:
    """What another law says of a setting: `log_value` and resamples of it, or None with the `reason`.

    `at` says for which run it holds where that is not the target, and `beside` what the main law says of that one.
    """

    law: str
    unit: str
    at: Mapping[str, Any]
    log_value: float | None = None
    log_samples: FloatArray | None = None
    beside: float | None = None
    basis: Sequence[Basis] = ()
    reason: str | None = None

    def as_dict(self, level: float) -> dict[str, Any]:
        ends = interval_of(self.log_samples, level)
        return {
            "law": self.law,
            "value": None if self.log_value is None else float(np.exp(self.log_value)),
            "unit": self.unit,
            "interval": None if ends is None else list(ends),
            "at": dict(self.at),
            "beside": self.beside,
            "basis": [one.as_dict() for one in self.basis],
            "reason": self.reason,
        }


def of_other_timescale(found: Quantity | None, mean_lr_share: float | None) -> list[Reading]:
    """Return the timescale of the mean learning rate beside that of the peak, or the other way round.

    The recommended schedule joins them, by its mean learning rate as a share of its peak; without it there is none.
    """
    if found is None or mean_lr_share is None:
        return []
    of_mean = is_of_mean(found)
    at = {"learning_rate": "peak" if of_mean else "mean", "mean_lr_share": mean_lr_share}
    away = float(np.log(mean_lr_share)) * (1 if of_mean else -1)
    log_value, samples = found.log_value + away, found.log_samples + away
    return [Reading("timescale", "1", at, log_value, samples, basis=found.basis)]


Found = tuple[list[Reading], dict[str, Fit]]
"""Readings, and the fits that they rest on by their laws."""


def of_curves(
    curves: Sequence[Curve],
    target: Mapping[str, float],
    main: Fit | None,
    runs: RunTable,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Found:
    """Return the best peak learning rate that curves of several peaks show, for their own size and batch."""
    chosen = alike(curves)
    if not chosen:
        return [], {}
    one = chosen[0]
    at: dict[str, Any] = {"n_params": one.n_params, "batch_tokens": one.batch_tokens}
    if one.batch_tokens is None:
        return [
            _refused("effective_lr", at, "the curves state no batch_tokens: their horizon is not known")
        ], {}
    kind = USUAL_SCHEDULE if why_none(runs) else kind_of(runs)
    steps = max(2, round(target["n_tokens"] / one.batch_tokens))
    schedule = drawn_out(runs, steps, one.schedule.peak_lr, kind)
    at |= {"n_tokens": target["n_tokens"], "schedule": schedule["kind"]}
    try:
        found = fit("effective_lr", chosen, progress=progress, **options)
    except (UnusableData, FitFailed, InvalidInput) as error:
        return [_refused("effective_lr", at, str(error.fields.get("reason", error)))], {}
    return [_best_peak(found, chosen, schedule, at, main)], {"effective_lr": found}


def alike(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves of the largest size, and of one batch, that were trained at several peak learning rates."""
    groups: dict[tuple[float, float], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.n_params or 0.0, curve.batch_tokens or 0.0), []).append(curve)
    for key in sorted(groups, reverse=True):
        if len({f"{one.schedule.peak_lr:.4g}" for one in groups[key]}) > 1:
            return groups[key]
    return []


def _best_peak(
    found: Fit, curves: Sequence[Curve], schedule: Mapping[str, Any], at: Mapping[str, Any], main: Fit | None
) -> Reading:
    decays = {curve.weight_decay for curve in curves}
    try:
        best = best_peak(found, schedule, {"weight_decay": decays.pop()} if len(decays) == 1 else None)
    except (Unidentified, InvalidInput) as error:
        return _refused("effective_lr", at, reason_of(error))
    return Reading(
        "effective_lr",
        "1",
        at,
        best.log_value,
        best.log_samples,
        _beside(main, at),
        (Basis(found, max(1.0, schedule["total_steps"] / _longest(curves))),),
        f"at {best.on_edge:.0%} of resamples it is the least or largest peak trained"
        if best.on_edge
        else None,
    )


def _longest(curves: Sequence[Curve]) -> float:
    return float(max(curve.step[-1] for curve in curves))


def _beside(main: Fit | None, at: Mapping[str, Any]) -> float | None:
    """Return what the law of sweeps says of the same run; None where it says nothing."""
    if main is None or at["n_params"] is None:
        return None
    try:
        told = predicted(main, {name: float(at[name]) for name in ("n_params", "n_tokens")}, "1")
    except (Unidentified, InvalidInput):
        return None
    return float(np.exp(told.log_value))


def of_critical_batch(
    runs: RunTable,
    noise: RunTable | None,
    target: Mapping[str, float],
    options: Mapping[str, Any],
    unread: Mapping[str, LeftOut],
    progress: Progress | None,
) -> Found:
    """Return the critical batch by steps to a target loss, and by the noise of gradients, where there are some."""
    readings: list[Reading] = []
    fits: dict[str, Fit] = {}
    sources = (("steps_to_target", runs, unread["runs"]), ("noise_scale", noise, unread["noise"]))
    for law, table, left_out in sources:
        if table is None or (law == "steps_to_target" and not np.isfinite(runs.column(law)).any()):
            continue
        try:
            fits[law] = found = fit(law, table, left_out=left_out, progress=progress, **options)
            readings += _critical(found, target)
        except (UnusableData, FitFailed, InvalidInput, Unidentified) as error:
            readings.append(_refused(law, {}, str(error.fields.get("reason", error)), "tokens"))
    return readings, fits


def _critical(found: Fit, target: Mapping[str, float]) -> Iterator[Reading]:
    if found.law_name == "noise_scale":
        told = predicted(found, {"n_tokens": target["n_tokens"]}, "tokens")
        yield _of_quantity("noise_scale", {"n_tokens": target["n_tokens"]}, told)
        return
    if found.verdict == "unidentified":
        raise Unidentified(reason="; ".join(found.reasons))
    size = target["n_params"]
    few, few_slope, more, more_slope = np.concatenate([found.theta[None], found.samples]).T
    logs = np.log(b_crit(few, more)) + (more_slope - few_slope) * np.log(size)
    samples = logs[0] + found.inflation * (logs[1:] - logs[0])
    low, high = found.fitted_range.columns["n_params"]  # type: ignore[attr-defined]
    basis = (Basis(found, float(max(1.0, size / high, low / size))),)
    yield Reading("steps_to_target", "tokens", {"n_params": size}, float(logs[0]), samples, None, basis)


def _of_quantity(law: str, at: Mapping[str, Any], told: Quantity) -> Reading:
    return Reading(law, told.unit, at, told.log_value, told.log_samples, None, told.basis)


def _refused(law: str, at: Mapping[str, Any], reason: str, unit: str = "1") -> Reading:
    return Reading(law, unit, at, reason=reason)

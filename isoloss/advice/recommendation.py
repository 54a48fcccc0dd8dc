"""How a run of a given size and data is best set, from runs that were trained: every number with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isoloss.advice.constraints import Constraints, positive
from isoloss.advice.progress import part
from isoloss.advice.quantities import Quantity, predicted
from isoloss.advice.wanted import Wanted, wanted
from isoloss.arrays import FloatArray
from isoloss.errors import FitFailed, InvalidInput, InvalidSchedule, Unidentified, UnusableData
from isoloss.fitting import Fit, FitOptions, fit
from isoloss.fitting.estimate import Progress
from isoloss.fitting.staged.chains import group_rows
from isoloss.observations import RunTable
from isoloss.schedules import schedule_from_spec

LAWS_ASKED = ("optimal_lr", "optimal_batch", "timescale", "critical_batch", "chinchilla")
"""The fits that a recommendation rests on."""

LAWS_OF_TUNED = ("chinchilla",)
"""Those that are fitted to the best run at each size and data."""

NEAR_BEST = 2.0
"""How many times below the best batch a largest one may lie before the loss is not that of the loss law."""

ALONG_VALLEY = 16.0
"""How many times below the best batch the learning rate is taken along: about as far as sweeps reach."""

WIDTH_IN_ERRORS = 3.3
"""Standard errors in the width of a 90 percent interval."""

FAR_BEYOND = 10.0
"""How many times beyond the data a target may lie before the answer says so."""


@dataclass(frozen=True)
class Recommendation:
    """Settings of a run of `n_params` and `n_tokens`; a quantity is missing where the runs do not determine it.

    `quantities` by name, `reasons` why others are missing and `wanted` the runs that would determine them;
    `schedule` is a declaration, or None, and `mean_lr_share` the mean of its learning rate as a share of the peak;
    `cost` what the run takes; `fits` what all of it rests on.
    """

    n_params: float
    n_tokens: float
    level: float
    quantities: Mapping[str, Quantity]
    reasons: Mapping[str, str]
    wanted: Sequence[Wanted]
    schedule: Mapping[str, Any] | None
    cost: Mapping[str, float | None]
    warnings: Sequence[str]
    fits: Mapping[str, Fit] = field(repr=False)
    mean_lr_share: float | None = None

    NAMES = (
        "peak_lr",
        "weight_decay",
        "batch_tokens",
        "critical_batch_tokens",
        "timescale",
        "predicted_loss",
    )

    def as_dict(self) -> dict[str, Any]:
        """Return what the API shows, as plain JSON values: what the runs do not determine has null and a reason."""
        missing: dict[str, Any] = {"value": None, "interval": None, "regret_factor_two": None, "basis": []}
        told = {
            name: self.quantities[name].as_dict(self.level)
            if name in self.quantities
            else {**missing, "reason": self.reasons.get(name, "the runs do not determine it")}
            for name in self.NAMES
        }
        return {
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "level": self.level,
            **told,
            "schedule": {
                "value": None if self.schedule is None else dict(self.schedule),
                "reason": self.reasons.get("schedule"),
            },
            "timescale_readings": self._timescale_readings(),
            "cost": dict(self.cost),
            "wanted": [one.as_dict() for one in self.wanted],
            "warnings": list(self.warnings),
        }

    def _timescale_readings(self) -> dict[str, Any] | None:
        """Return the timescale of the peak and of the mean learning rate, null where no schedule joins them."""
        tau, share = self.quantities.get("timescale"), self.mean_lr_share
        if tau is None:
            return None
        value, effective = float(np.exp(tau.log_value)), _is_effective(tau)
        other = None if share is None else value * share if effective else value / share
        peak, mean = (other, value) if effective else (value, other)
        reading = "effective" if effective else "peak"
        return {"reading": reading, "peak": peak, "effective": mean, "mean_lr_share": share}


def recommend(
    runs: RunTable,
    *,
    n_params: float,
    n_tokens: float,
    constraints: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Recommendation:
    """Return how a run of this size and data is best set, as the runs say.

    `runs` are finished runs (`isoloss.read_runs`); `constraints` as in `Constraints`; `options` those of fits
    (`bootstrap`, `level`, `seed`, `target`). Every resample goes through the whole chain: batch and learning rate,
    the timescale, and the weight decay lambda = B / (eta tau D) that follows, eta the peak or the mean learning
    rate as the timescale's reading says (laws.md 3). Raises InvalidInput for what contradicts itself, UnusableData
    where no run can be used at all.
    """
    size, data = positive(n_params, "n_params"), positive(n_tokens, "n_tokens")
    limits, asked = Constraints.of(constraints), FitOptions.from_mapping(options)
    if not isinstance(runs, RunTable):
        raise InvalidInput(field="runs", reason="must be a table of finished runs (isoloss.read_runs)")
    fits, reasons = _fits(runs, options, progress)
    target = {"n_params": size, "n_tokens": data}
    quantities = _chain(fits, target, limits, reasons)
    schedule = _schedule(runs, quantities, data, reasons)
    share = _mean_share(schedule)
    _add_weight_decay(quantities, data, share, reasons)
    cost = limits.cost(size, data)
    lacking = wanted(runs, {name: fits.get(name) for name in LAWS_ASKED if name not in _used(quantities)})
    warnings = [*limits.broken(cost), *_warnings(quantities, limits, fits)]
    return Recommendation(
        size, data, asked.level, quantities, reasons, lacking, schedule, cost, warnings, fits, share
    )


def _fits(
    runs: RunTable, options: Mapping[str, Any], progress: Progress | None
) -> tuple[dict[str, Fit], dict[str, str]]:
    """Return the fits of all laws that the runs can be fitted with, and why not of the others by their names."""
    found: dict[str, Fit] = {}
    reasons: dict[str, str] = {}
    for number, law in enumerate(LAWS_ASKED):
        told = part(progress, number, len(LAWS_ASKED), law)
        try:
            found[law] = fit(law, fitted_to(law, runs), progress=told, **options)
        except (UnusableData, FitFailed, InvalidInput) as error:
            reasons[law] = str(error.fields.get("reason", error))
    if not found:
        raise UnusableData(reason="; ".join(f"{law}: {why}" for law, why in reasons.items()))
    return found, reasons


def fitted_to(law: str, runs: RunTable) -> RunTable:
    """Return the runs that a law is fitted to: laws of the loss are of runs that were tuned."""
    return best_of_each(runs) if law in LAWS_OF_TUNED else runs


def best_of_each(runs: RunTable) -> RunTable:
    """Return the best run at each size and data."""
    columns = [runs.column(name) for name in ("n_params", "n_tokens")]
    known = np.all(np.isfinite([*columns, runs.outcome]), axis=0)
    rows = runs.only(np.flatnonzero(known))
    groups = group_rows([rows.column(name) for name in ("n_params", "n_tokens")]) if rows.n_runs else []
    return rows.only([min(group, key=lambda row: float(rows.outcome[row])) for group in groups])


def _chain(
    fits: Mapping[str, Fit], target: Mapping[str, float], limits: Constraints, reasons: dict[str, str]
) -> dict[str, Quantity]:
    """Return every quantity that the fits determine, each resample pushed through all of them."""
    found: dict[str, Quantity] = {}
    laws = {
        "batch_tokens": ("optimal_batch", "tokens"),
        "peak_lr": ("optimal_lr", "1"),
        "timescale": ("timescale", "1"),
        "critical_batch_tokens": ("critical_batch", "tokens"),
        "predicted_loss": ("chinchilla", "nats/token"),
    }
    for name, (law, unit) in laws.items():
        try:
            if law in fits:
                found[name] = predicted(fits[law], target, unit)
            else:
                reasons[name] = f"{law}: {reasons[law]}"
        except (Unidentified, InvalidInput) as error:
            reasons[name] = f"{law}: {error.fields.get('reason', error)}"
    _limit_batch(found, fits, limits, reasons)
    return found


def _limit_batch(
    found: dict[str, Quantity], fits: Mapping[str, Fit], limits: Constraints, reasons: dict[str, str]
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
    rate, valley = found.get("peak_lr"), _valley(fits)
    if rate is None or valley is None or held.log_value == batch.log_value:
        return
    if times > ALONG_VALLEY:
        del found["peak_lr"]
        reasons["peak_lr"] = f"{far}: how the learning rate goes along is known near the best batch alone"
        return
    drawn = np.random.default_rng(0).standard_normal(rate.log_samples.size)
    slopes = valley.value + valley.error * drawn
    found["peak_lr"] = replace(
        rate,
        log_value=rate.log_value + valley.value * (held.log_value - batch.log_value),
        log_samples=rate.log_samples + slopes * (held.log_samples - batch.log_samples),
    )


@dataclass(frozen=True)
class Valley:
    """How the best learning rate goes with a batch that is not the best: an exponent, with its standard error."""

    value: float
    error: float


def _valley(fits: Mapping[str, Fit]) -> Valley | None:
    """Return the valley of the sweeps; None where the batch was not swept."""
    for one in fits["optimal_lr"].derived:
        if one.name == "peak_lr.exponent_batch_tokens" and one.value is not None:
            low, high = one.interval or (one.value, one.value)
            return Valley(one.value, (high - low) / WIDTH_IN_ERRORS)
    return None


def _is_effective(tau: Quantity) -> bool:
    """Return whether a timescale is that of the mean learning rate, not of the peak."""
    return tau.basis[0].fit.law.convention == "effective"


def _mean_share(schedule: Mapping[str, Any] | None) -> float | None:
    """Return the mean learning rate of a schedule as a share of its peak; None where it does not say."""
    try:
        return None if schedule is None else schedule_from_spec(schedule).mean_share
    except InvalidSchedule:
        return None


def _add_weight_decay(
    found: dict[str, Quantity], n_tokens: float, share: float | None, reasons: dict[str, str]
) -> None:
    """Add the weight decay that the timescale asks for; `share` is the recommended schedule's mean of its peak."""
    parts = {name: found.get(name) for name in ("batch_tokens", "peak_lr", "timescale")}
    lacking = [name for name, one in parts.items() if one is None]
    if lacking:
        reasons["weight_decay"] = (
            f"it follows from {', '.join(parts)}, of which {' and '.join(lacking)} is missing"
        )
        return
    batch, rate, tau = (one for one in parts.values() if one is not None)
    if _is_effective(tau) and share is None:
        why = "the timescale is that of the mean learning rate, and no schedule is known"
        reasons["weight_decay"] = f"{why}: {reasons['schedule']}" if "schedule" in reasons else why
        return
    log_share = float(np.log(share)) if share is not None and _is_effective(tau) else 0.0

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


def _schedule(
    runs: RunTable, quantities: Mapping[str, Quantity], n_tokens: float, reasons: dict[str, str]
) -> dict[str, Any] | None:
    """Return the schedule of the runs, drawn out to the target; None where they state none, or several."""
    kinds = {kind for kind in runs.label("schedule_kind") if kind is not None}
    if len(kinds) != 1:
        reasons["schedule"] = (
            "the runs state no schedule" if not kinds else f"they have {', '.join(sorted(kinds))}"
        )
        return None
    if not {"batch_tokens", "peak_lr"} <= quantities.keys():
        reasons["schedule"] = "it needs a batch and a peak learning rate"
        return None
    steps = max(2, round(n_tokens / float(np.exp(quantities["batch_tokens"].log_value))))
    share = runs.column("warmup_share")
    warmup = 0 if np.isnan(share).all() else round(float(np.nanmedian(share)) * steps)
    peak = float(np.exp(quantities["peak_lr"].log_value))
    return {
        "kind": kinds.pop(),
        "total_steps": steps,
        "warmup_steps": min(warmup, steps - 1),
        "peak_lr": peak,
    }


def _used(quantities: Mapping[str, Quantity]) -> set[str]:
    return {one.fit.law_name for quantity in quantities.values() for one in quantity.basis}


def _warnings(
    quantities: Mapping[str, Quantity], limits: Constraints, fits: Mapping[str, Fit]
) -> Iterator[str]:
    beyond = {
        basis.fit.law_name: basis.extrapolation_factor
        for quantity in quantities.values()
        for basis in quantity.basis
        if basis.extrapolation_factor > FAR_BEYOND
    }
    yield from (f"{law} is asked {factor:.3g} times beyond its runs" for law, factor in beyond.items())
    batch, critical = quantities.get("batch_tokens"), quantities.get("critical_batch_tokens")
    if batch is not None and critical is not None and batch.log_value > critical.log_value:
        yield "the best batch lies above the critical batch: a smaller one would need less data for the same loss"
    if limits.max_batch_tokens is not None and "optimal_lr" in fits and _valley(fits) is None:
        yield "the batch was not swept: how the learning rate goes with a smaller batch is not known"
    weak = sorted({law for law in _used(quantities) if fits[law].verdict == "weak"})
    if weak:
        yield f"weak fits, whose reasons are worth reading: {', '.join(weak)}"

"""How a run of a given size and data is best set, from runs that were trained: every number with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.advice.agreement import check_reach, check_resamples, keep_to_batch, unlike_decays
from isoloss.advice.chain import PARTS_OF_DECAY, add_weight_decay, chain, valley_of
from isoloss.advice.constraints import Constraints, positive
from isoloss.advice.coupling import decay_held
from isoloss.advice.priors import disagreement
from isoloss.advice.progress import part
from isoloss.advice.published import PUBLISHED, chosen_priors
from isoloss.advice.quantities import Quantity
from isoloss.advice.readings import Reading, of_critical_batch, of_curves, of_other_timescale
from isoloss.advice.suggested_schedule import drawn_out, why_none
from isoloss.advice.wanted import Wanted, wanted
from isoloss.advice.width import Shape, shape_of, width_rule
from isoloss.errors import FitFailed, InvalidInput, InvalidSchedule, UnusableData
from isoloss.fitting import Fit, FitOptions, fit
from isoloss.fitting.estimate import Progress
from isoloss.fitting.staged.chains import group_rows
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import LeftOut
from isoloss.schedules import schedule_from_spec

LAWS_ASKED = ("optimal_lr", "optimal_batch", "timescale", "critical_batch", "chinchilla")
"""The fits that a recommendation rests on."""

LAWS_OF_TUNED = ("chinchilla",)
"""Those that are fitted to the best run at each size and data."""

FAR_BEYOND = 10.0
"""How many times beyond the data a target may lie before the answer says so."""


@dataclass(frozen=True)
class Recommendation:
    """Settings of a run of `n_params` and `n_tokens`; a quantity is missing where the runs do not determine it.

    `quantities` by name, `reasons` why others are missing and `wanted` the runs that would determine them;
    `readings` are what other laws say of a quantity, by its name. `schedule` is a declaration, or None; `shape`
    that of the model where its width or depth is fixed; `cost` what the run takes; `fits` what all of it rests on.
    """

    n_params: float
    n_tokens: float
    level: float
    quantities: Mapping[str, Quantity]
    reasons: Mapping[str, str]
    readings: Mapping[str, Sequence[Reading]]
    wanted: Sequence[Wanted]
    schedule: Mapping[str, Any] | None
    shape: Shape | None
    cost: Mapping[str, float | None]
    warnings: Sequence[str]
    fits: Mapping[str, Fit] = field(repr=False)

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
        told = {name: {**self._told(name), "readings": self._read(name)} for name in self.NAMES}
        return {
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "level": self.level,
            **told,
            "schedule": {
                "value": None if self.schedule is None else dict(self.schedule),
                "reason": self.reasons.get("schedule"),
            },
            "shape": None if self.shape is None else self.shape.as_dict(),
            "cost": dict(self.cost),
            "wanted": [one.as_dict() for one in self.wanted],
            "warnings": list(self.warnings),
        }

    def _told(self, name: str) -> dict[str, Any]:
        if name in self.quantities:
            return self.quantities[name].as_dict(self.level)
        missing = dict.fromkeys(("value", "interval", "regret_factor_two", "prior"))
        return {**missing, "basis": [], "reason": self.reasons.get(name, "the runs do not determine it")}

    def _read(self, name: str) -> list[dict[str, Any]]:
        return [one.as_dict(self.level) for one in self.readings.get(name, ())]


def recommend(
    runs: RunTable,
    *,
    n_params: float,
    n_tokens: float,
    constraints: Mapping[str, Any] | None = None,
    priors: Sequence[str] = (),
    curves: Sequence[Curve] = (),
    noise: RunTable | None = None,
    unread: Mapping[str, LeftOut] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Recommendation:
    """Return how a run of this size and data is best set, as the runs say.

    `runs` are finished runs (`isoloss.read_runs`); `constraints` as in `Constraints`; `options` those of fits
    (`bootstrap`, `level`, `seed`, `target`). Every resample goes through the whole chain: batch and learning rate,
    the timescale, and the weight decay lambda = B / (eta tau D) that follows, eta the peak or the mean learning
    rate as the timescale is (laws.md 3). `curves` of several peak learning rates and readings of gradient `noise`
    give other readings, shown beside. `priors` names published laws (`isoloss.advice.PUBLISHED`) that enter where
    the runs say little. `unread` names those of the "runs", "curves" and "noise" that the caller could not read,
    for the `left_out` of their fits. Raises InvalidInput for what contradicts itself, UnusableData where no run
    can be used at all.
    """
    size, data = positive(n_params, "n_params"), positive(n_tokens, "n_tokens")
    limits, asked = Constraints.of(constraints), FitOptions.from_mapping(options)
    named = chosen_priors(priors)
    if not isinstance(runs, RunTable):
        raise InvalidInput(field="runs", reason="must be a table of finished runs (isoloss.read_runs)")
    check_resamples(asked)
    check_reach(runs, size, data)
    n_parts = len(LAWS_ASKED) + sum((bool(curves), noise is not None))
    lost = {name: (unread or {}).get(name, []) for name in ("runs", "curves", "noise")}
    fits, reasons = _fits(runs, {**options, "left_out": lost["runs"]}, progress, n_parts)
    target = {"n_params": size, "n_tokens": data}
    shares = runs.column("mean_lr_share")
    share = None if np.isnan(shares).all() else float(np.nanmedian(shares))
    quantities, coupled = chain(fits, target, limits, reasons, named, asked.bootstrap, share)
    keep_to_batch(quantities, fits, runs, reasons)
    schedule = _schedule(runs, quantities, data, reasons)
    share = _mean_lr_share(schedule)
    add_weight_decay(quantities, data, share, reasons)
    shape = shape_of(runs, size, limits)
    told = part(progress, len(LAWS_ASKED), n_parts, "effective_lr")
    of_these = {**options, "left_out": lost["curves"]}
    by_curves, of_peaks = of_curves(curves, target, fits.get("optimal_lr"), runs, of_these, told)
    told = part(progress, n_parts - 1, n_parts, "noise_scale")
    by_steps, of_noise = of_critical_batch(runs, noise, target, options, lost, told)
    if not {**fits, **of_peaks, **of_noise} and not named:
        raise UnusableData(reason="; ".join(f"{law}: {reasons[law]}" for law in LAWS_ASKED))
    readings = {
        "peak_lr": by_curves,
        "critical_batch_tokens": by_steps,
        "timescale": of_other_timescale(quantities.get("timescale"), share),
    }
    width = None if shape is None else shape.width
    for name, found in width_rule(runs, fits, target, width, quantities.get("batch_tokens")).items():
        readings[name] = [*readings.get(name, ()), *found]
    cost = limits.cost(size, data)
    determined = {name for name, one in fits.items() if one.verdict != "unidentified" and not one.missing}
    lacking = wanted(runs, {name: fits.get(name) for name in LAWS_ASKED if name not in determined})
    warnings = [
        *limits.broken(cost),
        *_warnings(quantities, limits, fits),
        *_of_priors(quantities, runs),
        *unlike_decays(quantities, runs, coupled),
        *([shape.warning] if shape is not None and shape.warning else ()),
    ]
    return Recommendation(
        size, data, asked.level, quantities, reasons, readings, lacking, schedule, shape, cost, warnings,
        {**fits, **of_peaks, **of_noise},
    )  # fmt: skip


def _fits(
    runs: RunTable, options: Mapping[str, Any], progress: Progress | None, n_parts: int
) -> tuple[dict[str, Fit], dict[str, str]]:
    """Return the fits of all laws that the runs can be fitted with, and why not of the others by their names."""
    found: dict[str, Fit] = {}
    reasons: dict[str, str] = {}
    for number, law in enumerate(LAWS_ASKED):
        told = part(progress, number, n_parts, law)
        try:
            found[law] = fit(law, fitted_to(law, runs), progress=told, **options)
        except (UnusableData, FitFailed, InvalidInput) as error:
            reasons[law] = str(error.fields.get("reason", error))
    if {"optimal_batch", "timescale"} <= found.keys() and decay_held(found.get("optimal_lr")) is not None:
        found["optimal_batch"] = _with_size(found["optimal_batch"], runs, options)
    return found, reasons


def _with_size(batch: Fit, runs: RunTable, options: Mapping[str, Any]) -> Fit:
    """Return the law of the best batch over size and data, as it is where all sweeps have one weight decay.

    The timescale goes with the size, and at a fixed weight decay draws the best batch along, by too little for
    left-out sites to show it. The law is as it was where size and data cannot be told apart.
    """
    if batch.law.convention != "data":
        return batch
    with_size = fit("optimal_batch", runs, **{**options, "convention": "size_and_data"})
    return batch if with_size.verdict == "unidentified" or with_size.missing else with_size


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


def _schedule(
    runs: RunTable, quantities: Mapping[str, Quantity], n_tokens: float, reasons: dict[str, str]
) -> dict[str, Any] | None:
    """Return the schedule of the runs, drawn out to the target; None where they state none, or several."""
    why = why_none(runs)
    if why is None and not {"batch_tokens", "peak_lr"} <= quantities.keys():
        why = "it needs a batch and a peak learning rate"
    if why is not None:
        reasons["schedule"] = why
        return None
    batch, peak = (float(np.exp(quantities[name].log_value)) for name in ("batch_tokens", "peak_lr"))
    return drawn_out(runs, max(2, round(n_tokens / batch)), peak)


def _mean_lr_share(schedule: Mapping[str, Any] | None) -> float | None:
    """Return the mean learning rate of a schedule as a share of its peak; None where it does not say."""
    try:
        return None if schedule is None else schedule_from_spec(schedule).mean_share
    except InvalidSchedule:
        return None


def _used(quantities: Mapping[str, Quantity]) -> set[str]:
    """Return the laws that the runs determined and a quantity rests on."""
    basis = (one.fit for quantity in quantities.values() for one in quantity.basis)
    return {fit.law_name for fit in basis if fit.verdict != "unidentified"}


def _of_priors(quantities: Mapping[str, Quantity], runs: RunTable) -> Iterator[str]:
    """Say where a published law disagrees with the runs or counts another kind of parameters, and what it is in."""
    parts = {name: quantities[name].prior for name in PARTS_OF_DECAY if name in quantities}
    of_law = [
        f"{prior.share:.0%} of the {name} is {prior.name}"
        for name, prior in parts.items()
        if prior is not None
    ]
    if of_law and "weight_decay" in quantities:
        yield f"the weight decay rests on published laws: {', '.join(of_law)}"
    for name, one in quantities.items():
        said = disagreement(name, one)
        if said:
            yield said
        kind = None if one.prior is None else PUBLISHED[one.prior.name].n_params_kind
        if one.prior is not None and kind is not None and runs.n_params_kind not in (None, kind):
            yield f"{one.prior.name} counts {kind} parameters, and the runs {runs.n_params_kind}"


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
    if limits.max_batch_tokens is not None and "optimal_lr" in fits and valley_of(fits) is None:
        yield "the batch was not swept: how the learning rate goes with a smaller batch is not known"
    weak = sorted({law for law in _used(quantities) if fits[law].verdict == "weak"})
    if weak:
        yield f"weak fits, whose reasons are worth reading: {', '.join(weak)}"

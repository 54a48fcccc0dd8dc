"""What an estimate says: parameters with intervals, scores, diagnostics, a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.contradictions import contradictions
from isoloss.fitting.datasets import CurveDataset
from isoloss.fitting.estimate import Estimate
from isoloss.fitting.identifiability import Identifiability, identifiability
from isoloss.fitting.intervals import widened
from isoloss.fitting.provenance import provenance
from isoloss.fitting.result import Derived, Fit, ParameterEstimate
from isoloss.fitting.scores import score_runs
from isoloss.fitting.task import Task, lies_at
from isoloss.fitting.variances import distance_from_priors
from isoloss.fitting.verdicts import Evidence, judge
from isoloss.notes import grouped

FAR_RUN, FAR_RUN_TIMES = 0.02, 10.0
"""A run is far from the law where its median relative error is above both: this, and so many times the usual."""


def describe(task: Task, estimate: Estimate) -> Fit:
    """Return the fit that an estimate makes, without its held-out scores."""
    parameters = _parameters(task, estimate)
    residuals = task.problem.residuals(estimate.theta[None])[0]
    told_apart = identifiability(task, estimate.theta)
    validation = estimate.validation.document(task)
    evidence = Evidence(
        missing=task.missing,
        optional=task.law.optional,
        estimates=list(parameters.values()),
        starts=estimate.search.starts,
        starts_agree=estimate.search.agree,
        failed_resamples=estimate.failed,
        resamples=len(estimate.samples),
        level=task.options.level,
        spread=estimate.validation.spread,
        outliers=_outliers(task, residuals),
        condition_number=told_apart.condition_number,
        fitted_range=task.data.fitted_range(task.law, task.options.skip_steps),
        resampling=estimate.resampling,
        profiles=estimate.profiles,
        bounds=task.options.bounds,
        trade_offs=told_apart.in_words(task),
        distinct=task.data.distinct(),
        n_free=task.n_varied,
        misfit=float(np.median(np.abs(residuals))),
        contradictions=contradictions(task, estimate.theta, estimate.objective),
        prior_shares=_named(task, estimate.variances.prior_share),
        far_from_priors=_named(task, distance_from_priors(task, estimate.theta, estimate.variances)),
    )
    verdict, reasons = judge(evidence)
    return Fit(
        law_name=task.law.name,
        parameters=parameters,
        objective=estimate.objective,
        metrics=score_runs(task.law.predict(estimate.theta[None], task.features)[0], task.data),
        holdout=validation,
        groups=[],
        derived=_derived(task, estimate, identified=verdict != "unidentified"),
        diagnostics=_diagnostics(task, estimate, evidence, told_apart),
        left_out=[],
        verdict=verdict,
        reasons=[*reasons, *grouped(task.data.notes)],
        provenance=provenance(task.data, task.options),
        theta=estimate.theta,
        samples=estimate.samples,
        inflation=estimate.inflation(task.options.level),
        covariances=estimate.variances.parts,
        spread=estimate.validation.spread,
        fitted_range=evidence.fitted_range,
        missing=task.missing,
    )


def _outliers(task: Task, residuals: FloatArray) -> dict[str, float]:
    """Return the runs that lie far from the law, with their median relative error, from residuals (points,)."""
    medians = np.array([np.median(np.abs(residuals[run])) for run in task.data.slices])
    far = max(FAR_RUN, FAR_RUN_TIMES * float(np.median(medians)))
    return {
        run_id: float(median)
        for run_id, median in zip(task.data.run_ids, medians, strict=True)
        if median > far
    }


def _parameters(task: Task, estimate: Estimate) -> dict[str, ParameterEstimate]:
    return {
        parameter.name: _parameter(task, index, estimate)
        for index, parameter in enumerate(task.law.parameters)
        if parameter.name not in task.held or parameter.name in task.missing
    }


def _parameter(task: Task, index: int, estimate: Estimate) -> ParameterEstimate:
    parameter = task.law.parameters[index]
    about = (parameter.name, parameter.symbol, parameter.unit)
    if parameter.name in task.missing:
        return ParameterEstimate(*about, None, None, None, at_bound=False)
    value = float(estimate.theta[index])
    if parameter.name in task.options.fix:
        return ParameterEstimate(*about, value, None, None, at_bound=False)
    share = estimate.variances.prior_share[index]
    wider = float(widened(estimate.inflation(task.options.level), share))
    std_error, interval = resampled(estimate.samples[:, index], task.options.level, value, wider)
    low, high = task.problem.lower[index], task.problem.upper[index]
    if interval is not None:  # widened around the estimate, it may have left the law's bounds
        interval = max(interval[0], parameter.lower), min(interval[1], parameter.upper)
    expressed = parameter.name in task.constraints.expressions
    at_bound = not expressed and lies_at(value, (low, high))
    profile = estimate.profiles.get(parameter.name)
    ends = None if profile is None else (profile.lower, profile.upper)
    return ParameterEstimate(*about, value, std_error, interval, at_bound=at_bound, profile=ends)


def _named(task: Task, values: FloatArray) -> dict[str, float]:
    """Return the values (parameters,) above 0 by the parameter's name."""
    names = [parameter.name for parameter in task.law.parameters]
    return {name: float(value) for name, value in zip(names, values, strict=True) if value > 0}


def _derived(task: Task, estimate: Estimate, *, identified: bool) -> list[Derived]:
    """Return what follows from the parameters; no numbers where the data do not determine these."""
    found = task.data.derived(task.law, estimate.theta[None])
    members = task.data.derived(task.law, estimate.samples)
    wider = estimate.inflation(task.options.level)
    derived = []
    for name, (unit, value, needs) in found.items():
        if not identified or any(one in task.missing for one in needs):
            derived.append(Derived(name, unit, None, None))
        else:
            at, values = float(value[0]), members[name][1]
            derived.append(Derived(name, unit, at, _interval_of(values, task.options.level, at, wider)))
    return derived


def _interval_of(values: FloatArray, level: float, at: float, wider: float) -> tuple[float, float] | None:
    """Return the interval of what follows from parameters; in logarithms where it can only be above 0."""
    if at <= 0 or not np.all(values > 0):
        return resampled(values, level, at, wider)[1]
    ends = resampled(np.log(values), level, float(np.log(at)), wider)[1]
    return None if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))


def _diagnostics(
    task: Task, estimate: Estimate, evidence: Evidence, told_apart: Identifiability
) -> dict[str, Any]:
    condition = told_apart.condition_number
    said: dict[str, Any] = {
        "condition_number": condition if np.isfinite(condition) else None,
        "trade_offs": list(evidence.trade_offs),
        "starts": estimate.search.starts,
        "starts_agree": estimate.search.agree,
        "n_points": task.features.n_points,
        "n_runs": task.data.n_runs,
        "penalty": float(task.problem.penalty(estimate.theta[None])[0]),
        "prior_shares": evidence.prior_shares,
        "resampling": {
            "unit": estimate.resampling.unit,
            "resamples": len(estimate.samples),
            "statement": evidence.statement,
        },
        "discrepancy": _discrepancy(estimate),
    }
    if isinstance(task.data, CurveDataset):
        said["first_fitted_step"] = {curve.run_id: int(curve.step[0]) for curve in task.data.curves}
    return said


def _discrepancy(estimate: Estimate) -> dict[str, Any]:
    spread = estimate.validation.spread
    return {
        "log_loss": spread.discrepancy,
        "error": spread.error,
        "explained_by_noise": spread.explained,
        "folds": spread.folds,
        "worst": spread.worst,
    }


def resampled(
    values: FloatArray, level: float, centre: float, wider: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the standard error and the interval that resampled values (resamples,) show around the estimate."""
    if len(values) < 2:
        return None, None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    # Few resampled runs may all lie on one side of the estimate, which its interval holds all the same.
    ends = float(centre - wider * max(0.0, centre - low)), float(centre + wider * max(0.0, high - centre))
    error = float(np.std(values, ddof=1))
    return (error, ends) if np.all(np.isfinite([error, *ends])) else (None, None)

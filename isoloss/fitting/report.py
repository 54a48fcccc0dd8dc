"""What an estimate says: parameters with intervals, scores, diagnostics, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.fitting.estimate import Estimate
from isoloss.fitting.fitted_range import FittedRange
from isoloss.fitting.provenance import provenance
from isoloss.fitting.result import Derived, Fit, ParameterEstimate
from isoloss.fitting.scores import score_runs
from isoloss.fitting.screening import first_fitted_step
from isoloss.fitting.solver import same_optimum
from isoloss.fitting.task import Task
from isoloss.fitting.verdicts import Evidence, condition_number, judge
from isoloss.observations import Curve

FloatArray = npt.NDArray[np.float64]

FAR_RUN, FAR_RUN_TIMES = 0.02, 10.0
"""A run is far from the law where its median relative error is above both: this, and so many times the usual."""


def describe(task: Task, estimate: Estimate) -> Fit:
    """Return the fit that an estimate makes, without its held-out scores."""
    parameters = _parameters(task, estimate)
    agree = np.sum(same_optimum(estimate.starts.objective, estimate.objective, task.features.n_points))
    fitted_range = FittedRange.of(task.curves)
    evidence = Evidence(
        missing=task.missing,
        optional=task.law.optional,
        estimates=list(parameters.values()),
        starts_agree=float(agree / len(estimate.starts.objective)),
        failed_resamples=estimate.failed,
        resamples=len(estimate.samples),
        level=task.options.level,
        spread=estimate.spread,
        outliers=_outliers(task, estimate.theta),
        condition_number=_condition_number(task, estimate.theta),
        peak_lrs=fitted_range.peak_lrs,
        resampling=estimate.resampling,
    )
    verdict, reasons = judge(evidence)
    return Fit(
        law_name=task.law.name,
        parameters=parameters,
        objective=estimate.objective,
        metrics=score_runs(task.law, estimate.theta, task.curves),
        holdout=None,
        groups=[],
        derived=_derived(task, estimate),
        diagnostics=_diagnostics(task, estimate, int(agree), evidence),
        left_out=[],
        verdict=verdict,
        reasons=[*reasons, *_notes(task.curves)],
        provenance=provenance(task.curves, task.options),
        theta=estimate.theta,
        samples=estimate.samples,
        spread=estimate.spread,
        fitted_range=fitted_range,
        missing=task.missing,
    )


def _outliers(task: Task, theta: FloatArray) -> dict[str, float]:
    """Return the runs that lie far from the law, with their median relative error."""
    residuals = np.abs(task.problem.residuals(theta[None])[0])
    medians = np.array([np.median(residuals[run]) for run in task.runs])
    far = max(FAR_RUN, FAR_RUN_TIMES * float(np.median(medians)))
    return {
        curve.run_id: float(median)
        for curve, median in zip(task.curves, medians, strict=True)
        if median > far
    }


def _condition_number(task: Task, theta: FloatArray) -> float:
    names = [parameter.name for parameter in task.law.parameters]
    determined = np.array([name not in task.missing for name in names])
    inside = (theta > task.problem.lower) & (theta < task.problem.upper)
    return condition_number(task.problem, theta, task.varied & determined & inside)


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
    std_error, interval = _resampled(estimate.samples[:, index], task.options.level)
    low, high = task.problem.lower[index], task.problem.upper[index]
    expressed = parameter.name in task.constraints.expressions
    return ParameterEstimate(
        *about, value, std_error, interval, at_bound=not expressed and _near(value, low, high)
    )


def _derived(task: Task, estimate: Estimate) -> list[Derived]:
    found = task.law.derived(estimate.theta[None], task.curves)
    resampled = task.law.derived(estimate.samples, task.curves)
    derived = []
    for name, (unit, value, needs) in found.items():
        if any(one in task.missing for one in needs):
            derived.append(Derived(name, unit, None, None))
        else:
            interval = _resampled(resampled[name][1], task.options.level)[1]
            derived.append(Derived(name, unit, float(value[0]), interval))
    return derived


def _diagnostics(task: Task, estimate: Estimate, agree: int, evidence: Evidence) -> dict[str, Any]:
    condition = evidence.condition_number
    return {
        "condition_number": condition if np.isfinite(condition) else None,
        "starts": len(estimate.starts.objective),
        "starts_agree": agree,
        "n_points": task.features.n_points,
        "n_runs": len(task.curves),
        "first_fitted_step": {curve.run_id: first_fitted_step(curve, task.options) for curve in task.curves},
        "resampling": {
            "unit": estimate.resampling.unit,
            "resamples": len(estimate.samples),
            "statement": evidence.statement,
        },
        "discrepancy": {
            "log_loss": estimate.spread.discrepancy,
            "schedules": estimate.spread.folds,
            "worst_run": estimate.spread.worst_run,
        },
    }


def _notes(curves: Sequence[Curve]) -> list[str]:
    return [f"run {curve.run_id}: {note}" for curve in curves for note in curve.notes]


def _near(value: float, low: float, high: float) -> bool:
    return any(
        abs(value - bound) <= 1e-9 * max(1.0, abs(bound)) for bound in (low, high) if np.isfinite(bound)
    )


def _resampled(values: FloatArray, level: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return the standard error and the interval that resampled values (resamples,) show."""
    if len(values) < 2:
        return None, None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(np.std(values, ddof=1)), (float(low), float(high))

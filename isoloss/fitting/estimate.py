"""Fitting a law to curves: screen, search, resample, predict what was held out, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import FitFailed, InvalidInput
from isoloss.fitting.constrained import solve_constrained
from isoloss.fitting.fitted_range import FittedRange
from isoloss.fitting.intervals import Spread, discrepancy, interval_around, noise_quantiles
from isoloss.fitting.objective import Problem, log_observed
from isoloss.fitting.options import Constraints, FitOptions
from isoloss.fitting.provenance import provenance
from isoloss.fitting.resampling import Resampling, block_length, leave_out, schedule_groups
from isoloss.fitting.result import Derived, Fit, ParameterEstimate
from isoloss.fitting.scores import Scores, mean_scores, score
from isoloss.fitting.screening import HeldOut, first_fitted_step, screen, screen_held, split
from isoloss.fitting.solver import COARSE, Solution, same_optimum
from isoloss.fitting.starts import data_starts
from isoloss.fitting.verdicts import FOLDS_NEEDED, Evidence, condition_number, judge
from isoloss.laws import LAWS, Law
from isoloss.observations import Curve

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

FAR_RUN, FAR_RUN_TIMES = 0.02, 10.0
"""A run is far from the law where its median relative error is above both: this, and so many times the usual."""

EXACT = 1e-15
BATCH = 50
BATCH_BYTES = 64 * 2**20
"""Resamples between two reports of progress, fewer where their weights would take more memory than this."""


def fit(
    law: str,
    curves: Sequence[Curve],
    *,
    progress: Progress | None = None,
    left_out: Sequence[dict[str, str]] = (),
    **options: Any,
) -> Fit:
    """Fit a law to curves and say what the data determine.

    `options` are those of `FitOptions`, the same as the API's. `progress(fraction, message)` is called as the
    work goes on; `left_out` lists runs that the caller could not read, for the record. The same curves, options
    and seed give the same numbers. Raises InvalidInput for options and curves that contradict themselves,
    UnusableData where no curve can be used, and FitFailed where the law has no optimum.
    """
    if law not in LAWS:
        raise InvalidInput(field="law", reason=f"{law!r} is not one of {', '.join(LAWS)}")
    asked = _of_these(FitOptions.from_mapping(options), curves, options)
    in_order = sorted(curves, key=lambda curve: curve.run_id)  # the numbers must not hang on their order
    fitted, kept_apart = split(in_order, asked, left_out)
    fitted, dropped = screen(fitted, asked, left_out)
    held, unscored = screen_held(kept_apart, fitted, asked)
    work = _Work(LAWS[law], fitted, asked, progress or _silent)
    found = work.run()
    return replace(found, left_out=[*dropped, *unscored], holdout=_holdout(found, held, asked))


def _of_these(asked: FitOptions, curves: Sequence[Curve], given: Mapping[str, Any]) -> FitOptions:
    """Return the options as they hold for these curves, which were read with a target and a kind of count."""
    targets = sorted({curve.target for curve in curves})
    if len(targets) > 1 or ("target" in given and targets and targets != [asked.target]):
        reason = f"the curves hold {' and '.join(targets)}; read them with target={asked.target!r}"
        raise InvalidInput(field="target", reason=reason)
    kinds = {curve.n_params_kind for curve in curves}
    if asked.n_params_kind is not None and kinds - {asked.n_params_kind}:
        reason = f"the curves were not read with {asked.n_params_kind!r} counts"
        raise InvalidInput(field="n_params_kind", reason=reason)
    return replace(asked, target=targets[0]) if targets else asked


def _silent(fraction: float, message: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class _Estimate:
    """The optimum and what surrounds it."""

    theta: FloatArray
    objective: float
    starts: Solution
    resampling: Resampling
    samples: FloatArray
    failed: float
    spread: Spread


class _Work:
    """One fit in progress: the problem, and the steps from starts to verdict."""

    def __init__(self, law: Law[Any], curves: list[Curve], options: FitOptions, progress: Progress) -> None:
        self.law, self.curves, self.options, self.progress = law, curves, options, progress
        self.lengths = [curve.n_points for curve in curves]
        self.features = law.prepare(curves)
        self.held = law.held(self.features, options.fix)
        self.missing = law.undetermined(self.features, options.fix)
        self._refuse_constraints_on_absent_parameters()
        self.constraints = options.constrain(law)
        observed = log_observed([curve.loss_nats for curve in curves])
        lower, upper = self._limits(self.constraints)
        self.problem = Problem(law, self.features, observed, lower, upper, options.huber_delta)

    def run(self) -> Fit:
        known = {**self.options.fix, **self.held}
        n_free = int(self._varied().sum())
        if self.features.n_points <= n_free:
            why = f"{self.features.n_points} points for {n_free} parameters"
            self.missing = {
                parameter.name: why for parameter in self.law.parameters if parameter.name not in known
            }
        return self._describe(self._estimate())

    def _refuse_constraints_on_absent_parameters(self) -> None:
        given = {"fix": self.options.fix, "bounds": self.options.bounds, "expr": self.options.expr}
        for option, named in given.items():
            for name in named.keys() & self.held.keys() - self.missing.keys():
                reason = (
                    f"the runs have no such term in {self.law.name}: they do not differ in what it describes"
                )
                raise InvalidInput(field=f"{option}.{name}", reason=reason)

    def _limits(self, constraints: Constraints) -> tuple[FloatArray, FloatArray]:
        pairs = [
            (self.held.get(parameter.name, low), self.held.get(parameter.name, high))
            for parameter in self.law.parameters
            for low, high in [constraints.bounds[parameter.name]]
        ]
        lower, upper = np.array(pairs).T
        return lower, upper

    def _varied(self) -> BoolArray:
        """Return which parameters the fit moves: neither held, nor fixed, nor given by an expression."""
        names = [parameter.name for parameter in self.law.parameters]
        given = np.array([name in self.constraints.expressions for name in names])
        return np.asarray(self.problem.free & ~given)

    def _estimate(self) -> _Estimate:
        self.progress(0.02, "searching from several starts")
        starts = data_starts(self.problem, self.options.starts)
        if not len(starts):
            raise FitFailed(reason="the law gives no positive loss anywhere near these data")
        found = self._search(starts)
        best = int(np.argmin(found.objective))
        if not np.isfinite(found.objective[best]):
            raise FitFailed(reason="no start reached a finite objective")
        theta = found.theta[best]
        residuals = self.problem.residuals(theta[None])[0]
        spread = self._spread(theta, residuals)
        resampling = Resampling.of(self.lengths, residuals, self.options.seed)
        samples = self._resamples(theta, resampling)
        usable = samples[np.all(np.isfinite(samples), axis=1)]
        failed = 1 - len(usable) / len(samples) if len(samples) else 0.0
        objective = float(found.objective[best])
        return _Estimate(theta, objective, found, resampling, usable, failed, spread)

    def _search(self, theta: FloatArray) -> Solution:
        """Solve the whole problem from every start (starts, parameters)."""
        ones = np.ones((len(theta), self.features.n_points))
        if self.constraints.expressions:
            return solve_constrained(self.problem, theta, ones, self.constraints.expressions, EXACT)
        return self.problem.solve(theta, ones, race=True)

    def _refit(self, theta: FloatArray, weights: FloatArray) -> Solution:
        """Solve for every row of weights (members, points) from the optimum theta (parameters,)."""
        starts = np.repeat(theta[None], len(weights), axis=0)
        if self.constraints.expressions:
            return solve_constrained(self.problem, starts, weights, self.constraints.expressions, COARSE)
        return self.problem.solve(starts, weights, tolerance=COARSE)

    def _resamples(self, theta: FloatArray, resampling: Resampling) -> FloatArray:
        """Refit to every resample from the optimum: (resamples, parameters), NaN where there is no optimum."""
        count = self.options.bootstrap
        rows = np.full((count, theta.size), np.nan)
        batch = 1 if self.constraints.expressions else BATCH  # one refit under expressions takes a while
        size = max(1, min(batch, BATCH_BYTES // (8 * self.features.n_points)))
        for begin in range(0, count, size):
            self.progress(0.2 + 0.75 * begin / count, f"resample {begin} of {count}")
            end = min(begin + size, count)
            found = self._refit(theta, resampling.weights(begin, end))
            rows[begin:end] = np.where(np.isfinite(found.objective)[:, None], found.theta, np.nan)
        return rows

    def _spread(self, theta: FloatArray, residuals: FloatArray) -> Spread:
        """Predict the runs of each schedule from the others; those that the law needs are passed over."""
        self.progress(0.1, "predicting each schedule from the others")
        noise = noise_quantiles(residuals)
        groups = schedule_groups([curve.schedule for curve in self.curves])
        kept = [group for group in groups if self._determined_without(group)]
        if len(kept) < FOLDS_NEEDED:
            return Spread(None, len(kept), noise, None)
        found = self._refit(theta, leave_out(self.lengths, kept))
        errors = self.problem.residuals(found.theta)
        runs = [slice(low, high) for low, high in pairwise(np.cumsum([0, *self.lengths]))]
        parts = [[errors[fold, runs[index]] for index in group] for fold, group in enumerate(kept)]
        blocks = [[block_length(residuals[runs[index]]) for index in group] for group in kept]
        worst, fold = discrepancy(parts, blocks)
        return Spread(worst, len(kept), noise, self.curves[kept[fold][0]].run_id)

    def _determined_without(self, group: Sequence[int]) -> bool:
        others = [curve for position, curve in enumerate(self.curves) if position not in group]
        if not others or sum(curve.n_points for curve in others) <= self._varied().sum():
            return False
        lost = self.law.undetermined(self.law.prepare(others), self.options.fix)
        return set(lost) <= set(self.missing) | set(self.held)

    def _describe(self, estimate: _Estimate) -> Fit:
        parameters = self._parameters(estimate)
        agree = np.sum(same_optimum(estimate.starts.objective, estimate.objective, self.features.n_points))
        fitted_range = FittedRange.of(self.curves)
        evidence = Evidence(
            missing=self.missing,
            optional=self.law.optional,
            estimates=list(parameters.values()),
            starts_agree=float(agree / len(estimate.starts.objective)),
            failed_resamples=estimate.failed,
            resamples=len(estimate.samples),
            level=self.options.level,
            spread=estimate.spread,
            outliers=self._outliers(estimate.theta),
            condition_number=self._condition_number(estimate.theta),
            peak_lrs=fitted_range.peak_lrs,
            resampling=estimate.resampling,
        )
        verdict, reasons = judge(evidence)
        return Fit(
            law_name=self.law.name,
            parameters=parameters,
            objective=estimate.objective,
            metrics=_scores(self.law, estimate.theta, self.curves),
            holdout=None,
            groups=[],
            derived=self._derived(estimate),
            diagnostics=self._diagnostics(estimate, int(agree), evidence),
            left_out=[],
            verdict=verdict,
            reasons=[*reasons, *self._notes()],
            provenance=provenance(self.curves, self.options),
            theta=estimate.theta,
            samples=estimate.samples,
            spread=estimate.spread,
            fitted_range=fitted_range,
            missing=self.missing,
        )

    def _outliers(self, theta: FloatArray) -> dict[str, float]:
        """Return the runs that lie far from the law, with their median relative error."""
        residuals = np.abs(self.problem.residuals(theta[None])[0])
        runs = [slice(low, high) for low, high in pairwise(np.cumsum([0, *self.lengths]))]
        medians = np.array([np.median(residuals[run]) for run in runs])
        far = max(FAR_RUN, FAR_RUN_TIMES * float(np.median(medians)))
        return {
            curve.run_id: float(median)
            for curve, median in zip(self.curves, medians, strict=True)
            if median > far
        }

    def _condition_number(self, theta: FloatArray) -> float:
        names = [parameter.name for parameter in self.law.parameters]
        determined = np.array([name not in self.missing for name in names])
        inside = (theta > self.problem.lower) & (theta < self.problem.upper)
        return condition_number(self.problem, theta, self._varied() & determined & inside)

    def _parameters(self, estimate: _Estimate) -> dict[str, ParameterEstimate]:
        return {
            parameter.name: self._parameter(index, estimate)
            for index, parameter in enumerate(self.law.parameters)
            if parameter.name not in self.held or parameter.name in self.missing
        }

    def _parameter(self, index: int, estimate: _Estimate) -> ParameterEstimate:
        parameter = self.law.parameters[index]
        about = (parameter.name, parameter.symbol, parameter.unit)
        if parameter.name in self.missing:
            return ParameterEstimate(*about, None, None, None, at_bound=False)
        value = float(estimate.theta[index])
        if parameter.name in self.options.fix:
            return ParameterEstimate(*about, value, None, None, at_bound=False)
        std_error, interval = _resampled(estimate.samples[:, index], self.options.level)
        low, high = self.problem.lower[index], self.problem.upper[index]
        expressed = parameter.name in self.constraints.expressions
        return ParameterEstimate(
            *about, value, std_error, interval, at_bound=not expressed and _near(value, low, high)
        )

    def _derived(self, estimate: _Estimate) -> list[Derived]:
        found = self.law.derived(estimate.theta[None], self.curves)
        resampled = self.law.derived(estimate.samples, self.curves)
        derived = []
        for name, (unit, value, needs) in found.items():
            if any(one in self.missing for one in needs):
                derived.append(Derived(name, unit, None, None))
            else:
                interval = _resampled(resampled[name][1], self.options.level)[1]
                derived.append(Derived(name, unit, float(value[0]), interval))
        return derived

    def _diagnostics(self, estimate: _Estimate, agree: int, evidence: Evidence) -> dict[str, Any]:
        condition = evidence.condition_number
        return {
            "condition_number": condition if np.isfinite(condition) else None,
            "starts": len(estimate.starts.objective),
            "starts_agree": agree,
            "n_points": self.features.n_points,
            "n_runs": len(self.curves),
            "first_fitted_step": {
                curve.run_id: first_fitted_step(curve, self.options) for curve in self.curves
            },
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

    def _notes(self) -> list[str]:
        return [f"run {curve.run_id}: {note}" for curve in self.curves for note in curve.notes]


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


def _scores(law: Law[Any], theta: FloatArray, curves: Sequence[Curve]) -> dict[str, Any]:
    runs: dict[str, Scores] = {}
    for curve in curves:
        predicted = law.predict(theta[None], law.prepare([curve]))[0]
        runs[curve.run_id] = score(curve.loss_nats, predicted)
    return {"runs": runs, "mean": mean_scores(runs.values())}


def _holdout(found: Fit, held: Sequence[HeldOut], options: FitOptions) -> dict[str, Any] | None:
    """Score the runs that were held out.

    The usual scores are of whole curves, as published evaluations take them. A branch shares its trunk's points
    with runs that were fitted: `unseen_mae` and `coverage`, the share of points inside the interval of a new
    run, are of the other points alone.
    """
    if not held or found.verdict == "unidentified":
        return None
    scores = _scores(found.law, found.theta, [one.curve for one in held])
    unseen = _scores(found.law, found.theta, [one.unseen for one in held])
    for one in held:
        name = one.curve.run_id
        scores["runs"][name] |= {
            "coverage": _coverage(found, one.unseen, options.level),
            "unseen_mae": unseen["runs"][name]["mae"],
            "unseen_points": one.unseen.n_points,
        }
    return {**scores, "mean": mean_scores(scores["runs"].values()), "level": options.level}


def _coverage(found: Fit, curve: Curve, level: float) -> float:
    features = found.law.prepare([curve])
    centre = np.log(found.law.predict(found.theta[None], features)[0])
    members = np.log(found.law.predict(found.samples, features))
    reach = found.fitted_range.reach(curve.schedule, curve.step, curve.n_params)
    below, above = interval_around(centre, members, found.spread, reach, level, new_run=True)
    observed = np.log(curve.loss_nats)
    return float(np.mean((observed >= below) & (observed <= above)))

"""What a fit in stages says: parameters, what was found for every group, what follows, scores and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile
from isoloss.fitting.intervals import Spread, noise_quantiles, students_factor
from isoloss.fitting.options import FitOptions
from isoloss.fitting.ranges import TableRange
from isoloss.fitting.report import resampled
from isoloss.fitting.result import Derived, Fit, ParameterEstimate, Verdict
from isoloss.fitting.scores import score_pairs
from isoloss.fitting.staged.chains import Found, Group, Points
from isoloss.fitting.staged.validation import Stage, told_of
from isoloss.fitting.units import draws
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

UNLIKELY = 0.05
"""Chance, over all stages, that noise passes for an error of the law."""

FAR_OFF = 0.2
"""Error in logarithms, of runs predicted from smaller ones, above which no prediction is trusted."""


@dataclass(frozen=True)
class Staged:
    """A law, its runs, what was found of them, and what was predicted of larger ones."""

    law: StagedLaw
    table: RunTable
    asked: FitOptions
    found: Found
    stages: Sequence[Stage]

    @property
    def points(self) -> Points:
        return self.found.points

    @cached_property
    def told(self) -> FloatArray:
        return told_of(self.law, self.found.theta[:1], self.points)[0]

    @property
    def determined(self) -> bool:
        return bool(np.all(np.isfinite(self.found.theta[0])))

    @cached_property
    def inflation(self) -> float:
        """By how much Student's quantile exceeds the normal one: the noise is known from so many runs."""
        spare = self.found.spare
        left = max(1.0, self.table.n_runs - self.found.n_fitted if spare is None else spare)
        return students_factor(left, self.asked.level)

    def members(self, values: FloatArray) -> FloatArray:
        """Return resamples (resamples, ...) of what was found, (members, ...): noise moves every run by chance."""
        if self.found.drawn:
            known = np.isfinite(values[1:])
            return values[1:][known.all(axis=tuple(range(1, known.ndim)))]
        moves = np.where(np.isfinite(values[1:]), values[1:] - values[0], 0.0)
        drawn = self._drawn_by_run if len(moves) == self.table.n_runs else self._drawn_by_place(len(moves))
        return np.asarray(values[0] + np.tensordot(drawn, moves, 1))

    @cached_property
    def _drawn_by_run(self) -> FloatArray:
        """Draws (resamples, runs), each run's by its numbers."""
        columns = [self.table.column(name) for name in self.law.run_columns]
        parts = list(zip(*(column.tolist() for column in (*columns, self.table.outcome)), strict=True))
        return draws(parts, self.asked.seed, self.asked.bootstrap)

    def _drawn_by_place(self, count: int) -> FloatArray:
        """Draws (resamples, parts) of what are no runs: windows of a training, one after the other."""
        return draws([(float(number),) for number in range(count)], self.asked.seed, self.asked.bootstrap)

    def interval(self, values: FloatArray) -> tuple[float, float | None, tuple[float, float] | None]:
        """Return (value, standard error, interval) of something found for every member (members,).

        In logarithms where it is above 0 for all of them.
        """
        in_logs = bool(np.all(values > 0))
        at = np.log(values) if in_logs else values
        error, ends = resampled(self.members(at), self.asked.level, float(at[0]), self.inflation)
        if not in_logs or error is None or ends is None:
            return float(values[0]), error, ends
        return float(values[0]), error * float(values[0]), (float(np.exp(ends[0])), float(np.exp(ends[1])))


def described(staged: Staged, provenance: Mapping[str, Any], dropped: Sequence[dict[str, str]]) -> Fit:
    """Return the fit of what was found in stages."""
    verdict, reasons = _judged(staged)
    sound = staged.determined
    return Fit(
        law_name=staged.law.name,
        parameters={one.name: one for one in _parameters(staged)},
        objective=float(np.mean(np.log(staged.told / staged.points.outcome) ** 2) / 2)
        if sound
        else float("nan"),
        metrics=_metrics(staged),
        holdout=_holdout(staged),
        groups=[_group(staged, group) for group in staged.found.groups],
        derived=[_derived(staged, name, *value) for name, value in staged.found.derived.items()],
        diagnostics=_diagnostics(staged),
        left_out=[*dropped, *staged.found.left_out],
        verdict=verdict,
        reasons=[*reasons, *staged.table.notes],
        provenance=dict(provenance),
        theta=staged.found.theta[0],
        samples=_samples(staged) if sound else np.empty((0, len(staged.law.parameters))),
        inflation=staged.inflation,
        spread=_spread(staged),
        fitted_range=_fitted_range(staged),
        missing=dict(staged.found.missing),
    )


def _fitted_range(staged: Staged) -> TableRange:
    """Return where the points lie; a law that does not read the size claims to hold for any."""
    columns, law = staged.points.columns, staged.law
    if not staged.points.names:
        nowhere = (float("nan"), float("nan"))
        return TableRange(dict.fromkeys(law.columns, nowhere), nowhere, staged.table.n_params_kind)
    chosen = {name: columns[name] for name in law.columns}
    return TableRange.of(chosen, law.scale(columns), staged.table.n_params_kind, None)


def _samples(staged: Staged) -> FloatArray:
    """Return the law's parameters for every resample, (resamples, parameters): coefficients move in logarithms."""
    in_logs = np.array([one.scale == "log" for one in staged.law.parameters])
    theta = np.where(in_logs, np.log(np.where(in_logs, staged.found.theta, 1.0)), staged.found.theta)
    members = staged.members(theta)
    return np.where(in_logs, np.exp(np.where(in_logs, members, 0.0)), members)


def _parameters(staged: Staged) -> Iterator[ParameterEstimate]:
    for one, values in zip(staged.law.parameters, staged.found.theta.T, strict=True):
        about = (one.name, one.symbol, one.unit)
        profile = staged.found.profiles.get(one.name)
        if one.name in staged.found.missing or not np.isfinite(values[0]):
            yield ParameterEstimate(*about, None, None, None, at_bound=False, profile=profile)
        else:
            yield ParameterEstimate(*about, *staged.interval(values), at_bound=False, profile=profile)


def _group(staged: Staged, group: Group) -> dict[str, Any]:
    parameters = []
    for name, (unit, values) in group.values.items():
        value, error, ends = staged.interval(values)
        interval = list(group.ends[name]) if name in group.ends else None if ends is None else list(ends)
        said = {"name": name, "symbol": name, "unit": unit, "value": value, "std_error": error}
        parameters.append({**said, "interval": interval})
    return {"by": dict(group.by), "n_runs": len(group.rows), "parameters": parameters}


def _derived(staged: Staged, name: str, unit: str, values: FloatArray) -> Derived:
    value, _, interval = staged.interval(values)
    return Derived(name, unit, value, interval)


def _metrics(staged: Staged) -> dict[str, Any]:
    """Return how the law meets every point, in the unit of what it predicts."""
    if not staged.determined:
        return {"runs": {}, "mean": {}}
    return _scores(staged.points, staged.told)


def _scores(points: Points, told: FloatArray) -> dict[str, Any]:
    return score_pairs(
        {name: (points.outcome[[place]], told[[place]]) for place, name in enumerate(points.names)}
    )


def _holdout(staged: Staged) -> dict[str, Any] | None:
    if not staged.stages:
        return None
    each = [
        {
            "predicted": stage.what,
            "n_fitted": stage.n_fitted,
            "score": float(np.sqrt(np.mean(stage.error**2))),
            **_scores(stage.points, stage.told),
        }
        for stage in staged.stages
    ]
    first = {name: value for name, value in each[0].items() if name != "n_fitted"}
    return {**first, "others": [{name: one[name] for name in one if name != "runs"} for one in each[1:]]}


def _spread(staged: Staged) -> Spread:
    """Return the error of runs predicted from smaller ones beyond what the fitted runs show, in logarithms."""
    if not staged.determined:
        return Spread(None, 0, (0.0,) * 201)
    residuals = np.log(staged.told / staged.points.outcome)
    noise = noise_quantiles(residuals)
    if not staged.stages:
        return Spread(None, 0, noise)
    within = float(np.mean(residuals**2))
    errors = np.array([abs(float(np.mean(stage.error))) for stage in staged.stages])
    usual = np.sqrt([stage.by_noise**2 + within / len(stage.points.names) for stage in staged.stages])
    unlikely = normal_quantile(1 - UNLIKELY / (2 * errors.size))
    beyond = np.where(errors > unlikely * usual, np.sqrt(np.maximum(0.0, errors**2 - usual**2)), 0.0)
    worst = int(np.argmax(beyond))
    told = staged.stages[worst].what
    return Spread(
        float(beyond[worst]), errors.size, noise, errors[worst], float(unlikely * usual[worst]), told
    )


def _diagnostics(staged: Staged) -> dict[str, Any]:
    spread = _spread(staged)
    return {
        "n_points": len(staged.points.names),
        "n_runs": staged.table.n_runs,
        "n_groups": len(staged.found.groups),
        "noise": staged.found.noise,
        "resampling": {
            "unit": staged.found.unit,
            "resamples": staged.asked.bootstrap,
            "statement": _statement(staged),
        },
        "discrepancy": {
            "log": spread.discrepancy,
            "error": spread.error,
            "explained_by_noise": spread.explained,
            "folds": spread.folds,
            "worst": spread.worst,
        },
        **staged.found.diagnostics,
    }


def _statement(staged: Staged) -> str:
    if not staged.asked.bootstrap:
        return "no resamples were drawn: there are no intervals"
    if staged.found.statement is not None:
        return staged.found.statement
    noise = f"{np.expm1(staged.found.noise):.2g}"
    return f"intervals are what noise of a share of {noise} in every run does to all stages together"


def _judged(staged: Staged) -> tuple[Verdict, list[str]]:
    optional = (*staged.law.optional, *(staged.found.open if staged.determined else ()))
    lacking = {name: why for name, why in staged.found.missing.items() if name not in optional}
    unidentified = [f"{' and '.join(_those(lacking, why))}: {why}" for why in dict.fromkeys(lacking.values())]
    weak = [
        f"{name} is not determined: {why}" for name, why in staged.found.missing.items() if name in optional
    ]
    weak += staged.found.weak
    spread = _spread(staged)
    if staged.determined and spread.discrepancy is None:
        weak.append("too few runs can be predicted from smaller ones: the error at a larger run is not known")
    elif spread.discrepancy is not None and spread.discrepancy > FAR_OFF:
        weak.append(f"predicted from the others, {spread.worst} are {np.expm1(spread.error or 0):.0%} off")
    if not staged.asked.bootstrap:
        weak.append(_statement(staged))
    said = [*unidentified, *weak, *staged.found.notes]
    said += [_statement(staged)] if staged.asked.bootstrap else []
    said += [staged.law.remedy] if unidentified else []
    return ("unidentified" if unidentified else "weak" if weak else "sound"), said


def _those(missing: Mapping[str, str], why: str) -> list[str]:
    return [name for name, one in missing.items() if one == why]

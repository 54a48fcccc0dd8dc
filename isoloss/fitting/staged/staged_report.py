"""What a fit in stages says: parameters, what was found for every group, what follows, scores and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.intervals import Spread, noise_quantiles
from isoloss.fitting.options import FitOptions
from isoloss.fitting.report import resampled
from isoloss.fitting.result import Derived, Fit, ParameterEstimate, Verdict
from isoloss.fitting.scores import mean_scores, score
from isoloss.fitting.staged.chains import Found, Group
from isoloss.fitting.staged.validation import Stage
from isoloss.fitting.units import Units
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

FAR_OFF = 0.2
"""Error in logarithms, of runs predicted from smaller ones, above which no prediction is trusted."""


@dataclass(frozen=True)
class Staged:
    """A law, the runs (`outcome` of them is what it predicts), what was found, and what was predicted of others."""

    law: StagedLaw
    table: RunTable
    asked: FitOptions
    found: Found
    stages: Sequence[Stage]

    @property
    def observed(self) -> FloatArray:
        return self.table.column(self.law.quantity)

    @cached_property
    def told(self) -> FloatArray:
        columns = {name: self.table.column(name) for name in self.law.columns}
        return np.asarray(self.law.predict(self.found.theta[:1], self.law.prepare(columns))[0])

    @property
    def determined(self) -> bool:
        return bool(np.all(np.isfinite(self.found.theta[0])))

    @cached_property
    def units(self) -> Units:
        return Units("runs", np.arange(self.table.n_runs))

    @cached_property
    def inflation(self) -> float:
        fitted = sum(len(group.values) for group in self.found.groups) // 2
        return self.units.inflation(fitted, self.asked.level)

    def interval(self, values: FloatArray) -> tuple[float, float | None, tuple[float, float] | None]:
        """Return (value, standard error, interval) of something found for every member (members,).

        In logarithms where it is above 0 for all of them.
        """
        in_logs = bool(np.all(values > 0))
        at = np.log(values) if in_logs else values
        members = self.units.samples(at[:1], at[1:, None], self.asked)[:, 0]
        error, ends = resampled(members, self.asked.level, float(at[0]), self.inflation)
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
        objective=float(np.mean(np.log(staged.told / staged.observed) ** 2) / 2) if sound else float("nan"),
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
        fitted_range=TableDataset(staged.table, staged.law.columns).fitted_range(staged.law),
        missing=dict(staged.found.missing),
    )


def _samples(staged: Staged) -> FloatArray:
    """Return the law's parameters for every resample, (resamples, parameters): coefficients move in logarithms."""
    in_logs = np.array([one.scale == "log" for one in staged.law.parameters])
    theta = np.where(in_logs, np.log(np.where(in_logs, staged.found.theta, 1.0)), staged.found.theta)
    members = staged.units.samples(theta[0], theta[1:], staged.asked)
    return np.where(in_logs, np.exp(np.where(in_logs, members, 0.0)), members)


def _parameters(staged: Staged) -> Iterator[ParameterEstimate]:
    for one, values in zip(staged.law.parameters, staged.found.theta.T, strict=True):
        about = (one.name, one.symbol, one.unit)
        if one.name in staged.found.missing or not np.isfinite(values[0]):
            yield ParameterEstimate(*about, None, None, None, at_bound=False)
        else:
            yield ParameterEstimate(*about, *staged.interval(values), at_bound=False)


def _group(staged: Staged, group: Group) -> dict[str, Any]:
    parameters = []
    for name, (unit, values) in group.values.items():
        value, error, ends = staged.interval(values)
        interval = None if ends is None else list(ends)
        said = {"name": name, "symbol": name, "unit": unit, "value": value, "std_error": error}
        parameters.append({**said, "interval": interval})
    return {"by": dict(group.by), "n_runs": len(group.rows), "parameters": parameters}


def _derived(staged: Staged, name: str, unit: str, values: FloatArray) -> Derived:
    value, _, interval = staged.interval(values)
    return Derived(name, unit, value, interval)


def _metrics(staged: Staged) -> dict[str, Any]:
    """Return how the law meets every run, in the unit of what it predicts."""
    if not staged.determined:
        return {"runs": {}, "mean": {}}
    return _scores(staged, range(staged.table.n_runs), staged.told)


def _scores(staged: Staged, rows: Sequence[int], told: FloatArray) -> dict[str, Any]:
    runs = {
        staged.table.run_ids[row]: score(staged.observed[[row]], told[[place]])
        for place, row in enumerate(rows)
    }
    return {"runs": runs, "mean": mean_scores(runs.values())}


def _holdout(staged: Staged) -> dict[str, Any] | None:
    if not staged.stages:
        return None
    each = [
        {
            "predicted": stage.fold.what,
            "n_fitted": len(stage.fold.fitted),
            "score": float(np.sqrt(np.mean(_errors(staged, stage) ** 2))),
            **_scores(staged, stage.fold.predicted, stage.told),
        }
        for stage in staged.stages
    ]
    first = {name: value for name, value in each[0].items() if name != "n_fitted"}
    return {**first, "others": [{name: one[name] for name in one if name != "runs"} for one in each[1:]]}


def _errors(staged: Staged, stage: Stage) -> FloatArray:
    return np.log(stage.told / staged.observed[list(stage.fold.predicted)])


def _spread(staged: Staged) -> Spread:
    """Return the error of runs predicted from smaller ones beyond what the fitted runs show, in logarithms."""
    if not staged.determined:
        return Spread(None, 0, (0.0,) * 201)
    residuals = np.log(staged.told / staged.observed)
    noise = noise_quantiles(residuals)
    if not staged.stages:
        return Spread(None, 0, noise)
    usual = float(np.sqrt(np.mean(residuals**2)))
    errors = [abs(float(np.mean(_errors(staged, stage)))) for stage in staged.stages]
    worst = int(np.argmax(errors))
    beyond = float(np.sqrt(max(0.0, errors[worst] ** 2 - usual**2)))
    return Spread(beyond, len(errors), noise, errors[worst], usual, staged.stages[worst].fold.what)


def _diagnostics(staged: Staged) -> dict[str, Any]:
    spread = _spread(staged)
    return {
        "n_points": staged.table.n_runs,
        "n_runs": staged.table.n_runs,
        "n_groups": len(staged.found.groups),
        "resampling": {"unit": "runs", "resamples": staged.asked.bootstrap, "statement": _statement(staged)},
        "discrepancy": {
            "log": spread.discrepancy,
            "error": spread.error,
            "explained_by_noise": spread.explained,
            "folds": spread.folds,
            "worst": spread.worst,
        },
    }


def _statement(staged: Staged) -> str:
    if not staged.asked.bootstrap:
        return "no resamples were drawn: there are no intervals"
    return f"intervals come from running all stages without each of {staged.table.n_runs} runs"


def _judged(staged: Staged) -> tuple[Verdict, list[str]]:
    optional = staged.law.optional
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

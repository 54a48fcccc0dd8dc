"""Laws of which every curve, or every recipe, has parameters of its own: who belongs where, and what a fit says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.intervals import Spread
from isoloss.fitting.options import FitOptions
from isoloss.fitting.provenance import provenance
from isoloss.fitting.ranges import TableRange
from isoloss.fitting.result import Derived, Fit, ParameterEstimate, Verdict
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

NO_SPREAD = Spread(None, 0, (0.0,) * 201)


@dataclass(frozen=True)
class Part:
    """What is said of one curve or recipe: a verdict with reasons, `fit` where a law was fitted to it.

    `values` are what `groups` shows of it beside the law's parameters: name, unit, value and interval.
    """

    name: str
    n_runs: int
    verdict: Verdict
    reasons: Sequence[str]
    fit: Fit | None
    values: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Together:
    """What is said of all parts together."""

    verdict: Verdict
    reasons: Sequence[str]
    holdout: dict[str, Any] | None = None
    derived: Sequence[Derived] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[dict[str, str]] = ()


def names_of(table: RunTable, label: str) -> list[str | None]:
    """Return the part that each row belongs to by its label or a number of that name, None without one."""
    numbers = table.columns.get(label, np.full(table.n_runs, np.nan))
    return [
        said if said is not None else None if np.isnan(number) else f"{number:.12g}"
        for said, number in zip(table.label(label), numbers, strict=True)
    ]


def origin(law: StagedLaw, table: RunTable, names: Sequence[str | None], asked: FitOptions) -> dict[str, Any]:
    """Return where a fit of these rows comes from; whose they are is part of the data."""
    said = provenance(TableDataset(table, law.run_columns), asked)
    whose = sorted(zip(table.run_ids, map(str, names), strict=True))
    digest = hashlib.sha256(f"{said['data_sha256']}{whose}".encode())
    return {**said, "data_sha256": digest.hexdigest()}


def assembled(
    law: StagedLaw, table: RunTable, parts: Sequence[Part], together: Together, provenance: Mapping[str, Any]
) -> Fit:
    """Return the fit of several parts; the law's own parameters are those of the only part, else missing."""
    fits = {part.name: part.fit for part in parts if part.fit is not None}
    only = parts[0].fit if len(parts) == 1 else None
    why = f"each {law.label} has its own: see groups"
    missing = {one.name: why for one in law.parameters} if only is None else only.missing
    blank = {
        one.name: ParameterEstimate(one.name, one.symbol, one.unit, None, None, None, at_bound=False)
        for one in law.parameters
    }
    nowhere = (float("nan"), float("nan"))
    empty = TableRange(dict.fromkeys(law.columns, nowhere), nowhere, table.n_params_kind)
    return Fit(
        law_name=law.name,
        parameters=blank if only is None else only.parameters,
        objective=float("nan") if only is None else only.objective,
        metrics=_metrics(fits),
        holdout=together.holdout,
        groups=[_group(law, part) for part in parts],
        derived=list(together.derived),
        diagnostics={"n_runs": table.n_runs, "n_groups": len(parts), **together.diagnostics},
        left_out=list(together.left_out),
        verdict=together.verdict,
        reasons=[*dict.fromkeys([*together.reasons, *table.notes])],
        provenance=dict(provenance),
        theta=np.full(len(law.parameters), np.nan) if only is None else only.theta,
        samples=np.empty((0, len(law.parameters))) if only is None else only.samples,
        inflation=1.0 if only is None else only.inflation,
        spread=NO_SPREAD if only is None else only.spread,
        fitted_range=empty if only is None else only.fitted_range,
        missing=dict(missing),
        parts=fits,
    )


def _group(law: StagedLaw, part: Part) -> dict[str, Any]:
    estimates = [] if part.fit is None else list(part.fit.parameters.values())
    parameters = [
        {
            "name": one.name,
            "symbol": one.symbol,
            "unit": one.unit,
            "value": one.value,
            "std_error": one.std_error,
            "interval": None if one.interval is None else list(one.interval),
            "profile": None if one.profile is None else list(one.profile),
        }
        for one in estimates
    ]
    said = {"verdict": part.verdict, "reasons": list(part.reasons)}
    return {
        "by": {law.label: part.name},
        "n_runs": part.n_runs,
        **said,
        "parameters": [*parameters, *map(dict, part.values)],
    }


def _metrics(fits: Mapping[str, Fit]) -> dict[str, Any]:
    """Return the mean scores of each part by its name, and their mean."""
    runs = {name: fit.metrics["mean"] for name, fit in fits.items() if fit.metrics.get("mean")}
    names: Mapping[str, Any] = next(iter(runs.values()), {})
    known = {name: [one[name] for one in runs.values() if one[name] is not None] for name in names}
    return {
        "runs": runs,
        "mean": {name: float(np.mean(one)) if one else None for name, one in known.items()},
    }


def verdict_of(parts: Sequence[Part]) -> Verdict:
    """Return sound or unidentified where all parts are, else weak."""
    verdicts = {part.verdict for part in parts}
    return verdicts.pop() if len(verdicts) == 1 else "weak"

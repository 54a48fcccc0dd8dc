"""What of a fit hangs on a choice of runs that its law leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.errors import FitFailed
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.estimate import find_optimum
from isoloss.fitting.result import Fit
from isoloss.fitting.task import Task
from isoloss.laws import TableLaw

MOVED = 0.5
"""A parameter whose values under several choices differ by more than this share of their mean is not identified."""


def with_choices(found: Fit, task: Task) -> Fit:
    """Return a fit with what its law's other choices of runs give instead, in diagnostics and in words."""
    law, data = task.law, task.data
    if not isinstance(law, TableLaw) or not isinstance(data, TableDataset) or found.verdict == "unidentified":
        return found
    chosen = law.choices(data.columns, data.observed)
    fitted = {name: _told(task, np.flatnonzero(rows)) for name, rows in chosen.items()}
    told = {name: one for name, one in fitted.items() if one is not None}
    if not told:
        return found
    own = {one.name: one.value for one in found.parameters.values() if one.value is not None}
    own |= {one.name: one.value for one in found.derived if one.value is not None}
    said = [_said(name, own[name], told) for name in law.sensitive if name in own]
    diagnostics = {**found.diagnostics, "sensitivity": told}
    return replace(found, diagnostics=diagnostics, reasons=[*said, *found.reasons])


def _told(task: Task, rows: np.ndarray[Any, Any]) -> dict[str, float] | None:
    """Return parameters and what follows from them for some of the runs; None where they do not determine them."""
    part = Task(task.law, task.data.only([int(row) for row in rows]), task.options)
    if part.missing:
        return None
    try:
        theta = find_optimum(part).theta
    except FitFailed:
        return None
    found = {one.name: float(value) for one, value in zip(task.law.parameters, theta, strict=True)}
    derived = part.data.derived(task.law, theta[None])
    return (
        {"n_runs": float(part.data.n_runs)}
        | found
        | {name: float(one[1][0]) for name, one in derived.items()}
    )


def _said(name: str, own: float, told: Mapping[str, Mapping[str, float]]) -> str:
    values = [own, *(one[name] for one in told.values())]
    others = ", ".join(f"{one[name]:.3g} with {choice}" for choice, one in told.items())
    loose = max(values) - min(values) > MOVED * float(np.mean(np.abs(values)))
    verdict = f"{name} is not identified: it hangs" if loose else f"{name} hangs"
    return f"{verdict} on the choice of runs: {own:.3g} with all of them, {others}"

"""The cheapest runs that would determine what the runs so far do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.fitting import Fit
from isoloss.laws import LAWS, SweepLaw
from isoloss.observations import RunTable

LEVELS = 5
"""Values of a setting that a wanted sweep tries, a factor of two apart."""

SITES = 4
"""Sizes and data at which a law of settings wants sweeps."""

APART = 2.0

GRIDS: Mapping[str, tuple[str, int, int]] = {
    "critical_batch": ("batch_tokens", 5, 4),
    "chinchilla": ("n_params", 4, 4),
}
"""Laws over a grid: of which column beside the training tokens, and how many values of it and of the tokens."""

SAME_RUN = 1.05
"""How many times apart two values of a column are that count as one when a run is looked for."""


@dataclass(frozen=True)
class Wanted:
    """Runs that would determine a law: configurations, their operations (6 N D) in all, and why."""

    law: str
    why: str
    runs: Sequence[Mapping[str, float]]

    @property
    def compute_flops(self) -> float:
        return float(sum(6 * run["n_params"] * run["n_tokens"] for run in self.runs))

    def as_dict(self) -> dict[str, Any]:
        runs = [dict(run) for run in self.runs]
        return {"law": self.law, "why": self.why, "runs": runs, "compute_flops": self.compute_flops}


def wanted(runs: RunTable, fits: Mapping[str, Fit | None]) -> list[Wanted]:
    """Return what to train for each law that the runs do not determine, the smallest sizes and data first."""
    found = []
    for name, fit in fits.items():
        law = LAWS[name]
        if isinstance(law, SweepLaw):
            why = fit.reasons[0] if fit is not None and fit.reasons else law.remedy
            found.append(Wanted(name, why, _sweeps(runs, law)))
        elif name in GRIDS:
            found.append(Wanted(name, law.remedy, _grid(runs, *GRIDS[name])))
        else:
            found.append(Wanted(name, law.remedy, ()))
    return found


def _grid(runs: RunTable, column: str, n_values: int, n_data: int) -> list[dict[str, float]]:
    """Return the runs that a grid about the cheapest tuned run lacks: values a factor of two apart, data upwards.

    Batches lie around that of the run, at its size; sizes go up from its own.
    """
    first = _cheapest(runs, ("n_params", "n_tokens", "batch_tokens"))
    if first is None:
        return []
    low = n_values // 2 if column == "batch_tokens" else 0
    asked = [
        {**first, column: first[column] * APART ** (value - low), "n_tokens": first["n_tokens"] * APART**more}
        for value in range(n_values)
        for more in range(n_data)
    ]
    return [
        one
        for one in asked
        if not _trained(runs, {name: one[name] for name in ("n_params", "n_tokens", column)})
    ]


def _cheapest(runs: RunTable, needed: Sequence[str]) -> dict[str, float] | None:
    """Return the settings of the best run at the smallest size and data; None where none states what is needed."""
    known = np.all([np.isfinite(runs.column(name)) for name in needed], axis=0) & np.isfinite(runs.outcome)
    rows = np.flatnonzero(known)
    if not rows.size:
        return None
    compute = (runs.column("n_params") * runs.column("n_tokens"))[rows]
    smallest = rows[compute <= compute.min() * SAME_RUN]
    best = int(smallest[np.argmin(runs.outcome[smallest])])
    settings = [name for name in (*needed, "peak_lr", "weight_decay") if np.isfinite(runs.column(name)[best])]
    return {name: float(runs.column(name)[best]) for name in settings}


def _trained(runs: RunTable, wanted: Mapping[str, float]) -> bool:
    """Return whether a run with an outcome has these values."""
    near = [np.abs(np.log(runs.column(name) / value)) <= np.log(SAME_RUN) for name, value in wanted.items()]
    return bool(np.any(np.all(near, axis=0) & np.isfinite(runs.outcome)))


def _sweeps(runs: RunTable, law: SweepLaw) -> list[dict[str, float]]:
    """Return sweeps of the law's setting around the best runs at the cheapest sizes and data."""
    setting = law.swept_by
    values = runs.column(setting)
    size, data = runs.column("n_params"), runs.column("n_tokens")
    known = np.isfinite(size) & np.isfinite(data) & np.isfinite(runs.outcome)
    usable = np.flatnonzero(known & np.isfinite(values) & (values > 0))
    if not usable.size:
        return []
    best: dict[tuple[float, float], int] = {}
    for row in usable:
        site = float(size[row]), float(data[row])
        if site not in best or runs.outcome[row] < runs.outcome[best[site]]:
            best[site] = int(row)
    cheapest = sorted(best, key=lambda site: site[0] * site[1])[:SITES]
    others = [name for name in law.run_columns if name not in ("n_params", "n_tokens", setting)]
    return [
        {
            "n_params": site[0],
            "n_tokens": site[1],
            **{name: float(runs.column(name)[best[site]]) for name in others},
            setting: float(values[best[site]] * APART ** (level - LEVELS // 2)),
        }
        for site in cheapest
        for level in range(LEVELS)
    ]

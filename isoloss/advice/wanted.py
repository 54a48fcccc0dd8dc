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
        else:
            found.append(Wanted(name, law.remedy, ()))
    return found


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

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

GROWN = 4.0
"""How many times the size or the data a wanted sweep lies from the cheapest one, where no trained one will do."""

SAME_LOGS = 0.1
"""Logarithms that differ by less tell no exponent."""

Site = tuple[float, float]
"""A size and its training tokens."""

GRIDS: Mapping[str, tuple[str, int, int]] = {
    "critical_batch": ("batch_tokens", 7, 4),
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
            found.append(Wanted(name, why, _sweeps(runs, law, fit)))
        elif name in GRIDS:
            found.append(Wanted(name, law.remedy, _grid(runs, *GRIDS[name])))
        else:
            found.append(Wanted(name, law.remedy, ()))
    return found


def _grid(runs: RunTable, column: str, n_values: int, n_data: int) -> list[dict[str, float]]:
    """Return the runs that a grid about the cheapest tuned run lacks: values a factor of two apart, data upwards.

    Batches go up from that of the run, which lies below the critical one, at its size; sizes from its own.
    """
    first = _cheapest(runs, ("n_params", "n_tokens", "batch_tokens"))
    if first is None:
        return []
    asked = [
        {**first, column: first[column] * APART**value, "n_tokens": first["n_tokens"] * APART**more}
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
    with np.errstate(divide="ignore", invalid="ignore"):
        near = [
            np.abs(np.log(runs.column(name) / value)) <= np.log(SAME_RUN) for name, value in wanted.items()
        ]
    return bool(np.any(np.all(near, axis=0) & np.isfinite(runs.outcome)))


def _sweeps(runs: RunTable, law: SweepLaw, fit: Fit | None) -> list[dict[str, float]]:
    """Return sweeps of the law's setting, around the best runs, at the cheapest sizes and data that tell the law.

    What was trained already is not asked for again.
    """
    best = _best_of_sites(runs, law.swept_by)
    if not best:
        return []
    cheapest = min(best, key=_cost)
    swept = (
        {_site_of(group["by"]) for group in fit.groups if group["parameters"]} if fit is not None else set()
    )
    asked = []
    for site in _telling(law, sorted(swept, key=_cost), sorted(best, key=_cost)):
        tuned = _settings(runs, best.get(site, best[cheapest]), law)
        at = {**tuned, "n_params": site[0], "n_tokens": site[1]}
        tried = [
            {**at, law.swept_by: tuned[law.swept_by] * APART ** (level - LEVELS // 2)}
            for level in range(LEVELS)
        ]
        asked += [one for one in tried if not _trained(runs, one)]
    return asked


def _best_of_sites(runs: RunTable, setting: str) -> dict[Site, int]:
    """Return the row of the best run at each size and data that states the setting."""
    values = runs.column(setting)
    size, data = runs.column("n_params"), runs.column("n_tokens")
    known = np.isfinite(size) & np.isfinite(data) & np.isfinite(runs.outcome) & (values > 0)
    best: dict[Site, int] = {}
    for row in np.flatnonzero(known):
        site = float(size[row]), float(data[row])
        if site not in best or runs.outcome[row] < runs.outcome[best[site]]:
            best[site] = int(row)
    return best


def _settings(runs: RunTable, row: int, law: SweepLaw) -> dict[str, float]:
    """Return what a run states of the columns that the law's sweeps agree in, and of batch and learning rate."""
    names = dict.fromkeys((*law.run_columns, law.swept_by, "batch_tokens", "peak_lr", "weight_decay"))
    return {name: float(runs.column(name)[row]) for name in names if np.isfinite(runs.column(name)[row])}


def _telling(law: SweepLaw, swept: Sequence[Site], trained: Sequence[Site]) -> list[Site]:
    """Return the cheapest sites that, with those swept, tell all exponents of a law, and `SITES` at the least.

    Where those that were trained do not, they are the cheapest one with four times the size, the data or both.
    """
    size, data = trained[0]
    grown = [
        (GROWN * size, data),
        (size, GROWN * data),
        (GROWN * size, GROWN * data),
        (size, GROWN**2 * data),
    ]
    chosen, wanted = list(swept), []
    for site in sorted({*trained, *grown}, key=_cost):
        if site not in swept and _rank(law, [*chosen, site]) > _rank(law, chosen):
            chosen.append(site)
            wanted.append(site)
    others = [site for site in trained if site not in chosen]
    return [*wanted, *others[: max(0, SITES - len(chosen))]] or list(trained[:SITES])


def _rank(law: SweepLaw, sites: Sequence[Site]) -> int:
    """Return how many of a law's parameters sweeps at these sites tell: its level, and exponents."""
    if not sites:
        return 0
    size, data = np.array(sites).T
    logs = np.log(np.stack(law.variables({"n_params": size, "n_tokens": data})))
    return 1 + int(np.linalg.matrix_rank(logs - logs[:, :1], tol=SAME_LOGS))


def _site_of(by: Mapping[str, float]) -> Site:
    return float(by["n_params"]), float(by["n_tokens"])


def _cost(site: Site) -> float:
    return site[0] * site[1]

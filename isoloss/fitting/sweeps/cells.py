"""Which finished runs make a sweep that tells where its best setting lies, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import UnusableData
from isoloss.fitting.quality import pass_gate
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.sweeps.surface import Sweeps
from isoloss.fitting.table_screening import lacking_columns, lacking_outcomes
from isoloss.laws.sweep_law import Axis, SweepLaw
from isoloss.observations import RunTable
from isoloss.observations.tables import DIVERGED

SOFTNESS = 0.005
"""Log loss above the best of its sweep at which a run counts 1/e as much: fixed beforehand (laws.md 5)."""

LEAST_WEIGHT = 1e-4
"""Runs that count less say nothing of where the minimum lies."""

FEWEST_LEVELS = 3
"""Values of a setting that a sweep must have tried."""

SAME_SETTING = 1e-6
"""Relative distance within which two values of a setting are one."""

OTHER_SETTINGS = (
    "weight_decay", "warmup_steps", "beta1", "beta2", "epsilon", "max_grad_norm", "sequence_length", "width",
    "depth", "batch_tokens", "peak_lr",
)  # fmt: skip
OTHER_LABELS = (
    "optimizer", "weight_decay_kind", "weight_decay_schedule", "parametrization", "dataset", "tokenizer",
)  # fmt: skip
"""What runs of one sweep must agree in, where it is not what is swept."""


@dataclass(frozen=True)
class Cell:
    """One sweep by its columns: its runs, its best loss, and why it does not count where it does not."""

    of: dict[str, float]
    rows: tuple[int, ...]
    best: float
    why_not: str | None = None

    @property
    def name(self) -> str:
        return ", ".join(f"{name}={value:.4g}" for name, value in self.of.items())


@dataclass(frozen=True)
class Screened:
    """Sweeps that count (`cells`, of whose runs `rows` are in `table`), those that do not, and left-out runs."""

    table: RunTable
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    others: tuple[Cell, ...]
    left_out: LeftOut
    notes: tuple[str, ...]

    def runs(self) -> RunTable:
        """Return the runs of the sweeps that count."""
        return self.table.only([row for cell in self.cells for row in cell.rows])

    def columns(self) -> dict[str, FloatArray]:
        """Return the columns of the sweeps that count, (cells,) each."""
        names = self.cells[0].of if self.cells else ()
        return {name: np.array([cell.of[name] for cell in self.cells]) for name in names}


def screen_sweeps(
    table: RunTable,
    law: SweepLaw,
    unread: Sequence[dict[str, str]] = (),
    gate: Mapping[str, bool] | None = None,
) -> Screened:
    """Return the sweeps of a table of runs, each with the runs that differ in the law's axes alone.

    They have passed the `quality` gate but for the checks that `gate` switches off. Raises UnusableData where no
    run has what the law needs.
    """
    table, stopped = pass_gate(_with_settings(table, law), law, gate or {})
    refused = law.refused(table.columns, table.labels)
    columns = [refused.get(row, why) for row, why in enumerate(lacking_columns(table, law.run_columns))]
    outcomes = lacking_outcomes(table)
    reasons = [one or other for one, other in zip(columns, outcomes, strict=True)]
    left_out: LeftOut = [*unread, *stopped]
    left_out += [{"run_id": table.run_ids[row], "reason": why} for row, why in enumerate(reasons) if why]
    # A run that diverged has no loss, and says all the same that its setting was tried.
    tried = [
        why is None and (end is None or status == DIVERGED)
        for why, end, status in zip(columns, outcomes, table.label("status"), strict=True)
    ]
    known = [int(row) for row in np.flatnonzero(tried)]
    stated = [axis.column for axis in law.axes[1:] if _mostly_stated(table, axis, known)]
    for row, why in enumerate(lacking_columns(table, stated)):
        if why is not None and row in known:
            left_out.append({"run_id": table.run_ids[row], "reason": why})
            known.remove(row)
    if not known:
        why = ": run '{run_id}': {reason}".format(**left_out[0]) if left_out else ""
        raise UnusableData(reason=f"no run is left to fit{why}")
    axes = _swept(table, law, known)
    cells: list[Cell] = []
    others: list[Cell] = []
    for rows in _groups([table.column(name) for name in law.cell], known):
        alike, unlike = _alike(table, law, axes, rows)
        left_out += unlike
        found = _cell(table, law, axes, alike)
        (cells if found.why_not is None else others).append(found)
        if found.why_not is not None:
            left_out += [{"run_id": table.run_ids[row], "reason": found.why_not} for row in found.rows]
    screened = Screened(table, axes, tuple(cells), tuple(others), left_out, table.notes)
    remarks = law.remarks(screened.runs().columns) if cells else ()
    return replace(screened, notes=(*table.notes, *remarks))


def read_for(law: SweepLaw, table: RunTable, gate: Mapping[str, bool]) -> SweepLaw:
    """Return the law in the reading that the runs of a table ask for that pass the gate."""
    passed, _ = pass_gate(_with_settings(table, law), law, gate)
    return law.read_for(passed.columns, passed.labels)


def sweeps_of(screened: Screened, law: SweepLaw, traits: Sequence[FloatArray]) -> tuple[Sweeps, list[int]]:
    """Return the runs near the best of their sweep in the surface's coordinates, and the rows that they are."""
    table = screened.table
    best = _best_of_sites(screened, law)
    rows, cell, weights = [], [], []
    for number, (one, least) in enumerate(zip(screened.cells, best, strict=True)):
        excess = np.log(table.outcome[list(one.rows)] / least)
        weight = np.exp(-excess / SOFTNESS)
        near = weight >= LEAST_WEIGHT
        rows += [row for row, kept in zip(one.rows, near, strict=True) if kept]
        cell += [number] * int(near.sum())
        weights += list(weight[near])
    settings = np.log(np.stack([table.column(axis.column)[rows] for axis in screened.axes]))
    sweeps = Sweeps(np.array(cell), settings, np.log(table.outcome[rows]), np.array(weights), tuple(traits))
    return sweeps, rows


def _with_settings(table: RunTable, law: SweepLaw) -> RunTable:
    """Return the table with the law's settings as columns, and its rows in the order of their numbers."""
    known = (*law.run_columns, *(axis.column for axis in law.axes), *OTHER_SETTINGS, *table.columns)
    columns = {name: table.column(name) for name in known}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = dict(law.with_settings(columns, table.labels))
    order = np.lexsort([table.outcome, *(columns[name] for name in reversed(law.run_columns))])
    return replace(table, columns=columns).only(order)


def _mostly_stated(table: RunTable, axis: Axis, known: Sequence[int]) -> bool:
    """Return whether most runs state a setting that the law can do without."""
    return 2 * int(np.isfinite(table.column(axis.column)[list(known)]).sum()) > len(known)


def _swept(table: RunTable, law: SweepLaw, known: Sequence[int]) -> tuple[Axis, ...]:
    """Return the law's axes that the runs are swept over: its own, and others that most sweeps have several of."""
    groups = _groups([table.column(name) for name in law.cell], known)

    def varies(axis: Axis) -> bool:
        values = table.column(axis.column)
        if np.isnan(values[list(known)]).any():
            return False
        several = sum(len(_groups([values], rows)) >= FEWEST_LEVELS for rows in groups)
        return 2 * several >= len(groups)

    return (law.main, *(axis for axis in law.axes[1:] if varies(axis)))


def _alike(
    table: RunTable, law: SweepLaw, axes: Sequence[Axis], rows: Sequence[int]
) -> tuple[list[int], LeftOut]:
    """Return the runs of a sweep that agree in all other settings as most do, and the rest with what differs."""
    swept = {law.swept_by, *(axis.column for axis in axes)}
    kept, left_out = list(rows), []
    for name in (*OTHER_SETTINGS, *law.alike, *OTHER_LABELS):
        if name in swept:
            continue
        said: Sequence[object] = table.label(name) if name in OTHER_LABELS else list(table.column(name))
        values = [_rounded(said[row]) for row in kept]
        usual = Counter(values).most_common(1)[0][0]
        unlike = [row for row, value in zip(kept, values, strict=True) if value != usual]
        left_out += [
            {"run_id": table.run_ids[row], "reason": f"its {name} differs from the other runs of its sweep"}
            for row in unlike
        ]
        kept = [row for row in kept if row not in set(unlike)]
    return kept, left_out


def _groups(columns: Sequence[FloatArray], rows: Sequence[int]) -> list[list[int]]:
    """Return the rows in groups that agree in all columns, in their order."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        groups.setdefault(tuple(_rounded(column[row]) for column in columns), []).append(row)
    return list(groups.values())


def _rounded(value: object) -> object:
    """Return what stands for a setting where it is compared: numbers to six digits."""
    if isinstance(value, float):  # NumPy's own among them
        return None if np.isnan(value) else float(f"{value:.6g}")
    return value


def _cell(table: RunTable, law: SweepLaw, axes: Sequence[Axis], rows: Sequence[int]) -> Cell:
    """Return a sweep, with why it does not tell where its best setting lies, if it does not."""
    of = {name: float(table.column(name)[rows[0]]) for name in law.cell}
    outcome = table.outcome[list(rows)]
    ended = [row for row, value in zip(rows, outcome, strict=True) if np.isfinite(value)]
    if not ended:
        return Cell(of, tuple(rows), np.nan, "no run of its sweep has an outcome")
    best = min(ended, key=lambda row: table.outcome[row])
    least = float(table.outcome[best])
    why = _edge(table.column(axes[0].column), axes[0], rows, ended, best)
    return Cell(of, tuple(ended), least, why)


def _edge(values: FloatArray, axis: Axis, rows: Sequence[int], ended: Sequence[int], best: int) -> str | None:
    """Return why a sweep does not hold its best setting between others; runs that diverged count as tried."""
    levels = len(_groups([values], ended))
    if levels < FEWEST_LEVELS:
        return (
            f"its sweep has tried {levels} value{'s' * (levels > 1)} of {axis.column}, and three are needed"
        )
    tried = values[list(rows)]
    if values[best] >= tried.max() * (1 - SAME_SETTING):
        return (
            f"the best {axis.column} of its sweep is the largest that was tried: the optimum may lie beyond"
        )
    if values[best] <= tried.min() * (1 + SAME_SETTING):
        return (
            f"the best {axis.column} of its sweep is the smallest that was tried: the optimum may lie beyond"
        )
    return None


def _best_of_sites(screened: Screened, law: SweepLaw) -> list[float]:
    """Return the least loss of all sweeps at each one's site."""
    sites = [tuple(cell.of[name] for name in law.site) for cell in screened.cells]
    least: dict[tuple[float, ...], float] = {}
    for site, cell in zip(sites, screened.cells, strict=True):
        least[site] = min(cell.best, least.get(site, np.inf))
    return [least[site] for site in sites]

"""The critical batch by the procedure of Power Lines: loss by batch, data to a target, hyperbola, regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.staged.chains import (
    Found,
    Group,
    Limits,
    Points,
    distinct_members,
    group_rows,
    nothing,
    power_of,
    solve_each,
)
from isoloss.laws.critical_batch import CriticalBatch
from isoloss.observations import RunTable

FEWEST_DATA = 4
"""Numbers of tokens that a batch must have been trained on: one more than its loss law has parameters."""

FEWEST_BATCHES = 4
"""Batches that a target loss must be known for."""

FARTHEST = 1.5
"""How many times beyond its own runs the data of a batch may lie that reach a target."""

TARGETS, CANDIDATES = 7, 40
"""Target losses at a model size, evenly spaced in log(loss - E), of so many that are tried."""

REWEIGHTINGS = 20

CONFOUNDED = 0.98
"""Correlation of size and data, in logarithms, above which they are one variable."""

E, K, BETA = range(3)
STEEPEST, FLATTEST = 3.0, 0.01
BETAS = (0.15, 0.3, 0.6)
"""Where the search for an exponent begins."""


@dataclass(frozen=True)
class BatchLaw:
    """The loss of a batch over the data at one size: `theta` (members, [E, ln K, beta]) of E + K (D/unit)^-beta."""

    batch: float
    rows: tuple[int, ...]
    theta: FloatArray
    unit: float
    ends: tuple[float, float]

    def data_to(self, target: FloatArray | float) -> FloatArray:
        """Return the tokens that reach a loss, (members,); NaN where none do."""
        left = np.asarray(target) - self.theta[:, E]
        with np.errstate(invalid="ignore", divide="ignore"):
            log_data = (self.theta[:, K] - np.log(np.where(left > 0, left, np.nan))) / self.theta[:, BETA]
            return self.unit * np.exp(log_data)

    def loss_at(self, data: float) -> float:
        """Return the loss after so many tokens, of the first member."""
        floor, log_coefficient, beta = self.theta[0]
        return float(floor + np.exp(log_coefficient) * (data / self.unit) ** -beta)

    def knows(self, data: float) -> bool:
        """Return whether its runs lie near enough to so much data."""
        return bool(self.ends[0] / FARTHEST <= data <= self.ends[1] * FARTHEST)


def critical_batch(table: RunTable, logs: FloatArray) -> Found:
    """Return the law of the critical batch for every member; see `chains.Chain`."""
    law = CriticalBatch()
    rows, beaten = _best_of_each(table)
    laws, too_few = _batch_laws(table, logs, rows)
    left_out = [*beaten, *too_few]
    groups = [group for size in sorted(laws) for group in _targets(size, laws[size])]
    if not groups:
        why = f"no model size has {FEWEST_BATCHES} batches whose runs reach one loss"
        return nothing(law, len(logs), why, left_out)
    data, critical = (
        np.stack([group.values[name][1] for group in groups], axis=1) for name in ("D_min", "B_crit")
    )
    inside = np.array([_inside(group, laws[float(group.by["n_params"])]) for group in groups])
    sizes = np.array([float(group.by["n_params"]) for group in groups])
    names = [f"n_params={group.by['n_params']:g}, loss={group.by['target_loss']:.4f}" for group in groups]
    beyond = "; ".join(name for name, one in zip(names, inside, strict=True) if not one)
    notes = [f"B_crit lies beyond all batches, and is left out, at {beyond}"]
    if inside.sum() < 2 or np.ptp(np.log(data[0, inside])) < np.log(FARTHEST):
        return nothing(law, len(logs), "B_crit is inside of the batches at too few targets", left_out)
    power = power_of(data, critical, inside.astype(np.float64))
    theta = np.column_stack([np.exp(power[:, 0]), power[:, 1]])
    columns = {"n_tokens": data[0], "n_params": sizes}
    points = Points(names, columns, critical[0], [group.rows for group in groups]).only(
        np.flatnonzero(inside)
    )
    notes = [*(notes if not inside.all() else ()), *_readings(points)]
    n_fitted = 3 * sum(map(len, laws.values()))
    return Found(theta, points, groups, {}, _noise(table, laws), n_fitted, {}, [], notes, left_out)


def _best_of_each(table: RunTable) -> tuple[list[int], list[dict[str, str]]]:
    """Return the best run at each size, data and batch, and the others: every batch has its own best settings."""
    columns = [table.column(name) for name in ("n_params", "n_tokens", "batch_tokens")]
    best, beaten = [], []
    for rows in group_rows(columns):
        first = min(rows, key=lambda row: float(table.outcome[row]))
        best.append(first)
        beaten += [
            {
                "run_id": table.run_ids[row],
                "reason": f"run {table.run_ids[first]!r} is better at its batch and data",
            }
            for row in rows
            if row != first
        ]
    return best, beaten


def _batch_laws(
    table: RunTable, logs: FloatArray, rows: Sequence[int]
) -> tuple[dict[float, list[BatchLaw]], list[dict[str, str]]]:
    """Return the loss over data of every size and batch that has enough of it, and runs of the others."""
    chosen = np.array(rows)
    size, batch, data = (table.column(name) for name in ("n_params", "batch_tokens", "n_tokens"))
    laws: dict[float, list[BatchLaw]] = {}
    left_out = []
    for places in group_rows([size[chosen], batch[chosen]]):
        own = chosen[places]
        if np.unique(data[own]).size < FEWEST_DATA:
            why = f"its size and batch were trained on fewer than {FEWEST_DATA} numbers of tokens"
            left_out += [{"run_id": table.run_ids[row], "reason": why} for row in own]
            continue
        unit = float(np.exp(np.mean(np.log(data[own]))))
        theta = _over_data(data[own] / unit, logs[:, own])
        ends = float(data[own].min()), float(data[own].max())
        one = BatchLaw(float(batch[own[0]]), tuple(map(int, own)), theta, unit, ends)
        laws.setdefault(float(size[own[0]]), []).append(one)
    return laws, left_out


def _noise(table: RunTable, laws: Mapping[float, Sequence[BatchLaw]]) -> float:
    """Return the standard deviation of log loss about the laws of all batches."""
    squares, left = 0.0, 0
    for one in (law for several in laws.values() for law in several):
        told = [one.loss_at(float(table.column("n_tokens")[row])) for row in one.rows]
        squares += float(np.sum(np.log(np.array(told) / table.outcome[list(one.rows)]) ** 2))
        left += len(one.rows) - 3
    return float(np.sqrt(squares / max(1, left)))


def _over_data(data: FloatArray, logs: FloatArray) -> FloatArray:
    """Return E, ln K and beta of loss = E + K data^-beta, (members, 3), nearest to log losses (members, runs)."""
    log_data, least, usual = np.log(data), float(np.exp(logs[0].min())), float(np.exp(np.median(logs[0])))

    def model(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        power = np.exp(theta[:, K, None] - theta[:, BETA, None] * log_data)
        total = theta[:, E, None] + power
        slopes = np.stack([np.ones_like(power), power, -power * log_data], axis=2)
        return np.log(total), slopes / total[:, :, None]

    low, high = np.array([0.0, -50.0, FLATTEST]), np.array([least, 50.0, STEEPEST])
    tried = np.concatenate(
        [
            solve_each(model, logs[:1], Limits(np.array([0.6 * least, np.log(0.4 * usual), beta]), low, high))
            for beta in BETAS
        ]
    )
    off = np.sum((model(tried)[0] - logs[0]) ** 2, axis=1)
    distinct, back = distinct_members(logs)
    return solve_each(model, distinct, Limits(tried[int(np.argmin(off))], low, high))[back]


def _targets(size: float, laws: Sequence[BatchLaw]) -> list[Group]:
    """Return D_min and B_crit at target losses that enough batches of a size reach."""
    if len(laws) < FEWEST_BATCHES:
        return []
    floor = float(np.median([one.theta[0, E] for one in laws]))
    ends = [[one.loss_at(end) for end in one.ends] for one in laws]
    highest, lowest = max(one[0] for one in ends), max(floor * (1 + 1e-6), min(one[1] for one in ends))
    candidates = floor + np.geomspace(highest - floor, lowest - floor, CANDIDATES)
    known = [
        (target, [one for one in laws if one.knows(float(one.data_to(target)[0]))]) for target in candidates
    ]
    usable = [(target, reaching) for target, reaching in known if len(reaching) >= FEWEST_BATCHES]
    spread = np.unique(np.linspace(0, len(usable) - 1, min(TARGETS, len(usable))).round().astype(int))
    return [_group(size, float(usable[one][0]), usable[one][1]) for one in spread]


def _group(size: float, target: float, laws: Sequence[BatchLaw]) -> Group:
    batches = np.array([one.batch for one in laws])
    data = np.stack([one.data_to(target) for one in laws], axis=1)
    least, critical = _hyperbola(batches, data)
    values = {
        "D_min": ("tokens", least),
        "S_min": ("steps", least / critical),
        "B_crit": ("tokens", critical),
    }
    rows = [row for one in laws for row in one.rows]
    return Group({"n_params": size, "target_loss": target}, rows, values)


def _hyperbola(batches: FloatArray, data: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return D_min and B_crit of D_B = D_min (1 + B / B_crit), (members,) each, NaN where there is no such curve.

    `data` (members, batches), NaN where a batch does not reach the target. The line D_min + (D_min / B_crit) B is
    fitted by least squares of errors relative to its own predictions: reweighted until they settle.
    """
    known = np.isfinite(data)
    told = np.where(known, data, 1.0)
    least = rise = np.zeros(len(data))
    for _ in range(REWEIGHTINGS):
        weights = known / told**2
        total, mean = weights.sum(axis=1), (weights @ batches) / weights.sum(axis=1)
        mean_data = (weights * np.where(known, data, 0.0)).sum(axis=1) / total
        away = batches - mean[:, None]
        moment = (weights * away * np.where(known, data - mean_data[:, None], 0.0)).sum(axis=1)
        rise = moment / (weights * away**2).sum(axis=1)
        least = mean_data - rise * mean
        line = least[:, None] + rise[:, None] * batches
        told = np.where(known & (line > 0), line, told)
    possible = (least > 0) & (rise > 0)
    return np.where(possible, least, np.nan), np.where(
        possible, least / np.where(possible, rise, 1.0), np.nan
    )


def _inside(group: Group, laws: Sequence[BatchLaw]) -> bool:
    """Return whether a target's critical batch lies between the batches that it was read off."""
    used = set(group.rows)
    batches = [one.batch for one in laws if used.issuperset(one.rows)]
    critical = float(group.values["B_crit"][1][0])
    return bool(np.isfinite(critical) and min(batches) < critical < max(batches))


def _readings(points: Points) -> list[str]:
    """Say how well data, size and compute each tell the critical batch, and which of them cannot be told apart."""
    columns = {"n_tokens": points.columns["n_tokens"], "n_params": points.columns["n_params"]}
    columns["compute_flops"] = 6 * columns["n_params"] * columns["n_tokens"]
    varied = {name: values for name, values in columns.items() if np.ptp(np.log(values)) > np.log(FARTHEST)}
    off = {name: _spread_about(values, points.outcome) for name, values in varied.items()}
    said = ", ".join(f"{name} by {np.expm1(error):.0%}" for name, error in off.items())
    notes = [f"about a power of each, the critical batches scatter: {said}"] if len(off) > 1 else []
    if "n_params" not in varied:
        return [
            *notes,
            "the runs have one model size: that the critical batch goes with data and not with size is assumed",
        ]
    together = float(np.corrcoef(np.log(columns["n_params"]), np.log(columns["n_tokens"]))[0, 1])
    if abs(together) > CONFOUNDED:
        notes.append(
            f"size and data go together (correlation {together:.3f}): the runs cannot tell which matters"
        )
    return notes


def _spread_about(x: FloatArray, y: FloatArray) -> float:
    log_coefficient, exponent = power_of(x, y[None])[0]
    return float(np.sqrt(np.mean((np.log(y) - log_coefficient - exponent * np.log(x)) ** 2)))

"""Steps to a target over the batch: a and b at every size, then their powers of the size."""

from __future__ import annotations

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
from isoloss.laws.steps_to_target import BASE_BATCH_TOKENS, StepsToTarget, b_crit, cbs_20pct
from isoloss.observations import RunTable

FEWEST_BATCHES = 3
"""Batches that a size needs for a + b / B to be tested at all."""

FARTHEST = 200.0
"""The largest logarithm that the search for a and b tries."""

CONFOUNDED = 0.98
"""Correlation of size and data, in logarithms, above which they are one variable."""


def steps_to_target(table: RunTable, logs: FloatArray) -> Found:
    """Return the law of steps over size and batch for every member; see `chains.Chain`."""
    size, batch = table.column("n_params"), table.column("batch_tokens")
    groups = group_rows([size, table.column("target_loss")])
    usable = [rows for rows in groups if np.unique(batch[rows]).size >= FEWEST_BATCHES]
    left_out = [
        {
            "run_id": table.run_ids[row],
            "reason": f"its size and target have fewer than {FEWEST_BATCHES} batches",
        }
        for rows in groups
        if rows not in usable
        for row in rows
    ]
    if not usable:
        why = f"no size and target have {FEWEST_BATCHES} batches"
        return nothing(StepsToTarget(), len(logs), why, left_out)
    fits = [_hyperbola(batch[rows], logs[:, rows]) for rows in usable]
    a, b = (np.stack([fit[part] for fit in fits], axis=1) for part in range(2))
    sizes = np.array([size[rows[0]] for rows in usable])
    powers = {name: power_of(sizes, values) for name, values in (("a", a), ("b", b))}
    theta = np.concatenate([_scaled(powers["a"]), _scaled(powers["b"])], axis=1)
    found = [_group(table, rows, a[:, n], b[:, n]) for n, rows in enumerate(usable)]
    missing, weak = _lacking(sizes)
    chosen = [row for rows in usable for row in rows]
    off = [np.log(a[0, n] + b[0, n] / batch[rows]) - logs[0, rows] for n, rows in enumerate(usable)]
    noise = float(np.sqrt(np.sum(np.concatenate(off) ** 2) / max(1, len(chosen) - 2 * len(usable))))
    return Found(
        theta, _points(table, chosen), found, _derived(sizes, a, b), noise, 2 * len(usable), missing, weak,
        _readings(sizes, a, b), left_out,
    )  # fmt: skip


def _points(table: RunTable, rows: list[int]) -> Points:
    columns = {name: table.column(name)[rows] for name in ("n_params", "batch_tokens")}
    names = [table.run_ids[row] for row in rows]
    return Points(names, columns, table.column("steps_to_target")[rows], [[row] for row in rows])


def _hyperbola(batch: FloatArray, logs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a and b of steps = a + b / batch, (members,) each, by least squares on logs (members, runs)."""
    log_batch = np.log(batch)

    def model(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        few, more = np.exp(theta[:, :1]), np.exp(theta[:, 1:] - log_batch)
        total = few + more
        return np.log(total), np.stack([few / total, more / total], axis=2)

    start = np.array([logs[0].min(), np.median(logs[0] + log_batch)]) - np.log(2)
    distinct, back = distinct_members(logs)
    found = solve_each(model, distinct, Limits(start, np.full(2, -FARTHEST), np.full(2, FARTHEST)))
    return np.exp(found[back, 0]), np.exp(found[back, 1])


def _scaled(power: FloatArray) -> FloatArray:
    return np.column_stack([np.exp(power[:, 0]), power[:, 1]])


def _group(table: RunTable, rows: list[int], a: FloatArray, b: FloatArray) -> Group:
    by = {name: float(table.column(name)[rows[0]]) for name in ("n_params", "target_loss")}
    values = {
        "a": ("steps", a),
        "b": ("steps * tokens", b),
        "cbs_20pct": ("tokens", cbs_20pct(a, b)),
        "b_crit": ("tokens", b_crit(a, b)),
    }
    return Group(by, rows, values)


def _derived(sizes: FloatArray, a: FloatArray, b: FloatArray) -> dict[str, tuple[str, FloatArray]]:
    """Return both critical batches as powers of the size, and of the data at the base batch."""
    data = BASE_BATCH_TOKENS * a + b
    found: dict[str, tuple[str, FloatArray]] = {}
    if np.unique(sizes).size < 2:
        return found
    for name, batches in (("cbs_20pct", cbs_20pct(a, b)), ("b_crit", b_crit(a, b))):
        over_size, over_data = power_of(sizes, batches), power_of(data, batches)
        found[f"{name}.coefficient"] = ("tokens / params^exponent_n_params", np.exp(over_size[:, 0]))
        found[f"{name}.exponent_n_params"] = ("1", over_size[:, 1])
        found[f"{name}.exponent_n_tokens"] = ("1", over_data[:, 1])
    return found


def _lacking(sizes: FloatArray) -> tuple[dict[str, str], list[str]]:
    n_sizes = np.unique(sizes).size
    if n_sizes == 1:
        names = ("a_exponent_n_params", "b_exponent_n_params")
        return dict.fromkeys(names, "there is one model size"), []
    return {}, [] if n_sizes > 2 else ["two model sizes give one exponent, and nothing to test it by"]


def _readings(sizes: FloatArray, a: FloatArray, b: FloatArray) -> list[str]:
    """Say whether size and data can be told apart: data are those that the base batch takes to the target."""
    if np.unique(sizes).size < 3:
        return []
    data = (BASE_BATCH_TOKENS * a + b)[0]
    together = float(np.corrcoef(np.log(sizes), np.log(data))[0, 1])
    said = (
        f"n_params and n_tokens (the data that the base batch takes) go together, correlation {together:.3f}"
    )
    if together > CONFOUNDED:
        ratio = float(np.median(data / sizes))
        return [
            f"{said}, about {ratio:.3g} tokens a parameter: whether the critical batch follows size or data cannot "
            "be told apart; both readings are given, and sizes trained on other multiples would tell"
        ]
    return [f"{said}: they can be told apart"]

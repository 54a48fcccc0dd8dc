"""Public tables of finished runs beside the checkout. They are never copied into the project."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.datasets import SHARED
from isoloss.observations import RunTable

GEMSTONES = ("hot", "cool_begin", "cool_end", "lr_ablation_hot")
"""The sets of `gemstones`: constant rates, where cooldowns begin and end, half the rate."""


def chinchilla_table() -> RunTable:
    """Return the 240 points of `chinchilla` that the replication fits."""
    rows = [row for row in _rows("chinchilla/points.csv") if row["dropped_by_replication"] == "0"]
    return _table([(row["n_params"], row["tokens"], row["loss"]) for row in rows], "total")


def gemstones_table(name: str) -> RunTable:
    """Return the readings of one set of `gemstones`."""
    rows = [row for row in _rows("gemstones/points.csv") if row["set"] == name]
    return _table([(row["n_params"], row["tokens"], row["loss"]) for row in rows], "total")


def steplaw_table() -> RunTable:
    """Return the run of `steplaw` with the lowest smoothed loss of each model size and number of tokens."""
    cells = defaultdict(list)
    for row in _rows("steplaw/dense.csv"):
        cells[row["N"], row["D"]].append(float(row["smooth_loss"]))
    best = [(n_params, tokens, str(min(losses))) for (n_params, tokens), losses in cells.items()]
    return _table(best, "non_embedding")


def marin_table() -> RunTable:
    """Return the lowest loss that `marin_adamw` states of each model size and number of tokens."""
    rows = [row for row in _rows("marin_adamw/ablations.csv") if not row["param_changed"]]
    return _table([(row["n_params"], row["tokens"], row["file_min_loss"]) for row in rows], "non_embedding")


def by_size(table: RunTable, least: int = 5) -> dict[float, RunTable]:
    """Return the runs of each model size that was trained on `least` or more numbers of tokens."""
    sizes = table.columns["n_params"]
    parts = {float(size): table.only(np.flatnonzero(sizes == size)) for size in np.unique(sizes)}
    return {size: part for size, part in parts.items() if np.unique(part.columns["n_tokens"]).size >= least}


def _rows(path: str) -> list[dict[str, str]]:
    with (SHARED / path).open() as file:
        return list(csv.DictReader(file))


def _table(rows: Sequence[tuple[str, str, str]], kind: str) -> RunTable:
    n_params, n_tokens, loss = np.array(rows, dtype=np.float64).T
    names = tuple(f"run-{number:04}" for number in range(len(rows)))
    return RunTable(names, {"n_params": n_params, "n_tokens": n_tokens}, loss, n_params_kind=kind)

"""How well a law predicts a curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import Dataset

Scores = dict[str, float | None]


def score(observed: FloatArray, predicted: FloatArray) -> Scores:
    """Return mean absolute error and RMSE in nats, R2, and the worst relative error of one curve (points,).

    R2 is None for a curve that does not vary.
    """
    error = predicted - observed
    spread = float(np.sum((observed - observed.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else None,
        "max_relative_error": float(np.max(np.abs(error) / observed)),
    }


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """Return each score's mean over the curves, each curve counting once; None where no curve has it."""
    rows = list(scores)
    names = rows[0] if rows else {}
    columns = {name: [value for row in rows if (value := row[name]) is not None] for name in names}
    return {name: float(np.mean(column)) if column else None for name, column in columns.items()}


def score_rows(observed: FloatArray, predicted: FloatArray) -> Scores:
    """Return the errors and R2 of runs of a point each, (runs,), taken together; a point alone has no R2.

    The worst relative error is not among them: its mean over the runs is their mean relative error.
    """
    together = score(observed, predicted)
    return {name: together[name] for name in ("mae", "rmse", "r2")}


def score_pairs(pairs: Mapping[str, tuple[FloatArray, FloatArray]]) -> dict[str, Any]:
    """Return the scores of each run by its name, from observed and predicted points (points,), and their mean."""
    runs = {name: score(observed, predicted) for name, (observed, predicted) in pairs.items()}
    mean = mean_scores(runs.values())
    if all(observed.size == 1 for observed, _ in pairs.values()):
        columns = zip(*pairs.values(), strict=True)
        mean |= score_rows(*(np.concatenate(column) for column in columns))
    return {"runs": runs, "mean": mean}


def score_runs(predicted: FloatArray, data: Dataset) -> dict[str, Any]:
    """Return the scores of each run by its name, and their mean, for predictions (points,) of the data."""
    parts = zip(data.run_ids, data.slices, strict=True)
    return score_pairs({name: (data.observed[part], predicted[part]) for name, part in parts})

"""How well a law predicts a curve."""

from __future__ import annotations

from collections.abc import Iterable
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


def score_runs(predicted: FloatArray, data: Dataset) -> dict[str, Any]:
    """Return the scores of each run by its name, and their mean, for predictions (points,) of the data."""
    runs = {
        name: score(data.observed[part], predicted[part])
        for name, part in zip(data.run_ids, data.slices, strict=True)
    }
    return {"runs": runs, "mean": mean_scores(runs.values())}

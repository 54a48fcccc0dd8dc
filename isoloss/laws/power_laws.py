"""Sums of power laws over a table of finished runs: what their Jacobians and starting grids have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Features

EXPONENTS = (0.05, 1.5)
"""Exponents of published scaling laws lie well inside of these; the grid of starts covers them."""

ON_ONE_LINE = 1e-3
"""Distance from a line, in logarithms, within which runs lie on it."""

SAME_LOG = 1e-9
"""Values whose logarithms differ by no more are one."""


@dataclass(frozen=True)
class LogColumns(Features):
    """Natural logarithms of the columns that the law's terms are powers of: (terms, points)."""

    logs: FloatArray


def log_columns(*columns: FloatArray) -> LogColumns:
    logs = np.log(np.stack(columns))
    return LogColumns(n_points=logs.shape[1], n_terms=logs.size, logs=logs)


def training_compute(columns: Mapping[str, FloatArray]) -> FloatArray:
    """Return the usual count of a training's floating-point operations, 6 N D, (runs,)."""
    return 6 * columns["n_params"] * columns["n_tokens"]


def powers(exponents: FloatArray, logs: FloatArray) -> FloatArray:
    """Return x^-exponent (members, points) for exponents (members,) and ln x (points,)."""
    return namespace(exponents).exp(-exponents[:, None] * logs)


def blank_jacobian(theta: FloatArray, n_points: int) -> Any:
    """Return an empty Jacobian as (members, parameters, points), rows contiguous; its `.mT` is what laws return."""
    return namespace(theta).empty((*theta.shape, n_points), dtype=theta.dtype, device=theta.device)


def exponent_grid(count: int, n_exponents: int) -> FloatArray:
    """Return at least `count` combinations of exponents, (k, n_exponents), at even distances of their logarithm."""
    a_side = max(6, ceil(count ** (1 / n_exponents)))
    axes = [np.geomspace(*EXPONENTS, a_side)] * n_exponents
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


def n_distinct(features: LogColumns) -> list[int]:
    """Return how many different values each variable has."""
    return [1 + int(np.sum(np.diff(np.sort(log)) > SAME_LOG)) for log in features.logs]


def on_one_line(features: LogColumns) -> bool:
    """Return whether some product of powers of the variables is one in all runs, as D is that trains 20 tokens for
    each parameter."""
    if len(features.logs) == 1:
        return False
    centred = features.logs - features.logs.mean(axis=1, keepdims=True)
    direction = np.linalg.svd(centred, full_matrices=False)[0][:, -1]
    return bool(np.abs(direction @ centred).max() < ON_ONE_LINE)

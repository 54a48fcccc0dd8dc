"""What a chain of fits finds, for the runs as they are and for runs that are weighted otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.observations import RunTable

Values = Mapping[str, tuple[str, FloatArray]]
"""Quantities by their names: (unit, values (members,))."""


@dataclass(frozen=True)
class Group:
    """What was found for some of the runs: `by` says which they are, `rows` are they."""

    by: Mapping[str, float | str]
    rows: Sequence[int]
    values: Values


@dataclass(frozen=True)
class Found:
    """The outcome of a chain for every member: `theta` (members, parameters), by groups, and what follows.

    `missing` are parameters that the runs cannot determine, with why; `weak` and `notes` are reasons in words,
    those that speak against the law and others. `left_out` has runs that no stage could use.
    """

    theta: FloatArray
    groups: Sequence[Group]
    derived: Values
    missing: Mapping[str, str] = field(default_factory=dict)
    weak: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: Sequence[dict[str, str]] = ()

    def columns(self) -> Iterator[FloatArray]:
        """Yield everything that was found, (members,) each, in one order."""
        yield from self.theta.T
        for group in self.groups:
            yield from (values for _, values in group.values.values())
        yield from (values for _, values in self.derived.values())


Chain = Callable[[RunTable, FloatArray], Found]
"""Runs that all have what the law needs, and weights (members, runs) of each: what is found for every member."""


def group_rows(columns: Sequence[FloatArray]) -> list[list[int]]:
    """Return the rows in groups that agree in all columns to six digits, in the order of their values."""
    keys = np.stack([np.char.mod("%.6g", column) for column in columns], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rows = [list(map(int, np.flatnonzero(inverse.ravel() == number))) for number in range(len(first))]
    return sorted(rows, key=lambda group: tuple(float(column[group[0]]) for column in columns))


def power_of(x: FloatArray, y: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return ln coefficient and exponent of y = coefficient * x^exponent by least squares on ln y.

    `x` (members, n) or (n,), `y` (members, n), both above 0 and NaN where there is none; returns (members, 2).
    """
    log_x, log_y = np.broadcast_arrays(np.log(x), np.log(y))
    known = np.isfinite(log_x) & np.isfinite(log_y)
    w = known * (1.0 if weights is None else weights)
    total = w.sum(axis=1, keepdims=True)
    log_x, log_y = np.where(known, log_x, 0.0), np.where(known, log_y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = ((w * one).sum(axis=1, keepdims=True) / total for one in (log_x, log_y))
        slope = (w * (log_x - mean_x) * (log_y - mean_y)).sum(axis=1) / (w * (log_x - mean_x) ** 2).sum(
            axis=1
        )
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], axis=1)

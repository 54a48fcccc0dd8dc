"""Fewer points that draw the same picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from tsdownsample import MinMaxLTTBDownsampler

from store.columns import BoolArray, Column, FloatArray, IntArray, Points

Scale = Literal["linear", "log"]
MIN_POINTS = 8
FIRST_ON_LOG_AXIS = 0.5
"""Where step 0 is shown on a log axis."""

Gaps = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class Thinned:
    """Points to draw, and for each column the first and last step of every stretch of non-finite values."""

    points: Points
    gaps: Gaps


def thin(points: Points, max_points: int, x_scale: Scale = "linear") -> Thinned:
    """At most `max_points` of the points, chosen by MinMaxLTTB on the x scale that is shown.

    Only real points are returned, with all their columns; each column has an equal say in which. Non-finite
    values are left out and returned as gaps: they would hide the values beside them.
    """
    gaps = {name: _stretches(points.step, column.non_finite()) for name, column in points.columns.items()}
    gaps = {name: found for name, found in gaps.items() if found}
    columns = {name: _finite(column) for name, column in points.columns.items()}
    finite = Points(points.step, columns)
    finite = finite.take(_any_present(finite))
    if len(finite) <= max_points:
        return Thinned(finite, gaps)
    return Thinned(finite.take(_chosen(finite, max_points, x_scale)), gaps)


def _finite(column: Column) -> Column:
    present = column.present & np.isfinite(column.values)
    return column if present.all() else Column.of(column.values, present)


def _any_present(points: Points) -> BoolArray:
    found = np.zeros(len(points), dtype=bool)
    for column in points.columns.values():
        found |= column.present
    return found


def _chosen(points: Points, max_points: int, x_scale: Scale) -> IntArray:
    x = _positions(points.step, x_scale)
    shown = [column for column in points.columns.values() if column.present.any()]
    share = max(max_points // max(len(shown), 1), MIN_POINTS)
    chosen = [_of_column(x, column, share) for column in shown]
    together = np.unique(np.concatenate(chosen))
    if len(together) > max_points:  # only where MIN_POINTS for each column is more than was asked for
        together = together[np.linspace(0, len(together) - 1, max_points).astype(int)]
    return together.astype(np.int64)


def _of_column(x: FloatArray, column: Column, n_out: int) -> IntArray:
    at = np.flatnonzero(column.present)
    if len(at) <= n_out:
        return at
    xs, ys = (x, column.values) if len(at) == len(x) else (x[at], column.values[at])
    downsampler = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]
    chosen: IntArray = at[downsampler.downsample(xs, ys, n_out=n_out - n_out % 2)]
    return chosen


def _positions(step: IntArray, x_scale: Scale) -> FloatArray:
    x = step.astype(np.float64)
    return np.log(np.maximum(x, FIRST_ON_LOG_AXIS)) if x_scale == "log" else x


def _stretches(step: IntArray, odd: BoolArray) -> list[tuple[int, int]]:
    if not odd.any():
        return []
    edges = np.diff(odd.astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return list(zip(step[starts].tolist(), step[stops].tolist(), strict=True))

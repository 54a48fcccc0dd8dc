"""Columns of points in memory: exact float64 values, and where they are missing.

A missing value and a logged NaN are two things, so a column is its values and the places where it has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """Values of one quantity, float64 (n,); `present` (n,) is False where there is none (its value is 0)."""

    values: FloatArray
    present: BoolArray

    @classmethod
    def of(cls, values: npt.ArrayLike, present: npt.ArrayLike | None = None) -> Column:
        """The column with 0 where nothing is present, so that equal columns have equal bytes."""
        array = np.asarray(values, dtype=np.float64)
        if present is None:
            return cls(array, np.ones(array.shape, dtype=bool))
        mask = np.asarray(present, dtype=bool)
        return cls(np.where(mask, array, 0.0), mask)

    @classmethod
    def empty(cls, length: int) -> Column:
        return cls(np.zeros(length), np.zeros(length, dtype=bool))

    def take(self, at: IntArray | BoolArray | slice) -> Column:
        return Column(self.values[at], self.present[at])

    def with_nan(self) -> FloatArray:
        """The values with NaN where there is none: what mathematics wants."""
        return np.where(self.present, self.values, np.nan)

    def non_finite(self) -> BoolArray:
        """Where a NaN or an infinity was logged."""
        return self.present & ~np.isfinite(self.values)


@dataclass(frozen=True)
class Points:
    """Points of one run: steps (n,), increasing strictly, and columns of the same length by name."""

    step: IntArray
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, name: str) -> Column:
        """The column, all missing where the points have none of that name."""
        return self.columns.get(name) or Column.empty(len(self.step))

    def take(self, at: IntArray | BoolArray | slice) -> Points:
        return Points(self.step[at], {name: column.take(at) for name, column in self.columns.items()})

    def between(self, first: int | None, last: int | None) -> Points:
        """The points of steps first..last, both included; None is no limit."""
        start = 0 if first is None else int(np.searchsorted(self.step, first, "left"))
        stop = len(self) if last is None else int(np.searchsorted(self.step, last, "right"))
        return self if (start, stop) == (0, len(self)) else self.take(slice(start, stop))


def nothing() -> Points:
    """No points at all."""
    return Points(np.zeros(0, dtype=np.int64))


def join(parts: Iterable[Points]) -> Points:
    """Parts that follow one another, as one."""
    full = [part for part in parts if len(part)]
    if len(full) < 2:
        return full[0] if full else nothing()
    names = list(dict.fromkeys(name for part in full for name in part.columns))
    step = np.concatenate([part.step for part in full])
    return Points(step, {name: _concatenate([part[name] for part in full]) for name in names})


def overlay(below: Points, above: Points) -> Points:
    """All steps of both; at a step that both have, the point of `above` as a whole."""
    if not len(below) or not len(above):
        return above if not len(below) else below
    if below.step[-1] < above.step[0]:
        return join([below, above])
    kept = below.take(~np.isin(below.step, above.step, assume_unique=True))
    return _sorted(join([kept, above]))


def locate(step: IntArray, among: IntArray) -> tuple[IntArray, BoolArray]:
    """Where each of `step` stands in the increasing `among`, and whether it is there at all."""
    if not len(among):
        return np.zeros(len(step), dtype=np.int64), np.zeros(len(step), dtype=bool)
    at = np.minimum(np.searchsorted(among, step), len(among) - 1).astype(np.int64)
    return at, among[at] == step


def same(one: FloatArray, other: FloatArray) -> BoolArray:
    """Where two numbers are the same: equal, or both NaN."""
    equal: BoolArray = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal


def _concatenate(columns: Sequence[Column]) -> Column:
    return Column(
        np.concatenate([column.values for column in columns]),
        np.concatenate([column.present for column in columns]),
    )


def _sorted(points: Points) -> Points:
    return points.take(np.argsort(points.step, kind="stable"))

"""The changes of a learning rate as the points of a run see them: nodes that stand for many steps each.

A law that sums a kernel over every step of learning-rate change before a point costs points x steps. Here the
steps are grouped into bins, and a bin is two nodes that share its change: at the mean position of the change in
it plus and minus its standard deviation, a Gauss rule with the exact weight and the exact mean. The finest bins
are equal changes of the learning rate; a point sees wider ones the further they lie back, and of the bin that it
lies in only the part before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.laws.law import Features
from isoloss.observations import Trained
from isoloss.schedules import Schedule
from isoloss.schedules.pieces import Piece, Polyline, Table

FINEST = 1 / 1536
"""The change of learning rate in the finest bins, as a share of the peak: points see them near by alone, and a
memory may be as short as a few steps."""

SHORTEST = 1 / 512
"""How many steps the finest bins have at most, as a share of a piece of the schedule."""

WIDTH = 0.5
"""How wide a bin may be, in steps and in area, as a share of its distance from the point."""

GROWTH = 1.0
"""How wide a bin may be in area, as a share of the area before it, or of that of warm-up."""

MOST = 1 / 8
"""The largest change of learning rate in a bin that is wider than the finest, as a share of the peak."""

RATIO = 1 / 2
"""The same as a share of the higher rate in the bin: the clocks of low learning rates differ much."""

MANY = 8192
"""About how many of the finest bins there are at most."""

LEAST_FALL = 0.01
"""A learning rate that has fallen by less than this share anywhere shows no annealing: logs jitter."""

SLIGHT = 4e-3 * FINEST
"""Changes of learning rate in a finest bin that turn no rise into a fall: logs jitter."""


@dataclass(frozen=True)
class Drops:
    """Nodes of one run, and which of them lie before which of its points.

    A node stands for the change from `start_lr` to `end_lr` and lies behind `position` steps, a fraction: the
    first step of the changed learning rate is the one that follows. All are (nodes,). `point` and `node` (pairs,)
    are in the order of the points, each of which has at least one: where nothing changed before, a node without
    change.
    """

    position: FloatArray
    start_lr: FloatArray
    end_lr: FloatArray
    point: IntArray
    node: IntArray


def drops_of(run: Trained, begin: int) -> Drops:
    """Return the changes of a run's learning rate behind step `begin`."""
    leaves = _Leaves(run.schedule, begin)
    point, low, high = leaves.ladders(run.step, run.schedule.area(run.step))
    bins, node = np.unique(low * leaves.edges.size + high, return_inverse=True)
    whole = leaves.bins(*np.divmod(bins, leaves.edges.size))
    parted, parts = leaves.parts(run.step)
    blank = np.array([[run.step[0]], [0.0], [0.0], [0.0]])
    n_bins = bins.size + parted.size
    bare = np.setdiff1d(np.arange(run.step.size), np.append(point, parted))
    return _in_twos(
        np.concatenate([whole, parts, blank], axis=1),
        point=np.concatenate([point, parted, bare]),
        node=np.concatenate([node, np.arange(bins.size, n_bins), np.full(bare.size, n_bins)]),
    )


def _in_twos(bins: FloatArray, point: IntArray, node: IntArray) -> Drops:
    """Return two nodes for every bin that has a spread; (4, bins) as of `_Leaves.bins`, and the pairs with them."""
    mean, spread, start_lr, end_lr = bins
    wide = np.flatnonzero(spread > 0)
    second = np.full(mean.size, -1)
    second[wide] = mean.size + np.arange(wide.size)
    twice = np.flatnonzero(second[node] >= 0)
    point, node = np.append(point, point[twice]), np.append(node, second[node[twice]])
    order = np.argsort(point, kind="stable")
    middle_lr = np.where(spread > 0, (start_lr + end_lr) / 2, end_lr)
    return Drops(
        position=np.append(mean - spread, (mean + spread)[wide]),
        start_lr=np.append(start_lr, middle_lr[wide]),
        end_lr=np.append(middle_lr, end_lr[wide]),
        point=point[order],
        node=node[order],
    )


def largest_fall(run: Trained) -> float:
    """Return the largest share by which the learning rate lies below its height before, over a run's points.

    Points of the warm-up, where it is still low, are not counted.
    """
    warm = max(run.schedule.warmup_steps, 1)
    lr = levels(run.schedule, np.maximum(np.append(warm, run.step), warm))
    highest = np.maximum.accumulate(lr)
    return float(np.max((highest - lr) / np.where(highest > 0, highest, 1.0)))


def areas(schedule: Schedule, position: FloatArray) -> FloatArray:
    """Return S1 after fractional numbers of steps (n,): between steps it is linear."""
    done = np.minimum(np.floor(position), schedule.total_steps).astype(np.int64)
    following = np.minimum(done + 1, schedule.total_steps)
    return schedule.area(done) + (position - done) * schedule.lr(following)


T = TypeVar("T", bound=Features)


def joined(parts: Sequence[T], positions: Mapping[str, str]) -> T:
    """Return the features of several runs as one: their arrays one after the other, their numbers summed.

    `positions` names the fields that hold positions, each with the field that they are positions in.
    """
    whole: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0])):
        values = [getattr(part, name) for part in parts]
        if name in positions:
            lengths = [getattr(part, positions[name]).size for part in parts]
            values = [value + begin for value, begin in zip(values, accumulate([0, *lengths]), strict=False)]
        whole[name] = np.concatenate(values) if np.ndim(values[0]) else sum(values)
    return type(parts[0])(**whole)


class _Leaves:
    """The finest bins behind a step, from edges[k] to edges[k + 1]: leaves of trees of bins twice as wide each.

    `lr` and `area` (edges,) are those at the edges; `mean` and `spread` (leaves,) those of the change's position.
    """

    def __init__(self, schedule: Schedule, begin: int) -> None:
        self.schedule = schedule
        self.edges = _edges(schedule, begin)
        self.lr = levels(schedule, self.edges)
        self.area = schedule.area(self.edges)
        self.warm_area = float(schedule.area([schedule.warmup_steps])[0])
        self.mean, self.spread = _moments(
            self.edges[:-1], self.edges[1:], self.lr[:-1], self.lr[1:], np.diff(self.area)
        )
        change = np.diff(self.lr)
        # Positions from the middle of the changes on: squares of millions of steps would hide small bins.
        self._origin = np.average(self.mean, weights=np.abs(change)) if change.any() else 0.0
        mean = self.mean - self._origin
        weighed = change * np.stack([np.ones_like(change), mean, mean**2 + self.spread**2])
        self._sums = np.pad(np.cumsum(weighed, axis=1), ((0, 0), (1, 0)))

    def bins(self, low: IntArray, high: IntArray) -> FloatArray:
        """Return mean, spread and the learning rates at both ends of bins between two edges: (4, bins)."""
        total, first, second = self._sums[:, high] - self._sums[:, low]
        mean = first / total
        spread = np.sqrt(np.maximum(second / total - mean**2, 0.0))
        mean = np.clip(mean + self._origin, self.edges[low], self.edges[high] - 1)
        single = high == low + 1
        mean = np.where(single, self.mean[low], mean)
        spread = np.where(single, self.spread[low], spread)
        # No node lies outside of its bin, or behind the points that see it.
        spread = np.minimum(spread, np.minimum(mean - self.edges[low], self.edges[high] - 1 - mean))
        return np.stack([mean, np.maximum(spread, 0.0), self.lr[low], self.lr[high]])

    def parts(self, step: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the points that lie inside of a bin, and the part of it before each as `bins` does."""
        low = np.clip(np.searchsorted(self.edges, step, side="right") - 1, 0, self.edges.size - 2)
        inside = np.flatnonzero((self.edges[low] < step) & (step < self.edges[low + 1]))
        low, at = low[inside], step[inside]
        lr, area = levels(self.schedule, at), self.schedule.area(at)
        mean, spread = _moments(self.edges[low], at, self.lr[low], lr, area - self.area[low])
        changed = lr != self.lr[low]
        return inside[changed], np.stack([mean, spread, self.lr[low], lr])[:, changed]

    def ladders(self, step: IntArray, area: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the bins that points see whole: the point, and the edges at which the bin starts and ends."""
        found = [np.zeros((3, 0), dtype=np.int64)]
        for first, end in self._stretches():
            seen = np.flatnonzero(step > self.edges[first])
            low = np.full(seen.size, first)
            size = 1 << (end - first - 1).bit_length()
            while seen.size:
                high = np.minimum(low + size, end)
                taken = self._narrow(low, high, step[seen], area[seen])
                taken = (self.edges[high] <= step[seen]) & (taken | (size == 1))
                found.append(np.stack([seen, low, high])[:, taken])
                size //= 2
                seen, low = np.repeat(seen[~taken], 2), np.repeat(low[~taken], 2)
                low[1::2] += size
                inside = (low < end) & (self.edges[np.minimum(low, end)] < step[seen]) & (size > 0)
                seen, low = seen[inside], low[inside]
        point, low, high = np.concatenate(found, axis=1)
        changed = self.lr[low] != self.lr[high]
        return point[changed], low[changed], high[changed]

    def _stretches(self) -> list[tuple[int, int]]:
        """Return the stretches of leaves, (first, behind the last), that only fall or only rise."""
        change = np.diff(self.lr)
        clear = np.flatnonzero(np.abs(change) > SLIGHT * self.schedule.peak_lr)
        turns = clear[1:][np.diff(np.sign(change[clear])) != 0]
        bounds = [0, *turns.tolist(), change.size]
        return list(pairwise(bounds)) if change.any() else []

    def _narrow(self, low: IntArray, high: IntArray, step: IntArray, area: FloatArray) -> BoolArray:
        """Return whether bins are narrow enough for points at these steps."""
        wide = self.edges[high] - self.edges[low] > WIDTH * (step - self.edges[high])
        room = np.minimum(
            WIDTH * (area - self.area[high]), GROWTH * np.maximum(self.area[low], self.warm_area)
        )
        wide |= self.area[high] - self.area[low] > room
        most = np.minimum(MOST * self.schedule.peak_lr, RATIO * np.maximum(self.lr[low], self.lr[high]))
        wide |= np.abs(self.lr[high] - self.lr[low]) > most
        return ~wide


def levels(schedule: Schedule, step: IntArray) -> FloatArray:
    """Return eta(s) (n,), and at s = 0 the learning rate that the schedule starts from."""
    return np.where(step > 0, schedule.lr(np.maximum(step, 1)), schedule.pieces[0].level())


def _moments(
    start: IntArray, end: IntArray, start_lr: FloatArray, end_lr: FloatArray, area: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the position k - 1 of the changes eta_{k-1} - eta_k, start < k <= end.

    The mean is exact, by summation by parts; the standard deviation that of a uniform change.
    """
    length = end - start
    change = start_lr - end_lr
    mean = (area - length * end_lr) / np.where(change == 0, 1.0, change)
    mean = np.clip(np.where(change == 0, 0.0, mean), 0, np.maximum(length - 1, 0))
    spread = np.sqrt(np.maximum(length**2 - 1, 0) / 12)
    return start + mean, np.minimum(spread, np.minimum(mean, length - 1 - mean))


def _edges(schedule: Schedule, begin: int) -> IntArray:
    """Return the edges of the finest bins, at least two; a jump is a bin of one step."""
    knots = _knots(schedule, begin)
    share = levels(schedule, knots) / schedule.peak_lr
    change = np.abs(np.diff(share))
    parts = np.minimum(np.ceil(change / _finest(change)), np.diff(knots)).astype(np.int64)
    within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    between = np.repeat(np.arange(parts.size), parts)[within > 0]
    reached = (within / np.repeat(np.maximum(parts, 1), parts))[within > 0]
    target = share[between] + reached * (share[between + 1] - share[between])
    rising = share[between + 1] > share[between]
    low, high = knots[between], knots[between + 1]
    while np.any(high - low > 1):  # the learning rate at `high` has reached the target, that at `low` has not
        middle = (low + high) // 2
        lr = levels(schedule, middle) / schedule.peak_lr
        done = np.where(rising, lr >= target, lr <= target)
        low, high = np.where(done, low, middle), np.where(done, middle, high)
    edges = np.unique(np.append(knots, high))
    return edges if edges.size > 1 else np.repeat(edges, 2)


def _knots(schedule: Schedule, begin: int) -> IntArray:
    """Return the steps at which the shape of the learning rate changes, from `begin` to the end."""
    found = [np.array([begin])]
    for piece in schedule.after(begin):
        start = found[-1][-1:]
        found += [start + 1, start + _bends(piece, schedule.peak_lr)]
    return np.unique(np.concatenate(found))


def _bends(piece: Piece, peak_lr: float) -> IntArray:
    """Return the offsets, the last one included, at which finest bins of a piece begin or end in any case."""
    if isinstance(piece, Polyline):
        return _thinned(piece.offsets, piece.values / peak_lr)
    if isinstance(piece, Table):
        return _thinned(np.arange(piece.n_steps + 1), piece.values / peak_lr)
    return np.unique(np.linspace(1, piece.n_steps, round(1 / SHORTEST) + 1).astype(np.int64))


def _thinned(offsets: IntArray, share: FloatArray) -> IntArray:
    """Return those of many offsets, not the first, between which the learning rate changes by a finest bin.

    What lies on both sides of a change is kept, and so are the ends of level parts that are long.
    """
    if offsets.size < 4 / FINEST:
        return offsets[1:]
    change = np.abs(np.diff(share))
    travelled = np.append(0.0, np.cumsum(change)) / _finest(change)
    cell = np.floor(travelled + offsets / (SHORTEST * offsets[-1]))
    ends = np.flatnonzero(np.diff(cell) > 0)
    bounds = np.flatnonzero(np.diff(change == 0)) + 1
    long = np.diff(offsets[bounds], append=offsets[-1], prepend=0) > 1e-3 * offsets[-1]
    kept = np.zeros(offsets.size, dtype=bool)
    kept[-1] = kept[ends] = kept[ends + 1] = kept[bounds[long[1:] | long[:-1]]] = True
    return np.asarray(offsets[1:][kept[1:]])


def _finest(change: FloatArray) -> float:
    """Return the change of the finest bins: larger where a learning rate goes up and down all the time."""
    return max(FINEST, float(change.sum()) / MANY)

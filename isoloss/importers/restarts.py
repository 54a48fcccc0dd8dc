"""Overlapping steps of a training that was resumed, resolved by the rule of the recorder.

A metric whose step goes back says that the training did: what was logged before, at later steps, is forgotten, of
every metric. A metric that is merely behind others, as an evaluation that ends late, has not been further, and
forgets nothing. Of a step that was logged twice the later value stays. Where a source has neither the order in
which its metrics were written nor a clock, each metric speaks for itself alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.importers.logged_runs import Series

MOST_TOLD = 5
CLOCK_JITTER_S = 1.0
"""By how much a clock may go back and still say what came before what."""


@dataclass(frozen=True)
class Restart:
    """The training went on from a step after it had been at a later one; `forgotten` values went with that."""

    step: int
    after: int
    forgotten: int


@dataclass(frozen=True)
class Resolved:
    """What of each metric holds, in the order of its steps, none twice, and what had to go for that."""

    series: Mapping[str, Series]
    restarts: tuple[Restart, ...] = ()
    repeated: int = 0

    def notes(self) -> list[str]:
        """Say what was forgotten."""
        told = [
            f"step {one.step:,} comes after step {one.after:,}: the training went on from there, and "
            f"{one.forgotten:,} values after it are forgotten"
            for one in self.restarts[:MOST_TOLD]
        ]
        if len(self.restarts) > MOST_TOLD:
            total = sum(one.forgotten for one in self.restarts)
            told.append(f"{len(self.restarts):,} such restarts, {total:,} values forgotten in all")
        if self.repeated:
            told.append(f"{self.repeated:,} values were logged again at their step: the later one is taken")
        return told


def resolve(series: Mapping[str, Series]) -> Resolved:
    """Apply the rule to the metrics of a run."""
    if all(np.all(np.diff(one.step) >= 0) for one in series.values()):
        return _without_doubles(series, ())
    moments = _moments(series)
    together = [series] if moments is not None else [{name: one} for name, one in series.items()]
    kept: dict[str, Series] = {}
    restarts: dict[tuple[int, int], Restart] = {}
    for metrics in together:
        places = _places(metrics, moments)
        some, back = _forget(metrics, places, _accepted(metrics, places))
        kept |= some
        for one in back:
            before = restarts.get((one.step, one.after))
            forgotten = one.forgotten + (before.forgotten if before else 0)
            restarts[one.step, one.after] = Restart(one.step, one.after, forgotten)
    return _without_doubles(kept, tuple(restarts.values()))


def _moments(series: Mapping[str, Series]) -> dict[str, FloatArray] | None:
    """When each value was written, by the source's order, else by its clock; None where neither tells.

    A clock that goes back within a metric is wrong about the others too.
    """
    if all(one.order is not None for one in series.values()):
        return {name: np.asarray(one.order, dtype=np.float64) for name, one in series.items()}
    clocks = {name: one.time_s for name, one in series.items() if one.time_s is not None}
    if len(clocks) < len(series) or not all(np.isfinite(clock).all() for clock in clocks.values()):
        return None
    if any(np.any(np.diff(clock) < -CLOCK_JITTER_S) for clock in clocks.values()):
        return None
    return {name: np.maximum.accumulate(clock) for name, clock in clocks.items()}


def _places(series: Mapping[str, Series], moments: Mapping[str, FloatArray] | None) -> dict[str, IntArray]:
    """Where each value stands in the one order in which these metrics were written.

    Within a metric that is the order that it has, whatever its clock does.
    """
    names = list(series)
    sizes = [series[name].step.size for name in names]
    metric = np.repeat(np.arange(len(names)), sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    moment = np.zeros(metric.size) if moments is None else np.concatenate([moments[name] for name in names])
    attempt = np.concatenate([_attempts(series[name].step) for name in names])
    step = np.concatenate([series[name].step for name in names])
    place = np.empty(metric.size, dtype=np.int64)
    place[np.lexsort((within, step, attempt, moment))] = np.arange(metric.size)
    return {name: np.sort(place[metric == index]) for index, name in enumerate(names)}


def _attempts(step: IntArray) -> IntArray:
    return np.cumsum(np.concatenate([[0], np.diff(step) < 0]))[: step.size].astype(np.int64)


@dataclass
class _Backward:
    """The restarts so far: their places, increasing, and their steps, of which only the lowest since matter."""

    places: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def lowest_since(self, place: int) -> int | None:
        """The lowest step that the training went back to after a place."""
        at = bisect_right(self.places, place)
        return self.steps[at] if at < len(self.places) else None

    def add(self, place: int, step: int) -> None:
        while self.steps and self.steps[-1] >= step:
            self.places.pop()
            self.steps.pop()
        self.places.append(place)
        self.steps.append(step)


@dataclass(frozen=True)
class _Went:
    """At a place in the order the training went back from one step to another."""

    place: int
    step: int
    after: int


def _accepted(series: Mapping[str, Series], places: Mapping[str, IntArray]) -> list[_Went]:
    """The restarts: a metric that follows where another has gone back already is none of its own."""
    found = sorted(
        (int(places[name][at]), int(places[name][at - 1]), int(step[at]), int(step[at - 1]))
        for name, step in ((name, one.step) for name, one in series.items())
        for at in (np.flatnonzero(np.diff(step) < 0) + 1).tolist()
    )
    so_far, accepted = _Backward(), []
    for place, before, step, after in found:
        lowest = so_far.lowest_since(before)
        if lowest is None or step < lowest:
            so_far.add(place, step)
            accepted.append(_Went(place, step, after))
    return accepted


def _forget(
    series: Mapping[str, Series], places: Mapping[str, IntArray], back: Sequence[_Went]
) -> tuple[dict[str, Series], tuple[Restart, ...]]:
    at = np.array([one.place for one in back], dtype=np.int64)
    steps = np.array([one.step for one in back], dtype=np.int64)
    # The lowest step that the training goes back to after each of its restarts, itself included.
    lowest = np.append(np.minimum.accumulate(steps[::-1])[::-1], np.iinfo(np.int64).max)
    kept: dict[str, Series] = {}
    forgotten = np.zeros(len(back), dtype=np.int64)
    for name, one in series.items():
        following = np.searchsorted(at, places[name], side="right")
        gone = one.step > lowest[following]
        # Each is counted at the first restart before it that goes back behind it.
        for value in np.flatnonzero(gone).tolist():
            first = int(following[value])
            while steps[first] >= one.step[value]:
                first += 1
            forgotten[first] += 1
        kept[name] = _taken(one, ~gone)
    told = [Restart(one.step, one.after, int(count)) for one, count in zip(back, forgotten, strict=True)]
    return kept, tuple(told)


def _without_doubles(series: Mapping[str, Series], restarts: tuple[Restart, ...]) -> Resolved:
    kept: dict[str, Series] = {}
    repeated = 0
    for name, one in series.items():
        if np.all(np.diff(one.step) > 0):
            kept[name] = one
            continue
        order = np.argsort(one.step, kind="stable")
        last = np.append(np.diff(one.step[order]) > 0, True)
        repeated += int(one.step.size - last.sum())
        kept[name] = _taken(one, order[last])
    return Resolved(kept, restarts, repeated)


def _taken(series: Series, at: BoolArray | IntArray) -> Series:
    time_s = None if series.time_s is None else series.time_s[at]
    return Series(series.step[at], series.value[at], time_s)

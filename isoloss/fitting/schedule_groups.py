"""Which runs were trained under the same schedule, and which schedule differs most from the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.schedules import Schedule

COMPARED_STEPS = 200
SAME_LR = 1e-3
"""Schedules whose rates differ by less than this share of the peak at `COMPARED_STEPS` steps are the same."""

MOST_COMPARED = 100
"""Groups that a schedule is compared with, so that the work does not grow with the square of their number."""

RATES_KEPT = 10_000
"""Schedules whose rates at compared steps are remembered while they are compared: 16 MB."""


def schedule_groups(schedules: Sequence[Schedule]) -> list[list[int]]:
    """Return the positions of the schedules in groups that agree as far as the shorter one goes.

    Seeds of one schedule, and constant runs of several lengths, are one group: to leave out one of them while
    its twin stays would not show how far off a law is on a schedule that it has not seen.
    """
    apart = _Apart(schedules)
    same: dict[tuple[int, bytes], list[int]] = {}
    for position, schedule in enumerate(schedules):
        length = schedule.total_steps
        same.setdefault((length, apart.rates(position, length).tobytes()), []).append(position)
    groups: list[list[int]] = []
    for positions in same.values():
        first = positions[0]
        home = next((group for group in groups[:MOST_COMPARED] if apart.agree(group[0], first)), None)
        if home is None:
            groups.append(positions)
        else:
            home.extend(positions)
    return [sorted(group) for group in groups]


def farthest_first(groups: Sequence[list[int]], schedules: Sequence[Schedule]) -> list[list[int]]:
    """Return the groups, the one first whose schedule lies farthest from the nearest other one.

    Of many groups, `MOST_COMPARED` at even distances are looked at.
    """
    groups = groups[:: -(-len(groups) // MOST_COMPARED)]
    if len(groups) < 2:
        return list(groups)
    between = _Apart([schedules[group[0]] for group in groups])
    apart = np.full((len(groups), len(groups)), np.inf)
    for one, other in combinations(range(len(groups)), 2):
        apart[one, other] = apart[other, one] = between(one, other).mean()
    return [groups[index] for index in np.argsort(apart.min(axis=1), kind="stable")[::-1]]


class _Apart:
    """How far apart schedules are, by their positions, at steps that both have: shares of the higher peak."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self._schedules = schedules
        self._steps = {length: _compared(length) for length in {one.total_steps for one in schedules}}
        self.rates = lru_cache(RATES_KEPT)(self._rates)  # each is compared with many others of a few lengths

    def _rates(self, position: int, length: int) -> FloatArray:
        return self._schedules[position].lr(self._steps[length])

    def __call__(self, one: int, other: int) -> FloatArray:
        first, second = self._schedules[one], self._schedules[other]
        length = min(first.total_steps, second.total_steps)
        difference = np.abs(self.rates(one, length) - self.rates(other, length))
        return np.asarray(difference / max(first.peak_lr, second.peak_lr))

    def agree(self, one: int, other: int) -> bool:
        return bool(np.all(self(one, other) <= SAME_LR))


def _compared(length: int) -> IntArray:
    """Return the steps at which schedules of one length are compared: all of a short one."""
    return np.linspace(1, length, min(length, COMPARED_STEPS)).astype(np.int64)

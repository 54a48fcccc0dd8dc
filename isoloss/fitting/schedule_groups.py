"""Which runs were trained under the same schedule, and which schedule differs most from the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from isoloss.arrays import IntArray
from isoloss.schedules import Schedule

COMPARED_STEPS = 200
SAME_LR = 1e-3
"""Schedules whose rates differ by less than this share of the peak at `COMPARED_STEPS` steps are the same."""

MOST_COMPARED = 100
"""Groups that a schedule is compared with, so that the work does not grow with the square of their number."""


def schedule_groups(schedules: Sequence[Schedule]) -> list[list[int]]:
    """Return the positions of the schedules in groups that agree as far as the shorter one goes.

    Seeds of one schedule, and constant runs of several lengths, are one group: to leave out one of them while
    its twin stays would not show how far off a law is on a schedule that it has not seen.
    """
    compared = {length: _compared(length) for length in {schedule.total_steps for schedule in schedules}}
    same: dict[tuple[int, bytes], list[int]] = {}
    for position, schedule in enumerate(schedules):
        length = schedule.total_steps
        same.setdefault((length, schedule.lr(compared[length]).tobytes()), []).append(position)
    groups: list[list[int]] = []
    for positions in same.values():
        first = schedules[positions[0]]
        home = next((group for group in groups[:MOST_COMPARED] if _agree(schedules[group[0]], first)), None)
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
    firsts = [schedules[group[0]] for group in groups]
    if len(firsts) < 2:
        return list(groups)
    apart = np.full((len(firsts), len(firsts)), np.inf)
    for one, other in combinations(range(len(firsts)), 2):
        apart[one, other] = apart[other, one] = _apart(firsts[one], firsts[other]).mean()
    return [groups[index] for index in np.argsort(apart.min(axis=1), kind="stable")[::-1]]


def _compared(length: int) -> IntArray:
    """Return the steps at which schedules of one length are compared: all of a short one."""
    return np.linspace(1, length, min(length, COMPARED_STEPS)).astype(np.int64)


def _agree(one: Schedule, other: Schedule) -> bool:
    return bool(np.all(_apart(one, other) <= SAME_LR))


def _apart(one: Schedule, other: Schedule) -> np.ndarray:
    """Return how far apart two schedules are at steps that both have, as shares of the higher peak."""
    steps = _compared(min(one.total_steps, other.total_steps))
    return np.asarray(np.abs(one.lr(steps) - other.lr(steps)) / max(one.peak_lr, other.peak_lr))

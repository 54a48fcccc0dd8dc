"""Straight lines through a table of learning rates: as few as agree with every one."""

from __future__ import annotations

import numpy as np

from isoloss.schedules.pieces import FloatArray, IntArray

THINNED = 2e-7
"""Relative distance of a thinned table: a fifth of that within which a log confirms a declaration."""


def corners(
    steps: IntArray, rates: FloatArray, tolerance: float, most: int | None = None
) -> list[int] | None:
    """Return where lines meet, as indices, that agree with every rate (n,) at its step (n,) within `tolerance`.

    None where it takes more than `most`.
    """
    found = [0]
    while found[-1] < len(rates) - 1:
        if most is not None and len(found) > most:
            return None
        found.append(_end_of_line(steps, rates, found[-1], tolerance))
    return found


def _end_of_line(steps: IntArray, rates: FloatArray, start: int, tolerance: float) -> int:
    """Return the end of the longest line from `start` that galloping and then halving finds."""
    last = len(rates) - 1
    reach, stride = start + 1, 2
    while reach < last and _is_line(steps, rates, start, min(start + stride, last), tolerance):
        reach, stride = min(start + stride, last), 2 * stride
    beyond = min(start + stride, last + 1)
    while beyond - reach > 1:
        middle = (reach + beyond) // 2
        if _is_line(steps, rates, start, middle, tolerance):
            reach = middle
        else:
            beyond = middle
    return reach


def _is_line(steps: IntArray, rates: FloatArray, start: int, end: int, tolerance: float) -> bool:
    share = (steps[start : end + 1] - steps[start]) / (steps[end] - steps[start])
    line = rates[start] + share * (rates[end] - rates[start])
    return agrees(line, rates[start : end + 1], tolerance)


def agrees(shown: FloatArray, rates: FloatArray, tolerance: float) -> bool:
    """Whether rates are shown within a relative distance."""
    return bool(np.all(np.abs(shown - rates) <= tolerance * rates))

"""The declaration of a schedule that is known as a table of learning rates, as short as it can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidSchedule
from isoloss.schedules.declarations import schedule_from_spec
from isoloss.schedules.logged import rise_steps
from isoloss.schedules.pieces import FloatArray

ROUNDING = 1e-10
"""Relative distance that adding a rate up over many steps explains."""

THINNED = 2e-7
"""Relative distance of a thinned table: a fifth of that within which a log confirms a declaration."""

MOST_CORNERS = 64
"""The most straight lines that are taken for the schedule's own."""

MOST_VALUES = 20_000
"""The longest schedule of another shape that is declared by all of its values."""


def spec_of_table(lr: npt.ArrayLike) -> dict[str, Any]:
    """Return the declaration of the schedule whose learning rates at steps 1, 2, ... are `lr` (steps,).

    A constant, straight lines or a cosine are declared as such. Another shape is declared by its values, and
    where it has more than 20,000 of them by as many lines as agree within 2e-7 of every one.
    Raises InvalidSchedule where the table is none: empty, below 0, not finite, 0 throughout.
    """
    rates = np.asarray(lr, dtype=np.float64)
    _check(rates)
    if np.ptp(rates) <= ROUNDING * rates[0]:
        return {"kind": "constant", "total_steps": len(rates), "peak_lr": float(rates[0])}
    corners = _corners(rates, ROUNDING, min(MOST_CORNERS, 2 + len(rates) // 4))
    if corners is not None:
        return _lines(rates, corners)
    cosine = _cosine(rates)
    if cosine is not None:
        return cosine
    if len(rates) <= MOST_VALUES:
        return {"kind": "values", "lr": rates.tolist()}
    return _lines(rates, _corners(rates, THINNED, len(rates)) or list(range(len(rates))))


def _check(rates: FloatArray) -> None:
    if rates.ndim != 1 or not rates.size:
        raise InvalidSchedule(field="lr", reason="must be a list that is not empty")
    if not np.isfinite(rates).all() or rates.min() < 0:
        raise InvalidSchedule(field="lr", reason="a learning rate is finite and 0 or more")
    if rates.max() == 0:
        raise InvalidSchedule(field="lr", reason="the learning rate is 0 at every step")


def _lines(rates: FloatArray, corners: list[int]) -> dict[str, Any]:
    return {"kind": "piecewise_linear", "knots": [[at + 1, float(rates[at])] for at in corners]}


def _corners(rates: FloatArray, tolerance: float, most: int) -> list[int] | None:
    """Return where straight lines meet that agree with every rate, None where it takes more than `most`."""
    corners = [0]
    while corners[-1] < len(rates) - 1:
        if len(corners) > most:
            return None
        corners.append(_end_of_line(rates, corners[-1], tolerance))
    return corners


def _end_of_line(rates: FloatArray, start: int, tolerance: float) -> int:
    """Return the end of the longest line from `start` that galloping and then halving finds."""
    last = len(rates) - 1
    reach, stride = start + 1, 2
    while reach < last and _is_line(rates, start, min(start + stride, last), tolerance):
        reach, stride = min(start + stride, last), 2 * stride
    beyond = min(start + stride, last + 1)
    while beyond - reach > 1:
        middle = (reach + beyond) // 2
        if _is_line(rates, start, middle, tolerance):
            reach = middle
        else:
            beyond = middle
    return reach


def _is_line(rates: FloatArray, start: int, end: int, tolerance: float) -> bool:
    line = np.linspace(rates[start], rates[end], end - start + 1)
    return _agrees(line, rates[start : end + 1], tolerance)


def _cosine(rates: FloatArray) -> dict[str, Any] | None:
    warmup_steps = rise_steps(np.arange(1, len(rates) + 1), rates)
    peak_lr, end_lr = float(rates.max()), float(rates[-1])
    if not warmup_steps:  # the peak lies before the first step
        peak_lr = end_lr + (peak_lr - end_lr) * 2 / (1 + math.cos(math.pi / len(rates)))
    slope = rates[1] - rates[0] if warmup_steps > 1 else 0.0
    spec = {
        "kind": "cosine",
        "total_steps": len(rates),
        "peak_lr": peak_lr,
        "end_lr": end_lr,
        "warmup_steps": warmup_steps,
        "warmup_start_lr": float(max(0.0, rates[0] - slope)),
    }
    try:
        schedule = schedule_from_spec(spec)
    except InvalidSchedule:
        return None
    agrees = _agrees(schedule.lr(np.arange(1, len(rates) + 1)), rates, 10 * ROUNDING)
    return spec if agrees else None


def _agrees(shown: FloatArray, rates: FloatArray, tolerance: float) -> bool:
    return bool(np.all(np.abs(shown - rates) <= tolerance * rates))

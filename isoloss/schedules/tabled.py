"""The declaration of a schedule that is known as a table of learning rates, as short as it can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidSchedule
from isoloss.schedules.declarations import schedule_from_spec
from isoloss.schedules.lines import THINNED, agrees, corners
from isoloss.schedules.logged import rise_steps
from isoloss.schedules.pieces import FloatArray

ROUNDING = 1e-10
"""Relative distance that adding a rate up over many steps explains."""

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
    steps = np.arange(1, len(rates) + 1)
    found = corners(steps, rates, ROUNDING, min(MOST_CORNERS, 2 + len(rates) // 4))
    if found is not None:
        return _lines(rates, found)
    cosine = _cosine(rates)
    if cosine is not None:
        return cosine
    if len(rates) <= MOST_VALUES:
        return {"kind": "values", "lr": rates.tolist()}
    return _lines(rates, corners(steps, rates, THINNED) or list(range(len(rates))))


def _check(rates: FloatArray) -> None:
    if rates.ndim != 1 or not rates.size:
        raise InvalidSchedule(field="lr", reason="must be a list that is not empty")
    if not np.isfinite(rates).all() or rates.min() < 0:
        raise InvalidSchedule(field="lr", reason="a learning rate is finite and 0 or more")
    if rates.max() == 0:
        raise InvalidSchedule(field="lr", reason="the learning rate is 0 at every step")


def _lines(rates: FloatArray, found: list[int]) -> dict[str, Any]:
    return {"kind": "piecewise_linear", "knots": [[at + 1, float(rates[at])] for at in found]}


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
    shown = schedule.lr(np.arange(1, len(rates) + 1))
    return spec if agrees(shown, rates, 10 * ROUNDING) else None

"""The schedule of the finished runs, drawn out to another number of steps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from isoloss.observations import RunTable

DRAWN_OUT = ("constant", "linear", "cosine", "wsd", "two_stage")
"""Kinds whose parts go with the length of a run; a list of values or knots is of one length alone."""

USUAL_DECAY_START = 0.8
"""The share of its steps at which a schedule with a late decay begins it, where runs do not say."""


def kind_of(runs: RunTable) -> str | None:
    """Return the kind of schedule that all runs have which state one; None where they state none, or several."""
    kinds = _kinds(runs)
    return kinds.pop() if len(kinds) == 1 else None


def why_none(runs: RunTable) -> str | None:
    """Return why no schedule can be drawn out, None where one can."""
    kinds = _kinds(runs)
    if len(kinds) != 1:
        return "the runs state no schedule" if not kinds else f"they have {', '.join(sorted(kinds))}"
    kind = kinds.pop()
    return (
        None
        if kind in DRAWN_OUT
        else f"a schedule of {kind} is of one length: it cannot be drawn out to another"
    )


def drawn_out(runs: RunTable, steps: int, peak_lr: float, kind: str | None = None) -> dict[str, Any]:
    """Return the declaration of a schedule of `steps` steps, its shares of steps and of the peak the runs' medians.

    `kind` is that of the runs where it is not given. Raises ValueError where `why_none` says why there is none.
    """
    kind = kind or kind_of(runs)
    if kind not in DRAWN_OUT:
        raise ValueError("the runs have no schedule that can be drawn out")
    warmup = min(round(_median(runs, "warmup_share", 0.0) * steps), steps - 1)
    spec: dict[str, Any] = {"kind": kind, "total_steps": steps, "warmup_steps": warmup, "peak_lr": peak_lr}
    if kind == "two_stage":
        switch = round(_median(runs, "switch_share", USUAL_DECAY_START) * steps)
        second = _median(runs, "final_lr_share", 0.0) * peak_lr
        return {**spec, "switch_step": min(max(switch, warmup + 1), steps), "second_lr": second}
    if kind != "constant":
        spec["end_lr"] = _median(runs, "final_lr_share", 0.0) * peak_lr
    if kind == "wsd":
        start = round(_median(runs, "decay_start_share", USUAL_DECAY_START) * steps)
        spec |= {"decay_start": min(max(start, warmup), steps - 1), "decay_shape": _usual_shape(runs)}
    return spec


def _kinds(runs: RunTable) -> set[str]:
    return {kind for kind in runs.label("schedule_kind") if kind is not None}


def _median(runs: RunTable, column: str, otherwise: float) -> float:
    values = runs.column(column)
    return otherwise if np.isnan(values).all() else float(np.nanmedian(values))


def _usual_shape(runs: RunTable) -> str:
    shapes = Counter(shape for shape in runs.label("decay_shape") if shape is not None)
    return shapes.most_common(1)[0][0] if shapes else "linear"

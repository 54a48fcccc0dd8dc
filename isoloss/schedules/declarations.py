"""Reading a declared schedule: its kinds, their fields, and everything that can be wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from isoloss.errors import InvalidSchedule
from isoloss.schedules import pieces as shapes
from isoloss.schedules.logged import rise_steps
from isoloss.schedules.pieces import Piece
from isoloss.schedules.schedule import Schedule

MAX_STEPS = 10**10
"""More than any training run has, and few enough that step counts stay exact in float64."""

MAX_TABLE_STEPS = 10_000_000
"""The longest list of values or knots that one schedule may carry."""

MAX_SQRT_STEPS = 100_000_000
"""The longest `sqrt` decay: its memory is summed step by step."""

Spec = Mapping[str, Any]


def schedule_from_spec(spec: Spec) -> Schedule:
    """Return the schedule that a declaration describes.

    The declaration is a mapping with `kind` and that kind's fields (design.md, the API contract). Raises
    InvalidSchedule with the field at fault: unknown kinds and fields, wrong types, and contradictions.
    """
    if not isinstance(spec, Mapping):
        raise InvalidSchedule(field="kind", reason="a schedule is an object with a kind")
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidSchedule(field="kind", reason=f"{kind!r} is not one of {', '.join(KINDS)}")
    build, known = KINDS[kind]
    for name in spec:
        if name != "kind" and name not in known:
            raise InvalidSchedule(field=str(name), reason=f"a {kind} schedule has no such field")
    return build(spec)


def _constant(spec: Spec) -> Schedule:
    return _warmed(spec, lambda peak, steps: (shapes.constant(peak, steps),))


def _linear(spec: Spec) -> Schedule:
    end_lr = _lr(spec, "end_lr", default=0.0)
    return _warmed(spec, lambda peak, steps: (shapes.linear(peak, end_lr, steps),))


def _cosine(spec: Spec) -> Schedule:
    end_lr = _lr(spec, "end_lr", default=0.0)
    return _warmed(spec, lambda peak, steps: (_cosine_piece(peak, end_lr, steps),))


def _wsd(spec: Spec) -> Schedule:
    warmup_steps, total_steps = _length(spec)
    decay_start = _count(spec, "decay_start", lowest=warmup_steps)
    if decay_start >= total_steps:
        reason = f"the decay starts at {decay_start}, which is not before total_steps = {total_steps}"
        raise InvalidSchedule(field="decay_start", reason=reason)
    end_lr = _lr(spec, "end_lr", default=0.0)
    decay = _decay_shape(spec, end_lr)
    stable = decay_start - warmup_steps

    def build(peak: float, steps: int) -> tuple[Piece, ...]:
        flat = (shapes.constant(peak, stable),) if stable else ()
        return (*flat, decay(peak, end_lr, steps - stable))

    return _warmed(spec, build)


def _decay_shape(spec: Spec, end_lr: float) -> Callable[[float, float, int], Piece]:
    name = spec.get("decay_shape", "linear")
    if not isinstance(name, str) or name not in _DECAY_SHAPES:
        reason = f"{name!r} is not one of {', '.join(_DECAY_SHAPES)}"
        raise InvalidSchedule(field="decay_shape", reason=reason)
    if name == "exponential" and end_lr <= 0:
        raise InvalidSchedule(field="end_lr", reason="an exponential decay needs an end above 0")
    if name == "sqrt" and spec["total_steps"] - spec["decay_start"] > MAX_SQRT_STEPS:
        raise InvalidSchedule(field="decay_shape", reason=f"a sqrt decay has at most {MAX_SQRT_STEPS} steps")
    return _DECAY_SHAPES[name]


def _two_stage(spec: Spec) -> Schedule:
    warmup_steps, total_steps = _length(spec)
    switch_step = _count(spec, "switch_step", lowest=warmup_steps + 1)
    if switch_step > total_steps:
        reason = f"step {switch_step} is behind total_steps = {total_steps}"
        raise InvalidSchedule(field="switch_step", reason=reason)
    second_lr = _lr(spec, "second_lr")
    first = switch_step - 1 - warmup_steps

    def build(peak: float, steps: int) -> tuple[Piece, ...]:
        flat = (shapes.constant(peak, first),) if first else ()
        return (*flat, shapes.constant(second_lr, steps - first))

    return _warmed(spec, build)


def _piecewise_linear(spec: Spec) -> Schedule:
    knots = _list(spec, "knots")
    pairs = [knot for knot in knots if isinstance(knot, list | tuple) and len(knot) == 2]
    if len(pairs) < len(knots):
        raise InvalidSchedule(field="knots", reason="every knot is a pair [step, lr]")
    steps = [_number(knot[0], "knots") for knot in knots]
    if steps[0] != 1 or any(step != int(step) for step in steps) or steps[-1] > MAX_STEPS:
        raise InvalidSchedule(
            field="knots", reason=f"knot steps are whole, start at 1 and end by {MAX_STEPS}"
        )
    if any(late <= early for early, late in pairwise(steps)):
        raise InvalidSchedule(field="knots", reason="knot steps must increase strictly")
    lrs = np.array([_rate(knot[1], "knots") for knot in knots])
    at = np.array(steps, dtype=np.int64)
    line = shapes.Polyline(np.append(0, at), np.append(lrs[0], lrs))
    return _checked(Schedule((line,), rise_steps(at, lrs), dict(spec)), "knots")


def _values(spec: Spec) -> Schedule:
    lrs = np.array([_rate(value, "lr") for value in _list(spec, "lr")])
    table = shapes.Table(np.append(lrs[0], lrs))
    return _checked(Schedule((table,), rise_steps(np.arange(1, len(lrs) + 1), lrs), dict(spec)), "lr")


_WARMUP = ("total_steps", "peak_lr", "warmup_steps", "warmup_start_lr")

KINDS: dict[str, tuple[Callable[[Spec], Schedule], tuple[str, ...]]] = {
    "constant": (_constant, _WARMUP),
    "linear": (_linear, (*_WARMUP, "end_lr")),
    "cosine": (_cosine, (*_WARMUP, "end_lr")),
    "wsd": (_wsd, (*_WARMUP, "decay_start", "decay_shape", "end_lr")),
    "two_stage": (_two_stage, (*_WARMUP, "second_lr", "switch_step")),
    "piecewise_linear": (_piecewise_linear, ("knots",)),
    "values": (_values, ("lr",)),
}
"""Each kind of schedule: how it is built, and the fields that it knows beside `kind`."""


def _cosine_piece(start_lr: float, end_lr: float, n_steps: int) -> Piece:
    return shapes.Cosine(n_steps, (start_lr + end_lr) / 2, (start_lr - end_lr) / 2, math.pi / n_steps)


def _exponential_piece(start_lr: float, end_lr: float, n_steps: int) -> Piece:
    return shapes.Exponential(n_steps, start_lr, (end_lr / start_lr) ** (1 / n_steps))


def _sqrt_piece(start_lr: float, end_lr: float, n_steps: int) -> Piece:
    return shapes.SquareRoot(start_lr, end_lr - start_lr, n_steps, n_steps)


_DECAY_SHAPES: dict[str, Callable[[float, float, int], Piece]] = {
    "linear": shapes.linear,
    "exponential": _exponential_piece,
    "sqrt": _sqrt_piece,
    "cosine": _cosine_piece,
}


def _warmed(spec: Spec, body: Callable[[float, int], tuple[Piece, ...]]) -> Schedule:
    """Put the linear warm-up before a body of `steps` steps that starts at the peak."""
    warmup_steps, total_steps = _length(spec)
    peak = _lr(spec, "peak_lr")
    if peak == 0:
        raise InvalidSchedule(field="peak_lr", reason="must be above 0")
    start_lr = _lr(spec, "warmup_start_lr", default=0.0)
    if start_lr > peak:
        raise InvalidSchedule(field="warmup_start_lr", reason=f"{start_lr} is above peak_lr = {peak}")
    if _lr(spec, "end_lr", default=0.0) > peak:
        raise InvalidSchedule(field="end_lr", reason=f"{spec['end_lr']} is above peak_lr = {peak}")
    warmup = (shapes.linear(start_lr, peak, warmup_steps),) if warmup_steps else ()
    return Schedule((*warmup, *body(peak, total_steps - warmup_steps)), warmup_steps, dict(spec))


def _checked(schedule: Schedule, name: str) -> Schedule:
    if schedule.peak_lr <= 0:
        raise InvalidSchedule(field=name, reason="the learning rate is 0 at every step")
    return schedule


def _length(spec: Spec) -> tuple[int, int]:
    total_steps = _count(spec, "total_steps", lowest=1)
    warmup_steps = _count(spec, "warmup_steps", lowest=0, default=0)
    if warmup_steps >= total_steps:
        reason = f"{warmup_steps} steps of warm-up leave nothing of total_steps = {total_steps}"
        raise InvalidSchedule(field="warmup_steps", reason=reason)
    return warmup_steps, total_steps


def _count(spec: Spec, name: str, lowest: int, default: int | None = None) -> int:
    value = spec.get(name, default)
    if value is None:
        raise InvalidSchedule(field=name, reason="is missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidSchedule(field=name, reason=f"{value!r} is not a whole number of steps")
    if not lowest <= value <= MAX_STEPS:
        raise InvalidSchedule(field=name, reason=f"{value} must lie in {lowest}..{MAX_STEPS}")
    return value


def _lr(spec: Spec, name: str, default: float | None = None) -> float:
    return _rate(spec.get(name, default), name)


def _rate(value: object, name: str) -> float:
    rate = _number(value, name)
    if not 0 <= rate <= 1e6:
        raise InvalidSchedule(field=name, reason=f"{rate:g} is no learning rate: it must lie in 0..1e6")
    return rate


def _number(value: object, name: str) -> float:
    if value is None:
        raise InvalidSchedule(field=name, reason="is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise InvalidSchedule(field=name, reason=f"{str(value)[:40]} is not a finite number")
    return float(min(max(value, -1e300), 1e300))  # an integer may be too large for a float


def _list(spec: Spec, name: str) -> list[Any]:
    items = spec.get(name)
    if not isinstance(items, list | tuple) or not items:
        raise InvalidSchedule(field=name, reason="must be a list that is not empty")
    if len(items) > MAX_TABLE_STEPS:
        raise InvalidSchedule(
            field=name, reason=f"has {len(items)} entries; at most {MAX_TABLE_STEPS} are read"
        )
    return list(items)

"""The schedule of a proxy: declared in shares of its run and of its peak, so that it goes along in a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from isoloss.errors import InvalidSchedule
from isoloss.schedules import KINDS, schedule_from_spec

DEFAULT_SCHEDULE: Mapping[str, Any] = MappingProxyType({"kind": "linear", "warmup_steps": 0.05})
"""Warm-up over a twentieth of the run, then linearly to 0: the shape of Bergsma et al. 2025, arXiv 2505.13738."""

STEPS = ("warmup_steps", "decay_start", "switch_step")
"""Fields that count steps, or are a share of the run in (0, 1) where they are no whole number."""

RATES = ("warmup_start_lr", "end_lr", "second_lr")
"""Fields that hold a learning rate; `end_lr_share` and so on say it as a share of the peak."""

SHARE = "_share"

PEAK_MATCH = 1e-9
"""How far, relatively, the highest rate of a table may lie from the peak that is stated."""


def schedule_of_run(
    given: Mapping[str, Any], total_steps: int, peak_lr: float, factor: float = 1.0
) -> dict[str, Any]:
    """Return the declaration, as `schedule_from_spec` reads it, of a run of `total_steps` that peaks at `peak_lr`.

    Steps may be shares of the run, rates may be shares of the peak (`end_lr_share`, `lr_share`, `knots_share`);
    all rates are multiplied by `factor`. Raises InvalidSchedule with the field at fault.
    """
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidSchedule(field="kind", reason=f"{kind!r} is not one of {', '.join(KINDS)}")
    for name in ("total_steps", "peak_lr"):
        if name in given:
            raise InvalidSchedule(field=name, reason=f"is the run's own: set the configuration's {name}")
    spec = _in_steps_and_rates(given, total_steps, peak_lr)
    if "total_steps" in KINDS[kind][1]:
        spec |= {"total_steps": total_steps, "peak_lr": peak_lr}
    else:
        _check_table(spec, kind, total_steps, peak_lr)
    return _scaled(spec, factor)


def _in_steps_and_rates(given: Mapping[str, Any], total_steps: int, peak_lr: float) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for name, value in given.items():
        own = name.removesuffix(SHARE)
        if own != name and own in given:
            raise InvalidSchedule(field=name, reason=f"is said twice, with {own}")
        if own != name and own in RATES:
            value = _number(name, value) * peak_lr
        elif name == "lr_share":
            value = [_number(name, one) * peak_lr for one in _list(name, value)]
        elif own == "knots":
            rate = peak_lr if own != name else 1.0
            value = [_knot(name, knot, total_steps, rate) for knot in _list(name, value)]
        elif name in STEPS:
            value = _steps(name, value, total_steps)
        elif own != name:
            raise InvalidSchedule(field=name, reason="a proxy's schedule has no such field")
        spec[own] = value
    return spec


def _steps(name: str, value: Any, total_steps: int) -> Any:
    """Steps as they are; a share of the run as the step nearest to it, behind which something is left."""
    if not isinstance(value, float):
        return value  # what it is, the schedule's own checks say
    if not 0 <= value < 1:
        reason = f"{value!r} is neither a whole number of steps nor a share of the run below 1"
        raise InvalidSchedule(field=name, reason=reason)
    return min(round(value * total_steps), total_steps - 1)


def _knot(name: str, knot: Any, total_steps: int, rate: float) -> list[Any]:
    """A knot at a step, or at a share of the run, 0.0 its first and 1.0 its last step."""
    if not isinstance(knot, list | tuple) or len(knot) != 2:
        raise InvalidSchedule(field=name, reason="every knot is a pair [step, lr]")
    step, lr = knot
    if isinstance(step, float):
        if not 0 <= step <= 1:
            raise InvalidSchedule(field=name, reason=f"{step!r} is neither a step nor a share of the run")
        step = 1 + round(step * (total_steps - 1))
    return [step, _number(name, lr) * rate]


def _check_table(spec: Mapping[str, Any], kind: str, total_steps: int, peak_lr: float) -> None:
    """Refuse a table of rates that is not of this run's length and peak."""
    name = KINDS[kind][1][0]
    schedule = schedule_from_spec(spec)
    if schedule.total_steps != total_steps:
        reason = f"reaches step {schedule.total_steps}, and the run has {total_steps}"
        raise InvalidSchedule(field=name, reason=reason)
    if abs(schedule.peak_lr / peak_lr - 1) > PEAK_MATCH:
        reason = f"peaks at {schedule.peak_lr:g}, and peak_lr is {peak_lr:g}; {name}{SHARE} has shares of it"
        raise InvalidSchedule(field=name, reason=reason)


def _scaled(spec: dict[str, Any], factor: float) -> dict[str, Any]:
    if factor == 1:
        return spec
    for name in ("peak_lr", *RATES):
        if name in spec and isinstance(spec[name], int | float):
            spec[name] = spec[name] * factor
    if "knots" in spec:
        spec["knots"] = [[step, lr * factor] for step, lr in spec["knots"]]
    if "lr" in spec:
        spec["lr"] = [lr * factor for lr in spec["lr"]]
    return spec


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidSchedule(field=name, reason="must be a list that is not empty")
    return list(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSchedule(field=name, reason=f"{str(value)[:40]} is not a number")
    return float(value)

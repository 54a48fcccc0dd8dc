"""The space of a sweep, and its points: each a configuration, checked before anything is trained.

An axis is a list of values, a range `{"low", "high", "scale": "log" | "linear"}`, or one value for all trials. A
grid takes every combination, of a range `count` values at even distances. A random sweep draws: of ranges so that
every axis is covered evenly, of lists as evenly as their number allows, and no point twice. No torch here.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput, InvalidSchedule
from isoloss.proxies.configuration import REQUIRED, ProxyConfig, whole_batch

STRATEGIES = ("grid", "random", "halving")
SCALES = ("log", "linear")

MOST_TRIALS = 1000
MOST_VALUES = 1000

TOKENS_PER_PARAM = "tokens_per_param"
WHOLE = frozenset(
    {"width", "depth", "head_width", "sequence_length", "batch_tokens", "n_tokens", "seed", "base_width"}
)
REAL = frozenset({"peak_lr", "weight_decay", "clip_norm", TOKENS_PER_PARAM})
"""What a range may be of; everything else is listed."""

OF_ALL = ("data", "measure")
"""Fields that are the sweep's own, and no axis."""

OBJECTS = frozenset({"schedule", "optimizer_options"})

Point = dict[str, Any]
_DEFAULTS = {one.name: one.default for one in fields(ProxyConfig)}


@dataclass(frozen=True)
class Listed:
    """Some values; of one, the axis is fixed."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the list, 0 <= share < 1."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


@dataclass(frozen=True)
class Range:
    """All values from `low` to `high`; in a grid `count` of them."""

    low: float
    high: float
    scale: str
    whole: bool
    count: int | None = None

    def at(self, share: float) -> float | int:
        """The value at a share of the range, 0 <= share <= 1."""
        if self.scale == "log":
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else value

    def listed(self, name: str) -> Listed:
        """The values of a grid. Raises InvalidInput without a count."""
        if self.count is None:
            raise InvalidInput(
                field=f"space.{name}", reason="a range in a grid needs a count, or list its values"
            )
        shares = [0.5] if self.count == 1 else np.linspace(0.0, 1.0, self.count).tolist()
        return Listed(tuple(dict.fromkeys(self.at(share) for share in shares)))


Axis = Listed | Range


@dataclass(frozen=True)
class Space:
    """Axes by name, in the order in which they were given."""

    axes: Mapping[str, Axis]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Space:
        """Return the space that a mapping describes.

        Raises InvalidInput, its field `space.NAME`, for what is no field of a proxy, a list without a value, a
        range that holds nothing, and fields that a proxy needs and that are missing.
        """
        if not isinstance(given, Mapping) or not given:
            raise InvalidInput(field="space", reason="must be an object of axes, and has none")
        known = [one.name for one in fields(ProxyConfig) if one.name not in OF_ALL] + [TOKENS_PER_PARAM]
        for name in given:
            if name not in known:
                instead = (
                    "is the sweep's own field" if name in OF_ALL else f"unknown; it has {', '.join(known)}"
                )
                raise InvalidInput(field=f"space.{str(name)[:100]}", reason=instead)
        if TOKENS_PER_PARAM in given and "n_tokens" in given:
            raise InvalidInput(
                field="space.tokens_per_param", reason="stands beside n_tokens: give one of them"
            )
        for name in REQUIRED:
            if name not in given and not (name == "n_tokens" and TOKENS_PER_PARAM in given):
                either = " (or tokens_per_param)" if name == "n_tokens" else ""
                reason = f"is missing{either}: give a list, a range, or one value for all trials"
                raise InvalidInput(field=f"space.{name}", reason=reason)
        return cls({name: _axis(name, value) for name, value in given.items()})

    @property
    def n_points(self) -> int | None:
        """How many points it has; None where a range without a count has no end of them."""
        sizes = [len(axis.values) if isinstance(axis, Listed) else axis.count for axis in self.axes.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid(self) -> list[Point]:
        """Return every combination, the last axis changing first. Raises InvalidInput where there are too many."""
        axes = {
            name: axis if isinstance(axis, Listed) else axis.listed(name) for name, axis in self.axes.items()
        }
        n_points = math.prod(len(axis.values) for axis in axes.values())
        if n_points > MOST_TRIALS:
            reason = f"has {n_points:,} points; a sweep has at most {MOST_TRIALS:,} trials"
            raise InvalidInput(field="space", reason=reason)
        values = [axis.values for axis in axes.values()]
        return [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]

    def random(self, n_trials: int, seed: int) -> list[Point]:
        """Return `n_trials` points of a Latin hypercube; of a space of lists alone, so many of its points.

        Raises InvalidInput where the space has fewer.
        """
        random = np.random.default_rng(seed)
        n_points = self.n_points
        if n_points is not None:
            if n_trials > n_points:
                reason = f"asks for {n_trials} trials, and the space has {n_points} points"
                raise InvalidInput(field="budget.trials", reason=reason)
            if n_points <= MOST_TRIALS:
                every = self.grid()
                return [every[at] for at in random.permutation(len(every))[:n_trials]]
        found: dict[str, Point] = {}
        for _ in range(100):  # whole numbers may meet
            for point in self._hypercube(n_trials, random):
                found.setdefault(_name_of(point), point)
            if len(found) >= n_trials:
                break
        return list(found.values())[:n_trials]

    def _hypercube(self, n_trials: int, random: np.random.Generator) -> Iterator[Point]:
        shares = {
            name: (random.permutation(n_trials) + random.random(n_trials)) / n_trials for name in self.axes
        }
        for trial in range(n_trials):
            yield {name: axis.at(float(shares[name][trial])) for name, axis in self.axes.items()}


def trials_of(
    space: Mapping[str, Any],
    strategy: str,
    *,
    n_trials: int | None = None,
    seed: int = 0,
    data: str = "python-stdlib",
    measure: Sequence[str] = (),
) -> list[ProxyConfig]:
    """Return the configurations of a sweep's trials, all of them checked.

    `n_trials` is the most that there may be; a random sweep has exactly so many, and so has `halving` over a space
    with ranges that have no count. Raises InvalidInput with the field at fault.
    """
    if strategy not in STRATEGIES:
        raise InvalidInput(field="strategy", reason=f"{strategy!r} is not one of {', '.join(STRATEGIES)}")
    if n_trials is not None and not 1 <= n_trials <= MOST_TRIALS:
        raise InvalidInput(field="budget.trials", reason=f"{n_trials} must lie in 1..{MOST_TRIALS}")
    axes = Space.of(space)
    points = _points(axes, strategy, n_trials, seed)
    drawn = {name for name, axis in axes.axes.items() if isinstance(axis, Range)}
    configs = [_config(point, drawn, data, measure) for point in points]
    return list({json.dumps(one.document(), sort_keys=True): one for one in configs}.values())


def _points(axes: Space, strategy: str, n_trials: int | None, seed: int) -> list[Point]:
    drawn = strategy == "random" or (strategy == "halving" and axes.n_points is None)
    if drawn:
        if n_trials is None:
            reason = f"is missing: a {strategy} sweep of such a space needs to know how many trials to draw"
            raise InvalidInput(field="budget.trials", reason=reason)
        return axes.random(n_trials, seed)
    points = axes.grid()
    if n_trials is not None and n_trials < len(points):
        reason = f"allows {n_trials} trials, and the grid has {len(points)} points"
        raise InvalidInput(field="budget.trials", reason=reason)
    return points


def _config(point: Point, drawn: Set[str], data: str, measure: Sequence[str]) -> ProxyConfig:
    """The configuration of a point, with drawn counts made to fit: widths whole heads, batches whole sequences."""
    values = {**point, "data": data, "measure": list(measure)}
    _fit(values, drawn)
    try:
        ratio = values.pop(TOKENS_PER_PARAM, None)
        if ratio is not None:
            values["n_tokens"] = _tokens(values, ratio)
        return ProxyConfig.of(values)
    except InvalidInput as error:
        field = str(error.fields.get("field"))
        if isinstance(error, InvalidSchedule):
            field = f"schedule.{field}"
        name = field if field.partition(".")[0] in OF_ALL else f"space.{field}"
        raise InvalidInput(field=name, reason=str(error.fields.get("reason"))) from error


def _fit(values: Point, drawn: Set[str]) -> None:
    """Round what was drawn to what a model can have."""
    for name, unit in (("width", "head_width"), ("batch_tokens", "sequence_length")):
        size = values.get(unit, _DEFAULTS[unit])
        if name in drawn and isinstance(size, int) and size > 0:
            values[name] = whole_batch(values[name], size)


def _tokens(values: Point, ratio: Any) -> int:
    """Tokens, in whole batches, of so many for each parameter that is no embedding."""
    batch = values["batch_tokens"]
    shape = ProxyConfig.of({**values, "n_tokens": batch})
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        reason = f"{str(ratio)[:40]!r} is no number above 0: there would be no tokens"
        raise InvalidInput(field=TOKENS_PER_PARAM, reason=reason)
    n_batches: int = max(1, round(float(ratio) * shape.n_params().non_embedding / batch))
    return n_batches * shape.batch_tokens


def _axis(name: str, value: Any) -> Axis:
    if isinstance(value, Mapping) and (name not in OBJECTS or {"low", "high"} & value.keys()):
        return _range(name, value)
    if isinstance(value, list | tuple):
        return _list(name, value)
    return Listed((value,))


def _list(name: str, values: Sequence[Any]) -> Listed:
    field = f"space.{name}"
    if not values:
        raise InvalidInput(field=field, reason="is an empty list: the space has no point")
    if len(values) > MOST_VALUES:
        raise InvalidInput(field=field, reason=f"lists {len(values):,} values; at most {MOST_VALUES:,}")
    seen: set[str] = set()
    for one in values:
        if isinstance(one, list | tuple):
            raise InvalidInput(field=field, reason="has a list within the list")
        if (text := _name_of(one)) in seen:
            raise InvalidInput(field=field, reason=f"has {text[:40]} twice")
        seen.add(text)
    return Listed(tuple(values))


def _range(name: str, given: Mapping[str, Any]) -> Range:
    field = f"space.{name}"
    if name not in WHOLE | REAL:
        raise InvalidInput(field=field, reason="has no range: list its values")
    for key in given:
        if key not in ("low", "high", "scale", "count"):
            raise InvalidInput(
                field=f"{field}.{key}", reason="unknown; a range has low, high, scale and count"
            )
    low, high = (_number(f"{field}.{key}", given.get(key)) for key in ("low", "high"))
    scale = given.get("scale", "log")
    if scale not in SCALES:
        raise InvalidInput(field=f"{field}.scale", reason=f"{scale!r} is not one of {', '.join(SCALES)}")
    if not low < high:
        raise InvalidInput(field=f"{field}.high", reason=f"{high:g} must lie above low = {low:g}")
    if scale == "log" and low <= 0:
        raise InvalidInput(field=f"{field}.low", reason="a log range begins above 0")
    if name in WHOLE and not (float(low).is_integer() and float(high).is_integer()):
        raise InvalidInput(field=field, reason="its ends must be whole numbers")
    return Range(low, high, scale, name in WHOLE, _count(field, given.get("count")))


def _count(field: str, count: Any) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_VALUES:
        raise InvalidInput(field=f"{field}.count", reason=f"must be a whole number from 1 to {MOST_VALUES}")
    return count


def _number(field: str, value: Any) -> float:
    if value is None:
        raise InvalidInput(field=field, reason="is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise InvalidInput(field=field, reason=f"{str(value)[:40]!r} is not a finite number")
    return value


def _name_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

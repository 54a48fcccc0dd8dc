"""The declaration that the logged learning rates of a run that has ended stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidSchedule
from isoloss.schedules.declarations import schedule_from_spec
from isoloss.schedules.lines import THINNED, corners
from isoloss.schedules.logged import HIDDEN_SHARE, disagreement_with, from_first_step
from isoloss.schedules.pieces import FloatArray, IntArray

DIGITS = 6
"""Of a rate that somebody chose."""

SAME = 1e-9
"""Relative distance of rates on a plateau."""

SMALLEST_WEIGHED = 1e-9
"""Share of the peak below which a rate weighs no more."""

AT_ONCE = 33
MOST_SEEN = 96
"""Logged rates that candidates are compared by; the chosen one must agree with all."""

Progress = Callable[[FloatArray], FloatArray]

FALLS: dict[str, Progress] = {
    "linear": lambda u: u,
    "cosine": lambda u: np.asarray((1 - np.cos(np.pi * u)) / 2),
    "sqrt": lambda u: np.asarray(np.sqrt(u)),
}
"""How far a decay has gone down, of the way from the peak to the end, after a share of its steps."""


@dataclass(frozen=True)
class Recognised:
    """A declaration, and in words how it was found."""

    spec: dict[str, Any]
    note: str


def spec_of_log(
    steps: npt.ArrayLike, lr: npt.ArrayLike, ends: Sequence[int], *, warmup_steps: int | None = None
) -> Recognised:
    """Return the declaration whose rates were logged: `lr` (n,) at `steps` (n,), increasing.

    A constant rate, a linear or cosine decay, or a plateau with a decay, each after a linear warm-up, where one of
    them agrees with every logged rate within 1e-6; else straight lines through the logged rates, thinned to 2e-7.
    `ends` are the lengths that the run may have had, the likeliest first, the last one its last step.
    `warmup_steps` is what is stated of a warm-up before the log begins. Raises InvalidSchedule where the log does
    not tell.
    """
    at, rates = np.asarray(steps, dtype=np.int64), np.asarray(lr, dtype=np.float64)
    at, rates = at[at >= 1], rates[at >= 1]
    _check(at, rates)
    for end in dict.fromkeys(ends):
        if end >= at[-1]:
            for spec in _candidates(_Log.of(at, rates, int(end), warmup_steps)):
                if _agrees(spec, at, rates):
                    told = f"{spec['kind']}, {end:,} steps"
                    return Recognised(spec, f"schedule read off the logged learning rate: {told}")
    return _lines(at, rates, int(ends[-1]))


def _check(at: IntArray, rates: FloatArray) -> None:
    if at.size < 2:
        raise InvalidSchedule(field="lr", reason="it takes two logged learning rates to tell a schedule")
    if not np.isfinite(rates).all() or rates.min() < 0:
        raise InvalidSchedule(field="lr", reason="a learning rate is finite and 0 or more")
    if rates.max() == 0:
        raise InvalidSchedule(field="lr", reason="the learning rate is 0 at every step")


@dataclass(frozen=True)
class _Log:
    """Logged rates of a training of `end` steps: the last of its rise, and how its warm-up may have been."""

    at: IntArray
    rates: FloatArray
    end: int
    peak: int
    warmups: tuple[int, int] | None

    @classmethod
    def of(cls, at: IntArray, rates: FloatArray, end: int, stated: int | None) -> _Log:
        peak = int(np.argmin(np.append(np.diff(rates) > SAME * rates[:-1], False)))
        return cls(at, rates, end, peak, _warmups(at, peak, end, stated))

    @property
    def unknown_start(self) -> bool:
        """Whether enough of the rise was logged to tell what it started from."""
        return self.peak >= 2


def _warmups(at: IntArray, peak: int, end: int, stated: int | None) -> tuple[int, int] | None:
    """The least and the most steps of warm-up; None where silence may hide one."""
    if peak:
        most = int(at[peak + 1]) if peak + 1 < at.size else int(at[peak])
        return int(at[peak - 1]) + 1, min(most, end - 1)
    if stated is not None and 0 <= stated <= at[0]:
        return stated, stated
    return (0, 0) if at[0] - 1 <= max(1, HIDDEN_SHARE * end) else None


def _candidates(log: _Log) -> Iterator[dict[str, Any]]:
    """The best declaration of every kind."""
    if log.warmups is None:
        return
    yield from _fitted(log, "constant", {}, lambda warmup: (warmup, None))
    for kind in ("linear", "cosine"):
        yield from _fitted(log, kind, {}, lambda warmup, shape=kind: (warmup, shape))  # type: ignore[misc]
    yield from _plateaus(log)


def _fitted(
    log: _Log, kind: str, fields: dict[str, Any], shape_of: Callable[[int], tuple[int, str | None]]
) -> Iterator[dict[str, Any]]:
    """The declaration of a kind with the warm-up that agrees best."""
    assert log.warmups is not None
    warmup = _best(lambda steps: _residual(log, steps, *shape_of(steps)), *log.warmups)
    yield from _specs(log, kind, fields, warmup, *shape_of(warmup))


def _plateaus(log: _Log) -> Iterator[dict[str, Any]]:
    """Plateaus with a decay, of every shape, from the step that agrees best."""
    assert log.warmups is not None
    level = log.rates[log.peak]
    flat = np.abs(log.rates[log.peak :] - level) <= SAME * level
    stays = log.peak + int(np.argmin(np.append(flat, False))) - 1
    n_falling = log.at.size - 1 - stays
    if n_falling < 3 or log.end <= log.at[stays]:
        return
    low, high = int(log.at[stays]), int(log.at[stays + 1]) - 1
    for shape in (*FALLS, "exponential"):
        warmup = _best(lambda steps: _residual(log, steps, high, None, until=low), *log.warmups)

        def distance(start: int, shape: str = shape, warmup: int = warmup) -> float:
            return _residual(log, warmup, start, shape)

        begin = _best(distance, max(low, warmup), max(high, warmup))
        fields = {"decay_start": begin, "decay_shape": shape}
        yield from _specs(log, "wsd", fields, warmup, begin, shape)


def _best(distance: Callable[[int], float], low: int, high: int) -> int:
    """The whole number at which a distance is least, by grids that close in on it."""
    while True:
        grid = np.unique(np.linspace(low, high, AT_ONCE).round().astype(np.int64))
        values = [distance(int(one)) for one in grid]
        least = int(np.argmin(values))
        if grid.size == high - low + 1:
            return int(grid[least])
        low, high = int(grid[max(least - 1, 0)]), int(grid[min(least + 1, grid.size - 1)])


def _residual(log: _Log, warmup: int, start: int, shape: str | None, until: int | None = None) -> float:
    """The largest relative distance of the rates that agree best, over some of the log, up to step `until`."""
    n_seen = log.at.size if until is None else int(np.searchsorted(log.at, until, side="right"))
    near = np.arange(max(0, log.peak - 2), min(n_seen, log.peak + 3))
    seen = np.unique(np.append(np.linspace(0, n_seen - 1, min(n_seen, MOST_SEEN)).astype(int), near))
    at, rates = log.at[seen], log.rates[seen]
    levels = _levels(log, at, rates, warmup, start, shape)
    return float(np.max(np.abs(_shown(log, at, warmup, start, shape, levels) - rates) * _weights(log, rates)))


def _weights(log: _Log, rates: FloatArray) -> FloatArray:
    return np.asarray(1 / np.maximum(rates, SMALLEST_WEIGHED * log.rates.max()))


def _levels(
    log: _Log, at: IntArray, rates: FloatArray, warmup: int, start: int, shape: str | None
) -> tuple[float, float, float]:
    """The rates at the start of the warm-up, at the peak and at the end that agree best."""
    if shape == "exponential":
        falling = at > start
        peak = float(log.rates[log.peak])
        share = (at[falling] - start) / (log.end - start)
        fall = np.log(np.maximum(rates[falling], 1e-300) / peak)
        base = _levels(log, at[~falling], rates[~falling], warmup, start, None)[0] if warmup else 0.0
        return base, peak, peak * float(np.exp((share @ fall) / (share @ share)))
    basis = _basis(log, at, warmup, start, shape)
    asked = [0] * (warmup > 0 and log.unknown_start) + [1] + [2] * (shape is not None)
    weights = _weights(log, rates)
    found = np.linalg.lstsq(basis[:, asked] * weights[:, None], rates * weights, rcond=None)[0]
    levels = dict(zip(asked, found.tolist(), strict=True))
    return levels.get(0, 0.0), levels[1], levels.get(2, 0.0)


def _basis(log: _Log, at: IntArray, warmup: int, start: int, shape: str | None) -> FloatArray:
    """How much of each of the three levels the rate at each step is, (n, 3)."""
    risen = np.minimum(1.0, at / warmup) if warmup else np.ones(at.size)
    share = np.clip((at - start) / max(1, log.end - start), 0.0, 1.0)
    fallen = np.zeros(at.size) if shape is None else FALLS[shape](share)
    return np.stack([1 - risen, risen - fallen, fallen], axis=1)


def _shown(
    log: _Log, at: IntArray, warmup: int, start: int, shape: str | None, levels: tuple[float, float, float]
) -> FloatArray:
    if shape != "exponential":
        return np.asarray(_basis(log, at, warmup, start, shape) @ np.array(levels))
    rising = _basis(log, at, warmup, start, None) @ np.array([levels[0], levels[1], 0.0])
    share = np.clip((at - start) / max(1, log.end - start), 0.0, 1.0)
    return np.asarray(rising * (levels[2] / levels[1]) ** share)


def _specs(
    log: _Log, kind: str, fields: dict[str, Any], warmup: int, start: int, shape: str | None
) -> Iterator[dict[str, Any]]:
    """The declaration with rates as somebody would choose them, where these agree as well, and as they are."""
    levels = _levels(log, log.at, log.rates, warmup, start, shape)
    exact = _residual_of(log, warmup, start, shape, levels)
    round_levels = tuple(_rounded(level, levels[1]) for level in levels)
    for chosen in (round_levels, levels):
        if _residual_of(log, warmup, start, shape, chosen) <= max(2 * exact, 1e-9):
            spec = {"kind": kind, "total_steps": log.end, "peak_lr": chosen[1], **fields}
            if warmup:
                spec["warmup_steps"] = warmup
                if chosen[0]:
                    spec["warmup_start_lr"] = max(0.0, chosen[0])
            if shape is not None:
                spec["end_lr"] = max(0.0, chosen[2])
            yield spec


def _residual_of(log: _Log, warmup: int, start: int, shape: str | None, levels: Sequence[float]) -> float:
    shown = _shown(log, log.at, warmup, start, shape, (levels[0], levels[1], levels[2]))
    return float(np.max(np.abs(shown - log.rates) * _weights(log, log.rates)))


def _rounded(level: float, peak: float) -> float:
    return 0.0 if abs(level) <= SAME * abs(peak) else float(f"{level:.{DIGITS}g}")


def _agrees(spec: dict[str, Any], at: IntArray, rates: FloatArray) -> bool:
    try:
        schedule = schedule_from_spec(spec)
    except InvalidSchedule:
        return False
    return disagreement_with(at, rates, schedule) is None


def _lines(at: IntArray, rates: FloatArray, end: int) -> Recognised:
    """Straight lines through the logged rates, and as far as a logging interval beyond the last."""
    n_logged = at.size
    at, rates, begun = from_first_step(at, rates)
    interval = int(np.median(np.diff(at)))
    if at[-1] < end <= at[-1] + interval:
        slope = (rates[-1] - rates[-2]) / (at[-1] - at[-2])
        at, rates = np.append(at, end), np.append(rates, max(0.0, rates[-1] + slope * (end - at[-1])))
    chosen = corners(at, rates, THINNED) or []
    knots = [[int(at[one]), float(rates[one])] for one in chosen]
    note = (
        f"schedule read off the logged learning rate: straight lines between {len(knots):,} of {n_logged:,} "
        "logged rates, which are no constant, linear, cosine or wsd schedule"
    )
    if at[-1] < end:
        note += f"; after step {at[-1]:,} no rate is known"
    return Recognised({"kind": "piecewise_linear", "knots": knots}, f"{note}; {begun}" if begun else note)

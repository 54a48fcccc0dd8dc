"""Which curves and points enter a fit, and why the others do not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.options import FitOptions
from isoloss.laws import CurveLaw
from isoloss.observations import Curve
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT

LeftOut = list[dict[str, str]]

MOST_POINTS = 5_000
"""The most points of one run that enter a fit; of longer runs, so many means of neighbours."""

LEAST_POINTS = 20
"""What every run may have, however many there are."""

LOWEST_LOSS, HIGHEST_LOSS = 1e-6, 1e4
"""Losses in nats per token outside of this are measured in something else, or broken."""

LOWEST_PEAK, HIGHEST_PEAK = 1e-15, 1e6
"""Peak learning rates outside of this are no learning rates."""


def screen(
    curves: Sequence[Curve],
    options: FitOptions,
    law: CurveLaw[Any],
    unread: Sequence[dict[str, str]] = (),
) -> tuple[list[Curve], LeftOut]:
    """Return the curves to fit, cut to the asked steps, and what was left out with its reason.

    `unread` are the runs that the caller could not read as curves; they head the list.

    Raises InvalidInput for two curves of one run and for mixed kinds of parameter counts, and UnusableData
    where nothing is left.
    """
    for name, times in Counter(curve.run_id for curve in curves).items():
        if times > 1:
            raise InvalidInput(field="select", reason=f"run {name!r} stands in it {times} times")
    kept: list[Curve] = []
    whole = _Seen()  # a kept curve may lack the points that the next one shares with it
    left_out: LeftOut = list(unread)
    for curve in curves:
        cut = _trained(curve, options)
        own, reason = whole.without_shared_points(cut)
        reason = reason or _implausible(cut)
        if reason is None:
            kept.append(own)
            whole.add(cut)
        else:
            left_out.append({"run_id": curve.run_id, "reason": reason})
    _check_sizes(kept)
    if not kept:
        why = ": run '{run_id}': {reason}".format(**left_out[0]) if left_out else ""
        raise UnusableData(reason=f"no run is left to fit{why}")
    most = min(MOST_POINTS, max(LEAST_POINTS, law.most_points // len(kept)))
    return [_thinned(curve, most) for curve in kept], left_out


@dataclass(frozen=True)
class HeldOut:
    """A curve to predict and score: `unseen` is it without the points at its start that were fitted."""

    curve: Curve
    unseen: Curve


def screen_held(
    held: Sequence[Curve], fitted: Sequence[Curve], options: FitOptions
) -> tuple[list[HeldOut], LeftOut]:
    """Return the curves to score, and those of which every point is in `fitted`, the curves before screening."""
    seen = _Seen()
    for curve in fitted if held else ():
        seen.add(_trained(curve, options))
    scored: list[HeldOut] = []
    left_out: LeftOut = []
    for curve in held:
        cut = _trained(curve, options)
        unseen, reason = seen.without_shared_points(cut)
        reason = reason or _implausible(cut)
        if reason is None:
            scored.append(HeldOut(cut, unseen))
        else:
            left_out.append({"run_id": curve.run_id, "reason": f"held out, not scored: {reason}"})
    return scored, left_out


class _Seen:
    """Curves whose points count already, by their first point: two that share any share that one."""

    def __init__(self) -> None:
        self._by_first: dict[tuple[int, float], list[Curve]] = defaultdict(list)

    def add(self, curve: Curve) -> None:
        if curve.n_points:
            self._by_first[_first(curve)].append(curve)

    def without_shared_points(self, curve: Curve) -> tuple[Curve, str | None]:
        """Return the curve without the points at its start that another has too, and why nothing is left of it.

        Branches of one trunk all carry the trunk's points, and one run may stand under two names: no point may
        count twice, nor be called held out while it is fitted.
        """
        if not curve.n_points:
            return curve, "it has no points behind the skipped steps"
        others = self._by_first.get(_first(curve), [])
        shared, twin = max(
            ((_shared_points(curve, other), other.run_id) for other in others), default=(0, "")
        )
        if shared == curve.n_points:
            return curve, f"its points are those of run {twin!r}"
        return (curve.from_step(int(curve.step[shared])) if shared else curve), None


def _first(curve: Curve) -> tuple[int, float]:
    return int(curve.step[0]), float(curve.loss_nats[0])


def _shared_points(curve: Curve, other: Curve) -> int:
    """Return how many points at the start of a curve another one has, to the last bit."""
    length = min(curve.n_points, other.n_points)
    same = (curve.step[:length] == other.step[:length]) & (
        curve.loss_nats[:length] == other.loss_nats[:length]
    )
    return int(np.argmin(np.append(same, False)))


def _thinned(curve: Curve, most: int) -> Curve:
    """Return the curve with at most `most` points at even distances, and a note where there were more.

    The last one is the curve's. Of a curve of more than `MOST_POINTS` each is the mean of its neighbours, as many
    as lie between so many of them: over so short a stretch the loss is close to straight, and noise averages out.
    """
    n = curve.n_points
    if n <= most:
        return curve
    last = np.linspace(n / most, n, most).round().astype(np.int64)
    first = last - max(1, n // MOST_POINTS)
    step, loss = (_means(column, first, last) for column in (curve.step, curve.loss_nats))
    means = "means of neighbours" if n >= 2 * MOST_POINTS else "of them"
    note = f"its {n:,} points were fitted as {most:,} {means}"
    scatter = np.log(curve.loss_nats[last - 1] / loss)
    at = step.round().astype(np.int64)
    return replace(curve, step=at, loss_nats=loss, scatter=scatter, notes=(*curve.notes, note))


def _means(column: np.ndarray[Any, Any], first: IntArray, last: IntArray) -> FloatArray:
    total = np.concatenate([[0], np.cumsum(column, dtype=np.longdouble)])
    return np.asarray((total[last] - total[first]) / (last - first), dtype=np.float64)


def _implausible(curve: Curve) -> str | None:
    """Return which number of a curve cannot be meant, None where all can."""
    lowest, highest = float(curve.loss_nats.min()), float(curve.loss_nats.max())
    if lowest < LOWEST_LOSS or highest > HIGHEST_LOSS:
        return f"its losses reach from {lowest:.3g} to {highest:.3g}: these are no nats per token"
    if curve.n_params is not None and not LOWEST_COUNT <= curve.n_params <= HIGHEST_COUNT:
        return f"its n_params, {curve.n_params:g}, must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
    if not LOWEST_PEAK <= curve.schedule.peak_lr <= HIGHEST_PEAK:
        limits = f"must lie between {LOWEST_PEAK:g} and {HIGHEST_PEAK:g}"
        return f"its peak learning rate, {curve.schedule.peak_lr:g}, {limits}"
    return None


def _trained(curve: Curve, options: FitOptions) -> Curve:
    """Return the curve without the points that never enter; itself where all do, since copies of many add up."""
    first = first_fitted_step(curve, options)
    return curve if curve.n_points and curve.step[0] >= first else curve.from_step(first)


def first_fitted_step(curve: Curve, options: FitOptions) -> int:
    """Return the first step whose point enters: behind `skip_steps`, or behind the warm-up where none is given.

    Points before the first learning rate above 0 never do: nothing has been trained.
    """
    skipped = curve.schedule.warmup_steps if options.skip_steps is None else options.skip_steps
    if not curve.n_points or curve.schedule.area(curve.step[:1])[0] > 0:
        return skipped + 1
    untrained = int(np.searchsorted(curve.schedule.area(curve.step), 0.0, side="right"))
    return max(skipped, int(curve.step[untrained - 1])) + 1


def _check_sizes(curves: Sequence[Curve]) -> None:
    kinds = sorted(
        {curve.n_params_kind or "no stated kind" for curve in curves if curve.n_params is not None}
    )
    if len(kinds) > 1:
        reason = f"the runs count their parameters in {' and '.join(kinds)}; ask for one by n_params_kind"
        raise InvalidInput(field="n_params_kind", reason=reason)
    without = [curve.run_id for curve in curves if curve.n_params is None]
    if without and len(without) < len(curves):
        reason = f"missing in run {without[0]!r} ({len(without)} runs) and given in others"
        raise InvalidInput(field="config.n_params", reason=reason)


def split(
    curves: Sequence[Curve], options: FitOptions, unread: Sequence[dict[str, str]] = ()
) -> tuple[list[Curve], list[Curve]]:
    """Return (runs to fit, runs to predict); `unread` are runs that could not be read, with the reason.

    A fraction holds out the runs that trained furthest, by their sum of learning rates: the direction in which
    the law will be used.
    """
    if options.holdout is None:
        return list(curves), []
    names = [curve.run_id for curve in curves]
    furthest = [float(curve.schedule.area(curve.step[-1:])[0]) for curve in curves]
    held = held_names(names, furthest, options.holdout, unread)
    fitted = [curve for curve in curves if curve.run_id not in held]
    return fitted, [curve for curve in curves if curve.run_id in held]


def held_names(
    names: Sequence[str],
    scales: Sequence[float],
    holdout: Mapping[str, Any],
    unread: Sequence[dict[str, str]] = (),
) -> set[str]:
    """Return the names of the runs to hold out: those that are listed, or the share of the largest `scales`.

    Raises InvalidInput for names of runs that are not among the selected ones or could not be read, and where
    no run would be left.
    """
    if "run_ids" in holdout:
        held = set(holdout["run_ids"])
        _check_named(held, names, unread)
    else:
        count = int(np.ceil(holdout["fraction"] * len(names)))
        held = {name for _, name in sorted(zip(scales, names, strict=True))[len(names) - count :]}
    if held >= set(names):
        raise InvalidInput(field="holdout", reason="leaves no run to fit")
    return held


def _check_named(held: Collection[str], names: Sequence[str], unread: Sequence[dict[str, str]]) -> None:
    why = {one["run_id"]: f"cannot be used: {one['reason']}" for one in unread}
    for name in sorted(set(held) - set(names)):
        reason = why.get(name, "is not among the selected runs; select it too")
        raise InvalidInput(field="holdout.run_ids", reason=f"run {name!r} {reason}")

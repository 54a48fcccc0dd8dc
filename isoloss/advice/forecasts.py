"""The final loss of a run that still trains, from its own losses and from how forecasts of finished runs fared.

A law of curves is fitted to the finished runs that are like it. Each of these is also predicted by the law without
its family, and followed through its training: so it is known, at every share of a run, how much of what a run shows
lasts to its end, and how far off a forecast was. The band is that record, widened where the law's own doubt of this
run is larger than of those. `companions` chooses the runs; `Forecaster.learn` takes seconds, a forecast
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.advice.forecast_traces import (
    BEGINS,
    N_SIGNS,
    STOPS,
    Experience,
    Traces,
    recent,
    signs,
    stop_at,
)
from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import FitFailed, InvalidInput, UnusableData
from isoloss.fitting import FitOptions
from isoloss.fitting.estimate import Progress, silent
from isoloss.fitting.one_law import optimum
from isoloss.laws import LAWS, CurveLaw
from isoloss.notes import counted
from isoloss.observations import Curve
from isoloss.schedules import Schedule

LEVEL = 0.9

FEWEST_FAMILIES = 4
"""Independent runs without which nobody knows how far off a forecast is."""

OWN_PEAK_FAMILIES = 6
"""Runs of the same peak learning rate that are enough to do without those of others."""

MOST_FOLDS = 8
MOST_POINTS = 400
"""Points of a run that are looked at; of longer runs, means of neighbours."""

SHAPE_POINTS = 64
LEAST_APART = 0.02
"""Schedules whose rates differ by less than this share of the peak are about the same."""

WORTH_SAYING = 1.25
"""How many times farther than usual a schedule lies before that is told; the band is wider at once."""

REACHED = 0.98
"""Share of its schedule that a finished run has behind it."""

SAME = 1e-4
"""Peaks, sizes and batches that differ by less than this share are the same."""


@dataclass(frozen=True)
class Forecast:
    """What is said of a run's final loss at `step` of `last_step`; None, with reasons, where the data do not say.

    `value`, `lower`, `upper` are in the unit of `target`. It rests on `law` of `n_runs` runs, `n_families` of them
    independent. `left_band` says in words that the run lies farther from an earlier forecast than
    any finished run did. `expected` are the losses to come, lists of `steps`, `value`, `lower` and `upper`.
    """

    run_id: str
    target: str
    step: int
    last_step: int
    level: float
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    reasons: tuple[str, ...] = ()
    law: str | None = None
    n_runs: int = 0
    n_families: int = 0
    left_band: str | None = None
    expected: Mapping[str, list[float]] | None = None

    def as_document(self) -> dict[str, Any]:
        """Return the forecast as plain JSON values."""
        expected = None if self.expected is None else {k: list(v) for k, v in self.expected.items()}
        return {**self.__dict__, "reasons": list(self.reasons), "expected": expected}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Forecast:
        """Return the forecast that `as_document` described."""
        return cls(**{**document, "reasons": tuple(document["reasons"])})


def companions(finished: Sequence[Curve], run: Curve) -> list[Curve]:
    """Return the finished runs that say how a run goes on: of its size, its batch and its target.

    Where enough of them had its peak learning rate, these alone; also where some state no weight decay, without
    which no law carries over peaks.
    """
    alike = [one for one in finished if _is_alike(one, run) and _has_ended(one)]
    of_peak = [one for one in alike if _same(one.schedule.peak_lr, run.schedule.peak_lr)]
    enough = len(np.unique(families(of_peak))) >= OWN_PEAK_FAMILIES
    return of_peak if enough or any(one.weight_decay is None for one in [run, *alike]) else alike


def _is_alike(one: Curve, run: Curve) -> bool:
    return (
        one.run_id != run.run_id
        and one.target == run.target
        and _same(one.n_params, run.n_params)
        and _same(one.batch_tokens, run.batch_tokens)
    )


def _has_ended(curve: Curve) -> bool:
    return bool(curve.n_points) and int(curve.step[-1]) >= REACHED * curve.schedule.total_steps


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME * max(abs(one), abs(other))


def families(curves: Sequence[Curve]) -> IntArray:
    """Return a number for each curve, the same for those that share a trunk: their first points are the same."""
    known: dict[tuple[int, float], int] = {}
    keys = [(int(curve.step[0]), float(curve.loss_nats[0])) for curve in curves]
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


@dataclass(frozen=True)
class Forecaster:
    """A law of finished runs, and what they tell of forecasts.

    `thetas` (1 + folds, parameters): the law of all runs first, then of all but some families. `shapes` (runs,
    points) are their schedules, and `farthest` how far one of them lay from all those that it was predicted from.
    `like` are the `n_params`, `batch_tokens` and target that it is for.
    """

    law: str
    thetas: FloatArray
    experience: Experience
    level: float
    n_runs: int
    peaks: tuple[float, float]
    longest: int
    shapes: FloatArray
    farthest: float
    like: tuple[float | None, float | None, str]

    @classmethod
    def learn(
        cls,
        finished: Sequence[Curve],
        *,
        level: float = LEVEL,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Forecaster:
        """Return what finished runs of one size, batch and target tell, as `companions` chooses them.

        Raises UnusableData where fewer than `FEWEST_FAMILIES` of them are independent or no law can be fitted to
        them, InvalidInput for runs of several kinds.
        """
        tell = progress or silent
        curves = list(finished)
        _check(curves, level)
        numbers = families(curves)
        law = _law_for(curves)
        thetas, predicted_by = _fitted(law, curves, numbers, seed, tell)
        followed = [_followed(law, thetas[1:], curve) for curve in curves]
        by_others = [each[fold] for each, fold in zip(followed, predicted_by, strict=True)]
        traces = Traces.of([(one.progress, one.off) for one in by_others], numbers)

        def doubts(carry: FloatArray) -> FloatArray:
            return np.array([_doubts(each, carry) for each in followed])

        peaks = [curve.schedule.peak_lr for curve in curves]
        shapes = np.array([_shape(curve.schedule) for curve in curves])
        return cls(
            law=law,
            thetas=thetas,
            experience=Experience.of(traces, doubts, level),
            level=level,
            n_runs=len(curves),
            peaks=(min(peaks), max(peaks)),
            longest=max(curve.schedule.total_steps for curve in curves),
            shapes=np.unique(shapes, axis=0),
            farthest=max(
                _apart(shape, shapes[predicted_by != fold])
                for shape, fold in zip(shapes, predicted_by, strict=True)
            ),
            like=(curves[0].n_params, curves[0].batch_tokens, curves[0].target),
        )

    def forecast(self, run: Curve) -> Forecast:
        """Return what becomes of a run, from its points so far and its whole schedule.

        Raises InvalidInput for a run of another size, batch or target.
        """
        size, batch, target = self.like
        if not (_same(run.n_params, size) and _same(run.batch_tokens, batch) and run.target == target):
            raise InvalidInput(field="run", reason=f"run {run.run_id!r} is not like those that were learned")
        said = _begun(run, self)
        followed, *without_some = _followed(self.law, self.thetas, run)
        stop = _stop_of(run, followed)
        shown = self._shown(followed, stop)
        beyond = self._beyond(shown, stop)
        centre = followed.last + self._ahead(shown, stop, -1)
        if not np.isfinite(centre):
            return replace(said, reasons=(f"{self.law} has no loss for this schedule",))
        variance = float(_doubts(without_some, self.experience.carry, _share(run))[stop])
        half = self._beyond_experience(run) * self.experience.half_width(stop, variance)
        below, above = centre - half - max(beyond, 0.0), centre + half + max(-beyond, 0.0)
        return replace(
            said,
            value=float(np.exp(centre)),
            lower=float(np.exp(below)),
            upper=float(np.exp(above)),
            reasons=tuple(self._reasons(run, beyond)),
            left_band=self._left_band(run, followed),
            expected=self._expected(run, shown, stop),
        )

    def as_document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        arrays = {"thetas": self.thetas.tolist(), "shapes": self.shapes.tolist()}
        document = {**self.__dict__, **arrays, "experience": self.experience.as_dict()}
        return {**document, "peaks": list(self.peaks), "like": list(self.like)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Forecaster:
        """Return the forecaster that `as_document` described."""
        size, batch, target = document["like"]
        low, high = document["peaks"]
        parts = {
            "thetas": np.array(document["thetas"], dtype=float),
            "shapes": np.array(document["shapes"], dtype=float),
            "experience": Experience.from_dict(document["experience"]),
            "peaks": (low, high),
            "like": (size, batch, target),
        }
        return cls(**{**document, **parts})

    def _shown(self, followed: Followed, stop: int) -> FloatArray:
        """Return the signs of a run at a stop, zeros where it has shown too little."""
        shown = signs(followed.progress, followed.off, STOPS[stop]) if stop else None
        return np.zeros(N_SIGNS) if shown is None else shown

    def _usual(self, shown: FloatArray, stop: int) -> FloatArray:
        return np.clip(shown, -self.experience.reach[stop], self.experience.reach[stop])

    def _beyond(self, shown: FloatArray, stop: int) -> float:
        """Return how far the recent losses lie beyond all that finished runs had there."""
        return float((shown - self._usual(shown, stop))[-1])

    def _ahead(self, shown: FloatArray, stop: int, later: int) -> float:
        """Return what of the signs at a stop is to be expected at a later one.

        A run that lies farther off than any did is taken at its word: what is beyond lasts as it is.
        """
        usual = self._usual(shown, stop)
        return float(usual @ self.experience.carry[stop, later]) + self._beyond(shown, stop)

    def _unlike(self, run: Curve) -> float:
        """Return how many times farther its schedule is from the finished ones than any of them was; at least 1."""
        apart = _apart(_shape(run.schedule), self.shapes)
        return max(1.0, apart / max(self.farthest, LEAST_APART))

    def _beyond_experience(self, run: Curve) -> float:
        """Return how many times wider than the record a band is: errors are taken to grow like a random walk."""
        longer = max(1.0, run.schedule.total_steps / self.longest)
        return float(np.sqrt(longer)) * self._unlike(run)

    def _reasons(self, run: Curve, beyond: float) -> Iterator[str]:
        low, high = self.peaks
        peak, last = run.schedule.peak_lr, run.schedule.total_steps
        if not low * (1 - SAME) <= peak <= high * (1 + SAME):
            yield f"its peak learning rate, {peak:.3g}, lies outside of those of the finished runs"
        if last > self.longest * (1 + SAME):
            yield f"it is {last / self.longest:.2g} times as long as the longest finished run"
        if self._unlike(run) > WORTH_SAYING:
            yield (
                f"its schedule lies {self._unlike(run):.2g} times as far from those of the finished runs as any of "
                "them did from the others: the band is as much wider"
            )
        if beyond:
            where = "above" if beyond > 0 else "below"
            yield (
                f"its losses lie farther {where} the law than those of any finished run: the forecast follows the "
                "run, and the band reaches to the law"
            )

    def _left_band(self, run: Curve, followed: Followed) -> str | None:
        """Say whether the run is farther from what an earlier stop let expect than any that ended well."""
        at = stop_at(_share(run))
        if at == 0:
            return None
        now = recent(followed.progress, followed.off, _share(run))
        worst, told = self.experience.alarm * self._beyond_experience(run), None
        for j in range(at):
            shown = self._shown(followed, j)
            off = now - float(shown @ self.experience.carry[j, at])
            if abs(off) > worst * self.experience.scatter[j, at]:
                worst, told = abs(off) / self.experience.scatter[j, at], (off, STOPS[j])
        if told is None:
            return None
        off, since = told
        where = "above" if off > 0 else "below"
        known = f"when {since:.0%} of it was seen" if since else "from the law before it began"
        return (
            f"its loss lies {abs(np.expm1(off)):.1%} {where} what was to be expected {known}: farther than of "
            f"any of {counted(self.experience.n_families, 'finished run')}"
        )

    def _expected(self, run: Curve, shown: FloatArray, stop: int) -> dict[str, list[float]]:
        """Return the losses to come at the stops that are left."""
        total = run.schedule.total_steps
        left = [k for k in range(stop + 1, STOPS.size) if STOPS[k] > _share(run)]
        steps = np.array([min(round(STOPS[k] * total), total) for k in left], dtype=np.int64)
        ahead = np.array([self._ahead(shown, stop, k) for k in left])
        centre = _log_law(self.law, self.thetas[:1], run, steps)[0] + ahead
        half = (
            self.experience.widths[stop] * self.experience.scatter[stop, left] * self._beyond_experience(run)
        )
        ends = {"value": centre, "lower": centre - half, "upper": centre + half}
        told = {name: [float(x) for x in np.exp(one)] for name, one in ends.items()}
        return {"steps": [float(step) for step in steps], **told}


def _shape(schedule: Schedule) -> FloatArray:
    """Return the rates after the warm-up as shares of the peak, at even shares of the steps, (SHAPE_POINTS,)."""
    first = min(max(1, schedule.warmup_steps), schedule.total_steps)
    steps = np.linspace(first, schedule.total_steps, SHAPE_POINTS).round().astype(np.int64)
    return np.asarray(schedule.lr(steps) / schedule.peak_lr)


def _apart(shape: FloatArray, others: FloatArray) -> float:
    """Return how far a schedule lies from the nearest of others, a mean share of the peak."""
    return float(np.abs(others - shape).mean(axis=1).min())


@dataclass(frozen=True)
class Followed:
    """A run beside a law: `progress` (n,) in shares of the run, `off` (n,) its log loss less the law's.

    `last` is the law's log loss at the end.
    """

    progress: FloatArray
    off: FloatArray
    last: float


def _followed(law: str, thetas: FloatArray, run: Curve) -> list[Followed]:
    """Return the run beside the law with each of `thetas` (laws, parameters)."""
    total = run.schedule.total_steps
    step, log_loss = _means(run)
    after = step > max(BEGINS * total, run.schedule.warmup_steps)
    step, log_loss = step[after], log_loss[after]
    predicted = _log_law(law, thetas, run, np.append(step, total))
    return [Followed(step / total, log_loss - one[:-1], float(one[-1])) for one in predicted]


def _log_law(law: str, thetas: FloatArray, run: Curve, steps: IntArray) -> FloatArray:
    """Return the log losses (laws, steps) that a law has for the run's schedule; NaN where it has none."""
    read = LAWS[law]
    assert isinstance(read, CurveLaw)
    at, back = np.unique(steps, return_inverse=True)
    asked = replace(run, step=at, loss_nats=np.ones(at.size), scatter=None)
    with np.errstate(all="ignore"):
        return np.asarray(np.log(read.predict(thetas, read.prepare([asked])))[:, back])


def _means(run: Curve) -> tuple[IntArray, FloatArray]:
    """Return the steps and log losses of a run, of a long one means of neighbours; the last point stands alone."""
    log_loss = np.log(run.loss_nats)
    if run.n_points <= MOST_POINTS:
        return run.step, log_loss
    edges = np.append(np.linspace(0, run.n_points - 1, MOST_POINTS).astype(np.int64), run.n_points)
    sums = np.add.reduceat(log_loss, edges[:-1])
    return run.step[edges[1:] - 1], sums / np.diff(edges)


def _doubts(followed: Sequence[Followed], carry: FloatArray, share: float = 1.0) -> FloatArray:
    """Return the jackknife variance (stops,) of a forecast of a run's end over the folds, from each stop seen.

    `followed` is the run beside the law without each fold, `carry` that of the experience.
    """
    ends = np.full((len(followed), STOPS.size), np.nan)
    for row, one in zip(ends, followed, strict=True):
        for stop in range(stop_at(share) + 1):
            shown = signs(one.progress, one.off, STOPS[stop]) if stop else None
            carried = 0.0 if shown is None else float(shown @ carry[stop, -1])
            row[stop] = one.last + carried
    n = len(followed)
    return np.asarray((n - 1) * np.nan_to_num(ends.var(axis=0)))


def _stop_of(run: Curve, followed: Followed) -> int:
    stop = stop_at(_share(run))
    return stop if signs(followed.progress, followed.off, STOPS[stop]) is not None else 0


def _share(run: Curve) -> float:
    return float(run.step[-1]) / run.schedule.total_steps if run.n_points else 0.0


def _begun(run: Curve, learned: Forecaster) -> Forecast:
    return Forecast(
        run_id=run.run_id,
        target=run.target,
        step=int(run.step[-1]) if run.n_points else 0,
        last_step=run.schedule.total_steps,
        level=learned.level,
        law=learned.law,
        n_runs=learned.n_runs,
        n_families=learned.experience.n_families,
    )


def _check(curves: Sequence[Curve], level: float) -> None:
    if not 0 < level < 1:
        raise InvalidInput(field="level", reason="must lie between 0 and 1")
    for curve in curves:
        if not _is_alike(replace(curve, run_id=""), curves[0]):
            reason = f"runs {curves[0].run_id!r} and {curve.run_id!r} differ in size, batch or target"
            raise InvalidInput(field="finished", reason=reason)
        if not _has_ended(curve):
            raise InvalidInput(
                field="finished", reason=f"run {curve.run_id!r} has not come to the end of its schedule"
            )
    n = len(np.unique(families(curves))) if curves else 0
    if n < FEWEST_FAMILIES:
        raise UnusableData(
            reason=f"a forecast needs {FEWEST_FAMILIES} finished runs like it that share no trunk, not {n}"
        )


def _law_for(curves: Sequence[Curve]) -> str:
    peaks = [curve.schedule.peak_lr for curve in curves]
    return "concave_memory" if _same(min(peaks), max(peaks)) else "effective_lr"


def _fitted(
    law: str, curves: Sequence[Curve], numbers: IntArray, seed: int, tell: Progress
) -> tuple[FloatArray, IntArray]:
    """Return the parameters with all curves and without each fold's, and the fold of every curve."""
    fold_of = numbers % min(MOST_FOLDS, len(np.unique(numbers)))
    n_folds = int(fold_of.max()) + 1
    asked = FitOptions.from_mapping({"seed": seed})
    tell(0.0, f"{law} of {counted(len(curves), 'finished run')}")
    try:
        whole = optimum(law, curves, asked)
        thetas = [whole]
        for fold in range(n_folds):
            rest = [curve for curve, its in zip(curves, fold_of, strict=True) if its != fold]
            thetas.append(optimum(law, rest, asked, warm=whole))
            tell((1 + fold) / n_folds, "finished runs predicted from the others")
    except FitFailed as error:
        raise UnusableData(reason=f"no law can be fitted to the finished runs: {error}") from error
    return np.array(thetas), fold_of

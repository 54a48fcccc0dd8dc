"""The final loss that is expected of a trial that has come to a rung, from a law of the sweep's own curves.

A law of curves is fitted to the trials that have ended, whole, and to the others as far as they are; it says by how
much a trial's loss will still fall under its own schedule, and its own last losses say from where. How far off that
is, is replayed: each of the ended trials is cut at the rung, forecast by the law that knows no more of it, and its
end compared. The mean of these errors is taken off a forecast, their spread makes its interval. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from isoloss.arrays import FloatArray
from isoloss.errors import FitFailed, InvalidInput, UnusableData
from isoloss.fitting import Fit, fit
from isoloss.laws import LAWS, CurveLaw
from isoloss.observations import Curve
from isoloss.proxies.halving import FEWEST_PILOTS, Expected

LAWS_TRIED = ("effective_lr", "lr_annealing")
"""The first carries over peak learning rates, in which trials mostly differ; it needs a weight decay of each."""

LEVEL = 0.9
MOST_REPLAYED = 12
"""Ended trials that are replayed at each rung, a fit each."""

MOST_CUTS = 60
"""Trials on the way that a fit rests on."""

WHOLE_POINTS, CUT_POINTS = 80, 40
"""Means of neighbours that stand for a curve in a fit."""

RECENT = 0.04
"""Share of a trial whose last losses tell where it stands."""

ENDS = 0.99
"""The final loss is the mean of what follows this share."""

GROWTH = 1.5
"""How many times as many trials on the way make it worth learning again."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class FinalLosses:
    """A law of a sweep's curves, and how far off its forecasts were at each rung.

    `errors` has for each share of a trial the mean of the replayed errors in log loss, which is taken off, and half
    the width of the interval. `numbers` are the trials that had ended, `n_going` how many others were known.
    """

    law: str
    theta: tuple[float, ...]
    errors: tuple[tuple[float, float, float], ...]
    numbers: tuple[int, ...]
    n_going: int

    @classmethod
    def learn(
        cls,
        ended: Mapping[int, Curve],
        going: Mapping[int, Curve],
        shares: Sequence[float],
        *,
        progress: Progress | None = None,
    ) -> FinalLosses:
        """Return what a sweep's curves tell, by the numbers of their trials.

        Raises UnusableData where fewer than four have ended, or no law can be fitted to them.
        """
        if len(ended) < FEWEST_PILOTS:
            reason = (
                f"a forecast of final losses needs {FEWEST_PILOTS} trials that have ended, not {len(ended)}"
            )
            raise UnusableData(reason=reason)
        cuts = [_means(curve, CUT_POINTS) for curve in _some(list(going.values())) if curve.n_points]
        failed: Exception | None = None
        for law in LAWS_TRIED:
            try:
                whole, errors = _replayed(law, list(ended.values()), cuts, shares, progress)
            except (FitFailed, UnusableData, InvalidInput) as error:
                failed = error
                continue
            return cls(law, tuple(whole.theta.tolist()), errors, tuple(sorted(ended)), len(going))
        raise UnusableData(reason=f"no law can be fitted to the trials that have ended: {failed}")

    def knows(self, ended: Mapping[int, Curve], going: Mapping[int, Curve]) -> bool:
        """Whether there is too little news to learn again."""
        return self.numbers == tuple(sorted(ended)) and len(going) <= GROWTH * max(1, self.n_going)

    def expect(self, curve: Curve) -> Expected | None:
        """Return what is expected of a trial; None before the first rung, and where the law has no loss."""
        if not curve.n_points:
            return None
        step = int(curve.step[-1])
        passed = [one for one in self.errors if one[0] * curve.schedule.total_steps <= step + 1]
        if not passed:
            return None
        _, centre, half = passed[-1]
        value = _last(curve) + _drop(self.law, np.array(self.theta), curve) + centre
        if not np.isfinite(value):
            return None
        low, high = np.exp(value - half), np.exp(value + half)
        return Expected(float(np.exp(value)), float(low), float(high), step)

    def as_document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "law": self.law,
            "theta": list(self.theta),
            "errors": [list(one) for one in self.errors],
            "numbers": list(self.numbers),
            "n_going": self.n_going,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FinalLosses:
        """Return what `as_document` described."""
        share, centre, half = range(3)
        return cls(
            law=document["law"],
            theta=tuple(document["theta"]),
            errors=tuple((one[share], one[centre], one[half]) for one in document["errors"]),
            numbers=tuple(document["numbers"]),
            n_going=document["n_going"],
        )


def _replayed(
    law: str,
    ended: Sequence[Curve],
    cuts: Sequence[Curve],
    shares: Sequence[float],
    progress: Progress | None,
) -> tuple[Fit, tuple[tuple[float, float, float], ...]]:
    """The law of all curves, and for each share the mean of the replayed errors and half an interval's width."""
    means = [_means(curve, WHOLE_POINTS) for curve in ended]
    whole = fit(law, [*means, *cuts], bootstrap=0)
    chosen = np.unique(np.linspace(0, len(ended) - 1, min(len(ended), MOST_REPLAYED)).astype(int)).tolist()
    errors = []
    for number, share in enumerate(shares):
        off = []
        for place in chosen:
            begun = _cut(ended[place], share)
            others = [one for at, one in enumerate(means) if at != place]
            theta = fit(law, [*others, *cuts, _means(begun, CUT_POINTS)], bootstrap=0, previous=whole).theta
            off.append(_final(ended[place]) - _last(begun) - _drop(law, theta, begun))
        errors.append((float(share), *_spread(np.array(off))))
        if progress is not None:
            progress(
                (number + 1) / len(shares),
                f"{law}: trials that have ended, forecast from {share:.0%} of them",
            )
    return whole, tuple(errors)


def _some(curves: Sequence[Curve]) -> list[Curve]:
    """So many of them as a fit needs, spread over all."""
    places = np.unique(np.linspace(0, len(curves) - 1, min(len(curves), MOST_CUTS)).astype(int))
    return [curves[place] for place in places.tolist()] if curves else []


def _spread(off: FloatArray) -> tuple[float, float]:
    """The mean of errors, and half of the interval of one more, by Student's t."""
    if not np.isfinite(off).all():
        raise UnusableData(reason="the law has no loss for some of the schedules")
    n = off.size
    factor = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return float(off.mean()), factor * float(off.std(ddof=1)) * float(np.sqrt(1 + 1 / n))


def _drop(law: str, theta: FloatArray, curve: Curve) -> float:
    """By how much the log loss will change from where the curve stands to its end, as the law says."""
    total = curve.schedule.total_steps
    here = int(curve.step[-1])
    now = max(1, round(here - RECENT * total / 2))
    if now >= total:
        return 0.0
    read = LAWS[law]
    assert isinstance(read, CurveLaw)
    asked = replace(curve, step=np.array([now, total]), loss_nats=np.ones(2), scatter=None)
    with np.errstate(all="ignore"):
        before, after = np.log(read.predict(theta[None], read.prepare([asked]))[0])
    return float(after - before)


def _last(curve: Curve) -> float:
    """The mean log loss of the recent part of a curve."""
    recent = curve.step > curve.step[-1] - RECENT * curve.schedule.total_steps
    return float(np.log(curve.loss_nats[recent]).mean())


def _final(curve: Curve) -> float:
    return float(np.log(curve.loss_nats[curve.step > ENDS * curve.schedule.total_steps].mean()))


def _cut(curve: Curve, share: float) -> Curve:
    """The curve up to a share of its schedule."""
    seen = curve.step <= np.ceil(share * curve.schedule.total_steps)
    return replace(curve, step=curve.step[seen], loss_nats=curve.loss_nats[seen], scatter=None)


def _means(curve: Curve, most: int) -> Curve:
    """The curve with means of neighbours in log loss, each at the middle of its steps."""
    if curve.n_points <= most:
        return curve
    edges = np.unique(np.linspace(0, curve.n_points, most + 1).astype(int))
    sums = np.add.reduceat(np.log(curve.loss_nats), edges[:-1])
    return replace(
        curve,
        step=curve.step[(edges[:-1] + edges[1:] - 1) // 2],
        loss_nats=np.exp(sums / np.diff(edges)),
        scatter=None,
    )

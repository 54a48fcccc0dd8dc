"""Where the data of a fit lay, and how far a question reaches beyond them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting.intervals import Spread
from isoloss.observations import Curve
from isoloss.schedules import Schedule

FloatArray = npt.NDArray[np.float64]

SAME_PEAK = 1e-3
"""Peaks of the learning rate within this relative distance count as one."""


@dataclass(frozen=True)
class FittedRange:
    """The steps, learning rates, areas and sizes that a fit has seen."""

    first_step: int
    last_step: int
    first_area: float
    last_area: float
    lowest_lr: float
    peak_lrs: tuple[float, ...]
    n_params: tuple[float, ...]
    n_params_kind: str | None

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> FittedRange:
        return cls(
            first_step=int(min(curve.step[0] for curve in curves)),
            last_step=int(max(curve.step[-1] for curve in curves)),
            first_area=float(min(curve.schedule.area(curve.step[:1])[0] for curve in curves)),
            last_area=float(max(curve.schedule.area(curve.step[-1:])[0] for curve in curves)),
            lowest_lr=float(min(curve.schedule.lr(curve.step).min() for curve in curves)),
            peak_lrs=tuple(sorted({curve.schedule.peak_lr for curve in curves})),
            n_params=tuple(sorted({curve.n_params for curve in curves if curve.n_params is not None})),
            n_params_kind=next((curve.n_params_kind for curve in curves if curve.n_params_kind), None),
        )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FittedRange:
        tuples = {name: tuple(document[name]) for name in ("peak_lrs", "n_params")}
        return cls(**{**document, **tuples})

    def reach(
        self, schedule: Schedule, steps: npt.NDArray[np.int64], n_params: float | None = None
    ) -> FloatArray:
        """Return how many times beyond the fitted runs each step (n,) lies, at least 1.

        That is in the sum of learning rates, after the last fitted point or before the first, times how far
        the model is from the fitted sizes.
        """
        area = schedule.area(steps)
        with np.errstate(divide="ignore"):
            beyond = np.maximum(area / self.last_area, self.first_area / area)
        return np.maximum(beyond, 1.0) * self.size_factor(n_params)

    def size_factor(self, n_params: float | None) -> float:
        """Return how many times larger than the largest fitted model, or smaller than the smallest, one is."""
        if n_params is None or not self.n_params:
            return 1.0
        return max(1.0, n_params / self.n_params[-1], self.n_params[0] / n_params)

    def size(self, asked: float | None, undetermined: str | None) -> float | None:
        """Return the model size to predict for, (None where the fit has no size term).

        Raises Unidentified for another size than the fitted ones where the fit cannot tell sizes apart, and
        InvalidInput where the fit has several sizes and none is asked for.
        """
        if asked is not None and not (np.isfinite(asked) and asked > 0):
            raise InvalidInput(field="config.n_params", reason="must be above 0")
        if asked is None and len(self.n_params) > 1:
            sizes = ", ".join(f"{size:g}" for size in self.n_params)
            raise InvalidInput(
                field="config.n_params", reason=f"is needed: the fit is over the sizes {sizes}"
            )
        alone = len(self.n_params) == 1 or undetermined is not None
        if asked is not None and alone and self.n_params and not np.isclose(asked, self.n_params).any():
            sizes = " and ".join(f"{size:g}" for size in self.n_params)
            raise Unidentified(reason=f"the fit has seen runs of {sizes} parameters alone, not of {asked:g}")
        return asked if asked is not None else next(iter(self.n_params), None)

    def describe(
        self,
        schedule: Schedule,
        steps: npt.NDArray[np.int64],
        n_params: float | None,
        spread: Spread,
        resamples: int,
    ) -> dict[str, Any]:
        """Return how far a prediction reaches, as factors and in words."""
        factors = {
            "area_factor": max(1.0, float(schedule.area(steps).max()) / self.last_area),
            "steps_factor": max(1.0, float(steps.max()) / self.last_step),
            "n_params_factor": self.size_factor(n_params),
        }
        early = bool(steps.min() < self.first_step)
        return {
            **factors,
            "before_first_point": early,
            "is_extrapolation": early or max(factors.values()) > 1,
            "warnings": [
                *self._beyond(steps, n_params, factors),
                *self._unlike(schedule, steps),
                *_missing_parts(spread, resamples),
            ],
        }

    def _beyond(
        self, steps: npt.NDArray[np.int64], n_params: float | None, factors: Mapping[str, float]
    ) -> Iterator[str]:
        if factors["area_factor"] > 1.001:
            yield f"the sum of learning rates is {factors['area_factor']:.3g} times the largest fitted one"
        if factors["steps_factor"] > 1.001:
            yield f"step {steps.max()} is {factors['steps_factor']:.3g} times the last fitted one, {self.last_step}"
        if factors["n_params_factor"] > 1.001:
            yield f"the model is {factors['n_params_factor']:.3g} times outside the fitted sizes"
        if n_params is not None and not self.n_params:
            yield "the fitted runs state no model size: the size that was asked for has no effect"
        if steps.min() < self.first_step:
            yield f"steps before {self.first_step} come before the first fitted point"

    def _unlike(self, schedule: Schedule, steps: npt.NDArray[np.int64]) -> Iterator[str]:
        lowest, peak = float(schedule.lr(steps).min()), schedule.peak_lr
        if lowest < self.lowest_lr * (1 - SAME_PEAK):
            yield f"the learning rate falls to {lowest:.3g}, below the lowest fitted one, {self.lowest_lr:.3g}"
        if not any(abs(peak - one) <= SAME_PEAK * one for one in self.peak_lrs):
            yield f"no fitted run has the peak learning rate {peak:.3g}; this law does not carry over between peaks"


def _missing_parts(spread: Spread, resamples: int) -> Iterator[str]:
    """Say what an interval lacks."""
    if spread.discrepancy is None:
        yield "fewer than three schedules: the error on another one was not measured and is not in the interval"
    if not resamples:
        yield "no resamples were drawn: how noise moves the law is not in the interval"

"""What a fit says: parameters with intervals, scores, a verdict with reasons, and where it all came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting.fitted_range import FittedRange
from isoloss.fitting.intervals import Spread, interval_around
from isoloss.laws import LAWS, Law
from isoloss.observations import n_params_of
from isoloss.schedules import Schedule, schedule_from_spec

FloatArray = npt.NDArray[np.float64]
Verdict = Literal["sound", "weak", "unidentified"]
IntervalKind = Literal["mean", "new_run"]

CHUNK_VALUES = 4_000_000
"""Resamples times steps that are predicted at once; bounds the memory of a prediction."""

PREDICTED_STEPS = 200
"""Points of a predicted curve where the caller asks for no steps."""


@dataclass(frozen=True)
class ParameterEstimate:
    """One parameter's value with its standard error and interval; all None where the data do not say."""

    name: str
    symbol: str
    unit: str
    value: float | None
    std_error: float | None
    interval: tuple[float, float] | None
    at_bound: bool


@dataclass(frozen=True)
class Derived:
    """A quantity that follows from the parameters."""

    name: str
    unit: str
    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Prediction:
    """A predicted curve: `value`, `lower`, `upper` at `steps`, and how far it reaches beyond the data."""

    quantity: str
    unit: str
    steps: npt.NDArray[np.int64]
    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    level: float
    interval: IntervalKind
    extrapolation: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        columns = ("steps", "value", "lower", "upper")
        return {**asdict(self), **{name: getattr(self, name).tolist() for name in columns}}


@dataclass(frozen=True, repr=False)
class Fit:
    """The outcome of a fit. `public` is what the API shows; the rest is what predictions are made from.

    `theta` (parameters,) the optimum and `samples` (resamples, parameters) its resamples, in the law's order;
    `spread` what resampling cannot show; `fitted_range` where the data lay.
    """

    law_name: str
    parameters: dict[str, ParameterEstimate]
    objective: float
    metrics: dict[str, Any]
    holdout: dict[str, Any] | None
    groups: list[dict[str, Any]]
    derived: list[Derived]
    diagnostics: dict[str, Any]
    left_out: list[dict[str, str]]
    verdict: Verdict
    reasons: list[str]
    provenance: dict[str, Any]
    theta: FloatArray
    samples: FloatArray
    spread: Spread
    fitted_range: FittedRange
    missing: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show the verdict and the parameters; a notebook has no use for thousands of resamples."""
        rows = [f"  {_shown(one)}" for one in self.parameters.values()]
        return "\n".join([f"Fit({self.law_name}, {self.verdict})", *rows])

    @property
    def law(self) -> Law[Any]:
        return LAWS[self.law_name]

    def predict(
        self,
        *,
        schedule: Schedule | Mapping[str, Any],
        steps: Sequence[int] | npt.NDArray[np.int64] | None = None,
        config: Mapping[str, Any] | None = None,
        n_params: float | None = None,
        level: float | None = None,
        interval: IntervalKind = "mean",
    ) -> Prediction:
        """Return the loss that a run under `schedule` would have at `steps`, with an interval of `level`.

        Without `steps`, `PREDICTED_STEPS` of them from the end of warm-up to the end. `interval` 'mean' is for
        the law's curve, 'new_run' for the points of one run. Raises Unidentified where the data did not
        determine the law, or its size term, and InvalidInput for steps outside the schedule.
        """
        self._require_identified()
        level, schedule = self._checked(level, interval, schedule)
        at = _steps(schedule, steps)
        size = self._size(config or {}, n_params)
        centre, below, above = self.log_interval(schedule, at, size, level, new_run=interval == "new_run")
        if not np.all(np.isfinite(centre)):
            raise Unidentified(reason="the law has no positive loss at some of these steps")
        return Prediction(
            quantity=self.law.quantity,
            unit=self.law.unit,
            steps=at,
            value=np.exp(centre),
            lower=np.exp(below),
            upper=np.exp(above),
            level=level,
            interval=interval,
            extrapolation=self.fitted_range.describe(schedule, at, size, self.spread, len(self.samples)),
        )

    def log_interval(
        self,
        schedule: Schedule,
        steps: npt.NDArray[np.int64],
        n_params: float | None,
        level: float,
        *,
        new_run: bool,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the log prediction and the ends of its interval, each (steps,); NaN where it has no logarithm."""
        n_chunks = max(1, -(-steps.size * (len(self.samples) + 1) // CHUNK_VALUES))
        parts = [
            self._log_interval(schedule, part, n_params, level, new_run=new_run)
            for part in np.array_split(steps, n_chunks)
        ]
        centre, below, above = (np.concatenate(column) for column in zip(*parts, strict=True))
        return centre, below, above

    def _log_interval(
        self,
        schedule: Schedule,
        steps: npt.NDArray[np.int64],
        n_params: float | None,
        level: float,
        *,
        new_run: bool,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        features = self.law.prepare_prediction(schedule, steps, n_params)
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = np.log(self.law.predict(self.theta[None], features)[0])
            members = np.log(self.law.predict(self.samples, features))
        reach = self.fitted_range.reach(schedule, steps, n_params)
        return centre, *interval_around(centre, members, self.spread, reach, level, new_run=new_run)

    def _require_identified(self) -> None:
        if self.verdict == "unidentified":
            raise Unidentified(reason="; ".join(self.reasons))
        if not len(self.samples) and self.spread.discrepancy is None:
            reason = "no resamples were drawn and no schedule left out: a prediction would have no interval"
            raise Unidentified(reason=reason)

    def _checked(
        self, level: float | None, interval: str, schedule: Schedule | Mapping[str, Any]
    ) -> tuple[float, Schedule]:
        level = float(self.provenance["options"]["level"]) if level is None else level
        if isinstance(level, bool) or not 0 < level < 1:
            raise InvalidInput(field="level", reason="must lie between 0 and 1")
        if interval not in ("mean", "new_run"):
            raise InvalidInput(field="interval", reason="must be 'mean' or 'new_run'")
        return level, schedule if isinstance(schedule, Schedule) else schedule_from_spec(schedule)

    def _size(self, config: Mapping[str, Any], n_params: float | None) -> float | None:
        """Return the model size to predict for; where the fit knows one size only, that is what it predicts."""
        kind = self.fitted_range.n_params_kind
        asked = config.get("n_params_kind")
        if (
            asked is not None
            and kind is not None
            and asked != kind
            and config.get(f"n_params_{kind}") is None
        ):
            reason = f"the fit counts {kind} parameters, the question {asked} ones"
            raise InvalidInput(field="config.n_params_kind", reason=reason)
        size = n_params if n_params is not None else n_params_of(config, kind)[1]
        if size is None:
            size = n_params_of(config)[1]
        return self.fitted_range.size(size, self.missing.get("beta"))

    def public(self) -> dict[str, Any]:
        """Return what the API shows of the fit, as plain JSON values."""
        return {
            "law": self.law_name,
            "parameters": [asdict(one) for one in self.parameters.values()],
            "objective": self.objective,
            "metrics": self.metrics,
            "holdout": self.holdout,
            "groups": self.groups,
            "derived": [asdict(one) for one in self.derived],
            "diagnostics": self.diagnostics,
            "left_out": self.left_out,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "provenance": self.provenance,
        }

    def as_document(self) -> dict[str, Any]:
        """Return the whole fit as plain JSON values; `from_document` reads it back without loss."""
        private = {
            "theta": self.theta.tolist(),
            "samples": self.samples.tolist(),
            "spread": self.spread.as_dict(),
            "fitted_range": asdict(self.fitted_range),
            "missing": self.missing,
        }
        return {**self.public(), "private": private}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fit:
        """Return the fit that `as_document` described."""
        private = document["private"]
        shown = {name: document[name] for name in _SHOWN}
        return cls(
            law_name=document["law"],
            parameters={one["name"]: ParameterEstimate(**_paired(one)) for one in document["parameters"]},
            derived=[Derived(**_paired(one)) for one in document["derived"]],
            theta=np.array(private["theta"]),
            samples=np.array(private["samples"]).reshape(-1, len(private["theta"])),
            spread=Spread.from_dict(private["spread"]),
            fitted_range=FittedRange.from_dict(private["fitted_range"]),
            missing=private["missing"],
            **shown,
        )


_SHOWN = (
    "objective", "metrics", "holdout", "groups", "diagnostics", "left_out", "verdict", "reasons", "provenance",
)  # fmt: skip


def _shown(one: ParameterEstimate) -> str:
    if one.value is None:
        return f"{one.name}: not determined"
    interval = "" if one.interval is None else f" [{one.interval[0]:.6g}, {one.interval[1]:.6g}]"
    return f"{one.name} = {one.value:.6g}{interval} {one.unit}"


def _paired(estimate: Mapping[str, Any]) -> dict[str, Any]:
    interval = estimate["interval"]
    return {**estimate, "interval": None if interval is None else tuple(interval)}


def _steps(schedule: Schedule, steps: Sequence[int] | npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    if steps is None:
        first = max(1, schedule.warmup_steps)
        return np.unique(np.linspace(first, schedule.total_steps, PREDICTED_STEPS).round().astype(np.int64))
    at = np.atleast_1d(np.asarray(steps))
    if not at.size or at.dtype.kind not in "iu":
        raise InvalidInput(field="steps", reason="must be whole numbers, at least one")
    if at.min() < 1 or at.max() > schedule.total_steps:
        reason = f"must lie in 1..{schedule.total_steps}, the length of the schedule"
        raise InvalidInput(field="steps", reason=reason)
    return at.astype(np.int64)

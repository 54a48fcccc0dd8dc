"""A recommended quantity as resamples of its logarithm, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.advice.published import Prior
from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit


@dataclass(frozen=True)
class Basis:
    """A fit that a quantity rests on, and how many times beyond its data the target lies."""

    fit: Fit
    extrapolation_factor: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "law": self.fit.law_name,
            "verdict": self.fit.verdict,
            "extrapolation_factor": self.extrapolation_factor,
        }


@dataclass(frozen=True)
class Quantity:
    """A quantity above 0: `log_value`, `log_samples` (resamples,), its unit and basis.

    `regret_factor_two` is the share of the loss that being off by a factor of two costs, either way, None where the
    fits do not tell; `prior` the published law that entered, None where none did.
    """

    log_value: float
    log_samples: FloatArray
    unit: str
    basis: Sequence[Basis]
    regret_factor_two: float | None = None
    prior: Prior | None = None

    def interval(self, level: float) -> tuple[float, float] | None:
        """Return the interval of a level, None where no resamples were drawn."""
        return interval_of(self.log_samples, level)

    def as_dict(self, level: float) -> dict[str, Any]:
        ends = self.interval(level)
        return {
            "value": float(np.exp(self.log_value)),
            "unit": self.unit,
            "interval": None if ends is None else list(ends),
            "regret_factor_two": self.regret_factor_two,
            "basis": [one.as_dict() for one in self.basis],
            "prior": None if self.prior is None else self.prior.as_dict(level),
            "reason": None,
        }


def interval_of(log_samples: FloatArray | None, level: float) -> tuple[float, float] | None:
    """Return the ends between which the middle of resamples (resamples,) lies; None where there are none."""
    if log_samples is None or not log_samples.size:
        return None
    low, high = np.exp(np.quantile(log_samples, [(1 - level) / 2, (1 + level) / 2]))
    return float(low), float(high)


def is_of_mean(timescale: Quantity) -> bool:
    """Return whether a timescale is that of the mean learning rate, not of the peak as published."""
    return any(one.fit.law.convention == "effective" for one in timescale.basis)


def predicted(fit: Fit, config: Mapping[str, float], unit: str) -> Quantity:
    """Return what a fit predicts for a configuration; raises Unidentified where its data do not say."""
    asked = {"config": {name: config[name] for name in fit.law.columns}}  # type: ignore[attr-defined]
    centre, members = fit.log_members(asked)
    if not np.isfinite(centre[0]):
        raise Unidentified(reason=f"{fit.law_name} gives no value there")
    factors = fit.ask(asked).describe()
    beyond = max(factors[f"{name}_factor"] for name in asked["config"])
    regret = fit.diagnostics.get("regret_factor_two")
    return Quantity(float(centre[0]), members[:, 0], unit, (Basis(fit, float(beyond)),), regret)


def reason_of(error: InvalidInput | Unidentified) -> str:
    return str(error.fields.get("reason", error))

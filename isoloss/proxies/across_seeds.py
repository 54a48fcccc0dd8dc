"""How a number goes with the width, with an interval over seeds; no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput

FEWEST_SEEDS, FEWEST_WIDTHS = 2, 2


@dataclass(frozen=True)
class Spread:
    """A number with its interval over seeds."""

    value: float
    lower: float
    upper: float

    def words(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} ({self.lower:.{digits}f} to {self.upper:.{digits}f})"

    def lies_within(self, low: float, high: float) -> bool:
        return low <= self.lower and self.upper <= high

    def lies_beyond(self, low: float, high: float) -> bool:
        return self.lower > high or self.upper < low


def over_seeds(estimate: Callable[[FloatArray], float], values: FloatArray, level: float = 0.9) -> Spread:
    """Return an estimate from values (seeds, ...) of all seeds, with an interval from leaving each seed out.

    The jackknife, with Student's t for so few seeds: what one seed does to an estimate that averages over seeds
    before anything else is hardly curved. Raises InvalidInput for fewer than two seeds.
    """
    n_seeds = len(values)
    if n_seeds < FEWEST_SEEDS:
        raise InvalidInput(
            field="seeds", reason=f"must be at least {FEWEST_SEEDS}: their spread is the interval"
        )
    left_out = np.array([estimate(np.delete(values, seed, axis=0)) for seed in range(n_seeds)])
    error = np.sqrt((n_seeds - 1) / n_seeds * np.sum((left_out - left_out.mean()) ** 2))
    half = float(stats.t.ppf((1 + level) / 2, n_seeds - 1) * error)
    value = float(estimate(values))
    return Spread(value, value - half, value + half)


def power_of_width(widths: FloatArray, values: FloatArray, level: float = 0.9) -> Spread:
    """Return the power of the width by which positive values (seeds, widths) go: their slope on log-log axes.

    Raises InvalidInput for fewer than two widths.
    """
    if len(set(widths.tolist())) < FEWEST_WIDTHS:
        raise InvalidInput(field="widths", reason=f"must be at least {FEWEST_WIDTHS} different ones")
    across = np.log(widths) - np.log(widths).mean()

    def slope(some: FloatArray) -> float:
        return float(np.log(some).mean(axis=0) @ across / (across @ across))

    return over_seeds(slope, values, level)

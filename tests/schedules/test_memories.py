"""The memory of logged schedules against its recurrence, knot by knot."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.schedules.pieces import Polyline, powers_sum

LAMBDAS = np.array([[0.5], [0.9], [0.98], [0.999], [0.99999]])


@pytest.mark.parametrize("longest", [1, 30, 2_000, 10**7])
def test_the_memory_of_a_log_is_that_of_its_recurrence(longest: int) -> None:
    """Short and long spans, fast and slow memories in one batch, steps asked in any order."""
    rng = np.random.default_rng(longest)
    knots = np.append(0, np.cumsum(rng.integers(1, longest + 1, 5_000)))
    line = Polyline(knots, rng.uniform(0, 1e-3, knots.size))
    asked = rng.permutation(knots.size)
    value, slope = line.memory(knots[asked], LAMBDAS)
    expected, expected_slope = by_recurrence(line, LAMBDAS)
    for one, other in ((value, expected), (slope, expected_slope)):
        scale = np.abs(other).max(axis=1, keepdims=True)
        assert (np.abs(one - other[:, asked]) <= 1e-12 * scale).all()


def by_recurrence(line: Polyline, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (kept, kept_slope), (fresh, fresh_slope) = powers_sum(lam, np.diff(line.offsets))
    drops = -np.diff(line.values) / np.diff(line.offsets)
    value, slope = np.zeros((2, len(lam), line.offsets.size))
    for j, drop in enumerate(drops):
        value[:, j + 1] = kept[:, j] * value[:, j] + drop * fresh[:, j]
        slope[:, j + 1] = kept_slope[:, j] * value[:, j] + kept[:, j] * slope[:, j] + drop * fresh_slope[:, j]
    return value, slope

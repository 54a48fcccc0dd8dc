"""How the gain of a learning-rate drop sets in, and sums over all drops before each point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isoloss.arrays import FloatArray, namespace

IntArray = npt.NDArray[np.int64]


def gain(x: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return G(x) = 1 - (1 + x/b)^-b, for x >= 0, with its derivatives by x and by b (laws.md 1.2, 1.4, 1.5)."""
    xp = namespace(x)
    share = x / b
    log = xp.log1p(share)
    left = xp.exp(-b * log)
    slope = left / (1 + share)
    return 1 - left, slope, left * log - slope * share


def sum_runs_of(values: FloatArray, starts: IntArray) -> FloatArray:
    """Return the sums of consecutive stretches of the last axis: (members, terms) -> (members, stretches).

    Stretch k begins at starts[k] and ends before starts[k + 1]; none is empty.
    """
    xp = namespace(values)
    if xp is namespace(np.empty(0)):
        return np.add.reduceat(values, starts, axis=-1)
    edges = xp.cumulative_sum(values, axis=-1)[..., [*(starts[1:] - 1), -1]]
    return xp.diff(edges, axis=-1, prepend=xp.zeros_like(edges[..., :1]))

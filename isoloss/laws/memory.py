"""Sums over all drops of learning rate before each point."""

from __future__ import annotations

import numpy as np

from isoloss.arrays import FloatArray, IntArray, namespace


def sum_runs_of(values: FloatArray, starts: IntArray) -> FloatArray:
    """Return the sums of consecutive stretches of the last axis: (members, terms) -> (members, stretches).

    Stretch k begins at starts[k] and ends before starts[k + 1], the first at 0; none is empty.
    """
    if isinstance(values, np.ndarray):
        return np.add.reduceat(values, starts, axis=-1)
    xp = namespace(values)
    sums = xp.cumulative_sum(values, axis=-1)[..., xp.concat([starts[1:] - 1, starts[:1] - 1])]
    return xp.diff(sums, axis=-1, prepend=xp.zeros_like(sums[..., :1]))

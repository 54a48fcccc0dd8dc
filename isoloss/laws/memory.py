"""Sums over all drops of learning rate before each point."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

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


def weighted_sums(values: FloatArray, weights: FloatArray, column: IntArray, ends: IntArray) -> FloatArray:
    """Return sums over stretches of pairs of a value and the weights of its column: (members, stretches, k).

    `values` (members, pairs), `weights` (members, columns, k), `column` (pairs,); stretch j lies from ends[j] to
    ends[j + 1], none is empty.
    """
    xp = namespace(values)
    if isinstance(values, np.ndarray):
        shape = (len(ends) - 1, weights.shape[1])
        products = (
            csr_array((own, column, ends), shape) @ weight
            for own, weight in zip(values, weights, strict=True)
        )
        return np.stack(list(products))
    terms = (values * xp.take(weights[..., k], column, axis=-1) for k in range(weights.shape[2]))
    return xp.stack([sum_runs_of(term, ends[:-1]) for term in terms], axis=-1)

"""Quantiles and tails of the usual distributions: SciPy's own functions, without its package of all distributions.

`scipy.stats` gives the same numbers and takes longer to import than the rest that a fit needs: every start of a
worker, and of the process that it fits in, would wait for it.
"""

from __future__ import annotations

from typing import Any

from scipy import special

from isoloss.arrays import FloatArray

Share = float | FloatArray
"""A probability strictly between 0 and 1."""


def normal_quantile(share: Share) -> Any:
    """Return what a standard normal variable stays below with this probability."""
    return special.ndtri(share)


def students_quantile(share: Share, freedom: float) -> Any:
    """Return the same of Student's t of so many degrees of freedom."""
    return special.stdtrit(freedom, share)


def chi_squared_quantile(share: Share, freedom: float) -> Any:
    """Return the same of a sum of so many squares."""
    return 2 * special.gammaincinv(freedom / 2, share)


def chi_squared_tail(value: float, freedom: float) -> Any:
    """Return the probability that a sum of so many squares lies above a value."""
    return special.chdtrc(freedom, value)


def f_quantile(share: Share, above: float, below: float) -> Any:
    """Return the same of a ratio of mean squares of so many degrees of freedom each."""
    return special.fdtri(above, below, share)


def f_tail(value: float, above: float, below: float) -> Any:
    """Return the probability that a ratio of mean squares lies above a value."""
    return special.fdtrc(above, below, value)

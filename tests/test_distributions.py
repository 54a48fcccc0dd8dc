"""Quantiles and tails against the package that is not imported for them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from isoloss import distributions

SHARES = np.concatenate([[1e-9, 1e-6], np.linspace(1e-3, 1 - 1e-3, 999)])
VALUES = np.concatenate([[0.0], np.geomspace(1e-3, 100, 50)])


@pytest.mark.parametrize("freedom", [0.5, 1, 3, 29.5, 1e4])
def test_quantiles_and_tails_are_those_of_scipys_distributions_to_the_last_bit(freedom: float) -> None:
    """One and the same function stands behind both."""
    pairs: list[tuple[Any, Any]] = [
        (distributions.normal_quantile(SHARES), stats.norm.ppf(SHARES)),
        (distributions.students_quantile(SHARES, freedom), stats.t.ppf(SHARES, freedom)),
        (distributions.chi_squared_quantile(SHARES, freedom), stats.chi2.ppf(SHARES, freedom)),
        (distributions.chi_squared_tail(VALUES, freedom), stats.chi2.sf(VALUES, freedom)),
    ]
    for below in (1, 5.5, 300):
        pairs.append((distributions.f_quantile(SHARES, freedom, below), stats.f.ppf(SHARES, freedom, below)))
        pairs.append((distributions.f_tail(VALUES, freedom, below), stats.f.sf(VALUES, freedom, below)))
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


def test_a_process_that_fits_waits_for_no_package_that_a_fit_does_without() -> None:
    """A worker starts one for its fits: what takes long to import comes in where it is asked for."""
    program = (
        "import sys, isoloss.fitting, isoloss.advice\n"
        "slow = {'scipy.stats', 'lmfit', 'plotly', 'torch', 'httpx', 'typer'}\n"
        "print(*sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

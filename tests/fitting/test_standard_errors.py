"""Standard errors where the mathematics is known exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from isoloss.fitting.standard_errors import standard_errors


def test_ill_conditioned_lines_keep_their_digits() -> None:
    """A line through points far from zero: the exact rational answer to ten digits, where J'J loses them all."""
    x = [10_000_000 + k for k in range(12)]
    n, total, squares = 12, sum(x), sum(value * value for value in x)
    determinant = Fraction(n * squares - total * total)
    variance = Fraction(3, n - 2)
    exact = [float(variance * squares / determinant) ** 0.5, float(variance * n / determinant) ** 0.5]
    jacobian = np.stack([np.ones(n), np.array(x, dtype=float)], axis=1)
    np.testing.assert_allclose(standard_errors(jacobian, 3.0), exact, rtol=1e-8)


@pytest.mark.parametrize("unit", [1e-150, 1e150])
def test_units_of_a_parameter_change_its_error_alone(unit: float) -> None:
    """A parameter in another unit has its error in that unit, and the others keep theirs."""
    jacobian = np.random.default_rng(0).standard_normal((20, 3))
    scaled = standard_errors(jacobian * [1.0, unit, 1.0], 2.0)
    np.testing.assert_allclose(scaled * [1.0, unit, 1.0], standard_errors(jacobian, 2.0), rtol=1e-12)


def test_what_the_data_do_not_tell_has_no_finite_error() -> None:
    """A parameter without effect, two with one effect, and too few points: infinite, the rest is not."""
    random = np.random.default_rng(1)
    known, shared = random.standard_normal((2, 20))
    jacobian = np.stack([known, np.zeros(20), shared, shared], axis=1)
    errors = standard_errors(jacobian, 1.0)
    assert np.isfinite(errors).tolist() == [True, False, False, False]
    assert errors[0] == pytest.approx((1 / 16) ** 0.5 * np.sqrt(np.linalg.inv(_gram(known, shared))[0, 0]))
    assert np.isinf(standard_errors(np.ones((2, 2)), 1.0)).all()


def _gram(*columns: np.ndarray) -> np.ndarray:
    matrix = np.stack(columns, axis=1)
    return matrix.T @ matrix

"""Standard errors of a nonlinear least-squares estimate."""

from __future__ import annotations

import numpy as np

from isoloss.arrays import BoolArray, FloatArray


def standard_errors(jacobian: FloatArray, residual_sum_of_squares: float) -> FloatArray:
    """Return the standard error of every parameter, (parameters,), in the parameter's unit.

    sqrt(diag(s^2 (J'J)^-1)) with s^2 = RSS / (n - p), for the Jacobian (points, parameters) of the residuals at
    the estimate. J'J is never formed, which would square the condition number: the columns are scaled to length
    1 and decomposed by singular values. Infinite where the data say nothing: a column of zeros, a direction
    without effect at working precision, or no more points than parameters.
    Source: Seber and Wild 1989, 'Nonlinear Regression', section 2.1.2.
    """
    n_points, n_parameters = jacobian.shape
    if n_points <= n_parameters:
        return np.full(n_parameters, np.inf)
    length = np.linalg.norm(jacobian, axis=0)
    known = length > 0
    errors = np.full(n_parameters, np.inf)
    if known.any():
        variance = residual_sum_of_squares / (n_points - n_parameters)
        errors[known] = np.sqrt(variance) * _unit_errors(jacobian[:, known] / length[known]) / length[known]
    return errors


def _unit_errors(scaled: FloatArray) -> FloatArray:
    """Return the square roots of the diagonal of (A'A)^-1 for A (points, columns) with columns of length 1."""
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    lost = _lost(scaled, singular)
    shares = np.abs(directions) / np.where(lost, 1.0, singular)[:, None]
    # A lost direction leaves alone the parameters that it does not contain.
    contained = lost[:, None] & (np.abs(directions) > np.sqrt(np.finfo(np.float64).eps))
    return np.asarray(np.where(contained.any(axis=0), np.inf, np.sqrt(np.sum(shares**2, axis=0))))


def inverse_square(rows: FloatArray) -> FloatArray:
    """Return (A'A)^-1 for A (rows, columns), (columns, columns), without the directions that A does not show.

    By the same decomposition as `standard_errors`: columns of any scale keep their digits.
    """
    if not rows.shape[1]:
        return np.zeros((0, 0))
    length = np.linalg.norm(rows, axis=0)
    length = np.where(length > 0, length, 1.0)
    scaled = rows / length
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    shares = directions[~_lost(scaled, singular)] / singular[~_lost(scaled, singular), None] / length
    return np.asarray(shares.T @ shares)


def _lost(scaled: FloatArray, singular: FloatArray) -> BoolArray:
    return np.asarray(singular <= singular[0] * max(scaled.shape) * np.finfo(np.float64).eps)

"""How far an estimate strays by the noise of its data and by the uncertainty of its priors, near the optimum.

The covariance of an M-estimator (Huber and Ronchetti 2009, 'Robust Statistics', 6.3 and 7.6), to which priors add
that their centres are a guess: the objective draws an estimate to them by so much, whatever the noise is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.curvature import mean_curvature
from isoloss.fitting.resampling import correlation_time
from isoloss.fitting.standard_errors import inverse_square
from isoloss.fitting.task import Task


@dataclass(frozen=True)
class Variances:
    """Variances in the solver's coordinates, (parameters,) each; 0 for parameters that the fit does not move.

    `by_noise` and `by_prior` are covariances (parameters, parameters): by the noise of the data, and by the priors'
    centres. `usual` is what the curvature of the objective gives for points of variance `scale`: equal to `noise`
    without priors. `apart` is that of the distance between the estimate and the centres, if truths were drawn from
    the priors. `n_known` is how many parameters the data determine, each counted as far as no prior does.
    """

    scale: float
    n_known: float
    by_noise: FloatArray
    by_prior: FloatArray
    usual: FloatArray
    apart: FloatArray

    @property
    def parts(self) -> tuple[FloatArray, FloatArray] | None:
        """Return both covariances where priors have a part in them."""
        finite = np.all(np.isfinite(self.by_noise)) and np.all(np.isfinite(self.by_prior))
        return (self.by_noise, self.by_prior) if finite and np.any(self.prior > 0) else None

    @property
    def noise(self) -> FloatArray:
        return np.diag(self.by_noise)

    @property
    def prior(self) -> FloatArray:
        return np.diag(self.by_prior)

    @property
    def total(self) -> FloatArray:
        return self.noise + self.prior

    @property
    def prior_share(self) -> FloatArray:
        """Return which share of each parameter's variance is the priors', (parameters,); 0 where it has none."""
        return np.where(self.total > 0, self.prior / np.where(self.total > 0, self.total, 1.0), 0.0)


def variances(task: Task, theta: FloatArray, residuals: FloatArray) -> Variances:
    """Return the variances at the optimum theta (parameters,) with its residuals (points,)."""
    moves = task.directions(theta)
    inside = mean_curvature(residuals, task.problem.delta, task.n_varied)
    rows = np.sqrt(inside) * task.problem.relative_jacobian(theta[None])[0] @ moves
    rows = np.where(np.isfinite(rows), rows, 0.0)  # where the law has no value, points show nothing
    drawn = np.sqrt(task.problem.prior[1])[:, None] * moves
    inverse = inverse_square(np.concatenate([rows, drawn]))
    known, precision = rows.T @ rows, drawn.T @ drawn
    scale, weight = _variance_of_points(task, residuals, inside), task.problem.priors.strength**2
    noise, kept = scale * inverse @ known @ inverse, inverse @ known
    truths = weight * inverse_square(drawn)
    found = (
        noise,
        weight * inverse @ precision @ inverse,
        scale * inverse,
        kept @ truths @ kept.T + noise,
    )
    by_noise, by_prior, usual, apart = (moves @ one @ moves.T for one in found)
    n_known = float(np.trace(kept))
    n_known = n_known if np.isfinite(n_known) else float(task.n_varied)
    return Variances(scale, n_known, by_noise, by_prior, np.diag(usual), np.diag(apart))


def distance_from_priors(task: Task, theta: FloatArray, found: Variances) -> FloatArray:
    """Return how far parameters lie from their priors' centres, over what is usual: (parameters,), or 0."""
    centre, precision = task.problem.prior
    away = np.abs(task.problem.coordinates(theta[None])[0] - centre)
    told = (precision > 0) & (found.apart > 0)
    return np.where(told, away / np.sqrt(np.where(told, found.apart, 1.0)), 0.0)


def _variance_of_points(task: Task, residuals: FloatArray, inside: float) -> float:
    """Return the variance of a point's score, times its correlation with its neighbours, over the curvature."""
    push = np.clip(residuals, -task.problem.delta, task.problem.delta)
    left = max(1, residuals.size - task.n_varied)
    times = [correlation_time(residuals[run]) for run in task.data.slices if run.stop - run.start > 1]
    together = float(np.mean(times)) if times else 1.0
    return float(np.sum(push**2) / left) * together / inside

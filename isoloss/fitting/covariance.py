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
from isoloss.fitting.task import Task


@dataclass(frozen=True)
class Covariance:
    """Variances in the solver's coordinates, (parameters,) each; NaN for parameters that the fit does not move.

    `noise` is by the noise of the data and `prior` by the priors' centres. `usual` is what the curvature of the
    objective gives for points of variance `scale`: equal to `noise` without priors. `apart` is that of the
    distance between the estimate and the centres, if truths were drawn from the priors.
    """

    scale: float
    noise: FloatArray
    prior: FloatArray
    usual: FloatArray
    apart: FloatArray

    @property
    def total(self) -> FloatArray:
        return self.noise + self.prior

    @property
    def prior_share(self) -> FloatArray:
        """Return which share of each parameter's variance is the priors', (parameters,); 0 where it has none."""
        return np.where(self.total > 0, self.prior / np.where(self.total > 0, self.total, 1.0), 0.0)


def covariance(task: Task, theta: FloatArray, residuals: FloatArray) -> Covariance:
    """Return the variances at the optimum theta (parameters,) with its residuals (points,)."""
    free = task.varied
    jacobian = task.problem.relative_jacobian(theta[None])[0][:, free]
    known = jacobian.T @ jacobian * mean_curvature(residuals, task.problem.delta, task.n_varied)
    precision = task.problem.prior[1][free]
    inverse = np.linalg.pinv(known + np.diag(precision), hermitian=True)
    scale = _variance_of_points(task, residuals)
    weight = task.problem.priors.strength**2
    prior = np.where(precision > 0, weight / np.where(precision > 0, precision, 1.0), 0.0)
    noise, kept = scale * inverse @ known @ inverse, inverse @ known
    found = (noise, weight * inverse * precision @ inverse, scale * inverse, kept * prior @ kept.T + noise)
    columns = np.full((len(found), theta.size), np.nan)
    columns[:, free] = [np.diag(one) for one in found]
    return Covariance(scale, *columns)


def distance_from_priors(task: Task, theta: FloatArray, spread: Covariance) -> FloatArray:
    """Return how far parameters lie from their priors' centres, over what is usual: (parameters,), or 0."""
    centre, precision = task.problem.prior
    away = np.abs(task.problem.coordinates(theta[None])[0] - centre)
    told = (precision > 0) & (spread.apart > 0)
    return np.where(told, away / np.sqrt(np.where(told, spread.apart, 1.0)), 0.0)


def _variance_of_points(task: Task, residuals: FloatArray) -> float:
    """Return the variance of a point's score, times its correlation with its neighbours, over the curvature."""
    push = np.clip(residuals, -task.problem.delta, task.problem.delta)
    left = max(1, residuals.size - task.n_varied)
    times = [correlation_time(residuals[run]) for run in task.data.slices if run.stop - run.start > 1]
    together = float(np.mean(times)) if times else 1.0
    inside = mean_curvature(residuals, task.problem.delta, task.n_varied)
    return float(np.sum(push**2) / left) * together / inside

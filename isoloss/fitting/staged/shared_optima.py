"""The best setting of every sweep, under parabolas of one curvature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.options import FitOptions
from isoloss.fitting.sweeps.cells import SOFTNESS
from isoloss.fitting.sweeps.surface import FLATTEST
from isoloss.observations import RunTable


@dataclass(frozen=True)
class Optima:
    """Where every sweep has its least loss: `log_lr` (members, sweeps), the first as the runs are, others drawn.

    `error` (sweeps,) are standard errors by the noise of runs, `unit_error` those of noise 1; `noise` is the
    standard deviation of log loss about the parabolas, known from `spare` deviations, `n_fitted` their parameters.
    """

    log_lr: FloatArray
    unit_error: FloatArray
    noise: float
    curvature: float
    spare: float
    n_fitted: int

    @property
    def error(self) -> FloatArray:
        return self.noise * self.unit_error

    def only(self, sweeps: IntArray) -> Optima:
        return replace(self, log_lr=self.log_lr[:, sweeps], unit_error=self.unit_error[sweeps])


@dataclass(frozen=True)
class _Sums:
    """Of every sweep, with its weights: settings and their squares about their means, and losses along them."""

    weights: FloatArray
    mean: FloatArray
    away: FloatArray
    square: FloatArray
    along: FloatArray


def shared_optima(table: RunTable, cells: Sequence[Sequence[int]], asked: FitOptions) -> Optima:
    """Return the optima of sweeps `cells` (rows each) of the learning rate, NaN where there is no minimum.

    Log loss is offset + slope x + curvature x^2, x the log learning rate, with one curvature for all sweeps; runs
    count exp(-relative excess loss / .005), the weights fixed beforehand (laws.md 5). Draws have the noise of the
    runs added to every one of them, and their own weights.
    """
    x = [np.log(table.column("peak_lr")[list(rows)]) for rows in cells]
    y = [np.log(table.outcome[list(rows)])[None] for rows in cells]
    at, curvature = _solved(x, y)
    count = 2 * len(cells) + 1
    noise, spare = _noise(x, y)
    draws = _drawn(y, noise, asked)
    log_lr = at if draws is None else np.concatenate([at, _solved(x, draws)[0]])
    unit_error = np.array([_unit_error(*one, float(curvature[0])) for one in zip(x, y, strict=True)])
    return Optima(log_lr, unit_error, noise, float(curvature[0]), spare, count)


def _drawn(y: Sequence[FloatArray], noise: float, asked: FitOptions) -> list[FloatArray] | None:
    """Return log losses (resamples, runs) of every sweep with as much noise again, None for no resamples."""
    if not asked.bootstrap:
        return None
    n_runs = sum(one.shape[1] for one in y)
    drawn = np.stack(
        [np.random.default_rng([asked.seed, 5, k]).standard_normal(n_runs) for k in range(asked.bootstrap)]
    )
    parts = np.split(drawn, np.cumsum([one.shape[1] for one in y])[:-1], axis=1)
    return [one + noise * part for one, part in zip(y, parts, strict=True)]


def _weights(y: FloatArray) -> FloatArray:
    """Return how much each run of a sweep counts, (members, runs)."""
    return np.exp(-np.expm1(y - y.min(axis=1, keepdims=True)) / SOFTNESS)


def _sums(x: FloatArray, y: FloatArray) -> _Sums:
    w = _weights(y)
    total = w.sum(axis=1, keepdims=True)
    mean = (w @ x)[:, None] / total
    away = x - mean
    square = away**2 - (w * away**2).sum(axis=1, keepdims=True) / total
    # What of the squares a slope does not make: only this tells of the curvature.
    tilt = (w * away * square).sum(axis=1, keepdims=True) / (w * away**2).sum(axis=1, keepdims=True)
    return _Sums(w, mean, away, square, square - tilt * away)


def _solved(x: Sequence[FloatArray], y: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the optima (members, sweeps) and the curvature (members,), NaN where the loss has no minimum."""
    sums = [_sums(*one) for one in zip(x, y, strict=True)]
    top = sum((s.weights * s.along * one).sum(axis=1) for s, one in zip(sums, y, strict=True))
    bottom = sum((s.weights * s.along**2).sum(axis=1) for s in sums)
    curvature = top / np.where(bottom > 0, bottom, np.nan)
    curvature = np.where(curvature > FLATTEST, curvature, np.nan)
    optima = []
    for s, one in zip(sums, y, strict=True):
        rest = one - curvature[:, None] * s.away**2
        slope = (s.weights * s.away * rest).sum(axis=1) / (s.weights * s.away**2).sum(axis=1)
        optima.append(s.mean[:, 0] - slope / (2 * curvature))
    return np.stack(optima, axis=1), curvature


def _unit_error(x: FloatArray, y: FloatArray, curvature: float) -> float:
    """Return the standard error of a sweep's optimum for noise 1 in log loss and a known curvature."""
    s = _sums(x, y)
    w, away = s.weights[0], s.away[0]
    return float(np.sqrt(np.sum((w * away) ** 2)) / np.sum(w * away**2) / (2 * curvature))


def _noise(x: Sequence[FloatArray], y: Sequence[FloatArray]) -> tuple[float, float]:
    """Return the standard deviation of log loss about the parabolas, and from how many deviations it is known.

    With weights W and the hat matrix H, residuals r have an expected r'Wr of noise^2 tr(W (I - H)).
    """
    design = np.zeros((sum(one.size for one in x), 2 * len(x) + 1))
    begin = 0
    for number, one in enumerate(x):
        rows = slice(begin, begin + one.size)
        away = one - one.mean()
        design[rows, 2 * number], design[rows, 2 * number + 1], design[rows, -1] = 1.0, away, away**2
        begin += one.size
    w = np.concatenate([_weights(one)[0] for one in y])
    observed = np.concatenate([one[0] for one in y])
    root = np.sqrt(w)
    basis = np.linalg.qr(design * root[:, None])[0]
    left = observed * root - basis @ (basis.T @ (observed * root))
    spare = float(w.sum() - np.sum((basis**2).sum(axis=1) * w))
    return float(np.sqrt(left @ left / max(spare, 1.0))), max(spare, 1.0)

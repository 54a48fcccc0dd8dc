"""One curve of reward over compute: its nearest sigmoid, what noise does to it, how far its asymptote may go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.distributions import students_quantile
from isoloss.fitting.intervals import students_factor
from isoloss.laws.power_laws import LogColumns, log_columns
from isoloss.laws.rl_compute import C_MID, R0, A, B, RLCompute

LAW = RLCompute()

FARTHEST = 1e3
"""How many times beyond its readings a curve's middle may lie."""

STARTS, AT_ONCE = 400, 500
"""Points of the grid that a search begins at, at least, and members that are looked up in it at once."""

ROUNDS, SETTLED = 120, 1e-13
"""Steps of a search at most; it ends where all that are left gain less than this share."""

MOST_READINGS = 400
"""Of longer curves, so many means of neighbours are fitted."""

FEWEST_FOR_MEMORY, LONGEST_MEMORY = 15, 0.9
"""Readings beyond the parameters that tell whether neighbours err alike, and how much alike they may be."""

PROFILED = 60
"""Asymptotes at which the others are fitted again."""


@dataclass(frozen=True)
class Readings:
    """A curve's rewards (n,) over its compute (n,), above 0 and rising, and those of no compute (k,)."""

    compute: FloatArray
    reward: FloatArray
    start: FloatArray

    @property
    def features(self) -> LogColumns:
        return log_columns(self.compute)

    @property
    def n_fitted(self) -> int:
        """How many parameters are fitted to them: R0 only where it was not measured."""
        return 3 if self.start.size else 4

    def until(self, compute: float) -> Readings:
        """Return the readings up to a compute."""
        early = self.compute <= compute
        return replace(self, compute=self.compute[early], reward=self.reward[early])

    def without(self, row: int) -> Readings:
        """Return all readings but one of those above no compute."""
        return replace(self, compute=np.delete(self.compute, row), reward=np.delete(self.reward, row))

    def thinned(self) -> Readings:
        """Return means of neighbours where there are very many."""
        if self.compute.size <= MOST_READINGS:
            return self
        parts = np.array_split(np.arange(self.compute.size), MOST_READINGS)
        compute, reward = (
            np.array([one[part].mean() for part in parts]) for one in (self.compute, self.reward)
        )
        return replace(self, compute=compute, reward=reward)


@dataclass(frozen=True)
class Sigmoid:
    """The sigmoid nearest to some readings: `theta` (4,), `residuals` (n,), `noise` their standard deviation.

    `memory` is the correlation of neighbouring errors, `left` how many independent readings there are beyond the
    parameters that were fitted.
    """

    theta: FloatArray
    residuals: FloatArray
    noise: float
    memory: float
    left: float

    @property
    def alike(self) -> float:
        """Return how many neighbouring readings say as much as one independent one."""
        return _alike(self.memory)

    def widening(self, level: float) -> float:
        """Return by how much Student's quantile exceeds the normal one: the noise is known from so few."""
        return students_factor(max(1, self.left), level)


def nearest(readings: Readings) -> Sigmoid:
    """Return the sigmoid of least squared errors in reward; there must be more readings than parameters."""
    theta = _fitted(readings, readings.reward[None], _starts_of(readings, np.zeros(1)))[0]
    told = LAW.predict(theta[None], readings.features)[0]
    off = readings.reward - told
    memory = _memory(off, off.size - readings.n_fitted)
    fitted = readings.n_fitted * _alike(memory)
    noise = float(np.sqrt(np.sum(off**2) / max(1.0, off.size - fitted)))
    return Sigmoid(theta, off, noise, memory, max(1.0, off.size / _alike(memory) - readings.n_fitted))


def _memory(off: FloatArray, left: int) -> float:
    """Return the correlation of neighbouring residuals (n,), 0 where chance explains it or they are few.

    Residuals of n points are less alike than errors, by about (1 + 4 r) / n (Marriott and Pope 1954).
    """
    if left < FEWEST_FOR_MEMORY or not np.any(off):
        return 0.0
    seen = float(off[1:] @ off[:-1] / (off @ off))
    return 0.0 if seen < 2 / np.sqrt(off.size) else min(LONGEST_MEMORY, seen + (1 + 4 * seen) / off.size)


def _alike(memory: float) -> float:
    return (1 + memory) / (1 - memory)


def resamples(readings: Readings, found: Sigmoid, count: int, seed: int) -> FloatArray:
    """Return the sigmoids (count, 4) nearest to the found one with its noise drawn anew, R0's reading too.

    Noise is normal, an autoregression where neighbours err alike (the parametric bootstrap: Efron and Tibshirani
    1993, 'An Introduction to the Bootstrap', section 6.5).
    """
    if not count:
        return np.empty((0, 4))
    n = readings.reward.size
    drawn = found.noise * np.stack(
        [np.random.default_rng([seed, number, 31]).standard_normal(n + 1) for number in range(count)]
    )
    errors = drawn[:, :n]
    for place in range(1, n if found.memory else 0):
        errors[:, place] *= np.sqrt(1 - found.memory**2)
        errors[:, place] += found.memory * errors[:, place - 1]
    rewards = LAW.predict(found.theta[None], readings.features) + errors
    return _fitted(readings, rewards, _starts_of(readings, drawn[:, n]))


def asymptote_ends(readings: Readings, found: Sigmoid, level: float) -> tuple[float | None, float | None]:
    """Return the interval of A by the profile likelihood, None for a side on which it reaches A's bound.

    The sum of squares that another A costs at least is compared with t^2 noise^2 (Bates and Watts 1988, section
    6.1).
    """
    allowed = students_quantile((1 + level) / 2, max(1, found.left)) ** 2 * found.noise**2 * found.alike
    least, best = found.theta[R0], found.theta[A]
    below = _end(readings, found, np.linspace(best, least, PROFILED), allowed)
    return below, _end(readings, found, np.linspace(best, 1.0, PROFILED), allowed)


def _end(readings: Readings, found: Sigmoid, asked: FloatArray, allowed: float) -> float | None:
    """Return where, on the way from the best A to its bound, the sum of squares has risen by what is allowed."""
    if asked[0] == asked[-1]:
        return None
    rewards = np.repeat(readings.reward[None], asked.size, axis=0)
    starts = _starts_of(readings, np.zeros(asked.size))
    theta = _fitted(readings, rewards, starts, held_at=asked)
    squares = np.sum((LAW.predict(theta, readings.features) - rewards) ** 2, axis=1)
    rise = np.maximum.accumulate(squares - np.sum(found.residuals**2))
    beyond = np.flatnonzero(rise > allowed)
    if not beyond.size or beyond[0] == 0:
        return None if not beyond.size else float(asked[0])
    last = int(beyond[0])
    share = (allowed - rise[last - 1]) / (rise[last] - rise[last - 1])
    return float(asked[last - 1] + share * (asked[last] - asked[last - 1]))


def _starts_of(readings: Readings, off: FloatArray) -> FloatArray:
    """Return R0 (members,) as measured with such errors of one reading; NaN where it is fitted."""
    if not readings.start.size:
        return np.full(off.size, np.nan)
    measured = readings.start.mean() + off / np.sqrt(readings.start.size)
    return np.clip(measured, 0.0, 1 - 1e-9)


def _fitted(
    readings: Readings, rewards: FloatArray, starts: FloatArray, held_at: FloatArray | None = None
) -> FloatArray:
    """Return the sigmoids (members, 4) nearest to rewards (members, n); `held_at` (members,) holds A there."""
    features = readings.features
    low, high = _limits(features, rewards, starts, held_at)
    begin = _from_grid(features, rewards, low, high)
    theta = _descended(_model(features), begin, rewards, low, high)
    return np.concatenate([theta[:, :C_MID], np.exp(theta[:, C_MID:])], axis=1)


def _limits(
    features: LogColumns, rewards: FloatArray, starts: FloatArray, held_at: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Return the bounds (members, 4) of R0, A, ln C_mid, ln B; R0 and A part at the mean where both are fitted."""
    logs, far = features.logs[0], np.log(FARTHEST)
    mean = np.clip(rewards.mean(axis=1), 0.0, 1.0)
    known, ones = np.isfinite(starts), np.ones(len(rewards))
    steep = [np.log(LAW.parameters[B].lower), np.log(LAW.parameters[B].upper)]
    least = np.where(known, starts, mean) if held_at is None else held_at
    most = ones if held_at is None else held_at
    split = mean if held_at is None else np.minimum(mean, held_at)
    low = [np.where(known, starts, 0.0), least, (logs.min() - far) * ones, steep[0] * ones]
    high = [np.where(known, starts, split), most, (logs.max() + far) * ones, steep[1] * ones]
    return np.stack(low, axis=1), np.stack(high, axis=1)


def _from_grid(features: LogColumns, rewards: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the best points (members, 4) of a grid of middles and steepnesses, R0 and A by least squares."""
    theta = LAW.grid(features, STARTS)
    theta[:, A] = 1.0
    shares = LAW.predict(theta, features)
    parts = np.array_split(np.arange(len(rewards)), -(-len(rewards) // AT_ONCE))
    found = [_best_of_grid(shares, rewards[part], low[part], high[part]) for part in parts]
    best, ends = np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])
    return np.concatenate([ends, np.log(theta[best][:, C_MID:])], axis=1)


def _best_of_grid(
    shares: FloatArray, rewards: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return which of the shares (grid, n) is best for each of rewards (members, n), and R0 and A (members, 2)."""
    usual, mean = rewards.mean(axis=1, keepdims=True), shares.mean(axis=1)
    away = shares - mean[:, None]
    slope = rewards @ away.T / np.maximum(np.sum(away**2, axis=1), 1e-30)
    start = np.clip(usual - slope * mean, low[:, R0, None], high[:, R0, None])
    total, square = shares.sum(axis=1), np.maximum(np.sum(shares**2, axis=1), 1e-30)
    along = rewards @ shares.T
    end = np.clip(start + (along - start * total) / square, low[:, A, None], high[:, A, None])
    gain, n = end - start, rewards.shape[1]
    squares = n * start * (start - 2 * usual) + gain * (gain * square + 2 * start * total - 2 * along)
    best = np.argmin(squares, axis=1)
    rows = np.arange(len(rewards))
    return best, np.stack([start[rows, best], end[rows, best]], axis=1)


Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Coordinates (members, 4) -> rewards (members, n) and their derivatives (members, n, 4)."""


def _model(features: LogColumns) -> Model:
    """Return the law over R0, A, ln C_mid and ln B."""

    def model(at: FloatArray) -> tuple[FloatArray, FloatArray]:
        theta = np.concatenate([at[:, :C_MID], np.exp(at[:, C_MID:])], axis=1)
        told, slopes = LAW.jacobian(theta, features)
        stretched = np.where(np.arange(4) >= C_MID, theta, 1.0)
        return told, slopes * stretched[:, None, :]

    return model


def _descended(
    model: Model, at: FloatArray, rewards: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Return where Levenberg and Marquardt's steps end from `at` (members, 4), each member with its own rewards.

    `solver.solve` knows one set of observations for all members; here each has its own, and bounds too.
    """
    at, damping = np.clip(at, low, high), np.full(len(at), 1e-3)
    told, slopes = model(at)
    squares = np.sum((told - rewards) ** 2, axis=1)
    for _ in range(ROUNDS):
        step = _step(told - rewards, slopes, _blocked(told - rewards, slopes, at, low, high), damping)
        tried = np.clip(at + step, low, high)
        new_told, new_slopes = model(tried)
        new_squares = np.sum((new_told - rewards) ** 2, axis=1)
        better = new_squares < squares
        if np.all((squares - new_squares <= SETTLED * squares) & (better | (damping > 1e8))):
            return np.where(better[:, None], tried, at)
        at, told = np.where(better[:, None], tried, at), np.where(better[:, None], new_told, told)
        slopes = np.where(better[:, None, None], new_slopes, slopes)
        squares = np.where(better, new_squares, squares)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e12)
    return at


def _blocked(
    off: FloatArray, slopes: FloatArray, at: FloatArray, low: FloatArray, high: FloatArray
) -> BoolArray:
    """Return which coordinates (members, 4) are held, or at a bound that the descent leads out of."""
    gradient = np.einsum("mn,mnp->mp", off, slopes)
    return (low == high) | ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))


def _step(off: FloatArray, slopes: FloatArray, blocked: BoolArray, damping: FloatArray) -> FloatArray:
    slopes = np.where(blocked[:, None, :], 0.0, slopes)
    gradient = np.einsum("mn,mnp->mp", off, slopes)
    curvature = np.einsum("mnp,mnq->mpq", slopes, slopes)
    diagonal = np.einsum("mpp->mp", curvature)
    ridge = damping[:, None] * diagonal + 1e-14 * diagonal.max(axis=1, keepdims=True) + blocked + 1e-300
    return np.linalg.solve(curvature + ridge[:, :, None] * np.eye(4), -gradient[:, :, None])[:, :, 0]

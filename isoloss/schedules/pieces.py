"""Shapes of learning rate over consecutive steps, with closed forms for their sums and fading memories.

A piece covers offsets k = 1..n_steps; offset 0 is the level that it starts from, the learning rate just before.
Its memory at offset k is sum_{j<=k} lambda^(k-j) d_j with d_j = eta_{j-1} - eta_j: a geometric series in closed
form where the piece has one (`series`), else summed (`memory`).
Arguments: `offsets` (asked,) integers, `lam` (members, 1). A memory is returned as the pair (value, derivative
by lambda), each of shape (members, asked). Jumps between pieces are the schedule's concern.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Memory = tuple[FloatArray, FloatArray]

Rate = float | complex | npt.NDArray[np.float64] | npt.NDArray[np.complex128]

Series = tuple[complex, complex]
"""Coefficient and rate of drops that are the real part of coefficient * exp(rate * (j - 1)), j = 1, 2, ..."""

BLOCK_STEPS = 256
"""Steps of a table that one matrix product sums; bounds its memory."""

BLOCK_NUMBERS = 1 << 14
"""Numbers (members x spans) that are scanned at once: they stay in the processor's cache."""

LARGEST_LOG = 600.0
"""Logarithm of the largest lambda^-t in a scan: float64 ends at 709."""

FORGOTTEN = 60.0
"""-ln of a share of a memory that no digit shows: a longer span keeps that, and cuts no block short."""


class Piece(Protocol):
    """What every shape of learning rate answers."""

    @property
    def n_steps(self) -> int: ...

    def level(self) -> float: ...
    def highest(self) -> float: ...
    def lr(self, offsets: IntArray) -> FloatArray: ...
    def area(self, offsets: IntArray) -> FloatArray: ...
    def series(self) -> Series | None: ...
    def until(self, offset: int) -> Piece: ...
    def after(self, offset: int) -> Piece: ...


def power(lam: FloatArray, exponent: IntArray) -> Memory:
    """Return lambda^k and its derivative by lambda."""
    value = np.exp(exponent * np.log1p(lam - 1.0))
    return value, exponent * value / lam


def geometric(lam: FloatArray, rate: Rate, count: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return sum_{j<n} lambda^(n-1-j) ratio^j for ratio = exp(rate), and its derivative by lambda.

    `rate` one number or (asked,), real or complex; `count` (asked,); the answers (members, asked).
    The sum is (lambda^n - ratio^n) / (lambda - ratio). S2 divides it by 1 - lambda, so that a long memory needs
    every digit of it: the larger of the two powers is taken out, and the difference is left to expm1.
    """
    log_lam = np.log1p(lam - 1.0)
    ahead = np.real(rate - log_lam) > 0
    leading = np.where(ahead, rate, log_lam)
    behind = np.where(ahead, log_lam - rate, rate - log_lam)
    equal = behind == 0
    share = np.expm1(count * behind) / np.where(equal, 1.0, np.expm1(behind))
    total = np.exp((count - 1) * leading) * np.where(equal, count, share)
    return total, _geometric_slope(lam, rate, count, total)


def powers_sum(lam: FloatArray, count: IntArray) -> tuple[Memory, Memory]:
    """Return lambda^n and sum_{j<n} lambda^j, each with its derivative: `geometric` for the ratio 1, and fast."""
    falls = np.expm1(count * np.log1p(lam - 1.0))
    total = falls / (lam - 1.0)
    kept = 1.0 + falls
    return (kept, count * kept / lam), (total, _geometric_slope(lam, 0.0, count, total))


def _geometric_slope(lam: FloatArray, rate: Rate, count: IntArray, total: FloatArray) -> FloatArray:
    """Return the derivative by lambda of `geometric`; where lambda meets the ratio, by its series."""
    gap = (lam - 1.0) - np.expm1(rate)
    near = np.abs(gap) * np.maximum(count, 1) < 1e-4
    _, slope = power(lam, count)
    direct = (slope - total) / np.where(near, 1.0, gap)
    if not near.any():
        return direct
    pairs = count * (count - 1) / 2 * np.exp((count - 2) * rate)
    triples = pairs * (count - 2) / 3 * np.exp(-rate)
    return np.where(near, pairs + 2 * triples * gap, direct)


@dataclass(frozen=True)
class Polyline:
    """Learning rate that is linear between knots: `values` at increasing `offsets`, the first at offset 0."""

    offsets: IntArray
    values: FloatArray

    @property
    def n_steps(self) -> int:
        return int(self.offsets[-1])

    def level(self) -> float:
        return float(self.values[0])

    def highest(self) -> float:
        return float(self.values.max())

    def lr(self, offsets: IntArray) -> FloatArray:
        return np.interp(offsets, self.offsets, self.values)

    @cached_property
    def _areas(self) -> FloatArray:
        first, last = self.values[:-1], self.values[1:]
        length = np.diff(self.offsets)
        return np.concatenate([[0.0], np.cumsum(length * (first + last) / 2 + (last - first) / 2)])

    @cached_property
    def _slopes(self) -> FloatArray:
        return np.diff(self.values) / np.diff(self.offsets)

    def _segment(self, offsets: IntArray) -> tuple[IntArray, IntArray]:
        index = np.searchsorted(self.offsets[1:-1], offsets, side="left")
        return index, offsets - self.offsets[index]

    def area(self, offsets: IntArray) -> FloatArray:
        index, inside = self._segment(offsets)
        return (
            self._areas[index] + self.values[index] * inside + self._slopes[index] * inside * (inside + 1) / 2
        )

    def series(self) -> Series | None:
        """Return the drops of one line; several lines are no series."""
        return (complex(-self._slopes[0]), 0j) if len(self._slopes) == 1 else None

    @cached_property
    def _lengths(self) -> tuple[IntArray, IntArray]:
        """The distinct lengths of segments, and which of them each segment has: logs are mostly even."""
        return np.unique(np.diff(self.offsets), return_inverse=True)

    def memory(self, offsets: IntArray, lam: FloatArray) -> Memory:
        if not self._slopes.any():
            zeros = np.zeros((len(lam), offsets.size))
            return zeros, zeros
        index, inside = self._segment(offsets)
        before, before_slope = _scan(lam, self.offsets, self._fresh(lam), index)
        (kept, kept_slope), (fresh, fresh_slope) = powers_sum(lam, inside)
        value = kept * before - self._slopes[index] * fresh
        slope = kept_slope * before + kept * before_slope - self._slopes[index] * fresh_slope
        return value, slope

    def _fresh(self, lam: FloatArray) -> Callable[[slice], Memory]:
        """Return what gives the memory that each segment of a slice brings."""
        lengths, which = self._lengths
        _, (fresh, fresh_slope) = powers_sum(lam, lengths)

        def brought(some: slice) -> Memory:
            drop, kind = -self._slopes[some], which[some]
            return drop * fresh[:, kind], drop * fresh_slope[:, kind]

        return brought

    def until(self, offset: int) -> Polyline:
        inside = self.offsets < offset
        end = self.lr(np.array([offset]))
        return Polyline(np.append(self.offsets[inside], offset), np.append(self.values[inside], end))

    def after(self, offset: int) -> Polyline:
        if offset == 0:
            return self
        behind = self.offsets > offset
        start = self.lr(np.array([offset]))
        return Polyline(np.append(0, self.offsets[behind] - offset), np.append(start, self.values[behind]))


def constant(lr: float, n_steps: int) -> Polyline:
    return linear(lr, lr, n_steps)


def linear(start_lr: float, end_lr: float, n_steps: int) -> Polyline:
    return Polyline(np.array([0, n_steps]), np.array([start_lr, end_lr], dtype=np.float64))


@dataclass(frozen=True)
class Cosine:
    """eta(k) = middle + amplitude * cos(phase + angle * k), over at most half a turn."""

    n_steps: int
    middle: float
    amplitude: float
    angle: float
    phase: float = 0.0

    def level(self) -> float:
        return self.middle + self.amplitude * float(np.cos(self.phase))

    def highest(self) -> float:
        return max(self.level(), float(self.lr(np.array([self.n_steps]))[0]))

    def lr(self, offsets: IntArray) -> FloatArray:
        return np.asarray(self.middle + self.amplitude * np.cos(self.phase + self.angle * offsets))

    def area(self, offsets: IntArray) -> FloatArray:
        half = self.angle / 2
        turned = np.sin(half * offsets) / np.sin(half) * np.cos(self.phase + half * (offsets + 1))
        return np.asarray(self.middle * offsets + self.amplitude * turned)

    def series(self) -> Series:
        drop = -2j * self.amplitude * np.sin(self.angle / 2) * np.exp(1j * (self.phase + self.angle / 2))
        return complex(drop), 1j * self.angle

    def until(self, offset: int) -> Cosine:
        return replace(self, n_steps=offset)

    def after(self, offset: int) -> Cosine:
        return replace(self, n_steps=self.n_steps - offset, phase=self.phase + self.angle * offset)


@dataclass(frozen=True)
class Exponential:
    """eta(k) = start * ratio^k, with ratio > 0."""

    n_steps: int
    start: float
    ratio: float

    def level(self) -> float:
        return self.start

    def highest(self) -> float:
        return self.start * max(1.0, self.ratio**self.n_steps)

    def lr(self, offsets: IntArray) -> FloatArray:
        return np.asarray(self.start * np.exp(offsets * np.log(self.ratio)))

    def area(self, offsets: IntArray) -> FloatArray:
        rate = np.log(self.ratio)
        return np.asarray(self.start * self.ratio * np.expm1(offsets * rate) / np.expm1(rate))

    def series(self) -> Series:
        rate = np.log(self.ratio)
        return complex(-self.start * np.expm1(rate)), complex(rate)

    def until(self, offset: int) -> Exponential:
        return replace(self, n_steps=offset)

    def after(self, offset: int) -> Exponential:
        start = self.start * self.ratio**offset
        return replace(self, n_steps=self.n_steps - offset, start=start)


class Summed(ABC):
    """A shape without a closed form for its memory, which is summed step by step in blocks."""

    @property
    @abstractmethod
    def n_steps(self) -> int: ...

    @abstractmethod
    def lr(self, offsets: IntArray) -> FloatArray: ...

    def series(self) -> Series | None:
        return None  # there is no closed form

    def memory(self, offsets: IntArray, lam: FloatArray) -> Memory:
        """Sum lambda^(k-j) d_j over whole blocks by matrix products, then over the rest of the last block."""
        n_blocks = -(-self.n_steps // BLOCK_STEPS)
        drops = -np.diff(self.lr(np.arange(n_blocks * BLOCK_STEPS + 1).clip(max=self.n_steps)))
        weight, weight_slope = power(lam, np.arange(BLOCK_STEPS)[::-1])
        blocks = drops.reshape(n_blocks, BLOCK_STEPS).T
        block, rest = np.divmod(offsets, BLOCK_STEPS)
        knots = np.arange(n_blocks + 1) * BLOCK_STEPS

        def fresh(some: slice) -> Memory:
            return weight @ blocks[:, some], weight_slope @ blocks[:, some]

        before, before_slope = _scan(lam, knots, fresh, block)
        kept, kept_slope = power(lam, rest)
        partial, partial_slope = self._partial(drops, offsets, rest, weight, weight_slope)
        return kept * before + partial, kept_slope * before + kept * before_slope + partial_slope

    @staticmethod
    def _partial(
        drops: FloatArray, offsets: IntArray, rest: IntArray, weight: FloatArray, weight_slope: FloatArray
    ) -> Memory:
        """Sum over the last `rest` steps before each asked offset."""
        windows = sliding_window_view(np.concatenate([np.zeros(BLOCK_STEPS), drops]), BLOCK_STEPS)
        value, slope = np.empty((2, len(weight), offsets.size))
        recent = np.arange(BLOCK_STEPS)[::-1]
        for begin in range(0, offsets.size, BLOCK_STEPS):
            some = slice(begin, begin + BLOCK_STEPS)
            window = np.where(recent < rest[some, None], windows[offsets[some]], 0.0).T
            value[:, some], slope[:, some] = weight @ window, weight_slope @ window
        return value, slope


def _scan(lam: FloatArray, knots: IntArray, fresh: Callable[[slice], Memory], asked: IntArray) -> Memory:
    """Return the memory at the knots of the indices `asked`, (members, asked): nothing at the first knot.

    `knots` (spans + 1,) increasing offsets; `fresh` gives what each span of a slice brings, (members, spans):
    m_{j+1} = lambda^length m_j + fresh_j. So lambda^-t m is a cumulative sum, whose rounding is that of the
    recurrence. It is taken over blocks of spans, so that lambda^-t does not overflow and arrays stay small.
    """
    rate, lengths = -np.log1p(lam - 1.0), np.diff(knots)
    forgotten = np.ceil(FORGOTTEN / rate).astype(np.int64)
    value, slope = np.zeros((2, len(lam), asked.size))
    state, state_slope = np.zeros((2, len(lam), 1))
    order = np.argsort(asked, kind="stable")
    fastest = rate.max() * np.cumsum(np.minimum(lengths, forgotten.min()))
    for begin, end in _blocks(fastest, max(1, BLOCK_NUMBERS // len(lam))):
        lasting = np.minimum(lengths[begin:end], forgotten)
        kept = np.exp(-rate * lasting[:, :1])
        lasting[:, 0] = 0  # lambda^-t counts from the end of the first span
        grown = np.exp(rate * np.cumsum(lasting, axis=1))
        total, total_slope = (grown * one for one in fresh(slice(begin, end)))
        total[:, :1] += kept * state
        np.cumsum(total, axis=1, out=total)
        # The derivative obeys the same recurrence, with that of lambda^length m_j among what is fresh.
        by_lam = lengths[begin:end] / lam
        total_slope[:, :1] += kept * (state_slope + by_lam[:, :1] * state)
        total_slope[:, 1:] += by_lam[:, 1:] * total[:, :-1]
        np.cumsum(total_slope, axis=1, out=total_slope)
        rows = order[slice(*np.searchsorted(asked, [begin + 1, end + 1], sorter=order))]
        here = asked[rows] - begin - 1
        weight = grown[:, here]
        value[:, rows], slope[:, rows] = total[:, here] / weight, total_slope[:, here] / weight
        state, state_slope = total[:, -1:] / grown[:, -1:], total_slope[:, -1:] / grown[:, -1:]
    return value, slope


def _blocks(fading: FloatArray, most: int) -> Iterator[tuple[int, int]]:
    """Cut spans, at whose ends `fading` (spans,) has summed up, into blocks of at most `most`."""
    begin = 0
    while begin < fading.size:
        within = int(np.searchsorted(fading, fading[begin] + LARGEST_LOG, side="right"))
        end = min(within, begin + most)
        yield begin, end
        begin = end


@dataclass(frozen=True)
class Table(Summed):
    """Learning rate given at every step: `values` (n_steps + 1,), the first at offset 0."""

    values: FloatArray

    @property
    def n_steps(self) -> int:
        return len(self.values) - 1

    def level(self) -> float:
        return float(self.values[0])

    def highest(self) -> float:
        return float(self.values[1:].max())

    def lr(self, offsets: IntArray) -> FloatArray:
        return self.values[offsets]

    @cached_property
    def _areas(self) -> FloatArray:
        # Extended precision: the sum of ten million values keeps twelve digits.
        return np.concatenate([[0.0], np.cumsum(self.values[1:], dtype=np.longdouble).astype(np.float64)])

    def area(self, offsets: IntArray) -> FloatArray:
        return self._areas[offsets]

    def until(self, offset: int) -> Table:
        return Table(self.values[: offset + 1])

    def after(self, offset: int) -> Table:
        return Table(self.values[offset:])


@dataclass(frozen=True)
class SquareRoot(Summed):
    """eta(k) = start + drop * sqrt((k + done) / length): the steps done..stop of a `sqrt` decay."""

    start: float
    drop: float
    length: int
    stop: int
    done: int = 0

    @property
    def n_steps(self) -> int:
        return self.stop - self.done

    def level(self) -> float:
        return float(self.lr(np.array([0]))[0])

    def highest(self) -> float:
        return max(self.level(), float(self.lr(np.array([self.n_steps]))[0]))

    def lr(self, offsets: IntArray) -> FloatArray:
        return self.start + self.drop * np.sqrt((offsets + self.done) / self.length)

    def area(self, offsets: IntArray) -> FloatArray:
        roots = _sum_of_roots(offsets + self.done) - _sum_of_roots(np.array([self.done]))
        return np.asarray(self.start * offsets + self.drop * roots / np.sqrt(self.length))

    def until(self, offset: int) -> SquareRoot:
        return replace(self, stop=self.done + offset)

    def after(self, offset: int) -> SquareRoot:
        return replace(self, done=self.done + offset)


_SHORT_ROOTS = np.concatenate([[0.0], np.cumsum(np.sqrt(np.arange(1, 33)))])
_ZETA_MINUS_HALF = -0.20788622497735456601730672539704930  # Riemann zeta(-1/2)


def _sum_of_roots(count: IntArray) -> FloatArray:
    """Return sum_{k<=n} sqrt(k): Euler-Maclaurin beyond 32 terms, exact to rounding."""
    n = np.maximum(count, 1).astype(np.float64)
    root = np.sqrt(n)
    tail = 1 / (24 * root) - 1 / (1920 * root * n**2) + 1 / (9216 * root * n**4)
    long = 2 / 3 * n * root + root / 2 + _ZETA_MINUS_HALF + tail
    return np.where(count <= 32, _SHORT_ROOTS[np.minimum(count, 32)], long)

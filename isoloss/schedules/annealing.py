"""The annealing area S2 of many runs at once, as a function of its memory lambda.

S2 = sum_{i<=s} m_i with m_i = lambda m_{i-1} + (eta_{i-1} - eta_i) from the end of warm-up on (laws.md 1.1).
The geometric series sums to S2 = (eta_w - eta_s - lambda m_s) / (1 - lambda), so that m at the asked steps is all
that is needed. What does not depend on lambda is worked out once, since a fit asks again and again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoloss.schedules.pieces import (
    FloatArray,
    IntArray,
    Memory,
    Piece,
    Polyline,
    Series,
    Summed,
    geometric,
    power,
    powers_sum,
)
from isoloss.schedules.schedule import Schedule

ComplexArray = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class _Closed:
    """Rows of a stage whose drops are geometric series, the real part of coefficient * exp(rate * (j - 1)).

    `coefficient` (rows,). The sum without it is worked out once for all rows of the same rate and count, since
    many runs share a length or a shape: `rate` and `count` (sums,), and `of` (rows,) is the sum of each row.
    """

    rows: IntArray
    coefficient: ComplexArray
    of: IntArray
    rate: ComplexArray
    count: IntArray

    @classmethod
    def among(cls, rows: IntArray, coefficient: ComplexArray, rate: ComplexArray, count: IntArray) -> _Closed:
        """Return these rows, of which `coefficient`, `rate` and `count` (rows,) are."""
        rates, which = np.unique(rate, return_inverse=True)
        _, first, of = np.unique(which * (count.max() + 1) + count, return_index=True, return_inverse=True)
        return cls(rows, coefficient, of, rates[which[first]], count[first])

    def memory(self, lam: FloatArray) -> Memory:
        """Return m and its derivative at the rows, (members, rows)."""
        if self.rate.imag.any():
            value, slope = geometric(lam, self.rate, self.count)
        elif self.rate.any():
            value, slope = geometric(lam, self.rate.real, self.count)
        else:
            _, (value, slope) = powers_sum(lam, self.count)
        times = self.coefficient if np.iscomplexobj(value) else self.coefficient.real
        return np.real(times * value[:, self.of]), np.real(times * slope[:, self.of])


@dataclass(frozen=True)
class _Stage:
    """The pieces that stand at one place of every run's schedule, behind the warm-up, and have a memory.

    `runs` (pieces,) are the runs that have one. Rows are the points inside the pieces, then their ends: `owner`
    (rows,) is the piece of a row, `offset` (rows,) its step inside it; `place` (points,) are the points' places in
    the answer. `jump` (pieces,) is how far the learning rate falls on entering. `closed` holds the rows of pieces
    whose drops are a geometric series; `summed` those of the others; `carried` the rows of pieces that are entered
    with a memory.
    """

    runs: IntArray
    owner: IntArray
    offset: IntArray
    place: IntArray
    jump: FloatArray
    closed: tuple[_Closed, ...]
    summed: tuple[tuple[IntArray, Polyline | Summed], ...]
    carried: IntArray

    def memory(self, lam: FloatArray, state: FloatArray, state_slope: FloatArray) -> Memory:
        """Return m and its derivative at every row, (members, rows), entered with the states (members, pieces)."""
        value, slope = np.zeros((2, len(lam), self.offset.size))
        for closed in self.closed:
            value[:, closed.rows], slope[:, closed.rows] = closed.memory(lam)
        for rows, piece in self.summed:
            value[:, rows], slope[:, rows] = piece.memory(self.offset[rows], lam)
        if self.carried.size:
            # A jump between pieces enters the memory at the first step, as lambda^(k-1) times its height.
            entering, entering_slope = state + self.jump / lam, state_slope - self.jump / lam**2
            kept, kept_slope = power(lam, self.offset[self.carried])
            owner = self.owner[self.carried]
            value[:, self.carried] += kept * entering[:, owner]
            slope[:, self.carried] += kept_slope * entering[:, owner] + kept * entering_slope[:, owner]
        return value, slope


class AnnealingAreas:
    """S2 of the annealing law at fixed steps of schedules, as a function of the memory's decay factor lambda.

    Built from (schedule, steps) of every run; the answers stand one run after another.
    """

    def __init__(self, asked: Sequence[tuple[Schedule, npt.ArrayLike]]) -> None:
        runs = [(schedule, np.asarray(steps, dtype=np.int64)) for schedule, steps in asked]
        self._n_runs = len(runs)
        edges = np.cumsum([0, *(steps.size for _, steps in runs)])
        self.n_points = int(edges[-1])
        self._drop = np.empty(self.n_points)
        stages: dict[int, list[_Part]] = defaultdict(list)
        for number, (schedule, steps) in enumerate(runs):
            first = schedule.warmup_steps
            levels = schedule.level_at(np.append(first, np.maximum(steps, first)))
            self._drop[edges[number] : edges[number + 1]] = levels[0] - levels[1:]
            parts = _parts(number, schedule, steps, int(edges[number]), float(levels[0]))
            for place, part in parts:
                stages[place].append(part)
        self._stages = [_stage(parts) for _, parts in sorted(stages.items())]

    def __call__(self, decay: npt.ArrayLike) -> Memory:
        """Return S2 and its derivative by lambda, (members, points), for lambda in (0, 1): scalar or (members,)."""
        lam = np.atleast_1d(np.asarray(decay, dtype=np.float64))[:, None]
        memory, slope = self._memory(lam)
        total = (self._drop - lam * memory) / (1.0 - lam)
        return total, (total - memory - lam * slope) / (1.0 - lam)

    def _memory(self, lam: FloatArray) -> Memory:
        memory, slope = np.zeros((2, len(lam), self.n_points))
        state, state_slope = np.zeros((2, len(lam), self._n_runs))
        for stage in self._stages:
            value, value_slope = stage.memory(lam, state[:, stage.runs], state_slope[:, stage.runs])
            n = stage.place.size
            memory[:, stage.place], slope[:, stage.place] = value[:, :n], value_slope[:, :n]
            state[:, stage.runs], state_slope[:, stage.runs] = value[:, n:], value_slope[:, n:]
        return memory, slope


@dataclass(frozen=True)
class _Part:
    """A piece of one run: the offsets of its points and their places, the jump into it, whether a memory enters."""

    run: int
    piece: Piece
    series: Series | None
    offsets: IntArray
    place: IntArray
    jump: float
    carries: bool


def _parts(
    number: int, schedule: Schedule, steps: IntArray, first_place: int, level: float
) -> Iterator[tuple[int, _Part]]:
    """Yield the pieces behind the warm-up that have a memory, with their places in the schedule.

    At the end of the warm-up the learning rate is `level`.
    """
    begin, moved = schedule.warmup_steps, False
    for place, piece in enumerate(schedule.after(begin)):
        jump, series = level - piece.level(), piece.series()
        carries = moved or jump != 0
        moved = carries or series is None or series[0] != 0
        if moved:
            inside = np.flatnonzero((steps > begin) & (steps <= begin + piece.n_steps))
            offsets = steps[inside] - begin
            yield place, _Part(number, piece, series, offsets, first_place + inside, jump, carries)
        begin += piece.n_steps
        level = _last_level(piece)


def _last_level(piece: Piece) -> float:
    return float(piece.lr(np.array([piece.n_steps]))[0])


def _stage(parts: Sequence[_Part]) -> _Stage:
    ends = np.array([part.piece.n_steps for part in parts], dtype=np.int64)
    inside = np.repeat(np.arange(len(parts)), [part.offsets.size for part in parts])
    owner = np.append(inside, np.arange(len(parts)))
    offset = np.concatenate([*(part.offsets for part in parts), ends])
    coefficient, rate = np.array([part.series or (0, 0) for part in parts], dtype=np.complex128).T
    kinds = [coefficient != 0, rate.imag != 0, rate.real != 0]
    alike = [
        kinds[0] & ~kinds[1] & ~kinds[2],  # lines: a sum of powers
        kinds[0] & ~kinds[1] & kinds[2],  # exponentials: real
        kinds[0] & kinds[1],  # cosines: complex
    ]
    closed = [(rows, owner[rows]) for same in alike if (rows := np.flatnonzero(same[owner])).size]
    return _Stage(
        runs=np.array([part.run for part in parts], dtype=np.int64),
        owner=owner,
        offset=offset,
        place=np.concatenate([part.place for part in parts]),
        jump=np.array([part.jump for part in parts]),
        closed=tuple(_Closed.among(rows, coefficient[of], rate[of], offset[rows]) for rows, of in closed),
        summed=tuple(
            (np.flatnonzero(owner == index), part.piece)
            for index, part in enumerate(parts)
            if isinstance(part.piece, Polyline | Summed) and part.series is None
        ),
        carried=np.flatnonzero(np.array([part.carries for part in parts])[owner]),
    )

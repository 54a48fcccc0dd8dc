"""A schedule: contiguous pieces, and their sums (S1)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, InvalidSchedule
from isoloss.schedules.pieces import FloatArray, IntArray, Piece


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule eta(s) for the optimiser updates s = 1..total_steps.

    `warmup_steps` is where the memory m of the annealing law starts: the rise of the learning rate before it is
    no negative annealing (laws.md 1.1). `spec` is the declaration that it was made from, if any.
    """

    pieces: tuple[Piece, ...]
    warmup_steps: int = 0
    spec: Mapping[str, Any] | None = field(default=None, compare=False)

    @cached_property
    def starts(self) -> IntArray:
        """Steps done before each piece begins, and after the last one ends: shape (pieces + 1,)."""
        return np.concatenate([[0], np.cumsum([piece.n_steps for piece in self.pieces])]).astype(np.int64)

    @cached_property
    def _begins(self) -> list[int]:
        """The same as plain numbers, which are quicker to look up one at a time."""
        return [int(step) for step in self.starts]

    @property
    def total_steps(self) -> int:
        return self._begins[-1]

    @cached_property
    def peak_lr(self) -> float:
        """The highest learning rate of the schedule."""
        return max(piece.highest() for piece in self.pieces)

    @property
    def mean_share(self) -> float:
        """The mean learning rate over s = 1..total_steps, as a share of the peak."""
        area = float(self.area(np.array([self.total_steps]))[0])
        return min(1.0, area / self.total_steps / self.peak_lr)

    @cached_property
    def _areas(self) -> FloatArray:
        """S1 before each piece begins, (pieces,)."""
        whole = [float(piece.area(np.array([piece.n_steps]))[0]) for piece in self.pieces[:-1]]
        return np.cumsum([0.0, *whole])

    def lr(self, steps: npt.ArrayLike) -> FloatArray:
        """Return eta(s) at each asked step (n,), 1 <= s <= total_steps."""
        asked = _whole(steps)
        out = np.empty(asked.shape)
        for index, inside, offsets in self._split(asked, lowest=1):
            out[inside] = self.pieces[index].lr(offsets)
        return out

    def area(self, steps: npt.ArrayLike) -> FloatArray:
        """Return S1(s), the sum of eta_i for i <= s, at each asked step (n,), 0 <= s <= total_steps."""
        asked = _whole(steps)
        out = np.empty(asked.shape)
        for index, inside, offsets in self._split(asked, lowest=0):
            out[inside] = self._areas[index] + self.pieces[index].area(offsets)
        return out

    def level_at(self, asked: IntArray) -> FloatArray:
        """Return eta(s), and at s = 0 eta(1): no step falls or rises into the first."""
        return self.lr(np.maximum(asked, 1))

    def _split(self, asked: IntArray, lowest: int) -> Iterator[tuple[int, Any, IntArray]]:
        """Return the pieces that asked steps lie in, which of the steps each holds, and their offsets in it."""
        if not asked.size:
            return
        least, most = int(asked.min()), int(asked.max())
        if least < lowest or most > self.total_steps:
            reason = f"steps must lie in {lowest}..{self.total_steps}, the length of the schedule"
            raise InvalidInput(field="steps", reason=reason)
        ends = self._begins[1:-1]
        first = bisect_left(ends, least)
        if first == bisect_left(
            ends, most
        ):  # most runs are asked for in one piece: nothing need be picked out
            yield first, slice(None), asked - self._begins[first]
            return
        index = np.searchsorted(ends, asked, side="left")
        for one in np.flatnonzero(np.bincount(index.ravel())).tolist():
            inside = index == one
            yield one, inside, asked[inside] - self._begins[one]

    def until(self, step: int) -> tuple[Piece, ...]:
        """Return the pieces that cover the steps up to and including `step`."""
        spans = zip(self.pieces, self.starts[:-1], strict=True)
        return tuple(
            piece.until(min(piece.n_steps, int(step - begin))) for piece, begin in spans if begin < step
        )

    def after(self, step: int) -> tuple[Piece, ...]:
        """Return the pieces that cover the steps behind `step`."""
        spans = zip(self.pieces, self.starts[:-1], self.starts[1:], strict=True)
        return tuple(piece.after(max(0, int(step - begin))) for piece, begin, end in spans if end > step)


def _whole(steps: npt.ArrayLike) -> IntArray:
    asked = np.atleast_1d(np.asarray(steps))
    if asked.size and asked.dtype.kind not in "iu":
        raise InvalidInput(field="steps", reason="steps are whole numbers")
    return asked.astype(np.int64, copy=False)


def branch(parent: Schedule, branch_step: int, own: Schedule) -> Schedule:
    """Return the LR history of a branch: the parent's up to and including branch_step, then its own.

    Raises InvalidSchedule where branch_step does not lie inside both.
    """
    if not 0 < branch_step <= parent.total_steps:
        reason = f"step {branch_step} is outside the parent's schedule of {parent.total_steps} steps"
        raise InvalidSchedule(field="branch_step", reason=reason)
    if branch_step >= own.total_steps:
        reason = f"step {branch_step} is not before the end of the branch's schedule, step {own.total_steps}"
        raise InvalidSchedule(field="branch_step", reason=reason)
    pieces = parent.until(branch_step) + own.after(branch_step)
    return Schedule(pieces, warmup_steps=min(parent.warmup_steps, branch_step))

"""Which trials of a sweep go on at a rung, and which are pruned: a decision on what is expected of each.

A trial that comes to a rung, a share of its own steps, waits there. It is pruned once as many others as are kept
are expected to end below all of its interval: however those do that are still to come, it would not be kept. Those
that wait go on when a worker would have nothing to train otherwise, the best first: their ends make the intervals
of the others narrower before these cost anything. No torch here, and no input or output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput

ETA = 3
FEWEST_PILOTS = 4
"""Trials that run to their end whatever becomes of them: from fewer nobody knows how far off a forecast is."""

SHORTEST_SHARE = 0.1
MOST_RUNGS = 4

ON_THE_WAY = ("queued", "running")
RIVALS = ("queued", "running", "held", "finished")
"""Trials that may end better than another: not those that have ended otherwise, or are paused for good or not."""


@dataclass(frozen=True)
class Rungs:
    """The shares of a trial's steps at which it is judged; at each one of `eta` is kept."""

    shares: tuple[float, ...]
    eta: int = ETA

    @classmethod
    def of(cls, eta: int = ETA, shares: Sequence[float] | None = None) -> Rungs:
        """Return the rungs that are asked for: of powers of `eta` where no shares are given.

        Raises InvalidInput for shares that do not increase within 0 and 1.
        """
        if isinstance(eta, bool) or not isinstance(eta, int) or not 2 <= eta <= 10:
            raise InvalidInput(field="halving.eta", reason=f"{eta!r} is no whole number from 2 to 10")
        if shares is None:
            powers = [float(eta) ** -k for k in range(MOST_RUNGS, 0, -1)]
            return cls(tuple(share for share in powers if share >= SHORTEST_SHARE), eta)
        numbers = list(shares)
        right = numbers and all(isinstance(one, int | float) and 0 < one < 1 for one in numbers)
        if not right or any(late <= early for early, late in pairwise(numbers)):
            reason = "must be shares of a trial, each above 0 and below 1, in increasing order"
            raise InvalidInput(field="halving.rungs", reason=reason)
        if len(numbers) > MOST_RUNGS:
            raise InvalidInput(field="halving.rungs", reason=f"a trial has at most {MOST_RUNGS} rungs")
        return cls(tuple(float(one) for one in numbers), eta)

    def stop_at(self, rung: int, total_steps: int) -> int:
        """Return the step of a rung, 0 the first; behind the last one the end."""
        if rung >= len(self.shares):
            return total_steps
        return min(total_steps, max(1, math.ceil(self.shares[rung] * total_steps)))

    def kept(self, n_trials: int, rung: int) -> int:
        """Return how many trials go on from a rung where all is known."""
        return max(1, math.ceil(n_trials / float(self.eta) ** (rung + 1)))


@dataclass(frozen=True)
class Expected:
    """The final loss that is expected of a trial at `step`, with its interval, in nats."""

    value: float
    lower: float
    upper: float
    step: int

    @classmethod
    def known(cls, value: float, step: int) -> Expected:
        """Return what is known of a trial that has ended."""
        return cls(value, value, value, step)

    def as_document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dict(self.__dict__)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Expected:
        """Return what `as_document` described."""
        return cls(**document)


@dataclass(frozen=True)
class Standing:
    """A trial as a decision sees it: its `status`, the rungs that it has passed, and what is expected of it."""

    number: int
    status: str
    rung: int
    expected: Expected | None


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial at a rung: it is pruned, for the reason, or goes on."""

    prune: bool
    reason: str | None = None


GO_ON = Decision(False)


def decide(standings: Sequence[Standing], rungs: Rungs, *, free: int = 0) -> dict[int, Decision]:
    """Return what becomes of the trials that wait at rungs, by number; of those that are to wait on, nothing.

    `free` is how many workers have nothing to train: so many go on, the best first, and one where nobody trains.
    """
    n_trials = sum(one.status != "failed" for one in standings)
    decisions: dict[int, Decision] = {}
    left: list[Standing] = []
    for trial in (one for one in standings if one.status == "held"):
        rivals = [one for one in standings if one.number != trial.number and one.status in RIVALS]
        kept = rungs.kept(n_trials, trial.rung)
        if _surely_worse_than(trial, rivals) >= kept:
            decisions[trial.number] = Decision(True, _why_pruned(trial, rivals, kept))
        else:
            left.append(trial)
    nobody = not any(one.status in ON_THE_WAY for one in standings)
    for trial in sorted(left, key=_best_first)[: max(free, int(nobody))]:
        decisions[trial.number] = GO_ON
    return decisions


def pilots_of(n_trials: int, seed: int, count: int = FEWEST_PILOTS) -> list[int]:
    """Return the places of the pilots, drawn by lot.

    What is learned from how far off their forecasts were holds for the others because nothing but chance sets them
    apart: pilots at the ends of a space err less, and alike (measured; decision 22).
    """
    drawn = np.random.default_rng(seed).permutation(n_trials)[:count]
    return sorted(int(place) for place in drawn)


def _surely_worse_than(trial: Standing, rivals: Sequence[Standing]) -> int:
    """How many others are expected to end below all of the trial's interval."""
    mine = trial.expected
    if mine is None:
        return 0
    return sum(one.expected is not None and one.expected.value < mine.lower for one in rivals)


def _best_first(trial: Standing) -> tuple[float, int]:
    return (math.inf if trial.expected is None else trial.expected.value, trial.number)


def _why_pruned(trial: Standing, rivals: Sequence[Standing], kept: int) -> str:
    n_better = _surely_worse_than(trial, rivals)
    others = "1 other is" if n_better == 1 else f"{n_better} others are"
    return f"{_in_words(trial)}; {others} expected to end below that, and {kept} are kept"


def _in_words(trial: Standing) -> str:
    told = trial.expected
    assert told is not None
    return f"it was expected to end at {told.value:.4f} ({told.lower:.4f} to {told.upper:.4f})"

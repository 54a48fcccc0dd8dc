"""A bounded Levenberg-Marquardt solver for Huber objectives, over many starts and resamples at once.

Every member minimises sum_i w_i Huber(r_i(theta)) for its own weights and from its own start. Members that have
finished leave the arrays and others take their places, so that no more are worked on at once than fit in the
memory allowed. The same code runs on NumPy arrays and on torch tensors (see `isoloss.arrays`).

Sources: Levenberg-Marquardt with gain ratios, Madsen, Nielsen and Tingleff 2004, 'Methods for Non-Linear Least
Squares Problems', section 3.2; its scaling by curvatures that are forgotten slowly, after More 1978, 'The
Levenberg-Marquardt Algorithm: Implementation and Theory'; iterative reweighting, Holland and Welsch 1977.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray, device, float64_like, namespace
from isoloss.fitting.huber import Model, Objective, Prior, huber
from isoloss.fitting.members import NEGLIGIBLE, ROUNDING, Members, kept

__all__ = ["COARSE", "FINE", "Model", "Prior", "Solution", "huber", "same_optimum", "solve"]

KEPT_BYTES = 31 * 2**20
"""Just below the largest block by which glibc raises its thresholds (mallopt(3), M_MMAP_THRESHOLD)."""

CHUNK_BYTES = 64 * 2**20
SAME_OPTIMUM = 1e-4
"""Relative distance between objectives within which two starts have found the same optimum."""

FINE = 1e-15
"""Relative gain left to an undamped step below which an estimate has converged; it is polished by that step."""

COARSE = 1e-6
"""The same for resamples, whose spread is known to a few percent at best."""

SAME_BASIN = 1e-2
"""Distance between two starts of a race, by how much the objective rises over it and relative to it, within which
both go down to one optimum."""

PATIENCE = 2
"""How many times the iterations of the second start to converge the other starts of a race may take: the first may
have begun at its optimum."""


@dataclass(frozen=True)
class Solution:
    """Where each member ended: theta (members, parameters), objective, and whether it converged."""

    theta: FloatArray
    objective: FloatArray
    converged: BoolArray
    iterations: IntArray


def same_optimum(objective: FloatArray, best: float, n_points: int) -> BoolArray:
    """Return which objectives (members,) are no worse than the best optimum, over `n_points` residuals."""
    highest = best * (1 + SAME_OPTIMUM) + n_points * NEGLIGIBLE**2 / 2
    return objective <= (highest if np.isfinite(best) else -np.inf)


def solve(
    model: Model,
    start: FloatArray,
    weights: FloatArray,
    *,
    lower: FloatArray,
    upper: FloatArray,
    delta: float,
    prior: Prior | None = None,
    race: bool = False,
    max_iterations: int = 200,
    tolerance: float = FINE,
    work: int | None = None,
) -> Solution:
    """Minimise every member's objective from its start, within bounds.

    `start` (members, parameters); `weights` (members, points) >= 0; `lower` and `upper` (parameters,) or (members,
    parameters), infinite where there is no bound, and equal where a parameter is held. The objective is
    sum_i w_i Huber(r_i), with plain squares r^2/2 where `delta` is infinity, plus
    sum(precision * (theta - centre)^2) / 2 of the `prior`. `work` is how many float64 values the model of one
    member needs at once; without it, room for the residuals, the Jacobian and three arrays like the residuals.
    The answer is in arrays of the library of `start`, on its device.

    A member has converged where an undamped step would gain less than `tolerance` of its objective; where no step
    brings a gain, because of rounding, less than `STALLED_GAIN` is enough, and so are residuals that are
    `NEGLIGIBLE`. One whose model is undefined at its start has an infinite objective and has not converged; one
    whose weights are all zero stays at its start and has not converged, because it has seen no data.

    In a `race` the members are starts of one problem. One that settles at the height of the best converged one,
    as far as `same_optimum` tells, is finished, and so is one in the `SAME_BASIN` as a lower one: it ends where
    that one does. One still above the best after `PATIENCE` times as long as the first two to converge is given
    up, and has not converged. One below it goes on.
    Raises ValueError where a lower bound is above the upper one.
    """
    _keep_freed_memory()
    xp = namespace(start)
    theta, weights = float64_like(start, start), float64_like(weights, start)
    members, n_parameters = theta.shape
    n_points = weights.shape[1]
    low, high = (xp.broadcast_to(float64_like(bound, start), theta.shape) for bound in (lower, upper))
    if not bool(xp.all(low <= high)):
        raise ValueError("a lower bound lies above the upper one, or is not a number")
    size = max(1, CHUNK_BYTES // (8 * max(1, work or n_points * (n_parameters + 4))))
    centre, precision = _prior_like(prior, theta)
    objective = Objective(model, float(delta), precision)
    given = _Start(theta.clip(low, high), weights, xp.broadcast_to(centre, theta.shape), low, high)
    crew = _Crew(objective, given, max_iterations, tolerance)
    with np.errstate(
        invalid="ignore", divide="ignore", over="ignore"
    ):  # objectives that are undefined say so
        for begin in range(0, members, size if race else max(1, members)):
            numbers = range(begin, min(begin + size, members) if race else members)
            crew.work(numbers, size, _Race(n_points) if race else _Rules())
    return crew.solution


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep the temporaries of one iteration for the next, by freeing one block of their size.

    A freed block raises the sizes from which memory goes back to the kernel, for the whole process. Without this
    every iteration takes and clears its pages anew, which costs a quarter of a fit and more.
    """
    block = np.empty(KEPT_BYTES // 8)
    del block


def _prior_like(prior: Prior | None, theta: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Return the prior's centre and precision in arrays like theta, the precision None where it says nothing."""
    if prior is None:
        return namespace(theta).zeros_like(theta), None
    centre, precision = float64_like(prior[0], theta), float64_like(prior[1], theta)
    return centre, precision if bool(namespace(theta).any(precision > 0)) else None


@dataclass(frozen=True)
class _Start:
    """All members as they were given; a row each."""

    theta: FloatArray
    weights: FloatArray
    centre: FloatArray
    lower: FloatArray
    upper: FloatArray


class _Rules:
    """Members that know nothing of each other go on until they converge."""

    def note(self, objective: FloatArray) -> None:
        """Hear of the objectives (members,) of those that have converged in this turn."""

    def decide(self, live: Members) -> tuple[BoolArray, BoolArray]:
        """Return who is finished because of what others found, and who is given up because of it."""
        nobody = live.objective != live.objective
        return nobody, nobody

    def merge(self, live: Members) -> BoolArray:
        """Return who is left out because another member ends where it would."""
        return live.objective != live.objective

    def settle(self, solution: Solution) -> None:
        """Give those that were left out the end of the one that went on."""


class _Race(_Rules):
    """Starts of one problem: who settles where the leader has agreed, who takes much longer is given up."""

    def __init__(self, n_points: int) -> None:
        self.n_points, self.best, self.last = n_points, np.inf, np.inf
        self.turn = self.arrived = 0
        self.followers: list[tuple[IntArray, IntArray]] = []

    def note(self, objective: FloatArray) -> None:
        if not objective.shape[0]:
            return
        self.best = min(self.best, float(namespace(objective).min(objective)))
        self._arrive(objective.shape[0])

    def decide(self, live: Members) -> tuple[BoolArray, BoolArray]:
        self.turn += 1
        level = same_optimum(live.objective, self.best, self.n_points)
        # A start on its way to a lower optimum passes this height too: it has more to gain, or is below already.
        flat = same_optimum(live.expected + self.best, self.best, self.n_points)
        agreed = level & flat & (live.objective >= self.best)
        given_up = ~level & (self.turn >= self.last)
        self._arrive(int(agreed.sum()))
        return agreed, given_up

    def _arrive(self, count: int) -> None:
        """Count those that have come to an optimum; with the second the time of the others is set."""
        self.arrived += count
        if count and self.arrived > 1:
            self.last = min(self.last, PATIENCE * (self.turn + 1))

    def merge(self, live: Members) -> BoolArray:
        xp = namespace(live.theta)
        leader = int(xp.argmin(live.objective))
        merged = _rise(live, leader) <= SAME_BASIN * live.objective[leader]
        merged[leader] = False
        if bool(xp.any(merged)):
            self.followers.append((live.number[merged], live.number[leader : leader + 1]))
        return merged

    def settle(self, solution: Solution) -> None:
        for followers, leader in reversed(self.followers):  # a leader may have followed another one later
            for column in (solution.theta, solution.objective, solution.converged):
                column[followers] = column[leader]


def _rise(live: Members, leader: int) -> FloatArray:
    """Return by how much the objective rises between the leader and each member (members,), as both curve there."""
    xp = namespace(live.theta)
    away = (live.theta - live.theta[leader])[:, None, :]
    bends = (
        xp.matmul(xp.matmul(away, curvature), xp.matrix_transpose(away))[:, 0, 0] / 2
        for curvature in (live.curvature, live.curvature[leader])
    )
    return xp.maximum(*bends)


class _Crew:
    """Works on members, no more than fit at once, and keeps where each ended."""

    def __init__(self, objective: Objective, start: _Start, max_iterations: int, tolerance: float) -> None:
        xp = namespace(start.theta)
        self.objective, self.start = objective, start
        self.max_iterations, self.tolerance = max_iterations, tolerance
        nothing = xp.zeros_like(start.theta[:, 0])
        count = xp.zeros_like(nothing, dtype=xp.int64)
        self.solution = Solution(start.theta, nothing + xp.inf, nothing > 0, count)

    def work(self, numbers: range, size: int, rules: _Rules) -> None:
        """Work on the members of these numbers, `size` at once, until all have finished."""
        waiting = numbers.start
        live = None
        while waiting < numbers.stop or live is not None:
            working = 0 if live is None else live.theta.shape[0]
            if waiting < numbers.stop and working <= size // 2:
                end = min(waiting + size - working, numbers.stop)
                live, waiting = self._admit(live, slice(waiting, end)), end
            if live is not None:
                live = self._turn(live, rules)
        rules.settle(self.solution)

    def _admit(self, live: Members | None, part: slice) -> Members | None:
        """Add the members of a part of the start where the objective is defined and data were seen."""
        given = self.start
        xp = namespace(given.theta)
        theta, weights, centre = given.theta[part], given.weights[part], given.centre[part]
        shape = self.objective.local(theta, weights, centre)
        self.solution.objective[part] = shape[0]
        number = xp.arange(part.start, part.stop, device=device(theta))
        new = Members.begin(number, theta, weights, centre, (given.lower[part], given.upper[part]), shape)
        usable = kept(new, xp.isfinite(shape[0]) & xp.any(weights != 0, axis=1))
        if usable is None:
            return live
        usable.be_cautious()
        return usable if live is None else live.joined(usable)

    def _turn(self, live: Members, rules: _Rules) -> Members | None:
        """Step all members once, and return those that have not finished."""
        xp = namespace(live.theta)
        moved, finished, converged = live.propose(self.tolerance)
        if bool(xp.any(finished)):
            rules.note(live.objective[converged])
            self._polish(live.rows(xp.nonzero(finished)[0]), moved[finished], converged[finished])
            left, moved = kept(live, ~finished), moved[~finished]
            if left is None:
                return None
            live = left
        live.move(moved, self.objective)
        agreed, given_up = rules.decide(live)
        done = agreed | given_up | (live.iterations >= self.max_iterations)
        left = self._retire(live, done, agreed)
        return left if left is None else self._retire(left, rules.merge(left), left.number < 0)

    def _polish(self, settled: Members, moved: FloatArray, converged: BoolArray) -> None:
        """Note where settled members end: after a last step, unless it leads astray or coarse will do."""
        if self.tolerance <= FINE:
            xp = namespace(moved)
            reached, _, _ = self.objective.local(moved, settled.weights, settled.centre)
            better = reached <= settled.objective * (1 + ROUNDING)
            settled.theta = xp.where(better[:, None], moved, settled.theta)
            settled.objective = xp.where(better, reached, settled.objective)
            settled.iterations = settled.iterations + 1
        self._retire(settled, settled.number >= 0, converged)

    def _retire(self, live: Members, done: BoolArray, converged: BoolArray) -> Members | None:
        """Note where the members ended that are done, and return the others."""
        if not bool(namespace(done).any(done)):
            return live
        rows = live.number[done]
        self.solution.theta[rows] = live.theta[done]
        self.solution.objective[rows] = live.objective[done]
        self.solution.converged[rows] = converged[done]
        self.solution.iterations[rows] = live.iterations[done]
        return kept(live, ~done)

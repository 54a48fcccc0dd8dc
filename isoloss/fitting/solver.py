"""A bounded Levenberg-Marquardt solver for Huber objectives, over many starts and resamples at once.

Every member minimises sum_i w_i Huber(r_i(theta)) for its own weights and from its own start. Members that have
finished leave the arrays and others take their places, so that no more are worked on at once than fit in the
memory allowed. The same code runs on NumPy arrays and on torch tensors (see `isoloss.arrays`).

Sources: Levenberg-Marquardt with gain ratios, Madsen, Nielsen and Tingleff 2004, 'Methods for Non-Linear Least
Squares Problems', section 3.2; its scaling by the largest curvature so far, More 1978, 'The Levenberg-Marquardt
Algorithm: Implementation and Theory'; iterative reweighting, Holland and Welsch 1977.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray, float64_like, namespace

Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""theta (members, parameters) -> residuals (members, points), not finite where the model is undefined, and
their Jacobian (members, points, parameters); arrays of the library that theta belongs to."""

Prior = tuple[FloatArray, FloatArray]
"""Centre and precision, (parameters,) each, in the solver's coordinates; precision 0 is no prior."""

CHUNK_BYTES = 64 * 2**20
NEAR_DAMPING, FAR_DAMPING = 1e-3, 100.0
"""The first damping of a member that starts at its optimum, and of one that starts far from it."""

MIN_DAMPING = 1e-12
MAX_DAMPING = 1e12
TINY = 1e-300
FIRST_GROWTH = 4.0
LEAST_SHRINK = 0.1
LEAST_RATIO = 0.1
"""Share of the expected gain that a step must bring: one that brings less has left the region of the linear model,
often for a plateau."""

MEMORY = 0.3
"""How much of its former curvature a parameter keeps in the scale of the damping from one step to the next."""

JITTER = 1e-15
"""Added to the scaled curvature, so that a parameter without effect does not make it singular."""

ROUNDING = 1e-13
"""Relative error that rounding may leave in a sum of many losses."""

STALLED_GAIN = 1e-6
"""Relative gain left below which a member that finds no better step has converged."""

SAME_OPTIMUM = 1e-4
"""Relative distance between objectives within which two starts have found the same optimum."""

NEGLIGIBLE = 1e-6
"""Root mean square residual below which objectives are equal whatever their ratio: data without noise."""

FINE = 1e-15
"""Relative gain left to an undamped step below which an estimate has converged."""

COARSE = 1e-7
"""The same for resamples, whose spread is known to a few percent at best."""

PATIENCE = 2
"""How many times the iterations of the first start to converge the other starts of a race may take."""

FLAT_CURVATURE = 0.05
"""Share of its weight that a point keeps in the curvature where the Huber loss is linear (see `_curvature`)."""


@dataclass(frozen=True)
class Solution:
    """Where each member ended: theta (members, parameters), objective, and whether it converged."""

    theta: FloatArray
    objective: FloatArray
    converged: BoolArray
    iterations: IntArray


def huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Return Huber(r) = r^2/2 for |r| <= delta, else delta (|r| - delta/2) (laws.md 1.3)."""
    xp = namespace(residuals)
    if delta == np.inf:
        return residuals * residuals / 2
    size = xp.abs(residuals)
    inside = xp.where(size <= delta, size, delta)
    return inside * (size - inside / 2)  # type: ignore[no-any-return]


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

    A member has converged where an undamped step would gain less than `tolerance` of its objective. One whose
    model is undefined at its start has an infinite objective and has not converged; one whose weights are all
    zero stays at its start and has not converged, because it has seen no data.

    In a `race` the members are starts of one problem. One that settles where the best converged one has, as far
    as `same_optimum` tells, is finished; one still above it after `PATIENCE` times as long is given up.
    Raises ValueError where a lower bound is above the upper one.
    """
    xp = namespace(start)
    theta, weights = float64_like(start, start), float64_like(weights, start)
    members, n_parameters = theta.shape
    n_points = weights.shape[1]
    low, high = (xp.broadcast_to(float64_like(bound, start), theta.shape) for bound in (lower, upper))
    if not bool(xp.all(low <= high)):
        raise ValueError("a lower bound lies above the upper one, or is not a number")
    size = max(1, CHUNK_BYTES // (8 * max(1, work or n_points * (n_parameters + 4))))
    objective = _Objective(model, float(delta), _prior_like(prior, theta))
    crew = _Crew(objective, _Start(theta.clip(low, high), weights, low, high), max_iterations, tolerance)
    for begin in range(0, members, size if race else max(1, members)):
        numbers = range(begin, min(begin + size, members) if race else members)
        crew.work(numbers, size, _Race(n_points) if race else _Rules())
    return crew.solution


def _prior_like(prior: Prior | None, theta: FloatArray) -> Prior | None:
    if prior is None:
        return None
    return float64_like(prior[0], theta), float64_like(prior[1], theta)


@dataclass(frozen=True)
class _Start:
    """All members as they were given; a row each."""

    theta: FloatArray
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class _Objective:
    """What every member minimises for its own weights."""

    model: Model
    delta: float
    prior: Prior | None

    def local(self, theta: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return each member's objective, gradient and curvature; objective infinite where one is undefined."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            residuals, jacobian = self.model(theta)
            shape = _shape(residuals, jacobian, weights, self.delta)
            undefined = ~_finite(shape)
            if bool(namespace(theta).any(undefined)):
                shape = _without_unweighted(shape, undefined, residuals, jacobian, weights, self.delta)
            return self._with_prior(theta, *shape)

    def _with_prior(
        self, theta: FloatArray, objective: FloatArray, gradient: FloatArray, curvature: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self.prior is None:
            return objective, gradient, curvature
        xp = namespace(theta)
        centre, precision = self.prior
        away = xp.where(precision > 0, theta - centre, 0.0)
        total = objective + xp.sum(precision * away * away, axis=1) / 2
        identity = _identity(theta)
        return total, gradient + precision * away, curvature + precision * identity


def _identity(theta: FloatArray) -> FloatArray:
    return float64_like(np.eye(theta.shape[1]), theta)  # type: ignore[no-any-return]


def _shape(
    residuals: FloatArray, jacobian: FloatArray, weights: FloatArray, delta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return objective (members,), gradient (members, parameters), curvature (members, parameters, parameters).

    The Huber loss is flat in curvature beyond delta. Newton's choice (nothing there) converges fast but may be
    singular, the reweighting choice (delta/|r|) never is but converges slowly: a share of the second is kept.
    """
    xp = namespace(residuals)
    if delta == np.inf:
        influence, curved = weights * residuals, weights
        objective = xp.sum(influence * residuals, axis=1) / 2
    else:
        clipped = residuals.clip(-delta, delta)
        influence = weights * clipped
        objective = xp.sum(influence * (residuals - clipped / 2), axis=1)
        curved = xp.where(clipped == residuals, weights, FLAT_CURVATURE * influence / residuals)
    gradient = xp.matmul(influence[:, None, :], jacobian)[:, 0, :]
    return objective, gradient, xp.matmul(xp.matrix_transpose(jacobian), jacobian * curved[..., None])


def _finite(shape: tuple[FloatArray, FloatArray, FloatArray]) -> BoolArray:
    objective, gradient, curvature = shape
    xp = namespace(objective)
    total = objective + xp.sum(gradient, axis=1) + xp.sum(curvature, axis=(1, 2))
    return xp.isfinite(total)  # type: ignore[no-any-return]


def _without_unweighted(
    shape: tuple[FloatArray, FloatArray, FloatArray],
    undefined: BoolArray,
    residuals: FloatArray,
    jacobian: FloatArray,
    weights: FloatArray,
    delta: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Work out the undefined members again without the points that have no weight; infinite if that fails."""
    xp = namespace(residuals)
    rows = xp.nonzero(undefined)[0]
    weights = weights[rows]
    counts = weights != 0
    residuals = xp.where(counts, residuals[rows], 0.0)
    again = _shape(residuals, xp.where(counts[..., None], jacobian[rows], 0.0), weights, delta)
    objective, gradient, curvature = shape
    objective[rows] = xp.where(_finite(again), again[0], xp.inf)
    gradient[rows], curvature[rows] = again[1], again[2]
    return objective, gradient, curvature


@dataclass
class _Live:
    """The members that are being worked on: where each is, the shape of its objective there, and its damping.

    `number` is its row in the start; `largest` (members, parameters) its largest curvatures so far; `growth` the
    factor of its damping at the next failure; `expected` the gain that the quadratic model saw in its last step.
    """

    number: IntArray
    theta: FloatArray
    weights: FloatArray
    lower: FloatArray
    upper: FloatArray
    objective: FloatArray
    gradient: FloatArray
    curvature: FloatArray
    largest: FloatArray
    damping: FloatArray
    growth: FloatArray
    expected: FloatArray
    iterations: IntArray

    def rows(self, rows: IntArray) -> _Live:
        return _Live(*(getattr(self, column.name)[rows] for column in fields(self)))

    def joined(self, other: _Live) -> _Live:
        xp = namespace(self.theta)
        pairs = ((getattr(self, column.name), getattr(other, column.name)) for column in fields(self))
        return _Live(*(xp.concat(pair) for pair in pairs))

    def be_cautious(self) -> None:
        """Damp the first steps of those that start far off: the linear model promises most of their objective."""
        _, expected = self._step(self.damping)
        share = expected / self.objective.clip(TINY, None)
        self.damping = (FAR_DAMPING * share**4).clip(NEAR_DAMPING, FAR_DAMPING)

    def propose(self, tolerance: float) -> tuple[FloatArray, BoolArray]:
        """Return where to step to, and who is settled: an undamped step would gain next to nothing."""
        xp = namespace(self.theta)
        moved, self.expected = self._step(self.damping)
        small = self.expected <= tolerance * self.objective
        rows = xp.nonzero(small)[0]
        if not rows.shape[0]:
            return moved, small
        # A damped step gains little along a weak direction too: only an undamped one tells.
        few = self.rows(rows)
        moved[rows], self.expected[rows] = few._step(xp.zeros_like(few.damping))
        small[rows] = self.expected[rows] <= tolerance * few.objective
        self.damping[rows] = MIN_DAMPING
        return moved, small

    def _step(self, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return where a step of this damping leads, within the bounds, and the gain to expect of it."""
        xp = namespace(self.theta)
        held = ((self.theta <= self.lower) & (self.gradient >= 0)) | (
            (self.theta >= self.upper) & (self.gradient <= 0)
        )
        step = _damped_step(self.gradient, self.curvature, self.largest, damping, held)
        moved = (self.theta + step).clip(self.lower, self.upper)
        taken = moved - self.theta
        bend = xp.matmul(self.curvature, taken[..., None])[..., 0]
        return moved, -xp.sum(taken * (self.gradient + bend / 2), axis=1)

    def move(self, moved: FloatArray, objective: _Objective) -> None:
        """Take the steps that lower the objective, and set the damping by how far the gain was the expected."""
        xp = namespace(self.theta)
        reached, gradient, curvature = objective.local(moved, self.weights)
        gain = self.objective - reached
        noise = ROUNDING * self.objective
        better = (gain > LEAST_RATIO * self.expected) | ((self.expected <= noise) & (gain >= -noise))
        self.theta = xp.where(better[:, None], moved, self.theta)
        self.objective = xp.where(better, reached, self.objective)
        self.gradient = xp.where(better[:, None], gradient, self.gradient)
        self.curvature = xp.where(better[:, None, None], curvature, self.curvature)
        self.largest = xp.maximum(MEMORY * self.largest, xp.linalg.diagonal(self.curvature))
        self.damping = (self.damping * self._damping_factor(gain, better)).clip(MIN_DAMPING, None)
        self.growth = xp.where(better, FIRST_GROWTH, 2 * self.growth)
        self.iterations = self.iterations + 1

    def _damping_factor(self, gain: FloatArray, better: BoolArray) -> FloatArray:
        """Return by how much to multiply the damping: less for a gain as expected, ever more for failures."""
        xp = namespace(gain)
        usable = better & (self.expected > 0)
        ratio = xp.where(usable, gain, 0.5) / xp.where(usable, self.expected, 1.0)
        return xp.where(better, (1 - (2 * ratio - 1) ** 3).clip(LEAST_SHRINK, 2.0), self.growth)  # type: ignore[no-any-return]

    def stalled(self) -> tuple[BoolArray, BoolArray]:
        """Return who finds no better step however short, and who of all is at an optimum as far as one can see.

        Rounding hides the last gains in data without noise, and where the gradient is nearly orthogonal.
        """
        flat = self.expected <= STALLED_GAIN * self.objective
        exact = self.objective <= self.weights.shape[1] * NEGLIGIBLE**2 / 2
        return self.damping > MAX_DAMPING, flat | exact


def _damped_step(
    gradient: FloatArray, curvature: FloatArray, largest: FloatArray, damping: FloatArray, held: BoolArray
) -> FloatArray:
    """Return the damped step (members, parameters); parameters that a bound holds against the gradient stay.

    The damping is relative to the largest curvature seen, so that a parameter whose effect vanishes does not run
    away; the system is solved in the scale of the present curvature, which keeps it well conditioned.
    """
    xp = namespace(gradient)
    square = xp.linalg.diagonal(curvature)
    square = xp.where(held | (square <= 0), 1.0, square)
    free = xp.where(held, 0.0, 1.0 / xp.sqrt(square))
    added = xp.where(held, 1.0, damping[:, None] * (largest / square) + JITTER)
    matrix = curvature * (free[:, :, None] * free[:, None, :]) + added[:, None, :] * _identity(gradient)
    return xp.linalg.solve(matrix, -(gradient * free)[..., None])[..., 0] * free  # type: ignore[no-any-return]


class _Rules:
    """Members that know nothing of each other go on until they converge."""

    def note(self, objective: FloatArray) -> None:
        """Hear of the objectives (members,) of those that have converged in this turn."""

    def decide(self, live: _Live) -> tuple[BoolArray, BoolArray]:
        """Return who is finished because of what others found, and who is given up because of it."""
        nobody = live.objective != live.objective
        return nobody, nobody


class _Race(_Rules):
    """Starts of one problem: who settles where the leader has agreed, who takes much longer is given up."""

    def __init__(self, n_points: int) -> None:
        self.n_points, self.best, self.last, self.turn = n_points, np.inf, np.inf, 0

    def note(self, objective: FloatArray) -> None:
        self.last = min(self.last, PATIENCE * (self.turn + 1))
        self.best = min(self.best, float(namespace(objective).min(objective)))

    def decide(self, live: _Live) -> tuple[BoolArray, BoolArray]:
        self.turn += 1
        level = same_optimum(live.objective, self.best, self.n_points)
        # A start on its way to a lower optimum passes this height too, but it has more to gain.
        agreed = level & same_optimum(live.expected + self.best, self.best, self.n_points)
        return agreed, ~level & (self.turn >= self.last)


class _Crew:
    """Works on members, no more than fit at once, and keeps where each ended."""

    def __init__(self, objective: _Objective, start: _Start, max_iterations: int, tolerance: float) -> None:
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

    def _admit(self, live: _Live | None, part: slice) -> _Live | None:
        """Add the members of a part of the start where the objective is defined and data were seen."""
        given = self.start
        xp = namespace(given.theta)
        theta, weights = given.theta[part], given.weights[part]
        objective, gradient, curvature = self.objective.local(theta, weights)
        self.solution.objective[part] = objective
        damping = xp.zeros_like(objective) + NEAR_DAMPING
        largest = xp.linalg.diagonal(curvature)
        new = _Live(
            xp.arange(part.start, part.stop),
            theta,
            weights,
            given.lower[part],
            given.upper[part],
            objective,
            gradient,
            curvature,
            largest,
            damping,
            xp.zeros_like(damping) + FIRST_GROWTH,
            xp.zeros_like(damping) + xp.inf,
            xp.zeros_like(damping, dtype=xp.int64),
        )
        usable = _kept(new, xp.isfinite(objective) & xp.any(weights != 0, axis=1))
        if usable is None:
            return live
        usable.be_cautious()
        return usable if live is None else live.joined(usable)

    def _turn(self, live: _Live, rules: _Rules) -> _Live | None:
        """Step all members once, and return those that have not finished."""
        xp = namespace(live.theta)
        moved, settled = live.propose(self.tolerance)
        if bool(xp.any(settled)):
            rules.note(live.objective[settled])
            self._polish(live.rows(xp.nonzero(settled)[0]), moved[settled])
            left, moved = _kept(live, ~settled), moved[~settled]
            if left is None:
                return None
            live = left
        live.move(moved, self.objective)
        stalled, optimal = live.stalled()
        if bool(xp.any(stalled & optimal)):
            rules.note(live.objective[stalled & optimal])
        agreed, given_up = rules.decide(live)
        done = stalled | agreed | given_up | (live.iterations >= self.max_iterations)
        return self._retire(live, done, agreed | (stalled & optimal))

    def _polish(self, settled: _Live, moved: FloatArray) -> None:
        """Note where settled members end: after a last step, unless it leads astray or coarse will do."""
        if self.tolerance <= FINE:
            xp = namespace(moved)
            reached, _, _ = self.objective.local(moved, settled.weights)
            better = reached <= settled.objective * (1 + ROUNDING)
            settled.theta = xp.where(better[:, None], moved, settled.theta)
            settled.objective = xp.where(better, reached, settled.objective)
            settled.iterations = settled.iterations + 1
        everyone = settled.number == settled.number
        self._retire(settled, everyone, everyone)

    def _retire(self, live: _Live, done: BoolArray, converged: BoolArray) -> _Live | None:
        """Note where the members ended that are done, and return the others."""
        if not bool(namespace(done).any(done)):
            return live
        rows = live.number[done]
        self.solution.theta[rows] = live.theta[done]
        self.solution.objective[rows] = live.objective[done]
        self.solution.converged[rows] = converged[done]
        self.solution.iterations[rows] = live.iterations[done]
        return _kept(live, ~done)


def _kept(live: _Live, stay: BoolArray) -> _Live | None:
    """Return the members that stay, None for nobody."""
    rows = namespace(stay).nonzero(stay)[0]
    if rows.shape[0] == stay.shape[0]:
        return live
    return live.rows(rows) if rows.shape[0] else None

"""The members of a batch that are being worked on, and their damped steps."""

from __future__ import annotations

from dataclasses import dataclass, fields

from isoloss.arrays import BoolArray, FloatArray, IntArray, device, namespace
from isoloss.fitting.huber import Objective, Shape, identity

NEAR_DAMPING, FAR_DAMPING = 1e-3, 100.0
"""The first damping of a member that starts at its optimum, and of one that starts far from it."""

MIN_DAMPING, MAX_DAMPING = 1e-12, 1e12
FIRST_GROWTH = 4.0
"""Factor of the damping after a first failure; it doubles with each one that follows."""

LEAST_SHRINK = 0.1
LEAST_RATIO = 0.1
"""Share of the expected gain that a step must bring: one that brings less has left the region of the linear
model, often for a plateau."""

MEMORY = 0.3
"""How much of its former curvature a parameter keeps in the scale of the damping from one step to the next."""

JITTER = 1e-14
"""Added to the scaled curvature, so that a parameter without effect does not make it singular."""

MAX_SCALE, TINY = 1e30, 1e-300

ROUNDING = 1e-13
"""Relative error that rounding may leave in a sum of many losses."""

STALLED_GAIN = 1e-6
"""Relative gain left below which a member that finds no better step has converged all the same."""

NEGLIGIBLE = 1e-6
"""Root mean square residual below which objectives are equal whatever their ratio: data without noise."""


@dataclass
class Members:
    """The members that are being worked on: where each is, the shape of its objective there, and its damping.

    `number` is its row in the start; `centre` (members, parameters) that of its priors, `largest` the largest of
    its curvatures of late; `growth` the factor of its damping at the next failure; `expected` the gain that the
    quadratic model saw in its last step.
    """

    number: IntArray
    theta: FloatArray
    weights: FloatArray
    centre: FloatArray
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

    @classmethod
    def begin(
        cls,
        number: IntArray,
        theta: FloatArray,
        weights: FloatArray,
        centre: FloatArray,
        bounds: tuple[FloatArray, FloatArray],
        shape: Shape,
    ) -> Members:
        """Return members at their starts, where their objectives have this shape."""
        xp = namespace(theta)
        nothing = xp.zeros_like(theta[:, 0])
        largest = xp.linalg.diagonal(shape[2])
        count = xp.zeros_like(number)
        damping, growth = nothing + NEAR_DAMPING, nothing + FIRST_GROWTH
        return cls(number, theta, weights, centre, *bounds, *shape, largest, damping, growth, nothing, count)

    def rows(self, rows: IntArray) -> Members:
        return Members(*(getattr(self, column.name)[rows] for column in fields(self)))

    def joined(self, other: Members) -> Members:
        xp = namespace(self.theta)
        pairs = ((getattr(self, column.name), getattr(other, column.name)) for column in fields(self))
        return Members(*(xp.concat(pair) for pair in pairs))

    def be_cautious(self) -> None:
        """Damp the first steps of those that start far off: the linear model promises most of their objective."""
        _, expected = self._step(self.damping)
        share = expected / self.objective.clip(TINY, None)
        self.damping = (FAR_DAMPING * share**4).clip(NEAR_DAMPING, FAR_DAMPING)

    def propose(self, tolerance: float) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Return where to step to (members, parameters), who is finished, and who of them has converged.

        A damped step gains little along a weak direction too: only an undamped one tells. One that promises much
        but failed, as all did that were damped more, leaves nothing to try.
        """
        xp = namespace(self.theta)
        moved, self.expected = self._step(self.damping)
        small = (xp.abs(self.expected) <= tolerance * self.objective) | (self.damping > MAX_DAMPING)
        finished, converged = xp.zeros_like(small), xp.zeros_like(small)
        rows = xp.nonzero(small)[0]
        if rows.shape[0]:
            few = self.rows(rows)
            failed = few.growth > FIRST_GROWTH
            undamped, expected = few._step(xp.zeros_like(few.damping))
            enough = xp.where(failed, STALLED_GAIN, tolerance) * few.objective
            converged[rows] = (xp.abs(expected) <= enough) | (failed & few._is_exact())
            finished[rows] = converged[rows] | (few.damping > MAX_DAMPING)
            anew = ~failed | converged[rows]
            moved[rows] = xp.where(anew[:, None], undamped, moved[rows])
            self.expected[rows] = xp.where(anew, expected, few.expected)
            self.damping[rows] = xp.where(anew, MIN_DAMPING, few.damping)
        return moved, finished, converged

    def _is_exact(self) -> BoolArray:
        """Return whose residuals are rounding alone, as far as one can see."""
        exact: BoolArray = self.objective <= self.weights.shape[1] * NEGLIGIBLE**2 / 2
        return exact

    def _step(self, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return where a step of this damping leads, within the bounds, and the gain to expect of it.

        The gain is not above 0 where several bounds at once spoil a step: one that is damped more gains.
        """
        xp = namespace(self.theta)
        low, high = self.lower - self.theta, self.upper - self.theta
        held = ((low >= 0) & (self.gradient >= 0)) | ((high <= 0) & (self.gradient <= 0))
        # Relative to the largest curvature of late, so that a parameter whose effect vanishes does not run away.
        added = damping[:, None] * self.largest
        taken = _bounded_step(self.gradient, self.curvature, added, held, low, high)
        moved = (self.theta + taken).clip(self.lower, self.upper)
        taken = moved - self.theta
        bend = xp.matmul(self.curvature, taken[..., None])[..., 0]
        return moved, -xp.sum(taken * (self.gradient + bend / 2), axis=1)

    def move(self, moved: FloatArray, objective: Objective) -> None:
        """Take the steps that lower the objective, and set the damping by how far the gain was the expected."""
        xp = namespace(self.theta)
        reached, gradient, curvature = objective.local(moved, self.weights, self.centre)
        gain = self.objective - reached
        noise = ROUNDING * self.objective
        better = (self.expected > 0) & (gain > LEAST_RATIO * self.expected)
        better |= (xp.abs(self.expected) <= noise) & (gain >= -noise)
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
        shrink = (1 - (2 * ratio - 1) ** 3).clip(LEAST_SHRINK, 2.0)
        return xp.where(better, shrink, self.growth)


def _bounded_step(
    gradient: FloatArray,
    curvature: FloatArray,
    added: FloatArray,
    held: BoolArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    """Return the step (members, parameters) within low..high; parameters that a bound holds stay.

    Where the best step leaves the bounds, the parameter that leaves them farthest goes as far as it may, the others
    take the step that is then best for them, and so on. To cut the step short in one parameter alone may lead
    uphill, and to stop several at once may leave none that moves.
    """
    xp = namespace(gradient)
    step = _damped_step(gradient, curvature, added, held)
    gone = xp.zeros_like(step)
    left = xp.nonzero(xp.any((step < low) | (step > high), axis=1))[0]
    while left.shape[0]:
        allowed = step[left].clip(low[left], high[left])
        beyond = xp.abs(step[left] - allowed) * xp.sqrt(xp.linalg.diagonal(curvature[left]))
        farthest = xp.argmax(xp.where(step[left] == allowed, -1.0, beyond), axis=1)
        gone[left, farthest] = allowed[xp.arange(left.shape[0], device=device(step)), farthest]
        held[left, farthest] = True
        pushed = gradient[left] + xp.matmul(curvature[left], gone[left][..., None])[..., 0]
        step[left] = _damped_step(pushed, curvature[left], added[left], held[left]) + gone[left]
        left = left[xp.any((step[left] < low[left]) | (step[left] > high[left]), axis=1)]
    return step


def _damped_step(
    gradient: FloatArray, curvature: FloatArray, added: FloatArray, held: BoolArray
) -> FloatArray:
    """Return the damped step (members, parameters), 0 where a parameter is held.

    The system is solved in the scale of the present curvature, which keeps it well conditioned.
    """
    xp = namespace(gradient)
    square = xp.linalg.diagonal(curvature)
    square = xp.where(held | (square <= 0), 1.0, square)
    free = xp.where(held, 0.0, 1.0 / xp.sqrt(square))
    damped = xp.where(held, 1.0, (added / square).clip(None, MAX_SCALE) + JITTER)
    matrix = curvature * (free[:, :, None] * free[:, None, :]) + damped[:, None, :] * identity(gradient)
    return xp.linalg.solve(matrix, -(gradient * free)[..., None])[..., 0] * free


def kept(members: Members, stay: BoolArray) -> Members | None:
    """Return the members that stay, None for nobody."""
    rows = namespace(stay).nonzero(stay)[0]
    if rows.shape[0] == stay.shape[0]:
        return members
    return members.rows(rows) if rows.shape[0] else None

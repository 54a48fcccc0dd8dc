"""Loss under a learning-rate schedule: progress, and a concave noise floor with a fading memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from isoloss.arrays import FloatArray, IntArray, namespace
from isoloss.laws.drops import LEAST_FALL, areas, drops_of, joined, largest_fall
from isoloss.laws.law import CurveLaw, Derived, Features, Parameter, Priors
from isoloss.laws.memory import sum_runs_of
from isoloss.laws.power_laws import blank_jacobian
from isoloss.observations import Trained
from isoloss.schedules import Schedule

L0, A, A_EXP, B, C, B_EXP, G, P, Z, T = range(10)

UNIT_STEPS = 1000.0
"""The unit of progress and of memory: so many steps at the peak learning rate."""

UNIT_PROGRESS = 8.0
"""The progress at which B is the gain of annealing, in `UNIT_STEPS`."""

START_UP = 0.5
"""How long the start-up transient lasts, in `UNIT_STEPS` of progress."""

LEAST_START_UP = 0.01
"""What must be left of the start-up transient at a point that is to show it."""

WIDE_STARTS = {
    "a": (0.2, 1.0),
    "C": (3.7, 60.0),
    "b": (0.15, 2.4),
    "g": (-0.45, 1.3),
    "p": (0.32, 1.25),
    "z": (-0.25, 0.15),
}
"""Where further starts lie: within two standard deviations of the priors, and inside the bounds."""

SMALLEST = 1e-300
"""Stands for a learning rate of 0 where its logarithm is taken."""


@dataclass(frozen=True)
class Memory(Features):
    """Progress at the points, and the drops of learning rate before each, all rates as shares of the run's peak.

    `log_progress` = ln S, `start_up`, the transient's exponential, and `fallen`, the largest share by which the
    rate of the run falls, are (points,). `log_lr` (edges,) are the rates between which nodes drop, from `start` to
    `end` (nodes,), each at ln(S/8) = `node_progress`. The clock I runs over events, run after run: `event_steps`
    thousand steps each, at rates of mean exp(`event_log_lr`) and relative variance `event_spread` (events,). The
    pairs of a node, `pair_node` at ln(S/8) = `pair_progress`, and a point behind it, which lie at `node_event` and
    `point_event` (pairs,), are in the order of the points, whose pairs begin at `pair_starts` (points,).
    """

    log_progress: FloatArray
    start_up: FloatArray
    fallen: FloatArray
    log_lr: FloatArray
    start: IntArray
    end: IntArray
    node_progress: FloatArray
    event_steps: FloatArray
    event_log_lr: FloatArray
    event_spread: FloatArray
    pair_node: IntArray
    pair_progress: FloatArray
    point_event: IntArray
    node_event: IntArray
    pair_starts: IntArray


class ConcaveMemory(CurveLaw[Memory]):
    """L(t) = L0 + A S^-a - B sum_k (u_{k-1}^p - u_k^p) (S_k/8)^z G(C (I(t) - I_{k-1})) + T exp(-(S - S_w)/0.5).

    u_s = eta_s / peak of the run, S(t) = sum_{s<=t} u_s / 1000 with warm-up, I(t) = sum_{s<=t} u_s^(1-g) / 1000,
    k over the steps after warm-up, which ends at S_w; G(x) = 1 - (1 + x/b)^-b. Losses in nats per token.
    g = 0: the memory fades in learning-rate area, g = 1: in steps. p < 1: the noise floor is concave in the
    learning rate. z < 0: annealing gains less the later it comes. Source: our own form (laws.md 1.4).
    """

    name = "concave_memory"
    title = "Loss under a schedule: concave noise floor with a fading memory"
    formula = (
        "L(t) = L0 + A * S(t)^-a - B * sum_k (u_{k-1}^p - u_k^p) * (S_k/8)^z * G(C * (I(t) - I_{k-1})) "
        "+ T * exp(-(S(t) - S_w)/0.5), G(x) = 1 - (1 + x/b)^-b"
    )
    reference = "Isoloss, after functional scaling laws, arXiv:2509.19189"
    quantity = "loss"
    unit = "nats/token"
    requires = ("points.step", "points.loss", "schedule or points.lr")
    remedy = "add runs whose schedules differ more"
    remedies: ClassVar = {
        frozenset(("C", "b")): "add a run whose learning rate jumps, which shows the memory of annealing",
        frozenset(("C", "g")): "add a run whose learning rate jumps and stays low",
        frozenset(("B", "z")): "add a run that is annealed at another time",
        frozenset(("B", "p")): "add runs that are annealed to other learning rates",
    }
    parameters = (
        Parameter("L0", "L_0", "nats/token", 0.0, np.inf, "loss that remains", enters_linearly=True),
        Parameter(
            "A", "A", "nats/token", 0.0, np.inf, "what is left to learn at S = 1", enters_linearly=True
        ),
        Parameter("a", "a", "1", 0.15, 1.2, "exponent of progress S", "log"),
        Parameter(
            "B", "B", "nats/token", 0.0, np.inf, "gain of annealing to 0 at S = 8", enters_linearly=True
        ),
        Parameter("C", "C", "1/(1000 steps)", 0.02, 100.0, "rate at which a drop takes effect", "log"),
        Parameter("b", "b", "1", 0.1, 3.0, "exponent with which the last of the effect sets in", "log"),
        Parameter("g", "g", "1", -0.5, 1.5, "clock of the memory: 0 learning-rate area, 1 steps"),
        Parameter("p", "p", "1", 0.3, 2.0, "exponent of the noise floor in the learning rate"),
        Parameter("z", "z", "1", -1.0, 1.0, "exponent of the gain in progress"),
        Parameter("T", "T", "nats/token", -np.inf, np.inf, "start-up transient", enters_linearly=True),
    )

    def prepare(self, runs: Sequence[Trained]) -> Memory:
        return joined([_of_run(run) for run in runs], _POSITIONS)

    def basis(self, theta: FloatArray, features: Memory) -> FloatArray:
        """Return the columns of (L0, A, B, T)."""
        xp = namespace(theta)
        progress = xp.exp(-theta[:, A_EXP, None] * features.log_progress)
        start_up = features.start_up + xp.zeros_like(progress)
        return xp.stack([xp.ones_like(progress), progress, -_annealed(theta, features), start_up], axis=-1)

    def predict(self, theta: FloatArray, features: Memory) -> FloatArray:
        xp = namespace(theta)
        progress = xp.exp(-theta[:, A_EXP, None] * features.log_progress)
        start_up = theta[:, T, None] * features.start_up
        smooth = theta[:, L0, None] + theta[:, A, None] * progress + start_up
        return smooth - theta[:, B, None] * _annealed(theta, features)

    def jacobian(self, theta: FloatArray, features: Memory) -> tuple[FloatArray, FloatArray]:
        xp = namespace(theta)
        progress = xp.exp(-theta[:, A_EXP, None] * features.log_progress)
        out = blank_jacobian(theta, features.n_points)
        out[:, L0] = 1.0
        out[:, A] = progress
        progress = theta[:, A, None] * progress
        out[:, A_EXP] = -progress * features.log_progress
        out[:, T] = features.start_up
        annealed = self._annealing(theta, features, out)
        start_up = theta[:, T, None] * features.start_up
        return theta[:, L0, None] + progress + start_up - theta[:, B, None] * annealed, out.mT

    @staticmethod
    def _annealing(theta: FloatArray, features: Memory, out: FloatArray) -> FloatArray:
        """Return the sum over the drops (members, points), and write the derivatives by B, C, b, g, p and z."""
        xp = namespace(theta)
        clock, clock_slope = _clock(theta, features)
        weight, weight_slope = _weights(theta, features)
        b = theta[:, B_EXP, None]
        weight = xp.take(weight, features.pair_node, axis=1)
        weight_slope = xp.take(weight_slope, features.pair_node, axis=1)
        reached = theta[:, C, None] / b * _between(clock, features)
        log = xp.log1p(reached)
        left = xp.exp(-b * log)
        weight_slope = weight_slope - weight_slope * left
        left = weight * left
        weight = weight - left
        slope = left / (1 + reached)

        def summed(values: FloatArray) -> FloatArray:
            return sum_runs_of(values, features.pair_starts)

        gained = theta[:, B, None]
        annealed = summed(weight)
        moved = summed(slope * reached)
        out[:, B] = -annealed
        out[:, C] = -gained * b / theta[:, C, None] * moved
        out[:, B_EXP] = gained * (moved - summed(left * log))
        out[:, G] = -gained * theta[:, C, None] * summed(slope * _between(clock_slope, features))
        out[:, P] = -gained * summed(weight_slope)
        out[:, Z] = -gained * summed(weight * features.pair_progress)
        return annealed

    def grid(self, features: Memory, count: int) -> FloatArray:  # noqa: ARG002
        """Return a few starts around the centres of the priors: they hold the memory in one basin.

        Where more are asked for, points of a Sobol sequence follow that cover `WIDE_STARTS`.
        """
        starts: list[tuple[float, ...]]
        starts = [(a, C_, 0.6, 0.3, 0.75, -0.05) for a in (0.3, 0.5, 0.8) for C_ in (8.0, 25.0)]
        if count > len(starts):
            starts += _evenly(count - len(starts))
        theta = np.zeros((len(starts), 10))
        theta[:, [self.index(name) for name in WIDE_STARTS]] = starts
        return theta

    def held(self, features: Memory, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        """Hold the start-up transient at nothing where no points show it, or where it cannot be told from A S^-a.

        The latter is where points lie so early, before S = 0.5, that S^-a itself falls as steeply. Leaving out one
        training run after the other, the ends of `lr_scheduling`, whose points begin at S = 0.2, are predicted
        better without the transient at three of four peaks, those of `multipowerlaw`, from S = 1.1 on, better
        with it on 25M and worse on 100M.
        """
        shown = features.start_up.max() >= LEAST_START_UP
        told_apart = features.log_progress.min() >= np.log(START_UP)
        return {} if shown and told_apart else {"T": 0.0}

    def undetermined(self, features: Memory, fixed: Collection[str] = ()) -> dict[str, str]:
        if features.fallen.max() >= LEAST_FALL:
            return {}
        why = f"no run was annealed: the learning rate never falls by {LEAST_FALL:.0%} where there are points"
        return {name: why for name in ("B", "C", "b", "g", "p", "z") if name not in fixed}

    def priors(self, features: Memory) -> Priors:  # noqa: ARG002
        """Return the weak priors of laws.md 1.4; with wide ones held-out errors rise by a quarter."""
        centres = {"C": (15.0, 0.7), "b": (0.6, 0.7), "g": (0.3, 0.5), "p": (0.75, 0.25), "z": (-0.05, 0.1)}
        return Priors(centres, strength=0.005)

    def derived(self, theta: FloatArray, runs: Sequence[Trained]) -> Derived:  # noqa: ARG002
        """Return after how many steps at the peak learning rate half of a small drop has taken effect."""
        half = theta[:, B_EXP] * np.expm1(np.log(2) / theta[:, B_EXP]) / theta[:, C]
        return {"memory_half_life_steps": ("steps", UNIT_STEPS * half, ("C", "b"))}


def _evenly(count: int) -> list[tuple[float, ...]]:
    """Return `count` points that cover `WIDE_STARTS`, the same ones every time and the first ones of more."""
    from scipy.stats import qmc  # takes long to import, and is seldom needed

    unit = qmc.Sobol(len(WIDE_STARTS), seed=0).random_base2((count - 1).bit_length())[:count]
    columns = [
        lowest * (highest / lowest) ** share if lowest > 0 else lowest + (highest - lowest) * share
        for (lowest, highest), share in zip(WIDE_STARTS.values(), unit.T, strict=True)
    ]
    return list(zip(*columns, strict=True))


def _annealed(theta: FloatArray, features: Memory) -> FloatArray:
    """Return the sum over the drops before each point, (members, points)."""
    xp = namespace(theta)
    elapsed = _between(_clock(theta, features, slope=False)[0], features)
    exponent = theta[:, B_EXP, None]
    left = xp.exp(-exponent * xp.log1p(theta[:, C, None] / exponent * elapsed))
    weight = xp.take(_weights(theta, features)[0], features.pair_node, axis=1)
    return sum_runs_of(weight - weight * left, features.pair_starts)


def _between(clock: FloatArray, features: Memory) -> FloatArray:
    """Return what the clock gained between the node and the point of each pair, (members, pairs)."""
    take = namespace(clock).take
    gained: FloatArray = take(clock, features.point_event, axis=1) - take(clock, features.node_event, axis=1)
    return gained


def _clock(theta: FloatArray, features: Memory, slope: bool = True) -> tuple[FloatArray, FloatArray]:
    """Return I at all events and its derivative by g, (members, events); across runs it goes on.

    Between two events the mean of u^(1-g) is that of a narrow distribution of mean and variance of u.
    """
    xp = namespace(theta)
    g = theta[:, G, None]
    rate = features.event_steps * xp.exp((1 - g) * features.event_log_lr)
    bent = 1 - g * (1 - g) / 2 * features.event_spread
    clock = xp.cumulative_sum(rate * bent, axis=1)
    if not slope:
        return clock, clock
    by_g = rate * ((g - 0.5) * features.event_spread - bent * features.event_log_lr)
    return clock, xp.cumulative_sum(by_g, axis=1)


def _weights(theta: FloatArray, features: Memory) -> tuple[FloatArray, FloatArray]:
    """Return (u_{k-1}^p - u_k^p) (S_k/8)^z of each node and its derivative by p, (members, nodes)."""
    xp = namespace(theta)
    floor = xp.exp(theta[:, P, None] * features.log_lr)
    progress = xp.exp(theta[:, Z, None] * features.node_progress)
    slope = floor * features.log_lr

    dropped = (
        progress * (xp.take(values, features.start, axis=1) - xp.take(values, features.end, axis=1))
        for values in (floor, slope)
    )
    return next(dropped), next(dropped)


def _of_run(run: Trained) -> Memory:
    """Return the features of one run."""
    schedule = run.schedule
    drops = drops_of(run, schedule.warmup_steps)
    unit = schedule.peak_lr * UNIT_STEPS
    progress = schedule.area(run.step) / unit
    warm = float(schedule.area([schedule.warmup_steps])[0]) / unit
    when, event = np.unique(np.append(run.step.astype(np.float64), drops.position), return_inverse=True)
    steps, mean, spread = _stretches(schedule, when)
    edges, edge = np.unique(np.append(drops.start_lr, drops.end_lr), return_inverse=True)
    reached = areas(schedule, drops.position + 1) / unit / UNIT_PROGRESS
    node_progress = np.log(np.where(drops.start_lr != drops.end_lr, np.maximum(reached, SMALLEST), 1.0))
    return Memory(
        n_points=run.step.size,
        n_terms=drops.node.size,
        log_progress=np.log(np.maximum(progress, SMALLEST)),
        start_up=np.exp(-np.maximum(progress - warm, 0) / START_UP),
        fallen=np.full(run.step.size, largest_fall(run)),
        log_lr=np.log(np.maximum(edges / schedule.peak_lr, SMALLEST)),
        start=edge[: drops.start_lr.size],
        end=edge[drops.start_lr.size :],
        node_progress=node_progress,
        event_steps=steps / UNIT_STEPS,
        event_log_lr=np.log(np.maximum(mean / schedule.peak_lr, SMALLEST)),
        event_spread=spread,
        pair_node=drops.node,
        pair_progress=node_progress[drops.node],
        point_event=event[drops.point],
        node_event=event[run.step.size + drops.node],
        pair_starts=np.searchsorted(drops.point, np.arange(run.step.size)),
    )


def _stretches(schedule: Schedule, when: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the steps before each event since the one before, their mean learning rate and relative variance."""
    steps = np.diff(when, prepend=when[0])
    first = np.append(0, np.floor(when[:-1])).astype(np.int64) + 1
    ends = schedule.lr(first), schedule.lr(np.maximum(np.ceil(when), 1).astype(np.int64))
    mean = np.diff(areas(schedule, when), prepend=0.0) / np.where(steps > 0, steps, 1.0)
    # Over a fraction of a step the difference of two areas may have no digits left.
    mean = np.where(steps < 1, np.clip(mean, np.minimum(*ends), np.maximum(*ends)), mean)
    moving = (steps > 0) & (mean > 0)
    spread = np.minimum((ends[1] - ends[0]) ** 2 / np.where(moving, mean, 1.0) ** 2, 4) / 12
    return (
        np.where(moving, steps, 0.0),
        np.where(moving, mean, schedule.peak_lr),
        np.where(moving, spread, 0.0),
    )


_POSITIONS = {
    "start": "log_lr",
    "end": "log_lr",
    "pair_node": "start",
    "point_event": "event_steps",
    "node_event": "event_steps",
    "pair_starts": "pair_node",
}
"""The fields that hold positions, each with the field that they are positions in."""

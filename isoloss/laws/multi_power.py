"""Loss under a learning-rate schedule: the Multi-Power Law."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from isoloss.arrays import FloatArray, IntArray, namespace
from isoloss.laws.drops import LEAST_FALL, areas, drops_of, joined, largest_fall
from isoloss.laws.law import CurveLaw, Derived, Features, Parameter, Priors
from isoloss.laws.memory import sum_runs_of
from isoloss.laws.power_laws import blank_jacobian
from isoloss.observations import Trained

L0, A, ALPHA, B, C, BETA, GAMMA = range(7)

FLOOR = 1e-8
"""Stands for a learning rate of 0, as a share of the peak: its power -gamma would be infinite."""

AFTER_WARMUP, FROM_FIRST_STEP = "after_warmup", "from_first_step"


@dataclass(frozen=True)
class Nodes(Features):
    """Areas at the points, and the drops of learning rate before each.

    `log_area` = ln S1, `peak` and `fallen`, the largest share by which the run's rate falls, are (points,).
    `log_lr` = ln eta_k (nodes,). The pairs of a node and a point behind it: `pair_node`, the node's
    `pair_drop` of learning rate and `pair_log_lr`, and the `pair_area` between them (pairs,), in the order of the
    points, whose pairs begin at `pair_starts` (points,).
    """

    log_area: FloatArray
    peak: FloatArray
    fallen: FloatArray
    log_lr: FloatArray
    pair_node: IntArray
    pair_drop: FloatArray
    pair_log_lr: FloatArray
    pair_area: FloatArray
    pair_starts: IntArray


class MultiPower(CurveLaw[Nodes]):
    """L(t) = L0 + A S1(t)^-alpha - B sum_{k<=t} (eta_{k-1} - eta_k) G(eta_k^-gamma S_k(t)).

    G(x) = 1 - (1 + C x)^-beta, S1 = sum_{i<=t} eta_i with warm-up, S_k = sum_{j=k..t} eta_j; losses in nats per
    token, eta as the optimiser applies it. Source: Luo et al. 2025, arXiv 2503.12811.

    C and gamma trade off (the drops of one learning rate see only C eta^-gamma), and so do B and beta near 0:
    gamma and beta have weak priors around the published values, which no unit of learning rate moves.

    Drops are summed from the end of warm-up unless asked otherwise: its rise is no annealing undone, and each of
    the three training curves of `multipowerlaw` is predicted from the other two with a mean error of .0050 (25M)
    and .0041 (100M) then, .0061 and .0043 when summed from the first step.
    """

    name = "multi_power"
    title = "Multi-Power Law: loss under a schedule"
    formula = (
        "L(t) = L0 + A * S1(t)^-alpha - B * sum_{k<=t} (eta_{k-1} - eta_k) * G(eta_k^-gamma * S_k(t)), "
        "G(x) = 1 - (1 + C x)^-beta"
    )
    reference = "Luo et al. 2025, 'A Multi-Power Law for Loss Curve Prediction', arXiv:2503.12811"
    quantity = "loss"
    unit = "nats/token"
    requires = ("points.step", "points.loss", "schedule or points.lr")
    error_of_peak = 0.1
    """As for `lr_annealing`: .03 to .08 for each doubling at lower peaks, below the floor at all higher ones."""
    gains_with_rates = True
    most_points = 10_000
    """A point sees some fifty nodes, and memory goes with their pairs: a fit of 100 different cosines of 1,000
    points takes 270 MB so, 430 at 20,000; one of 1,000 runs of four shapes 240 MB, 960 at the usual 100,000."""
    remedy = "add runs whose schedules differ more"
    remedies: ClassVar = {
        frozenset(("C", "gamma")): "add a run whose learning rate jumps to another value",
        frozenset(("B", "beta")): "add a run that trains on for long after its learning rate has fallen",
    }
    conventions: ClassVar[Mapping[str, str]] = {
        AFTER_WARMUP: "the drops are summed from the end of warm-up on",
        FROM_FIRST_STEP: "every change from step 1 on is summed, as published: warm-up counts as a negative drop",
    }
    parameters = (
        Parameter("L0", "L_0", "nats/token", 0.0, np.inf, "loss that remains", enters_linearly=True),
        Parameter(
            "A",
            "A",
            "nats/token * (lr*steps)^alpha",
            0.0,
            np.inf,
            "what training removes",
            enters_linearly=True,
        ),
        Parameter("alpha", "\\alpha", "1", 0.02, 3.0, "exponent of the area S1", "log"),
        Parameter(
            "B", "B", "nats/token/lr", 0.0, np.inf, "gain per drop of learning rate", enters_linearly=True
        ),
        Parameter("C", "C", "lr^gamma/(lr*steps)", 1e-12, 1e12, "rate at which a drop takes effect", "log"),
        Parameter(
            "beta", "\\beta", "1", 0.05, 5.0, "exponent with which the last of the effect sets in", "log"
        ),
        Parameter(
            "gamma", "\\gamma", "1", -0.5, 2.0, "how much faster drops to low learning rates take effect"
        ),
    )

    def prepare(self, runs: Sequence[Trained]) -> Nodes:
        whole = self.convention == FROM_FIRST_STEP
        return joined([_of_run(run, 0 if whole else run.schedule.warmup_steps) for run in runs], _POSITIONS)

    def basis(self, theta: FloatArray, features: Nodes) -> FloatArray:
        """Return the columns of (L0, A, B)."""
        xp = namespace(theta)
        progress = xp.exp(-theta[:, ALPHA, None] * features.log_area)
        return xp.stack([xp.ones_like(progress), progress, -_annealed(theta, features)], axis=-1)

    def predict(self, theta: FloatArray, features: Nodes) -> FloatArray:
        progress = theta[:, A, None] * namespace(theta).exp(-theta[:, ALPHA, None] * features.log_area)
        return theta[:, L0, None] + progress - theta[:, B, None] * _annealed(theta, features)

    def jacobian(self, theta: FloatArray, features: Nodes) -> tuple[FloatArray, FloatArray]:
        xp = namespace(theta)
        progress = xp.exp(-theta[:, ALPHA, None] * features.log_area)
        out = blank_jacobian(theta, features.n_points)
        out[:, L0] = 1.0
        out[:, A] = progress
        progress = theta[:, A, None] * progress
        out[:, ALPHA] = -progress * features.log_area
        reached = _reached(theta, features)
        log = xp.log1p(reached)
        left = features.pair_drop * xp.exp(-theta[:, BETA, None] * log)
        annealed = sum_runs_of(features.pair_drop - left, features.pair_starts)
        out[:, B] = -annealed
        negative = -theta[:, B, None]
        out[:, BETA] = negative * sum_runs_of(left * log, features.pair_starts)
        slope = left * (reached / (1 + reached))
        negative = negative * theta[:, BETA, None]
        out[:, C] = negative / theta[:, C, None] * sum_runs_of(slope, features.pair_starts)
        out[:, GAMMA] = -negative * sum_runs_of(slope * features.pair_log_lr, features.pair_starts)
        return theta[:, L0, None] + progress - theta[:, B, None] * annealed, out.mT

    def grid(self, features: Nodes, count: int) -> FloatArray:  # noqa: ARG002
        """Return a few starts over alpha and the rate at the peak learning rate, here per 1000 of its steps.

        The priors leave one optimum, which all of them reach.
        """
        peak = float(features.peak.max())
        starts = [(alpha, 0.6, 0.65, rate) for alpha in (0.3, 0.5, 0.8) for rate in (15.0, 100.0)]
        theta = np.zeros((len(starts), 7))
        theta[:, [ALPHA, BETA, GAMMA, C]] = starts
        theta[:, C] /= 1000 * peak ** (1 - theta[:, GAMMA])
        return theta

    def held(self, features: Nodes, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return {}

    def undetermined(self, features: Nodes, fixed: Collection[str] = ()) -> dict[str, str]:
        if features.fallen.max() >= LEAST_FALL:
            return {}
        why = f"no run was annealed: the learning rate never falls by {LEAST_FALL:.0%} where there are points"
        return {name: why for name in ("B", "C", "beta", "gamma") if name not in fixed}

    def priors(self, features: Nodes) -> Priors:  # noqa: ARG002
        return Priors({"beta": (0.6, 0.7), "gamma": (0.65, 0.25)}, strength=0.005)

    def derived(self, theta: FloatArray, runs: Sequence[Trained]) -> Derived:
        """Return after how many steps half of a small drop at the peak learning rate has taken effect."""
        peak = max(run.schedule.peak_lr for run in runs)
        rate = theta[:, C] * peak ** (1 - theta[:, GAMMA])
        half = np.expm1(np.log(2) / theta[:, BETA]) / rate
        return {"memory_half_life_steps": ("steps", half, ("C", "beta", "gamma"))}


def _reached(theta: FloatArray, features: Nodes) -> FloatArray:
    """Return C eta_k^-gamma S_k of each pair, (members, pairs)."""
    xp = namespace(theta)
    rate = theta[:, C, None] * xp.exp(-theta[:, GAMMA, None] * features.log_lr)
    reached: FloatArray = xp.take(rate, features.pair_node, axis=1) * features.pair_area
    return reached


def _annealed(theta: FloatArray, features: Nodes) -> FloatArray:
    """Return the sum over the drops before each point, (members, points)."""
    xp = namespace(theta)
    left = xp.exp(-theta[:, BETA, None] * xp.log1p(_reached(theta, features)))
    return sum_runs_of(features.pair_drop * (1 - left), features.pair_starts)


def _of_run(run: Trained, begin: int) -> Nodes:
    """Return the features of one run."""
    schedule, n_points = run.schedule, run.step.size
    drops = drops_of(run, begin)
    forward = schedule.area(run.step)
    before = areas(schedule, drops.position)
    lr = areas(schedule, drops.position + 1) - before
    log_lr = np.log(np.maximum(lr, FLOOR * schedule.peak_lr))
    return Nodes(
        n_points=n_points,
        n_terms=drops.node.size,
        log_area=np.log(np.maximum(forward, FLOOR * schedule.peak_lr)),
        peak=np.full(n_points, schedule.peak_lr),
        fallen=np.full(n_points, largest_fall(run)),
        log_lr=log_lr,
        pair_node=drops.node,
        pair_drop=(drops.start_lr - drops.end_lr)[drops.node],
        pair_log_lr=log_lr[drops.node],
        pair_area=np.maximum(forward[drops.point] - before[drops.node], 0.0),
        pair_starts=np.searchsorted(drops.point, np.arange(n_points)),
    )


_POSITIONS = {"pair_node": "log_lr", "pair_starts": "pair_node"}
"""The fields that hold positions, each with the field that they are positions in."""

"""Loss under learning-rate annealing: the law of two areas."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from isoloss.arrays import FloatArray, as_numpy, float64_like, namespace
from isoloss.laws.drops import LEAST_FALL, largest_fall
from isoloss.laws.law import CurveLaw, Derived, Features, Parameter, Priors
from isoloss.laws.power_laws import blank_jacobian, powers
from isoloss.observations import Trained
from isoloss.schedules import AnnealingAreas

L0, A, ALPHA, C, LAMBDA, B, BETA = range(7)


@dataclass(frozen=True)
class Areas(Features):
    """ln of the forward areas S1 and of the sizes N (points,), `sized` 0 where there is no size, and the
    annealing areas S2; the last step, whether the learning rate has fallen at any point, and how many sizes
    there are."""

    log_forward: FloatArray
    log_size: FloatArray
    sized: FloatArray
    areas: AnnealingAreas
    last_step: int
    annealed: bool
    n_sizes: int

    def annealing(self, decay: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return S2 and its derivative by lambda, (members, points), for lambda (members,).

        The closed forms of the pieces are NumPy's; tensors are carried over and back.
        """
        decays, back = np.unique(as_numpy(decay), return_inverse=True)
        value, slope = self.areas(decays)
        if len(decays) > 1:
            value, slope = value[back], slope[back]
        return float64_like(value, decay), float64_like(slope, decay)


class LRAnnealing(CurveLaw[Areas]):
    """L(s) = L0 + A S1(s)^-alpha - C S2(s) + B N^-beta.

    S1 = sum_{i<=s} eta_i; S2 = sum_{i<=s} m_i with m_i = lambda m_{i-1} + (eta_{i-1} - eta_i), from the end of
    warm-up on. Losses in nats per token, eta as the optimiser applies it, lambda per optimiser step.
    The N term counts where the runs have several sizes. Source: Tissue, Wang, Wang 2024, arXiv 2408.11029.
    """

    name = "lr_annealing"
    title = "Loss under learning-rate annealing"
    formula = "L(s) = L0 + A * S1(s)^-alpha - C * S2(s) [+ B * N^-beta]"
    reference = "Tissue, Wang, Wang 2024, 'Scaling Law with Learning Rate Annealing', arXiv:2408.11029"
    quantity = "loss"
    unit = "nats/token"
    knows_sizes = True
    optional = ("B", "beta")
    error_of_peak = 0.1
    """On `lr_scheduling`, fitted to one peak, the last points of the cosine runs of lower ones are .03 to .08 too
    high in log loss for each doubling: intervals hold 29 of 29 with .1, 1 with .02. Those of higher peaks are .07
    to .32 too low, and fall below the floor in 40 of 40: they are refused."""
    gains_with_rates = True
    remedy = "add runs whose schedules differ more"
    remedies: ClassVar = {
        frozenset(
            ("C", "lambda")
        ): "add a run whose learning rate jumps, which shows the memory of annealing",
        frozenset(("B", "beta")): "add runs of more model sizes",
    }
    requires = ("points.step", "points.loss", "schedule or points.lr")
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
        Parameter("alpha", "\\alpha", "1", 0.02, 3.0, "exponent of the forward area S1", "log"),
        Parameter(
            "C", "C", "nats/token/(lr*steps)", 0.0, np.inf, "gain per annealing area S2", enters_linearly=True
        ),
        Parameter(
            "lambda", "\\lambda", "1/step", 0.5, 0.99999, "decay of the annealing memory", "log_complement"
        ),
        Parameter(
            "B", "B", "nats/token * params^beta", 0.0, np.inf, "what size removes", enters_linearly=True
        ),
        Parameter("beta", "\\beta", "1", 0.02, 3.0, "exponent of the model size N", "log"),
    )

    def prepare(self, runs: Sequence[Trained]) -> Areas:
        forward = np.concatenate([run.schedule.area(run.step) for run in runs])
        sizes = np.concatenate([np.full(run.step.size, run.n_params or np.nan) for run in runs])
        known = np.isfinite(sizes)
        return Areas(
            n_points=forward.size,
            n_terms=forward.size,
            log_forward=np.log(forward),
            log_size=np.log(np.where(known, sizes, 1.0)),
            sized=known.astype(np.float64),
            areas=AnnealingAreas([(run.schedule, run.step) for run in runs]),
            last_step=max(int(run.step[-1]) for run in runs),
            annealed=any(largest_fall(run) >= LEAST_FALL for run in runs),
            n_sizes=int(np.unique(sizes[known]).size),
        )

    def basis(self, theta: FloatArray, features: Areas) -> FloatArray:
        """Return the columns of (L0, A, C, B)."""
        xp = namespace(theta)
        annealing, _ = features.annealing(theta[:, LAMBDA])
        progress = powers(theta[:, ALPHA], features.log_forward)
        size = powers(theta[:, BETA], features.log_size) * features.sized
        columns = [xp.ones_like(progress), progress, -annealing, size]
        return xp.stack(xp.broadcast_arrays(*columns), axis=-1)

    def predict(self, theta: FloatArray, features: Areas) -> FloatArray:
        annealing, _ = features.annealing(theta[:, LAMBDA])
        progress = theta[:, A, None] * powers(theta[:, ALPHA], features.log_forward)
        size = theta[:, B, None] * powers(theta[:, BETA], features.log_size) * features.sized
        return theta[:, L0, None] + progress - theta[:, C, None] * annealing + size

    def jacobian(self, theta: FloatArray, features: Areas) -> tuple[FloatArray, FloatArray]:
        annealing, slope = features.annealing(theta[:, LAMBDA])
        out = blank_jacobian(theta, features.n_points)
        out[:, L0] = 1.0
        out[:, A] = progress = powers(theta[:, ALPHA], features.log_forward)
        out[:, B] = size = powers(theta[:, BETA], features.log_size) * features.sized
        out[:, C] = -annealing
        out[:, LAMBDA] = -theta[:, C, None] * slope
        progress, size = theta[:, A, None] * progress, theta[:, B, None] * size
        out[:, ALPHA] = -progress * features.log_forward
        out[:, BETA] = -size * features.log_size
        return theta[:, L0, None] + progress - theta[:, C, None] * annealing + size, out.mT

    def grid(self, features: Areas, count: int) -> FloatArray:
        alpha = np.geomspace(0.1, 1.5, max(9, -(-count // 8)))
        # Memories from a quarter of the longest run down to a four hundredth of it, and the usual ones.
        shares = np.geomspace(400, 4, 5) / features.last_step
        decay = 1 - np.unique(np.clip([*shares, 1e-2, 2e-3, 5e-4], 2e-5, 0.4))
        beta = np.geomspace(0.1, 1.0, 4) if features.n_sizes > 2 else np.array([0.34])
        mesh = np.meshgrid(alpha, decay, beta, indexing="ij")
        theta = np.zeros((mesh[0].size, 7))
        theta[:, [ALPHA, LAMBDA, BETA]] = np.stack([axis.ravel() for axis in mesh], axis=1)
        return theta

    def held(self, features: Areas, fixed: Collection[str] = ()) -> dict[str, float]:
        """Hold the size term at nothing for one size; for two, its exponent at any value fits equally well."""
        sizes = features.n_sizes
        if sizes < 2:
            return {"B": 0.0, "beta": 0.34}
        return {"beta": 0.34} if sizes == 2 and not {"B", "beta"} & set(fixed) else {}

    def undetermined(self, features: Areas, fixed: Collection[str] = ()) -> dict[str, str]:
        reasons: dict[str, str] = {}
        if not features.annealed:
            why = f"no run was annealed: the learning rate never falls by {LEAST_FALL:.0%} where there are points"
            reasons |= {"C": why, "lambda": why}
        if features.n_sizes == 2 and not {"B", "beta"} & set(fixed):
            why = "two model sizes give one difference, not a coefficient and an exponent"
            reasons |= {"B": why, "beta": why}
        return {name: why for name, why in reasons.items() if name not in fixed}

    def priors(self, features: Areas) -> Priors:  # noqa: ARG002 (it has none)
        return Priors()

    def derived(self, theta: FloatArray, runs: Sequence[Trained]) -> Derived:
        """Return the half-life of the annealing memory, in steps and, for one batch size, in tokens."""
        half_life = np.log(2) / (1 - theta[:, LAMBDA])
        found = {"memory_half_life_steps": ("steps", half_life, ("lambda",))}
        batches = {run.batch_tokens for run in runs}
        batch = batches.pop() if len(batches) == 1 else None
        if batch is not None:
            found["memory_half_life_tokens"] = ("tokens", half_life * batch, ("lambda",))
        return found

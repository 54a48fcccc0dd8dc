"""Loss under any schedule and peak learning rate: what counts is the learning rate over the norm of the weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.drops import LEAST_FALL
from isoloss.laws.law import CurveLaw, Derived, Parameter, Priors
from isoloss.laws.norm_blocks import UNIT_STEPS, NormBlocks, norm_blocks
from isoloss.laws.norm_sums import Rates, effective_area, noise, norms
from isoloss.laws.power_laws import blank_jacobian
from isoloss.observations import Trained

L0, A, ALPHA, B, C, BETA, G, P, GROWTH, DECAY, Z, D = range(12)
RATES = {"C": C, "b": BETA, "g": G, "p": P, "c": GROWTH, "l": DECAY}

UNIT_AREA = 4.0
"""The effective area S at which the factor (S/4)^z is 1 (laws.md 1.5)."""

CENTRES = {
    "a": (0.486, 0.15),
    "C": (13.9, 0.5),
    "b": (1.02, 0.4),
    "g": (0.24, 0.2),
    "p": (0.736, 0.12),
    "c": (0.85, 0.6),
    "l": (0.553, 0.3),
    "z": (-0.042, 0.05),
    "D": (0.0031, 0.001),
}
"""Where the parameters are expected, with standard deviations: the set for two peaks of laws.md 1.5."""

WIDE_D = (0.0031, 0.003)
"""D where three peaks or more show it."""


class EffectiveLR(CurveLaw[NormBlocks]):
    """L(t) = L0 + A S^-a + B n (S/4)^z + D peak^2 in the effective learning rate e = eta / R.

    eta = lr / 1e-3, t in thousands of steps, w the weight decay (lr_scaled), Lam(t) the integral of eta dt.
    R^2 = exp(-2 l w Lam) (1 + c integral eta^2 exp(2 l w Lam) dt): the norm of the weights over its first value.
    S = integral e dt, I = integral e^(1-g) dt, warm-up included.
    n = e^p + sum_k ((h_k/R_k)^p - (d_k/R_k)^p) (1 - G(C (I - I_k))) over the drops of eta from h_k to d_k after
    warm-up, G(x) = 1 - (1 + x/b)^-b. Losses in nats per token. Source: our own form (laws.md 1.5).

    Runs of one peak learning rate do not tell how it acts: D peak^2 is then part of L0 and D is held at 0, c and l
    rest on the priors, and all three are named as undetermined; other schedules at that peak are still predicted.
    """

    name = "effective_lr"
    title = "Loss across peak learning rates: learning rate over weight norm"
    formula = (
        "L(t) = L0 + A * S^-a + B * n * (S/4)^z + D * peak^2, S = integral e dt, e = lr / (1e-3 R), "
        "n = e^p + sum_k ((h_k/R_k)^p - (d_k/R_k)^p) * (1 + C (I - I_k)/b)^-b, I = integral e^(1-g) dt, "
        "R^2 = exp(-2 l wd Lam) * (1 + c * integral eta^2 exp(2 l wd Lam) dt)"
    )
    reference = (
        "Isoloss, our own form; memory after Luo et al. 2025, 'A Multi-Power Law for Loss Curve Prediction', "
        "arXiv:2503.12811"
    )
    quantity = "loss"
    unit = "nats/token"
    requires = (
        "points.step",
        "points.loss",
        "schedule or points.lr",
        "config.weight_decay",
    )
    optional = ("c", "l", "D")
    carries_over_peaks = True
    most_points = 560
    remedy = "add runs of three or more peak learning rates, of which some are annealed and some are not"
    remedies: ClassVar = {
        frozenset(("C", "b")): "add a run whose learning rate jumps, which shows the memory of annealing",
        frozenset(("C", "g")): "add a run whose learning rate jumps and stays low",
        frozenset(("L0", "D")): "add runs of another peak learning rate",
    }
    parameters = (
        Parameter("L0", "L_0", "nats/token", 0.0, np.inf, "loss that remains", enters_linearly=True),
        Parameter("A", "A", "nats/token", 0.0, np.inf, "what training removes", enters_linearly=True),
        Parameter("a", "a", "1", 0.15, 1.2, "exponent of the effective area S", "log"),
        Parameter("B", "B", "nats/token", 0.0, np.inf, "noise at e = 1 and S = 4", enters_linearly=True),
        Parameter("C", "C", "1/thousand steps", 0.02, 300.0, "how soon a drop gains, at e = 1", "log"),
        Parameter("b", "b", "1", 0.1, 3.0, "exponent of the annealing memory", "log"),
        Parameter("g", "g", "1", -0.7, 1.5, "clock of the memory: 0 effective area, 1 steps"),
        Parameter("p", "p", "1", 0.1, 2.0, "exponent of the noise in the effective learning rate"),
        Parameter("c", "c", "1/thousand steps", 1e-3, 1e3, "growth of the squared norm at lr 1e-3", "log"),
        Parameter("l", "l", "1", 0.05, 10.0, "decay of the norm per learning rate and weight decay", "log"),
        Parameter("z", "z", "1", -1.0, 1.0, "exponent of the noise in the effective area"),
        Parameter(
            "D",
            "D",
            "nats/token",
            0.0,
            0.05,
            "loss by the peak learning rate, at 1e-3",
            enters_linearly=True,
        ),
    )

    def prepare(self, runs: Sequence[Trained]) -> NormBlocks:
        return norm_blocks(runs)

    def basis(self, theta: FloatArray, features: NormBlocks) -> FloatArray:
        """Return the columns of (L0, A, B, D)."""
        xp = namespace(theta)
        rates = _rates(theta)
        found = norms(rates, features, slopes=False)
        log_area = xp.log(effective_area(features, found)[0])
        progress = xp.exp(-theta[:, ALPHA, None] * log_area)
        noisy = noise(rates, features, found)[0] * _fading(theta, log_area)
        peak = xp.broadcast_to(features.peak**2, progress.shape)
        return xp.stack([xp.ones_like(progress), progress, noisy, peak], axis=-1)

    def predict(self, theta: FloatArray, features: NormBlocks) -> FloatArray:
        linear = theta[:, [L0, A, B, D], None]
        return (self.basis(theta, features) @ linear)[..., 0]

    def jacobian(self, theta: FloatArray, features: NormBlocks) -> tuple[FloatArray, FloatArray]:
        xp = namespace(theta)
        rates = _rates(theta)
        found = norms(rates, features, slopes=True)
        area, area_slopes = effective_area(features, found)
        n, n_slopes = noise(rates, features, found)
        log_area = xp.log(area)
        fading = _fading(theta, log_area)
        out = blank_jacobian(theta, features.n_points)
        out[:, L0] = 1.0
        out[:, A] = xp.exp(-theta[:, ALPHA, None] * log_area)
        out[:, B] = n * fading
        out[:, D] = features.peak**2
        gained, noisy = theta[:, A, None] * out[:, A], theta[:, B, None] * out[:, B]
        out[:, ALPHA] = -gained * log_area
        out[:, Z] = noisy * (log_area - np.log(UNIT_AREA))
        for name, slope in n_slopes.items():
            out[:, RATES[name]] = theta[:, B, None] * fading * slope
        by_area = (theta[:, Z, None] * noisy - theta[:, ALPHA, None] * gained) / area
        for name, slope in area_slopes.items():
            out[:, RATES[name]] += by_area * slope
        return theta[:, L0, None] + gained + noisy + theta[:, D, None] * out[:, D], out.mT

    def grid(self, features: NormBlocks, count: int) -> FloatArray:
        """Return starts around the centres of the priors, of which few are needed: all tried led to one optimum."""
        a_side = max(2, ceil(count ** (1 / 3)))
        spans = [(0.4, 0.6), (8.0, 20.0), (0.5, 2.0)]
        axes = np.meshgrid(*(np.geomspace(*span, a_side) for span in spans), indexing="ij")
        theta = np.zeros((axes[0].size, len(self.parameters)))
        for name, (centre, _) in self.priors(features).centres.items():
            theta[:, self.index(name)] = centre
        theta[:, [ALPHA, C, GROWTH]] = np.stack([axis.ravel() for axis in axes], axis=1)
        return theta

    def held(self, features: NormBlocks, fixed: Collection[str] = ()) -> dict[str, float]:
        """Hold D at nothing where all runs have one peak: D peak^2 is then part of L0."""
        return {"D": 0.0} if features.n_peaks == 1 and "D" not in fixed else {}

    def undetermined(self, features: NormBlocks, fixed: Collection[str] = ()) -> dict[str, str]:
        reasons: dict[str, str] = {}
        if features.n_peaks == 1:
            why = "all runs have one peak learning rate: how the loss depends on it does not show"
            reasons |= dict.fromkeys(("c", "l", "D"), why)
        if features.fallen < LEAST_FALL:
            why = f"no run was annealed: the learning rate never falls by {LEAST_FALL:.0%} where there are points"
            unseen = ("B", "C", "b", "g", "p", "z") if features.n_peaks == 1 else ("C", "b", "g")
            reasons |= dict.fromkeys(unseen, why)
        return {name: why for name, why in reasons.items() if name not in fixed}

    def priors(self, features: NormBlocks) -> Priors:
        """Return the centres of two peaks, at half the strength and with D wider where there are three or more.

        laws.md 1.5 has other centres for three or more, at .005: they fit all peaks of `lr_scheduling` as well,
        and predict the cooldowns of a peak left out twice as badly (medians .38, .11, .33, .42 percent at
        1e-4, 5e-4, 1e-3, 2e-3, against .06, .09, .12, .15). For one peak c and l rest on them alone.
        """
        return Priors({**CENTRES, "D": WIDE_D}, 0.015) if features.n_peaks > 2 else Priors(CENTRES, 0.03)

    def derived(self, theta: FloatArray, runs: Sequence[Trained]) -> Derived:
        """Return, for one weight decay, the steps in which the norm forgets at a learning rate of 1e-3."""
        decays = {run.weight_decay for run in runs}
        decay = decays.pop() if len(decays) == 1 else None
        if not decay:
            return {}
        return {"norm_memory_steps": ("steps at lr 1e-3", UNIT_STEPS / (theta[:, DECAY] * decay), ("l",))}


def _rates(theta: FloatArray) -> Rates:
    return Rates(**{name: theta[:, position, None] for name, position in RATES.items()})


def _fading(theta: FloatArray, log_area: FloatArray) -> Any:
    return namespace(theta).exp(theta[:, Z, None] * (log_area - np.log(UNIT_AREA)))

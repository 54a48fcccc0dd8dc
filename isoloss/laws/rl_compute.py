"""Reward over the compute of reinforcement learning: a sigmoid in log compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors
from isoloss.laws.power_laws import LogColumns, blank_jacobian, log_columns
from isoloss.laws.staged_law import StagedLaw

R0, A, C_MID, B = range(4)

STEEPNESS = (0.2, 20.0)
"""Steepnesses B that a search begins at."""

BESIDE = 1e2
"""How many times beyond the data a search for C_mid begins."""


class RLCompute(StagedLaw):
    """R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B): reward over compute, one curve for every run.

    C in floating-point operations, or in any unit that all readings share, such as steps; rewards from 0 to 1.
    R0 is fixed at the readings of no compute, where there are any. Each row is a reading, of a table or of the
    points of a run (`isoloss.readings`); its label `curve` says which run it is of. Source: Khatri et al. 2025,
    arXiv 2510.13786 (laws.md 7).
    """

    name = "rl_compute"
    title = "Reward over the compute of reinforcement learning"
    formula = "R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B)"
    reference = "Khatri et al. 2025, 'The Art of Scaling Reinforcement Learning Compute', arXiv:2510.13786"
    quantity = "reward"
    unit = "1"
    columns = ("compute_flops",)
    label = "curve"
    absolute = True
    outcomes = (0.0, 1.0)
    remedy = "train on, until the rewards have visibly levelled off"
    remedies: ClassVar = {}
    target = "reward"
    requires = (
        "points of reward and compute_flops, the compute spent so far",
        "of a run that is one reading: config.compute_flops, summary.reward, config.curve where there are several",
    )
    parameters = (
        Parameter("R0", "R_0", "1", 0.0, 1.0, "reward before any training", enters_linearly=True),
        Parameter("A", "A", "1", 0.0, 1.0, "reward that no compute exceeds", enters_linearly=True),
        Parameter("C_mid", "C_mid", "FLOP", 1e-60, 1e60, "compute of half the gain", "log"),
        Parameter("B", "B", "1", 0.02, 50.0, "how steeply the reward rises with log compute", "log"),
    )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["compute_flops"])

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        share = _share(theta, features)
        return namespace(theta).stack([1 - share, share], axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        gain = theta[:, A, None] - theta[:, R0, None]
        reward: FloatArray = theta[:, R0, None] + gain * _share(theta, features)
        return reward

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        xp, share = namespace(theta), _share(theta, features)
        start, gain = theta[:, R0, None], theta[:, A, None] - theta[:, R0, None]
        out = blank_jacobian(theta, features.n_points)
        rise = gain * share * (1 - share)
        out[:, R0], out[:, A] = 1 - share, share
        out[:, C_MID] = -rise * theta[:, B, None] / theta[:, C_MID, None]
        out[:, B] = rise * (features.logs[0] - xp.log(theta[:, C_MID, None]))
        return start + gain * share, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:
        a_side = max(8, int(np.ceil(np.sqrt(count))))
        logs = features.logs[0]
        middles = np.exp(np.linspace(logs.min() - np.log(BESIDE), logs.max() + np.log(BESIDE), 2 * a_side))
        axes = np.meshgrid(middles, np.geomspace(*STEEPNESS, a_side), indexing="ij")
        theta = np.zeros((axes[0].size, 4))
        theta[:, C_MID], theta[:, B] = (axis.ravel() for axis in axes)
        return theta

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return {}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:  # noqa: ARG002
        return {}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the compute."""
        return columns["compute_flops"]

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}


def _share(theta: FloatArray, features: LogColumns) -> Any:
    """Return which share of its gain a curve has made, (members, points): 1 / (1 + (C_mid / C)^B)."""
    xp = namespace(theta)
    half_odds = theta[:, B, None] * (features.logs[0] - xp.log(theta[:, C_MID, None])) / 2
    return (1 + xp.tanh(half_odds)) / 2  # so written, no power overflows

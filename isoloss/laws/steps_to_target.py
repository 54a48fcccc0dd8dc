"""Steps to a target loss over the batch, and the two critical batches that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors
from isoloss.laws.power_laws import LogColumns, blank_jacobian, exponent_grid, log_columns, n_distinct
from isoloss.laws.staged_law import StagedLaw

BASE_BATCH_TOKENS = 256 * 512
"""The batch from which the published critical batch counts linear scaling."""

OVERHEAD = 0.2

A, A_SLOPE, B, B_SLOPE = range(4)


def cbs_20pct(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the batch, in tokens, that takes a fifth more steps than linear scaling from the base batch.

    For steps a + b / B with B in tokens. Source: Zhang et al. 2024, arXiv 2410.21676, section 2 (laws.md 4).
    """
    return OVERHEAD * b / a + (1 + OVERHEAD) * BASE_BATCH_TOKENS


def b_crit(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the batch, in tokens, that takes twice the fewest steps and twice the least data (laws.md 4)."""
    return b / a


class StepsToTarget(StagedLaw):
    """Y(N, B) = a(N) + b(N) / B: steps until a target loss, a and b powers of the model size.

    N in parameters, B in tokens; each size at a target loss of its own. First a and b are fitted on log Y at every
    size and target, then their powers of N. Source: Zhang et al. 2024, arXiv 2410.21676.
    """

    name = "steps_to_target"
    title = "Steps to a target loss over the batch, and critical batches"
    formula = "Y(N, B) = a(N) + b(N) / B, cbs_20pct = b / (5 a) + 1.2 * 131072, b_crit = b / a"
    reference = "Zhang et al. 2024, 'How Does Critical Batch Size Scale in Pre-training?', arXiv:2410.21676"
    quantity = "steps_to_target"
    unit = "steps"
    columns = ("n_params", "batch_tokens")
    needs_outcome = False
    reads = "steps_to_target"
    remedy = "add runs at more batches, on both sides of b/a, and at more model sizes"
    remedies: ClassVar = {}
    requires = ("config.n_params", "config.batch_tokens", "summary.steps_to_target", "summary.target_loss")
    optional = ("a_exponent_n_params", "b_exponent_n_params")
    parameters = (
        Parameter(
            "a_coefficient",
            "a_0",
            "steps / params^a_exponent_n_params",
            1e-300,
            np.inf,
            "sets a",
            "log",
            True,
        ),
        Parameter("a_exponent_n_params", "a_1", "1", -5.0, 5.0, "how the fewest steps grow with the size N"),
        Parameter(
            "b_coefficient",
            "b_0",
            "steps * tokens / params^b_exponent_n_params",
            1e-300,
            np.inf,
            "sets b",
            "log",
            True,
        ),
        Parameter("b_exponent_n_params", "b_1", "1", -5.0, 5.0, "how the least data grow with the size N"),
    )

    @property
    def run_columns(self) -> tuple[str, ...]:
        return (*self.columns, "steps_to_target", "target_loss")

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["n_params"], columns["batch_tokens"])

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        xp = namespace(theta)
        return xp.stack(_powers(theta, features), axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        few, more = _powers(theta, features)
        steps: FloatArray = theta[:, A, None] * few + theta[:, B, None] * more
        return steps

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        few, more = _powers(theta, features)
        out: Any = blank_jacobian(theta, features.n_points)
        out[:, A], out[:, B] = few, more
        few, more = theta[:, A, None] * few, theta[:, B, None] * more
        out[:, A_SLOPE], out[:, B_SLOPE] = few * features.logs[0], more * features.logs[0]
        return few + more, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:  # noqa: ARG002
        exponents = exponent_grid(count, 2)
        theta = np.zeros((len(exponents), 4))
        theta[:, [A_SLOPE, B_SLOPE]] = exponents
        return theta

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return dict.fromkeys(self.optional, 0.0) if n_distinct(features)[0] == 1 else {}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        if n_distinct(features)[0] > 1:
            return {}
        return {name: "there is one model size" for name in self.optional if name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the model size."""
        return columns["n_params"]

    def derived(self, theta: FloatArray) -> Derived:
        """Return b_crit as a power of N."""
        needs = tuple(parameter.name for parameter in self.parameters)
        unit = "tokens / params^exponent_n_params"
        return {
            "b_crit.coefficient": (unit, b_crit(theta[:, A], theta[:, B]), needs),
            "b_crit.exponent_n_params": ("1", theta[:, B_SLOPE] - theta[:, A_SLOPE], needs),
        }


def _powers(theta: FloatArray, features: LogColumns) -> tuple[Any, Any]:
    """Return N^a_1 and N^b_1 / B, (members, points) each."""
    xp = namespace(theta)
    size, batch = features.logs[0], features.logs[1]
    return xp.exp(theta[:, A_SLOPE, None] * size), xp.exp(theta[:, B_SLOPE, None] * size - batch)

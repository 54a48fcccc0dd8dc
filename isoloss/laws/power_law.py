"""Final loss over training tokens: a power law with a floor."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from isoloss.arrays import namespace
from isoloss.laws.law import Derived, FloatArray, Parameter, Priors, TableLaw
from isoloss.laws.power_laws import (
    LogColumns,
    blank_jacobian,
    exponent_grid,
    log_columns,
    n_distinct,
    powers,
)

E, COEFFICIENT, EXPONENT = range(3)


class PowerLaw(TableLaw[LogColumns]):
    """L(D) = E + coefficient D^exponent, the exponent below 0.

    D in training tokens, losses in nats per token; for runs of one model size. Source: Kaplan et al. 2020,
    arXiv 2001.08361, equation 1.2, with the floor of Henighan et al. 2020, arXiv 2010.14701, equation 1.1.
    """

    name = "power_law"
    title = "Loss over data, with a floor"
    formula = "L(D) = E + coefficient * D^exponent"
    reference = (
        "Henighan et al. 2020, 'Scaling Laws for Autoregressive Generative Modeling', arXiv:2010.14701"
    )
    quantity = "loss"
    unit = "nats/token"
    columns = ("n_tokens",)
    remedy = "add runs with a wider range of training tokens"
    requires = ("config.n_tokens", "summary.final_loss")
    parameters = (
        Parameter("E", "E", "nats/token", 0.0, np.inf, "loss that remains", enters_linearly=True),
        Parameter(
            "coefficient",
            "c",
            "nats/token / tokens^exponent",
            1e-12,
            np.inf,
            "what data removes",
            "log",
            enters_linearly=True,
        ),
        Parameter("exponent", "m", "1", -3.0, -0.01, "how fast the loss falls with the training tokens D"),
    )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["n_tokens"])

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training tokens."""
        return columns["n_tokens"]

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        data = powers(-theta[:, EXPONENT], features.logs[0])
        xp = namespace(theta)
        return xp.stack([xp.ones_like(data), data], axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        data = powers(-theta[:, EXPONENT], features.logs[0])
        return theta[:, E, None] + theta[:, COEFFICIENT, None] * data

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        data = powers(-theta[:, EXPONENT], features.logs[0])
        out = blank_jacobian(theta, features.n_points)
        out[:, E] = 1.0
        out[:, COEFFICIENT] = data
        data = data * theta[:, COEFFICIENT, None]
        out[:, EXPONENT] = data * features.logs[0]
        return theta[:, E, None] + data, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:  # noqa: ARG002
        exponents = -exponent_grid(max(count, 24), 1)
        theta = np.zeros((len(exponents), 3))
        theta[:, [EXPONENT]] = exponents
        return theta

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return {}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        if n_distinct(self.columns, features)["n_tokens"] > 1:
            return {}
        why = "all runs trained on equally many tokens"
        return {parameter.name: why for parameter in self.parameters if parameter.name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}

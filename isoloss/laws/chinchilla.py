"""Final loss over model size and data: the Chinchilla law."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

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

E, A, ALPHA, B, BETA = range(5)

LEAST_COEFFICIENT = 1e-12

ON_ONE_LINE = 1e-3
"""Relative distance from a line of size and data, in logarithms, within which runs lie on it."""


class Chinchilla(TableLaw[LogColumns]):
    """L(N, D) = E + A N^-alpha + B D^-beta.

    N in parameters, D in training tokens, losses in nats per token. Source: Hoffmann et al. 2022,
    arXiv 2203.15556, approach 3; fitted as in Besiroglu et al. 2024, arXiv 2404.10102 (laws.md 2).
    """

    name = "chinchilla"
    title = "Loss over model size and data"
    formula = "L(N, D) = E + A * N^-alpha + B * D^-beta"
    reference = "Hoffmann et al. 2022, 'Training Compute-Optimal Large Language Models', arXiv:2203.15556"
    quantity = "loss"
    unit = "nats/token"
    columns = ("n_params", "n_tokens")
    remedy = "add runs of a wider range of sizes and tokens"
    remedies: ClassVar = {
        frozenset(("A", "alpha")): "add runs with a wider range of model sizes",
        frozenset(("B", "beta")): "add runs with a wider range of training tokens",
    }
    requires = ("config.n_params", "config.n_tokens", "summary.final_loss")
    parameters = (
        Parameter("E", "E", "nats/token", 0.0, np.inf, "loss that remains", enters_linearly=True),
        Parameter(
            "A",
            "A",
            "nats/token * params^alpha",
            LEAST_COEFFICIENT,
            np.inf,
            "what size removes",
            "log",
            enters_linearly=True,
        ),
        Parameter("alpha", "\\alpha", "1", 0.01, 3.0, "exponent of the model size N", "log"),
        Parameter(
            "B",
            "B",
            "nats/token * tokens^beta",
            LEAST_COEFFICIENT,
            np.inf,
            "what data removes",
            "log",
            enters_linearly=True,
        ),
        Parameter("beta", "\\beta", "1", 0.01, 3.0, "exponent of the training tokens D", "log"),
    )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["n_params"], columns["n_tokens"])

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training compute 6 N D in FLOPs."""
        return 6 * columns["n_params"] * columns["n_tokens"]

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        size, data = self._powers(theta, features)
        xp = namespace(theta)
        return xp.stack([xp.ones_like(size), size, data], axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        size, data = self._powers(theta, features)
        return theta[:, E, None] + theta[:, A, None] * size + theta[:, B, None] * data

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        size, data = self._powers(theta, features)
        out = blank_jacobian(theta, features.n_points)
        out[:, E] = 1.0
        out[:, A] = size
        out[:, B] = data
        size = size * theta[:, A, None]
        data = data * theta[:, B, None]
        out[:, ALPHA] = -size * features.logs[0]
        out[:, BETA] = -data * features.logs[1]
        return theta[:, E, None] + size + data, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:  # noqa: ARG002
        exponents = exponent_grid(count, 2)
        theta = np.zeros((len(exponents), 5))
        theta[:, [ALPHA, BETA]] = exponents
        return theta

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        """Hold the term of a column that does not vary at nothing: it is part of E."""
        held: dict[str, float] = {}
        for column, count in n_distinct(self.columns, features).items():
            if count == 1:
                coefficient, exponent = self._terms[column]
                held |= {coefficient: LEAST_COEFFICIENT, exponent: 0.34}
        return held

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        said = {
            ("n_params", 1): "all runs have one model size",
            ("n_params", 2): "two model sizes give one difference, not a coefficient and an exponent",
            ("n_tokens", 1): "all runs trained on equally many tokens",
            ("n_tokens", 2): "two numbers of tokens give one difference, not a coefficient and an exponent",
        }
        missing = {
            name: said[column, count]
            for column, count in n_distinct(self.columns, features).items()
            if count == 1 or (count == 2 and not {*self._terms[column], "E"} & set(fixed))
            for name in (*self._terms[column], "E")
        }
        terms = {name for pair in self._terms.values() for name in pair}
        if not missing and not terms & set(fixed) and _on_one_line(features):
            why = "size and data grow together in all runs: what each of them does cannot be told apart"
            missing = dict.fromkeys(sorted(terms), why)
        return {name: why for name, why in missing.items() if name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def derived(self, theta: FloatArray) -> Derived:
        """Return the exponents of the compute-optimal model size and data: N ~ C^a, D ~ C^b, a + b = 1."""
        alpha, beta = theta[:, ALPHA], theta[:, BETA]
        needs = ("alpha", "beta")
        return {
            "exponent_optimal_n_params": ("1", beta / (alpha + beta), needs),
            "exponent_optimal_n_tokens": ("1", alpha / (alpha + beta), needs),
        }

    _terms: ClassVar[Mapping[str, tuple[str, str]]] = {"n_params": ("A", "alpha"), "n_tokens": ("B", "beta")}

    @staticmethod
    def _powers(theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        return powers(theta[:, ALPHA], features.logs[0]), powers(theta[:, BETA], features.logs[1])


def _on_one_line(features: LogColumns) -> bool:
    """Return whether the tokens are one power of the size in all runs, such as twenty for each parameter."""
    size, data = features.logs - features.logs.mean(axis=1, keepdims=True)
    return bool(np.abs(data - size * (size @ data) / (size @ size)).max() < ON_ONE_LINE)

"""Final loss over model size and data without a floor: the law of Kaplan et al."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors, TableLaw
from isoloss.laws.power_laws import (
    LogColumns,
    blank_jacobian,
    exponent_grid,
    log_columns,
    n_distinct,
    on_one_line,
    training_compute,
)

N_C, ALPHA_N, D_C, ALPHA_D = range(4)

ALONE = (1.5, 2.5, 4.0)
"""Losses, in nats per token, that size or data alone may leave in the middle of the runs: starts lie there."""


class Kaplan(TableLaw[LogColumns]):
    """L(N, D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D.

    N in parameters (without embeddings in the paper), D in training tokens, losses in nats per token. It has no
    floor: it falls to 0 with N and D. Source: Kaplan et al. 2020, arXiv 2001.08361, equation 1.5.
    """

    name = "kaplan"
    title = "Loss over model size and data, without a floor"
    formula = "L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D"
    reference = "Kaplan et al. 2020, 'Scaling Laws for Neural Language Models', arXiv:2001.08361"
    quantity = "loss"
    unit = "nats/token"
    columns = ("n_params", "n_tokens")
    remedy = "add runs of a wider range of sizes and tokens"
    remedies: ClassVar = {
        frozenset(("N_c", "alpha_N")): "add runs with a wider range of model sizes",
        frozenset(("D_c", "alpha_D")): "add runs with a wider range of training tokens",
    }
    requires = ("config.n_params", "config.n_tokens", "summary.final_loss")
    parameters = (
        Parameter(
            "N_c", "N_c", "parameters", 1e-3, 1e90, "size that leaves one nat with endless data", "log"
        ),
        Parameter("alpha_N", "\\alpha_N", "1", 0.01, 3.0, "exponent of the model size N", "log"),
        Parameter("D_c", "D_c", "tokens", 1e-3, 1e90, "data that leave one nat with endless size", "log"),
        Parameter("alpha_D", "\\alpha_D", "1", 0.01, 3.0, "exponent of the training tokens D", "log"),
    )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["n_params"], columns["n_tokens"])

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        return training_compute(columns)

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        """Return no columns: no parameter enters linearly."""
        return namespace(theta).zeros((len(theta), features.n_points, 0), dtype=theta.dtype)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        xp = namespace(theta)
        loss: FloatArray = xp.exp(theta[:, ALPHA_D, None] * xp.logaddexp(*_logs_of_terms(theta, features)))
        return loss

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        xp = namespace(theta)
        size, data = _logs_of_terms(theta, features)
        total = xp.logaddexp(size, data)
        alpha_n, alpha_d = theta[:, ALPHA_N, None], theta[:, ALPHA_D, None]
        loss = xp.exp(alpha_d * total)
        by_size, by_data = loss * xp.exp(size - total), loss * xp.exp(data - total)
        out = blank_jacobian(theta, features.n_points)
        out[:, N_C] = by_size * alpha_n / theta[:, N_C, None]
        out[:, ALPHA_N] = by_size * size * alpha_d / alpha_n
        out[:, D_C] = by_data * alpha_d / theta[:, D_C, None]
        out[:, ALPHA_D] = loss * total - by_size * size
        return loss, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:
        """Return starts whose terms leave usual losses in the middle of the runs."""
        exponents = exponent_grid(count, 2)
        middle = np.exp(features.logs.mean(axis=1))
        parts = []
        for of_size in ALONE:
            for of_data in ALONE:
                theta = np.empty((len(exponents), 4))
                theta[:, [ALPHA_N, ALPHA_D]] = exponents
                theta[:, N_C] = middle[0] * of_size ** (1 / exponents[:, 0])
                theta[:, D_C] = middle[1] * of_data ** (1 / exponents[:, 1])
                parts.append(theta)
        return np.concatenate(parts)

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return {}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        sizes, tokens = n_distinct(features)
        missing: dict[str, str] = {}
        if sizes == 1:
            missing |= dict.fromkeys(("N_c", "alpha_N"), "all runs have one model size")
        if tokens == 1:
            missing |= dict.fromkeys(("D_c", "alpha_D"), "all runs trained on equally many tokens")
        if not missing and not fixed and on_one_line(features):
            why = "size and data grow together in all runs: what each of them does cannot be told apart"
            missing = {parameter.name: why for parameter in self.parameters}
        return {name: why for name, why in missing.items() if name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def derived(self, theta: FloatArray) -> Derived:
        """Return the exponent of the data that keep up with the size: D ~ N^(alpha_N/alpha_D)."""
        ratio = theta[:, ALPHA_N] / theta[:, ALPHA_D]
        return {"exponent_data_of_size": ("1", ratio, ("alpha_N", "alpha_D"))}


def _logs_of_terms(theta: FloatArray, features: LogColumns) -> tuple[Any, Any]:
    """Return ln (N_c/N)^(alpha_N/alpha_D) and ln D_c/D, (members, points) each."""
    xp = namespace(theta)
    ratio = theta[:, ALPHA_N, None] / theta[:, ALPHA_D, None]
    size = ratio * (xp.log(theta[:, N_C, None]) - features.logs[0])
    return size, xp.log(theta[:, D_C, None]) - features.logs[1]

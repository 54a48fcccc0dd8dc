"""Final loss over model size and data: the Chinchilla law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.laws.law import Derived
from isoloss.laws.power_laws import training_compute
from isoloss.laws.power_sum import PowerSum, Term, coefficient, falling, floor

SIZE = Term("A", "alpha", "have one model size", "model sizes")
DATA = Term("B", "beta", "trained on equally many tokens", "numbers of tokens")


class Chinchilla(PowerSum):
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
    terms = (SIZE, DATA)
    together = "size and data grow together in all runs: what each of them does cannot be told apart"
    remedy = "add runs of a wider range of sizes and tokens"
    remedies: ClassVar = {
        frozenset(("A", "alpha")): "add runs with a wider range of model sizes",
        frozenset(("B", "beta")): "add runs with a wider range of training tokens",
    }
    requires = ("config.n_params", "config.n_tokens", "summary.final_loss")
    parameters = (
        floor(),
        coefficient("A", "A", "nats/token * params^alpha", "what size removes"),
        falling("alpha", "\\alpha", "exponent of the model size N"),
        coefficient("B", "B", "nats/token * tokens^beta", "what data removes"),
        falling("beta", "\\beta", "exponent of the training tokens D"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_params"], columns["n_tokens"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        return training_compute(columns)

    def derived(self, theta: FloatArray) -> Derived:
        """Return the compute-optimal size and data as powers of compute C = 6 N D (equation 4 of the paper)."""
        _, a, alpha, b, beta = theta.T
        both = alpha + beta
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = (alpha * a / (beta * b)) ** (1 / both)
            size, data = ratio * 6 ** -(beta / both), 6 ** -(alpha / both) / ratio
        of_all = ("A", "alpha", "B", "beta")
        return {
            "exponent_optimal_n_params": ("1", beta / both, ("alpha", "beta")),
            "exponent_optimal_n_tokens": ("1", alpha / both, ("alpha", "beta")),
            "coefficient_optimal_n_params": ("params / flops^exponent", size, of_all),
            "coefficient_optimal_n_tokens": ("tokens / flops^exponent", data, of_all),
        }

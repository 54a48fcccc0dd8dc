"""Final loss over model size, steps and batch: what more steps give, and what larger batches give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.laws.chinchilla import SIZE
from isoloss.laws.law import Derived
from isoloss.laws.power_laws import training_compute
from isoloss.laws.power_sum import PowerSum, Term, coefficient, falling, floor

NEAR_BEST = (0.02, 0.005)
"""Excess losses over the best batch of a size and its data within which batches are tried alone."""

_, _, ALPHA, B, BETA, C, GAMMA = range(7)


class ThreeTerm(PowerSum):
    """L(N, M, K) = E + A N^-alpha + B M^-beta + C K^-gamma, each batch at its best learning rate.

    N in parameters, K in tokens of a batch, M = D/K in steps, losses in nats per token. At fixed data D = M K the
    best batch is D/M*, M* = (beta B / (gamma C))^(1/(beta + gamma)) D^(gamma/(beta + gamma)): a power of D whatever
    N is. Source: Schaipp 2026, arXiv 2607.01487, as laws.md 2 has it.
    """

    name = "three_term"
    title = "Loss over model size, steps and batch"
    formula = "L(N, M, K) = E + A * N^-alpha + B * M^-beta + C * K^-gamma, M = n_tokens / K"
    reference = "Schaipp 2026, arXiv:2607.01487"
    quantity = "loss"
    unit = "nats/token"
    columns = ("n_params", "n_tokens", "batch_tokens")
    terms = (
        SIZE,
        Term("B", "beta", "took equally many steps", "numbers of steps"),
        Term("C", "gamma", "have one batch", "batches"),
    )
    together = "size, steps and batch grow together in all runs: what each of them does cannot be told apart"
    remedy = "add runs of a wider range of sizes, steps and batches"
    remedies: ClassVar = {
        frozenset(("A", "alpha")): "add runs with a wider range of model sizes",
        frozenset(("B", "beta")): "add runs with a wider range of steps",
        frozenset(("C", "gamma")): "add runs with a wider range of batches",
    }
    requires = ("config.n_params", "config.n_tokens", "config.batch_tokens", "summary.final_loss")
    parameters = (
        floor(),
        coefficient("A", "A", "nats/token * params^alpha", "what size removes"),
        falling("alpha", "\\alpha", "exponent of the model size N"),
        coefficient("B", "B", "nats/token * steps^beta", "what steps remove"),
        falling("beta", "\\beta", "exponent of the steps M"),
        coefficient("C", "C", "nats/token * tokens^gamma", "what larger batches remove"),
        falling("gamma", "\\gamma", "exponent of the batch K"),
    )

    sensitive = ("E", "optimal_batch.exponent")

    def choices(self, columns: Mapping[str, FloatArray], outcome: FloatArray) -> Mapping[str, BoolArray]:
        """Return the runs whose batch is near the best one of its size and data (laws.md 2)."""
        sites = np.stack([columns["n_params"], columns["n_tokens"]])
        _, site = np.unique(np.round(np.log(sites), 6), axis=1, return_inverse=True)
        best = np.full(int(site.max()) + 1, np.inf)
        np.minimum.at(best, site.ravel(), outcome)
        excess = outcome / best[site.ravel()] - 1
        found = {f"batches within {share:.1%} of the best": excess <= share for share in NEAR_BEST}
        return {name: rows for name, rows in found.items() if not rows.all()}

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        batch = columns["batch_tokens"]
        return [columns["n_params"], columns["n_tokens"] / batch, batch]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        return training_compute(columns)

    def derived(self, theta: FloatArray) -> Derived:
        """Return the best batch in tokens as a power of the training tokens D: coefficient * D^exponent."""
        beta, gamma = theta[:, BETA], theta[:, GAMMA]
        with np.errstate(over="ignore", invalid="ignore"):
            steps = (beta * theta[:, B] / (gamma * theta[:, C])) ** (1 / (beta + gamma))
        needs = ("B", "beta", "C", "gamma")
        return {
            "optimal_batch.coefficient": ("tokens / tokens^exponent", 1 / steps, needs),
            "optimal_batch.exponent": ("1", beta / (beta + gamma), needs),
        }

"""The best batch over training data, with the learning rate tuned anew for each batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.laws.optimal_lr import BATCH, LEARNING_RATE
from isoloss.laws.power_laws import LogColumns
from isoloss.laws.power_product import scaling, slope
from isoloss.laws.sweep_law import SweepLaw


class OptimalBatch(SweepLaw):
    """B(D) = coefficient D^exponent: the batch of least loss at fixed data, each batch at its best learning rate.

    B and D in tokens. Where sweeps at several sizes show that the best batch goes with the size too, there is a
    factor N^exponent_n_params. It is not the critical batch, from which on more data are needed. Source: Bergsma et
    al. 2025, arXiv 2505.13738, section 4; Li et al. 2025, arXiv 2503.04715, equation 1 (laws.md 3 and 5).
    """

    name = "optimal_batch"
    title = "Best batch over training data"
    formula = "B(D) = coefficient * D^exponent [* N^exponent_n_params]"
    reference = "Bergsma et al. 2025, 'Power Lines', arXiv:2505.13738; Li et al. 2025, arXiv:2503.04715"
    quantity = "batch_tokens"
    unit = "tokens"
    axes = (BATCH, LEARNING_RATE)
    cell = ("n_params", "n_tokens")
    varies = ("the numbers of training tokens", "the model sizes")
    together = "size and data grow together in all sweeps: what each of them does cannot be told apart"
    remedy = "sweep the batch at a wider range of training tokens"
    requires = ("config.n_params", "config.n_tokens", "config.batch_tokens", "summary.final_loss")
    optional = ("exponent_n_params",)
    readings = ("data", "size_and_data")
    conventions: ClassVar = {
        "supported": "over the training tokens, and over the size too where left-out sweeps show it",
        "data": "over the training tokens alone, as published",
        "size_and_data": "over the training tokens and the model size",
    }
    parameters = (
        scaling("c", "tokens / (tokens^exponent * params^exponent_n_params)", "sets the level"),
        slope("exponent", "m", "how the best batch grows with the training tokens D"),
        slope("exponent_n_params", "k", "how it changes with the model size N at equal data"),
    )

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("n_tokens",) if self.convention == "data" else ("n_tokens", "n_params")

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        data = columns["n_tokens"]
        return [data, np.ones_like(data) if self.convention == "data" else columns["n_params"]]

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        missing = super().undetermined(features, fixed)
        if self.convention == "data":  # which has no such exponent
            missing.pop("exponent_n_params", None)
        return missing

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training tokens."""
        return columns["n_tokens"]

"""The best peak learning rate over model size and data: the Step Law."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.arrays import FloatArray
from isoloss.laws.power_laws import training_compute
from isoloss.laws.power_product import scaling, slope
from isoloss.laws.sweep_law import Axis, SweepLaw

LEARNING_RATE = Axis("peak_lr", "\\eta", "1", ("n_params", "n_tokens"))
BATCH = Axis("batch_tokens", "B", "tokens", ("n_params", "n_tokens"))


class OptimalLR(SweepLaw):
    """eta(N, D) = coefficient N^exponent_n_params D^exponent_n_tokens, at the best batch where that is swept too.

    N in parameters, D in training tokens, eta the peak learning rate that hidden matrices get. Source: Li et al.
    2025, arXiv 2503.04715, equation 1; the optimum is read off a smooth surface instead of the grid (laws.md 5).
    """

    name = "optimal_lr"
    title = "Best peak learning rate over model size and data"
    formula = "eta(N, D) = coefficient * N^exponent_n_params * D^exponent_n_tokens"
    reference = "Li et al. 2025, 'Predictable Scale: Part I, Step Law', arXiv:2503.04715"
    quantity = "peak_lr"
    unit = "1"
    columns = ("n_params", "n_tokens")
    axes = (LEARNING_RATE, BATCH)
    cell = ("n_params", "n_tokens")
    varies = ("the model sizes", "the numbers of training tokens")
    together = "size and data grow together in all sweeps: what each of them does cannot be told apart"
    remedy = "sweep the learning rate at a wider range of sizes and tokens"
    requires = ("config.n_params", "config.n_tokens", "config.peak_lr", "summary.final_loss")
    optional = ("exponent_n_params", "exponent_n_tokens")
    parameters = (
        scaling("c", "1 / (params^exponent_n_params * tokens^exponent_n_tokens)", "sets the level"),
        slope("exponent_n_params", "a", "how the best learning rate changes with the model size N"),
        slope("exponent_n_tokens", "b", "how it changes with the training tokens D"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_params"], columns["n_tokens"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        return training_compute(columns)

"""The critical batch over the data that small batches need: Power Lines."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.arrays import FloatArray
from isoloss.laws.power_product import PowerProduct, scaling, slope
from isoloss.laws.staged_law import StagedLaw


class CriticalBatch(PowerProduct, StagedLaw):
    """B_crit(D_min) = coefficient D_min^exponent, at which twice the least data D_min reach the same loss.

    B_crit and D_min in tokens. At every model size the loss of each batch over the data is fitted by
    E_B + K_B D^-beta_B and inverted for the data D_B that reach a target; D_B = D_min (1 + B / B_crit) gives both,
    for several targets, and B_crit is a power of D_min. It is not the best batch: by the hyperbola that would be 0.
    Source: Bergsma et al. 2025, arXiv 2505.13738, section 4; the hyperbola, McCandlish et al. 2018, arXiv
    1812.06162 (laws.md 3).
    """

    name = "critical_batch"
    title = "Critical batch over training data"
    formula = "B_crit(D_min) = coefficient * D_min^exponent, from D_B = D_min * (1 + B / B_crit)"
    reference = (
        "Bergsma et al. 2025, 'Power Lines', arXiv:2505.13738; McCandlish et al. 2018, arXiv:1812.06162"
    )
    quantity = "critical_batch_tokens"
    unit = "tokens"
    columns = ("n_tokens",)
    varies = ("the numbers of training tokens",)
    remedy = (
        "train at least four batches, on both sides of the critical one, on at least four numbers of tokens"
    )
    requires = ("config.n_params", "config.n_tokens", "config.batch_tokens", "summary.final_loss")
    parameters = (
        scaling("c", "tokens / tokens^exponent", "sets the level"),
        slope("exponent", "m", "how the critical batch grows with the least data D_min"),
    )

    @property
    def run_columns(self) -> tuple[str, ...]:
        return ("n_params", "n_tokens", "batch_tokens")

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_tokens"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training tokens."""
        return columns["n_tokens"]

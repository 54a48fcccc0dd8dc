"""The best timescale of AdamW's weights over tokens per parameter, from which the weight decay follows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.laws.power_product import scaling, slope
from isoloss.laws.sweep_law import Axis, Labels, SweepLaw

TIMESCALE = Axis("timescale", "\\tau", "1", ("tokens_per_param",))


def timescale_of(
    batch_tokens: FloatArray, peak_lr: FloatArray, weight_decay: FloatArray, n_tokens: FloatArray
) -> FloatArray:
    """Return tau = B / (eta lambda D), the fraction of training that the weights remember (laws.md 3).

    B and D in tokens, eta the peak learning rate, lambda the weight decay of steps w *= 1 - eta lambda.
    """
    return batch_tokens / (peak_lr * weight_decay * n_tokens)


def weight_decay_of_timescale(
    tau: FloatArray, batch_tokens: FloatArray, peak_lr: FloatArray, n_tokens: FloatArray
) -> FloatArray:
    """Return the weight decay lambda = B / (eta tau D) that a timescale asks for; units as in `timescale_of`."""
    return batch_tokens / (peak_lr * tau * n_tokens)


class Timescale(SweepLaw):
    """tau(D/N) = coefficient (D/N)^exponent: the timescale of least loss, swept by the weight decay.

    tau = B / (eta lambda D) with the peak learning rate eta, B and D in tokens, lambda scaled by the learning rate.
    It concerns the matrices that are decayed, and runs of one shape of schedule. Source: Bergsma et al. 2025,
    arXiv 2505.13738, section 3 (laws.md 3).
    """

    name = "timescale"
    title = "Best timescale of the weights over tokens per parameter"
    formula = "tau(D/N) = coefficient * (D/N)^exponent, weight_decay = B / (eta * tau * D)"
    reference = "Bergsma et al. 2025, 'Power Lines', arXiv:2505.13738"
    quantity = "timescale"
    unit = "1"
    columns = ("n_params", "n_tokens")
    axes = (TIMESCALE,)
    cell = ("n_params", "n_tokens", "batch_tokens", "peak_lr")
    varies = ("the numbers of tokens per parameter",)
    remedy = "sweep the weight decay at a wider range of tokens per parameter"
    requires = (
        "config.n_params", "config.n_tokens", "config.batch_tokens", "config.peak_lr", "config.weight_decay",
        "summary.final_loss",
    )  # fmt: skip
    parameters = (
        scaling("c", "1", "the best timescale at one token per parameter"),
        slope("exponent", "m", "how the best timescale changes with the tokens per parameter D/N"),
    )

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_tokens"] / columns["n_params"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the tokens per parameter."""
        return columns["n_tokens"] / columns["n_params"]

    @property
    def run_columns(self) -> tuple[str, ...]:
        return (*self.cell, "weight_decay")

    @property
    def swept_by(self) -> str:
        return "weight_decay"

    def with_settings(self, columns: Mapping[str, FloatArray], labels: Labels) -> Mapping[str, FloatArray]:
        """Return the columns with `timescale` and `tokens_per_param`; no timescale where nothing decays.

        An independent decay is that of steps w *= 1 - lambda: as much as lambda / eta that is scaled by eta.
        """
        batch, rate, decay, data = (
            columns[name] for name in ("batch_tokens", "peak_lr", "weight_decay", "n_tokens")
        )
        kinds = labels.get("weight_decay_kind", (None,) * decay.size)
        independent = np.array([kind == "independent" for kind in kinds], dtype=bool)
        tau = timescale_of(batch, rate, np.where(independent, decay / rate, decay), data)
        return {**columns, "timescale": tau, "tokens_per_param": columns["n_tokens"] / columns["n_params"]}

    def refused(self, labels: Labels) -> Mapping[int, str]:
        """Return the runs whose decay is in the gradient, which Adam scales away: it has no timescale."""
        why = "its weight decay is of the kind l2, in the gradient: it has no timescale"
        return {row: why for row, kind in enumerate(labels.get("weight_decay_kind", ())) if kind == "l2"}

"""Gradients of equal parts of a batch: what tells signal from noise in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isoloss.arrays import FloatArray
from isoloss.laws.noise_scale import (
    BIG,
    BIG_BATCH,
    RATIO,
    SMALL,
    SMALL_BATCH,
    gradient_noise,
    squared_gradient,
)

WANTED_PARTS = 8


@dataclass(frozen=True)
class GradientParts:
    """Norms of the gradients of equal parts of a batch of `batch_tokens`, before clipping, of the mean loss.

    `squares` (parts,) are the squared norms of each, `big` is the norm of their mean, the batch's gradient.
    """

    squares: FloatArray
    big: float
    batch_tokens: int

    @property
    def n_parts(self) -> int:
        return int(self.squares.size)

    @property
    def small(self) -> float:
        """The root of the mean squared norm of a part's gradient."""
        return float(np.sqrt(self.squares.mean()))

    @property
    def variance(self) -> float:
        """The variance of a part's gradient, summed over parameters: unbiased."""
        return max(0.0, float(self.squares.sum()) - self.n_parts * self.big**2) / (self.n_parts - 1)

    def noise_scale(self) -> dict[str, float | None]:
        """Return the noise scale B_simple in tokens, and the norms at two batches, of which the law averages many.

        The small batch is a part, its squared norm the mean over all parts. B_simple is None where the estimate of
        |G|^2 is not above 0. Source: McCandlish et al. 2018, arXiv 1812.06162, A.1 (`isoloss.laws.noise_scale`).
        """
        batches = (float(self.batch_tokens / self.n_parts), float(self.batch_tokens))
        at = [np.array(one) for one in (self.small, self.big, *batches)]
        gradient, noise = float(squared_gradient(*at)), float(gradient_noise(*at))
        norms = {SMALL: self.small, BIG: self.big, SMALL_BATCH: batches[0], BIG_BATCH: batches[1]}
        return {RATIO: noise / gradient if gradient > 0 else None, **norms}

    def norm_test(self) -> float | None:
        """Return the least eta at which the batch passes the norm test of AdAdaGrad; None without a gradient.

        The test asks that the variance of the batch's gradient, estimated over its parts, be at most eta^2 |g|^2: a
        batch of B tokens passes at every eta from this value on, and for another eta the test asks for a batch of
        B (value / eta)^2. Source: Lau, Liu, Kolar 2024, arXiv 2402.11215, the norm test, where parts are samples.
        """
        return float(np.sqrt(self.variance / self.n_parts)) / self.big if self.big > 0 else None


def gradient_parts(
    loss_of: Callable[[Tensor], Tensor], windows: Tensor, n_parts: int, weights: Sequence[Tensor]
) -> GradientParts:
    """Return norms of the gradients of `n_parts` equal parts of windows [sequences, time + 1], one after another.

    `loss_of` is the mean loss of a token. Gradients that stand in the weights are left alone.
    """
    mean = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    squares = []
    for part in windows.chunk(n_parts):
        gradients = torch.autograd.grad(loss_of(part), weights)
        squares.append(_square(gradients))
        torch._foreach_add_(mean, [one.double() / n_parts for one in gradients])
    n_tokens = windows.shape[0] * (windows.shape[1] - 1)
    return GradientParts(np.array(squares), _square(mean) ** 0.5, n_tokens)


def parts_of(n_sequences: int, most_at_once: int, wanted: int = WANTED_PARTS) -> int:
    """Return how many equal parts to take: as many as wanted where there are, and none above the limit."""
    fitting = [
        n for n in range(1, n_sequences + 1) if not n_sequences % n and n_sequences // n <= most_at_once
    ]
    return next((n for n in fitting if n >= wanted), fitting[-1])


def _square(tensors: Sequence[Tensor]) -> float:
    return float(sum(one.double().square().sum() for one in tensors))

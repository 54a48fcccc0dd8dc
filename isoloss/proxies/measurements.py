"""What is measured of a proxy at one of its steps, beside its loss; none of it changes the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.model import Transformer


@dataclass(frozen=True)
class Moment:
    """A training at one step, before its update: gradients of the whole batch, not clipped, stand in the weights.

    `windows` [sequences, time + 1] are its batch, on the model's device. A measurement leaves weights and
    gradients as they are; random numbers come from `generator`, which is that of seed and step alone.
    """

    config: ProxyConfig
    step: int
    model: Transformer
    windows: Tensor
    micro_sequences: int
    lr: float
    generator: torch.Generator

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean loss in nats per token, to be differentiated."""
        n_tokens = windows.shape[0] * (windows.shape[1] - 1)
        return self.model.summed_loss(windows) / n_tokens


Measure = Callable[[Moment], dict[str, float]]


def _grad_norm_l1(moment: Moment) -> dict[str, float]:
    gradients = [weight.grad for weight in moment.model.parameters() if weight.grad is not None]
    return {"grad_norm_l1": float(sum(gradient.abs().sum() for gradient in gradients))}


MEASURES: dict[str, Measure] = {"grad_norm_l1": _grad_norm_l1}
"""Each measurement by its name in `measurement_names`: columns of numbers for one moment."""

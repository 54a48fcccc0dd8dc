"""What is measured of a proxy at one of its steps, beside its loss; none of it changes the training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.curvature import top_eigenvalue
from isoloss.proxies.gradient_parts import GradientParts, gradient_parts, parts_of
from isoloss.proxies.model import Transformer

Values = dict[str, float | None]

MOST_MATRICES = 40
"""Beyond so many, one value stands for the matrices of all blocks: a run may have 64 free columns."""


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

    @property
    def weights(self) -> list[Tensor]:
        return list(self.model.parameters())

    @property
    def n_parts(self) -> int:
        """How many equal parts the batch is measured in: eight or more where it can be split so."""
        return parts_of(len(self.windows), self.micro_sequences)

    @cached_property
    def parts(self) -> GradientParts:
        """Norms of the gradients of parts of the batch, worked out once for all that ask."""
        return gradient_parts(self.loss, self.windows, self.n_parts, self.weights)


Measure = Callable[[Moment], Values]


def measured(name: str, moment: Moment) -> Values:
    """Return the columns of a measurement; None for what is not determined or not finite."""
    found = MEASURES[name](moment)
    return {
        column: value if value is not None and math.isfinite(value) else None
        for column, value in found.items()
    }


def _grad_norm(moment: Moment) -> Values:
    return {"grad_norm": math.sqrt(sum(float(one.double().square().sum()) for one in _gradients(moment)))}


def _grad_norm_l1(moment: Moment) -> Values:
    return {"grad_norm_l1": float(sum(gradient.abs().sum() for gradient in _gradients(moment)))}


def _gradients(moment: Moment) -> list[Tensor]:
    return [weight.grad for weight in moment.weights if weight.grad is not None]


def _grad_noise_scale(moment: Moment) -> Values:
    return moment.parts.noise_scale() if moment.n_parts > 1 else {"grad_noise_scale": None}


def _norm_test(moment: Moment) -> Values:
    return {"norm_test": moment.parts.norm_test() if moment.n_parts > 1 else None}


def _singular_values(moment: Moment) -> Values:
    """The largest singular value of each matrix as `singular_value/` and its name, those of all blocks together
    where there are more than `MOST_MATRICES`."""
    found = {
        name.removesuffix(".weight"): float(torch.linalg.svdvals(weight.detach().float())[0])
        for name, _, weight in moment.model.roles()
        if weight.ndim == 2
    }
    if len(found) > MOST_MATRICES:
        largest: dict[str, float] = {}
        for name, value in found.items():
            kind = re.sub(r"\.\d+\.", ".", name)
            largest[kind] = max(value, largest.get(kind, 0.0))
        found = largest
    return {f"singular_value/{name}": value for name, value in found.items()}


def _hessian(moment: Moment) -> Values:
    """The largest eigenvalue over growing batches, as `hessian/` and their tokens: 1, 2, 4, ... parts, and all.

    How it falls with the batch says how much of it is the sample's own.
    """
    n_parts, found = moment.n_parts, {}
    for count in (*(2**k for k in range(n_parts.bit_length()) if 2**k < n_parts), n_parts):
        windows = moment.windows[: count * (len(moment.windows) // n_parts)]
        at_once = windows.chunk(parts_of(len(windows), moment.micro_sequences, wanted=1))
        losses = [partial(moment.loss, part) for part in at_once]
        n_tokens = windows.shape[0] * (windows.shape[1] - 1)
        found[f"hessian/{n_tokens}"] = top_eigenvalue(losses, moment.weights)
    return found


MEASURES: dict[str, Measure] = {
    "grad_norm": _grad_norm,
    "grad_norm_l1": _grad_norm_l1,
    "grad_noise_scale": _grad_noise_scale,
    "norm_test": _norm_test,
    "singular_values": _singular_values,
    "hessian": _hessian,
}
"""How each measurement of `measurement_names` is made."""

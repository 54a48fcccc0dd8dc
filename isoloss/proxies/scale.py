"""SCALE: gradients over their norm in each column, with momentum in the output layer alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM, PLAIN, ADAM = "momentum", "plain", "adam"
"""How a parameter group is updated: the output layer, other matrices, and what is no matrix."""


class Scale(torch.optim.Optimizer):
    """SCALE of Glentis, Li, Han and Hong 2025, arXiv 2506.16659, algorithm 1.

    A group says by `rule` how it is updated, and by `inputs` over which side of its matrices a norm is taken: the
    paper's columns are of matrices fan_in by fan_out, so a linear layer's weight (fan_out, fan_in) has `inputs` 1
    and an embedding (fan_in, fan_out) has 0. With `is_rms` the norm is the root of the mean square, as in the
    authors' program, and entries of an update are of order 1 as Adam's are; otherwise it is the l2 norm of the
    paper's formula, and rates are sqrt(fan_in) times as large. Vectors are given Adam, as the authors do.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        is_rms: bool = True,
    ) -> None:
        plain = {
            "rule": PLAIN,
            "inputs": 1,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "is_rms": is_rms,
        }
        super().__init__(groups, {"lr": lr, **plain})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    update = self._adam if group["rule"] == ADAM else self._normalised
                    weight.add_(update(weight, weight.grad, group), alpha=-group["lr"])
        return loss

    def _normalised(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """Return (rows, columns): the gradient, or its mean over steps, with columns of norm 1."""
        if group["rule"] == MOMENTUM:
            state = self.state[weight]
            if "mean" not in state:
                state["mean"] = torch.zeros_like(weight)
            gradient = state["mean"].lerp_(gradient, 1 - group["momentum"])
        norms: Tensor = torch.linalg.vector_norm(gradient, dim=group["inputs"], keepdim=True)
        if group["is_rms"]:
            norms = norms / math.sqrt(gradient.shape[group["inputs"]])
        return gradient / norms.clamp_min(float(group["eps"]))

    def _adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if "step" not in state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        update: Tensor = state["mean"] / (1 - first ** state["step"]) / root
        return update

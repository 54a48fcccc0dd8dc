"""Optimiser steps of a proxy: parameter groups by role, clipping, weight decay of each kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.model import Transformer
from isoloss.proxies.optimizers import build_optimizer, optimizer_row


class Updates:
    """The optimiser over a model's weights, and what happens to them beside it.

    Weights of one role make a group, with the learning rate and decay of `ProxyConfig.lr_factor` and `decay_of`. A
    decay of the optimiser's own kind is left to it.
    """

    def __init__(self, config: ProxyConfig, model: Transformer) -> None:
        self.config = config
        self.weights = list(model.parameters())
        by_role: dict[str, list[Any]] = {}
        for _, role, weight in model.roles():
            by_role.setdefault(role, []).append(weight)
        row = optimizer_row(config.optimizer)
        self._is_native = config.weight_decay_kind == row.native_decay
        self._roles = [
            (role, config.lr_factor(role), config.decay_of(role), weights)
            for role, weights in by_role.items()
        ]
        groups = [
            {
                "params": weights,
                "role": role,
                "lr": config.peak_lr * factor,
                "weight_decay": decay if self._is_native else 0.0,
            }
            for role, factor, decay, weights in self._roles
        ]
        self.optimizer = build_optimizer(config.optimizer, groups, config.optimizer_options)
        self._factors = {role: factor for role, factor, _, _ in self._roles}

    @torch.no_grad()
    def apply(self, lr: float) -> Tensor:
        """Update the weights at this learning rate of the schedule; return the norm of the gradient as it came."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.config.clip_norm, norm, foreach=True)
        if not self._is_native:
            self._decay(lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * self._factors[group["role"]]
        self.optimizer.step()
        return norm

    def _decay(self, lr: float) -> None:
        """Apply a decay that is not of the optimiser's own kind: to the weights, or in the gradient."""
        kind = self.config.weight_decay_kind
        for _, factor, decay, weights in self._roles:
            if not decay:
                continue
            if kind == "l2":
                torch._foreach_add_([weight.grad for weight in weights], weights, alpha=decay)
            else:
                torch._foreach_mul_(weights, 1 - self._share(kind, decay, factor, lr))

    def _share(self, kind: str, decay: float, factor: float, lr: float) -> float:
        """What a step takes off the weights, as a share of them."""
        if kind == "lr_scaled":
            return decay * lr * factor
        if self.config.weight_decay_schedule == "constant":
            return decay
        return decay * lr / self.config.peak_lr

"""The model that proxies train: a decoder-only transformer with RMSNorm, SwiGLU and rotary positions.

Norms have no gain unless it is asked for: gains cost a step of their own in each block, do nothing that the
matrix behind them cannot, and were seen to disturb transfer over widths (Lingle 2024, arXiv 2404.05728).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.shapes import mlp_width

ROTARY_BASE = 10_000.0  # Su et al. 2021, arXiv 2104.09864, section 3.2.2


class Norm(nn.Module):
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, has_gain: bool) -> None:
        super().__init__()
        self.shape = (width,)
        self.gain = nn.Parameter(torch.ones(width)) if has_gain else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.shape, self.gain)


class Block(nn.Module):
    """Pre-norm causal attention, then a SwiGLU MLP (Shazeer 2020, arXiv 2002.05202).

    Each matrix stands alone: on a CPU the parts of a joint one would be copied more often than they are computed.
    """

    def __init__(self, config: ProxyConfig) -> None:
        super().__init__()
        width, inner = config.width, mlp_width(config.width)
        self.head_width, self.scale = config.head_width, config.attention_scale
        self.attention_norm = Norm(width, config.norm_gain)
        self.query, self.key, self.value, self.attention_out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.mlp_norm = Norm(width, config.norm_gain)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.mlp_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Stream [sequences, time, width] in, the same out."""
        x = x + self.attention_out(self.attend(self.attention_norm(x), cosine, sine))
        normed = self.mlp_norm(x)
        written: Tensor = self.mlp_out(functional.silu(self.gate(normed)) * self.up(normed))
        return x + written

    def attend(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Causal self-attention of all heads, before the output matrix."""
        query, key, value = (
            matrix(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for matrix in (self.query, self.key, self.value)
        )  # [sequences, heads, time, head_width]
        mixed = functional.scaled_dot_product_attention(
            rotate(query, cosine, sine), rotate(key, cosine, sine), value, is_causal=True, scale=self.scale
        )
        return mixed.transpose(1, 2).flatten(2)


class Rotation(torch.autograd.Function):
    """A rotation, whose gradient is rotated back: nothing of x is kept, and it is differentiable again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        first, second = x.chunk(2, dim=-1)
        into_first, into_second = turned.chunk(2, dim=-1)
        torch.mul(first, cosine, out=into_first).addcmul_(second, sine, value=-1)
        torch.mul(second, cosine, out=into_second).addcmul_(first, sine)
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return rotate(gradients[0], cosine, -sine), None, None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn pairs of features of x [..., time, head_width] by the angles of their positions."""
    if (
        torch.compiler.is_compiling()
    ):  # which makes one kernel of it, and does not take views that are written to
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    turned: Tensor = Rotation.apply(x, cosine.to(x.dtype), sine.to(x.dtype))  # type: ignore[no-untyped-call]
    return turned


def rotation(n_positions: int, head_width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [n_positions, head_width / 2] of every position's angles."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.arange(n_positions)[:, None] * frequencies
    return angles.cos(), angles.sin()


class Transformer(nn.Module):
    """The model of a configuration, its weights drawn from the configuration's seed."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ProxyConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.embedding_norm = Norm(config.width, config.norm_gain)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.output_norm = Norm(config.width, config.norm_gain)
        self.head = None if config.tied_head else nn.Linear(config.width, vocab_size, bias=False)
        self.output_multiplier = config.width_rules.output_multiplier
        cosine, sine = rotation(config.sequence_length, config.head_width)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._draw(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [sequences, time, vocabulary] of what follows each of tokens [sequences, time]."""
        length = tokens.shape[1]
        cosine, sine = self.cosine[:length], self.sine[:length]
        x = self.embedding_norm(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, cosine, sine)
        x = self.output_norm(x)
        if self.output_multiplier != 1:
            x = x * self.output_multiplier
        return functional.linear(x, self.embedding.weight if self.head is None else self.head.weight)

    def summed_loss(self, windows: Tensor) -> Tensor:
        """Return the sum over all tokens of the cross-entropy in nats of windows [sequences, time + 1]."""
        logits = self(windows[:, :-1])
        targets = windows[:, 1:].flatten()
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets, reduction="sum")

    def roles(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Yield (name, role, weight) of every weight; roles as in parametrization.ROLES."""
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                yield name, "vector", weight
            elif weight is self.embedding.weight:
                yield name, "tied" if self.head is None else "embedding", weight
            else:
                yield name, "head" if name == "head.weight" else "hidden", weight

    @torch.no_grad()
    def _draw(self, config: ProxyConfig) -> None:
        """Normal weights of the table's deviations; those that write to the stream are over sqrt(2 depth).

        Radford et al. 2019 for the latter. The same seed draws the same numbers on every device.
        """
        generator = torch.Generator().manual_seed(config.seed)
        for name, role, weight in self.roles():
            if role == "vector":
                continue
            sd = config.width_rules.init_sd(role, fan_in=weight.shape[1])
            if name.endswith("_out.weight"):
                sd /= math.sqrt(2 * config.depth)
            weight.normal_(0.0, sd, generator=generator)

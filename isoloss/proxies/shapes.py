"""The shape of a proxy model in numbers, which its parameters follow; no torch."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = 256
"""The vocabulary of text read as bytes."""

MLP_QUARTERS = 11
"""The MLP is 11/4 as wide as the model: near the 8/3 at which three matrices hold as much as two of four widths
(Shazeer 2020, arXiv 2002.05202, section 2), and the same at every width that 4 divides, as mup needs it."""


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has: all, and those outside of its table of embeddings.

    An output layer of its own counts among the latter, one that is tied to the embedding does not, as where hooks
    read a model.
    """

    total: int
    non_embedding: int


def mlp_width(width: int) -> int:
    """Return the hidden width of the MLP."""
    return MLP_QUARTERS * width // 4


def count_parameters(
    width: int, depth: int, vocab_size: int, tied_head: bool, norm_gain: bool
) -> ParameterCounts:
    """Return the parameters of a model: attention 4 width^2 and an MLP of three matrices in each of its blocks."""
    block = 4 * width**2 + 3 * width * mlp_width(width)
    gains = (2 * depth + 2) * width if norm_gain else 0
    head = 0 if tied_head else vocab_size * width
    non_embedding = depth * block + gains + head
    return ParameterCounts(non_embedding + vocab_size * width, non_embedding)

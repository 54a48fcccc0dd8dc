"""How width enters initialisation, multipliers, learning rates and weight decay: one table of powers, by role.

Maximal-update parametrisation: Yang et al. 2022, 'Tensor Programs V', arXiv 2203.03466, table 8 (the form that
allows a tied head); weight decay: Fan et al. 2025, arXiv 2510.15262 (laws.md 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PARAMETRIZATIONS = ("standard", "mup")

ROLES = ("embedding", "hidden", "head", "tied", "vector")
"""What a weight is: rows of the embedding, a hidden matrix, the output layer, an embedding that is also the output
layer, or a vector (the gain of a norm). Both sides of a hidden matrix alone grow with the width."""

DECAYED = {"standard": ("embedding", "hidden", "head", "tied"), "mup": ("hidden",)}
"""Standard: every matrix. mup: weights with one side that does not grow are not decayed (laws.md 6)."""


@dataclass(frozen=True)
class WidthPowers:
    """Powers of width / base_width in an optimiser's settings under mup, by role.

    `lr` of the learning rate; `decay` of the weight decay of hidden matrices that the learning rate scales, None
    where no derivation is published.
    """

    lr: Mapping[str, float]
    decay: float | None


ADAM_POWERS = WidthPowers(
    lr=MappingProxyType(
        {
            "embedding": 0.0,  # arXiv 2203.03466, table 8, Adam, input weights: 1
            "hidden": -1.0,  # ... hidden weights: 1 / fan_in
            "head": 0.0,  # ... output weights: 1
            "tied": 0.0,  # input and output agree
            "vector": 0.0,  # ... biases, and gains: 1
        }
    ),
    decay=0.5,  # laws.md 6, arXiv 2510.15262: lambda ~ sqrt(width)
)
"""Optimisers whose update does not change when the gradient is multiplied by a number."""

SGD_POWERS = WidthPowers(
    lr=MappingProxyType(
        {
            "embedding": 1.0,  # arXiv 2203.03466, table 8, SGD, input weights: fan_out
            "hidden": 0.0,  # ... hidden weights: 1
            "head": 1.0,  # ... output weights: fan_in
            "tied": 1.0,  # input and output agree
            "vector": 1.0,  # ... biases, and gains: fan_out
        }
    ),
    decay=None,  # the root of the width is derived for Adam alone
)
"""Optimisers whose update is proportional to the gradient."""

ENTRYWISE_POWERS = WidthPowers(lr=ADAM_POWERS.lr, decay=None)
"""Optimisers whose update of an entry follows from its gradients, whatever their size: rates are Adam's (Yang and
Littwin 2023, 'Tensor Programs IVb', arXiv 2308.01814); of the decay nothing is derived."""

MUON_POWERS = WidthPowers(
    lr=MappingProxyType(
        {
            **ADAM_POWERS.lr,
            # An update whose entries have the root mean square .2 is .2 sqrt(largest side) times an orthogonal
            # matrix; arXiv 2310.17813, condition 1, wants its norm as sqrt(fan_out / fan_in), constant in width.
            "hidden": -0.5,
        }
    ),
    decay=None,
)
"""Orthogonal updates of Adam's size for hidden matrices, Adam for the rest."""

INIT_POWERS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "standard": {
            "embedding": 0.0,
            "hidden": -0.5,  # variance 1 / fan_in
            "head": -0.5,  # variance 1 / fan_in
            "tied": -0.5,  # as the head
            "vector": 0.0,
        },
        "mup": {
            "embedding": 0.0,  # arXiv 2203.03466, table 8: variance 1 / fan_in, the vocabulary
            "hidden": -0.5,  # ... 1 / fan_in
            "head": 0.0,  # ... 1, with the multiplier 1 / fan_in
            "tied": 0.0,  # input and output agree
            "vector": 0.0,
        },
    }
)
"""Powers of width / base_width in the standard deviation of initial weights."""

OUTPUT_POWER = {"standard": 0.0, "mup": -1.0}
"""Power of width / base_width that multiplies the logits: table 8, output multiplier 1 / fan_in."""

EMBEDDING_SD = 0.02
"""Standard deviation of an embedding that is not tied (Radford et al. 2019). A norm stands behind it, so that it
only says how fast the embedding learns; of .02, .1, .3 and 1 this gave the lowest loss at two learning rates."""


@dataclass(frozen=True)
class Parametrization:
    """How a model of `width` is set, beside one of `base_width` that has the settings as they are given.

    `kind` is standard, which is the same at all widths but for initial weights, or mup. Hidden matrices have
    fan_in proportional to the width.
    """

    kind: str
    width: int
    base_width: int

    @property
    def ratio(self) -> float:
        return self.width / self.base_width

    def init_sd(self, role: str, fan_in: int) -> float:
        """Return the standard deviation of initial weights; vectors start at 1 and have none.

        `fan_in` is the side of the matrix that is summed over, at this width.
        """
        if role == "vector":
            return 0.0
        if role == "embedding":
            return float(EMBEDDING_SD * self.ratio ** INIT_POWERS[self.kind][role])
        base_fan_in = fan_in / self.ratio
        return float(base_fan_in**-0.5 * self.ratio ** INIT_POWERS[self.kind][role])

    @property
    def output_multiplier(self) -> float:
        """What the logits are multiplied by."""
        return float(self.ratio ** OUTPUT_POWER[self.kind])

    def lr_factor(self, role: str, powers: WidthPowers | None) -> float:
        """Return what the learning rate is multiplied by for weights of a role."""
        if self.kind == "standard":
            return 1.0
        assert powers is not None, "mup is refused for optimisers without powers"
        return float(self.ratio ** powers.lr[role])

    def decay_factor(self, role: str, kind: str, powers: WidthPowers | None, is_scaled: bool) -> float:
        """Return what the weight decay of a kind is multiplied by for weights of a role; 0: they are not decayed.

        An `independent` decay stands for the learning rate times the decay, and goes as both together.
        """
        if role not in DECAYED[self.kind]:
            return 0.0
        if self.kind == "standard" or not is_scaled:
            return 1.0
        assert powers is not None
        assert powers.decay is not None, "a decay without powers is refused"
        power = powers.decay + (powers.lr[role] if kind == "independent" else 0.0)
        return float(self.ratio**power)

    def attention_scale(self, head_width: int, base_head_width: int) -> float:
        """Return what query times key is multiplied by: 1/sqrt(d), and under mup 1/d, the same at the base."""
        if self.kind == "standard":
            return 1 / math.sqrt(head_width)
        return math.sqrt(base_head_width) / head_width  # arXiv 2203.03466, definition 4.1

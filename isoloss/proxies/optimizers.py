"""The optimisers that a proxy trains with, by name: options, kinds of weight decay, and how width enters.

Nothing here imports torch until an optimiser is built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isoloss.errors import InvalidInput
from isoloss.proxies.parametrization import ADAM_POWERS, SGD_POWERS, WidthPowers

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = Sequence[dict[str, Any]]
"""Parameter groups as torch takes them: `params`, `lr`, `weight_decay`, and `role` (parametrization.ROLES)."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class OptimizerRow:
    """One optimiser.

    `build` makes it of parameter groups and options. Its own weight decay is of the kind `native_decay`, None where
    it has none; training itself applies a decay of another kind in `decay_kinds`, before the update for
    `lr_scaled` and `independent`, to the gradient for `l2`. `defaults` are its options; `mup` says how its learning
    rates go with the width under maximal-update parametrisation, None where no derivation is published.
    """

    build: Callable[[Groups, Options], Optimizer]
    defaults: Mapping[str, Any]
    source: str
    native_decay: str | None
    decay_kinds: tuple[str, ...] = ("lr_scaled", "independent", "l2")
    mup: WidthPowers | None = None
    checks: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)


def _adamw(groups: Groups, options: Options) -> Optimizer:
    from torch.optim import AdamW

    betas = (options["beta1"], options["beta2"])
    return AdamW(groups, betas=betas, eps=options["eps"], fused=True)


def _sgd(groups: Groups, options: Options) -> Optimizer:
    from torch.optim import SGD

    return SGD(groups, momentum=options["momentum"], nesterov=options["nesterov"], fused=True)


OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow(
        build=_adamw,
        defaults={"beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
        source="Loshchilov and Hutter 2019, arXiv 1711.05101; torch.optim.AdamW; beta2 as in Brown et al. 2020",
        native_decay="lr_scaled",
        mup=ADAM_POWERS,
    ),
    "sgd": OptimizerRow(
        build=_sgd,
        defaults={"momentum": 0.9, "nesterov": False},
        source="Sutskever et al. 2013; torch.optim.SGD",
        native_decay="l2",
        mup=SGD_POWERS,
    ),
}
"""Every optimiser by name."""


def optimizer_row(name: object) -> OptimizerRow:
    """Return the row of an optimiser. Raises InvalidInput, which lists the known names, for another name."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        reason = f"{name!r} is not one of {', '.join(sorted(OPTIMIZERS))}"
        raise InvalidInput(field="optimizer", reason=reason)
    return OPTIMIZERS[name]


def checked_options(name: str, given: Options) -> dict[str, Any]:
    """Return an optimiser's options, its defaults where nothing is given.

    Raises InvalidInput for one that it has not, of another type than its default, or that is not finite.
    """
    row = optimizer_row(name)
    for option, value in given.items():
        where = f"optimizer_options.{option}"
        if option not in row.defaults:
            known = ", ".join(row.defaults) or "none"
            raise InvalidInput(field=where, reason=f"{name} has no such option; it has {known}")
        _check_option(where, value, row.defaults[option])
        if option in row.checks and not row.checks[option](value):
            raise InvalidInput(field=where, reason=f"{value!r} is outside of what {name} takes")
    return {**row.defaults, **given}


def _check_option(where: str, value: Any, default: Any) -> None:
    """Refuse an option that is not of its default's type; a whole number may stand for a float."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise InvalidInput(field=where, reason=f"must be a {type(default).__name__}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(field=where, reason="must be finite")
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        raise InvalidInput(field=where, reason="must not be below 0")


def build_optimizer(name: str, groups: Groups, options: Options) -> Optimizer:
    """Return a new optimiser over parameter groups, which carry their learning rates and their own decay."""
    return optimizer_row(name).build(groups, checked_options(name, options))

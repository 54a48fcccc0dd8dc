"""The optimisers that a proxy trains with, by name: options, kinds of weight decay, and how width enters.

Nothing here imports torch until an optimiser is built.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isoloss.errors import InvalidInput
from isoloss.proxies.parametrization import (
    ADAM_POWERS,
    ENTRYWISE_POWERS,
    MUON_POWERS,
    SGD_POWERS,
    WidthPowers,
)

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


def _built_by(name: str) -> Callable[[Groups, Options], Optimizer]:
    """Return a function of `optimizer_builders`, which imports torch and pytorch-optimizer, when it is called."""

    def build(groups: Groups, options: Options) -> Optimizer:
        builders = importlib.import_module("isoloss.proxies.optimizer_builders")
        built: Optimizer = getattr(builders, name)(groups, options)
        return built

    return build


def _below_one(value: float) -> bool:
    return value < 1


def _at_least_one(value: int) -> bool:
    return value >= 1


_BETAS = {"beta1": _below_one, "beta2": _below_one}
_MOMENTUM = {"momentum": _below_one}

OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow(
        build=_adamw,
        defaults={"beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
        source="Loshchilov and Hutter 2019, arXiv 1711.05101; torch.optim.AdamW; beta2 as in Brown et al. 2020",
        native_decay="lr_scaled",
        mup=ADAM_POWERS,
        checks=_BETAS,
    ),
    "sgd": OptimizerRow(
        build=_sgd,
        defaults={"momentum": 0.9, "nesterov": False},
        source="Sutskever et al. 2013; torch.optim.SGD",
        native_decay="l2",
        mup=SGD_POWERS,
        checks=_MOMENTUM,
    ),
    "lamb": OptimizerRow(
        build=_built_by("lamb"),
        defaults={"beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_norm_max": 10.0},  # 0: no limit
        source="You et al. 2020, arXiv 1904.00962, version 3, without bias correction",
        native_decay=None,
        checks=_BETAS,
    ),
    "lars": OptimizerRow(
        build=_built_by("lars"),
        defaults={"momentum": 0.9, "trust_coefficient": 1e-3},
        source="You, Gitman and Ginsburg 2017, arXiv 1708.03888; vectors have plain momentum",
        native_decay=None,
        checks=_MOMENTUM,
    ),
    "novograd": OptimizerRow(
        build=_built_by("novograd"),
        defaults={"beta1": 0.95, "beta2": 0.98, "eps": 1e-8},
        source="Ginsburg et al. 2019, arXiv 1905.11286",
        native_decay=None,
        checks=_BETAS,
    ),
    "adamp": OptimizerRow(
        build=_built_by("adamp"),
        defaults={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "delta": 0.1, "nesterov": False},
        source="Heo et al. 2021, arXiv 2006.08217",
        native_decay=None,
        checks=_BETAS,
    ),
    "diffgrad": OptimizerRow(
        build=_built_by("diffgrad"),
        defaults={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        source="Dubey et al. 2020, arXiv 1909.11015",
        native_decay=None,
        checks=_BETAS,
    ),
    "sgd_sai": OptimizerRow(
        build=_built_by("sgd_sai"),
        defaults={"momentum": 0.9, "eps": 1e-8},
        source="Xu et al. 2024, arXiv 2412.11768",
        native_decay=None,
        checks=_MOMENTUM,
    ),
    "galore": OptimizerRow(
        build=_built_by("galore"),
        # A rank of 0 is a quarter of the smaller side of a matrix.
        defaults={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "rank": 0, "update_every": 200, "scale": 0.25},
        source="Zhao et al. 2024, arXiv 2403.03507; what is no hidden matrix has Adam",
        native_decay=None,
        checks={**_BETAS, "update_every": _at_least_one},
    ),
    "fira": OptimizerRow(
        build=_built_by("fira"),
        # A scale other than 1 would count parts of what was projected as left out.
        defaults={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "rank": 0, "update_every": 200, "scale": 1.0},
        source="Chen et al. 2024, arXiv 2410.01623; what is no hidden matrix has Adam",
        native_decay=None,
        checks={**_BETAS, "update_every": _at_least_one},
    ),
    "lion": OptimizerRow(
        build=_built_by("lion"),
        defaults={"beta1": 0.9, "beta2": 0.99},
        source="Chen et al. 2023, arXiv 2302.06675",
        native_decay=None,
        mup=ENTRYWISE_POWERS,
        checks=_BETAS,
    ),
    "muon": OptimizerRow(
        build=_built_by("muon"),
        defaults={
            "momentum": 0.95,
            "nesterov": True,
            "ns_steps": 5,
            "beta1": 0.9,
            "beta2": 0.95,
            "eps": 1e-8,
        },
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; updates of Adam's size: Liu et al. 2025, "
        "arXiv 2502.16982; what is no hidden matrix has AdamW",
        native_decay=None,
        mup=MUON_POWERS,
        checks={**_BETAS, **_MOMENTUM, "ns_steps": lambda value: 1 <= value < 100},
    ),
    "scale": OptimizerRow(
        build=_built_by("scale"),
        defaults={"momentum": 0.9, "column_norm": "rms", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        source="Glentis et al. 2025, arXiv 2506.16659; vectors have Adam",
        native_decay=None,
        checks={**_BETAS, **_MOMENTUM, "column_norm": lambda value: value in ("rms", "l2")},
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

"""How each optimiser is made of parameter groups; `optimizers` has their names, options and rules.

What torch has not comes from the package pytorch-optimizer. Its decay of weights is switched off: it means
something else in almost each, inside of a norm (LARS), before a momentum (NovoGrad) or a tenth of what was asked
for (AdamP), and laws read a decay by its kind. Training applies the kind that a configuration says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_optimizer as library
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

from isoloss.proxies.scale import ADAM, MOMENTUM, PLAIN, Scale

Groups = Sequence[dict[str, Any]]
Options = Mapping[str, Any]

PROJECTOR = "projector"
DEFAULT_RANK_SHARE = 4
"""A rank of 0 is the smaller side of the matrices over this: arXiv 2403.03507, table 2, has 1/4 to 1/2."""


def lamb(groups: Groups, options: Options) -> Any:
    """Return LAMB without bias correction, which the library has by default for the mean though not as it says."""
    made = library.Lamb(_undecayed(groups), betas=_betas(options), eps=options["eps"], adam_debias=True)
    made.clamp = options["weight_norm_max"] or math.inf
    return made


def lars(groups: Groups, options: Options) -> Any:
    return library.LARS(
        _undecayed(groups), momentum=options["momentum"], trust_coefficient=options["trust_coefficient"]
    )


def novograd(groups: Groups, options: Options) -> Any:
    return library.NovoGrad(_undecayed(groups), betas=_betas(options), eps=options["eps"])


def adamp(groups: Groups, options: Options) -> Any:
    rest = {name: options[name] for name in ("eps", "delta", "nesterov")}
    return library.AdamP(_undecayed(groups), betas=_betas(options), **rest)


def diffgrad(groups: Groups, options: Options) -> Any:
    return library.DiffGrad(_undecayed(groups), betas=_betas(options), eps=options["eps"])


def sgd_sai(groups: Groups, options: Options) -> Any:
    return library.SGDSaI(
        _undecayed(groups), momentum=options["momentum"], eps=options["eps"], weight_decay=0.0
    )


def lion(groups: Groups, options: Options) -> Any:
    return library.Lion(_undecayed(groups), betas=_betas(options))


def galore(groups: Groups, options: Options) -> Any:
    return _GaLore(_projected(groups, options), betas=_betas(options), eps=options["eps"])


def fira(groups: Groups, options: Options) -> Any:
    return _Fira(_projected(groups, options), betas=_betas(options), eps=options["eps"])


def muon(groups: Groups, options: Options) -> Any:
    """Return Muon for hidden matrices, with updates of the size of Adam's, and AdamW for the rest."""
    orthogonal = {
        "use_muon": True,
        "use_adjusted_lr": True,
        **{name: options[name] for name in ("momentum", "nesterov", "ns_steps")},
    }
    plain = {"use_muon": False, "betas": _betas(options), "eps": options["eps"]}
    return library.Muon(
        [{**group, **(orthogonal if group["role"] == "hidden" else plain)} for group in _undecayed(groups)]
    )


def scale(groups: Groups, options: Options) -> Any:
    """Return SCALE: the output layer with momentum, vectors with Adam, other matrices with neither."""
    rules = {"head": MOMENTUM, "tied": MOMENTUM, "vector": ADAM}
    ruled = [
        {
            **group,
            "rule": rules.get(group["role"], PLAIN),
            "inputs": 0 if group["role"] == "embedding" else 1,
        }
        for group in _undecayed(groups)
    ]
    is_rms = options["column_norm"] == "rms"
    return Scale(
        ruled, momentum=options["momentum"], betas=_betas(options), eps=options["eps"], is_rms=is_rms
    )


def _betas(options: Options) -> tuple[float, float]:
    return options["beta1"], options["beta2"]


def _undecayed(groups: Groups) -> list[dict[str, Any]]:
    return [{**group, "weight_decay": 0.0} for group in groups]


def _projected(groups: Groups, options: Options) -> list[dict[str, Any]]:
    """Return groups of which those of hidden matrices say what their gradients are projected to."""
    return [
        {**group, **(_projection(group, options) if group["role"] == "hidden" else {})}
        for group in _undecayed(groups)
    ]


def _projection(group: Mapping[str, Any], options: Options) -> dict[str, Any]:
    smallest = min(min(weight.shape) for weight in group["params"])
    rank = options["rank"] or max(1, smallest // DEFAULT_RANK_SHARE)
    return {
        "rank": min(rank, smallest),
        "update_proj_gap": options["update_every"],
        "scale": options["scale"],
        "projection_type": "std",
    }


class _PlainState:
    """Saves the projections of GaLore and Fira as tensors and numbers, which are read without running code."""

    def state_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        state = {key: _with_plain_projection(one) for key, one in saved["state"].items()}
        return {**saved, "state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {key: _with_projection(one) for key, one in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": state})  # type: ignore[misc]


def _with_plain_projection(state: dict[str, Any]) -> dict[str, Any]:
    if PROJECTOR not in state:
        return state
    return {**state, PROJECTOR: dict(vars(state[PROJECTOR]))}


def _with_projection(state: dict[str, Any]) -> dict[str, Any]:
    if PROJECTOR not in state:
        return state
    projector = GaLoreProjector()
    vars(projector).update(state[PROJECTOR])
    return {**state, PROJECTOR: projector}


class _GaLore(_PlainState, library.GaLore):
    pass


class _Fira(_PlainState, library.Fira):
    pass

"""What a torch optimiser says of a run: its name, learning rate, weight decay, and how many steps it has done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoloss.observations.curves import HIGHEST_WEIGHT_DECAY

DECOUPLED = ("adamw", "lion", "muon", "adafactor", "lamb")
"""Optimisers whose decay multiplies the weights by 1 - lr * decay, by how their names begin."""

IN_THE_GRADIENT = ("adam", "adamax", "sgd", "adagrad", "rmsprop", "adadelta", "asgd", "nadam", "radam")
"""Optimisers that add the decay to the gradient, unless their groups say that it is decoupled."""


@dataclass(frozen=True)
class Optimizer:
    """An optimiser's settings, of the parameter group `group`, which holds the most numbers."""

    name: str
    group: int
    lr: float
    weight_decay: float | None
    weight_decay_kind: str | None
    steps_done: int

    def config(self) -> dict[str, Any]:
        """The fields of a run's configuration that are known by it."""
        found = {
            "optimizer": self.name,
            "weight_decay": self.weight_decay,
            "weight_decay_kind": self.weight_decay_kind,
        }
        return {name: value for name, value in found.items() if value is not None}


def unwrapped(optimizer: Any) -> Any:
    """The torch optimiser inside the wrapper of a training library."""
    while not hasattr(type(optimizer), "register_step_post_hook") or hasattr(optimizer, "accelerator_state"):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None:
            break
        optimizer = inner
    return optimizer


def read_optimizer(optimizer: Any) -> Optimizer:
    """Read an optimiser's settings; changes nothing, and waits for no device unless the rate is on one."""
    inner = unwrapped(optimizer)
    groups = inner.param_groups
    group = max(range(len(groups)), key=lambda index: _numbers_in(groups[index]))
    largest, name = groups[group], type(inner).__name__.lower()
    decay = _decay(largest)
    return Optimizer(
        name=name,
        group=group,
        lr=float(largest["lr"]),
        weight_decay=decay,
        weight_decay_kind=None if decay is None else _kind_of_decay(name, largest),
        steps_done=_steps_done(inner),
    )


def _numbers_in(group: Mapping[str, Any]) -> int:
    return sum(int(weight.numel()) for weight in group["params"])


def _decay(group: Mapping[str, Any]) -> float | None:
    """The weight decay, None where a law could not take it for one."""
    decay = float(group.get("weight_decay", math.nan))
    return decay if 0 <= decay <= HIGHEST_WEIGHT_DECAY else None


def _kind_of_decay(name: str, group: Mapping[str, Any]) -> str | None:
    if group.get("decoupled_weight_decay") or name.startswith(DECOUPLED):
        return "lr_scaled"
    return "l2" if name in IN_THE_GRADIENT else None


def _steps_done(optimizer: Any) -> int:
    """Updates that the optimiser remembers, 0 where it counts none."""
    for state in optimizer.state.values():
        if isinstance(state, Mapping) and "step" in state:
            return int(state["step"])
    return 0

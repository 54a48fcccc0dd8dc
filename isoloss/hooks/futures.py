"""The learning rates that a scheduler is going to set, found by stepping a copy of it."""

from __future__ import annotations

import copy
import time
import warnings
from typing import Any

from isoloss.errors import InvalidInput

LONGEST_S = 10.0
"""Seconds that stepping a copy may take: the training waits for it."""

STEPS_BETWEEN_LOOKS = 1024


def rates_ahead(scheduler: Any, total_steps: int, *, every: int = 1, group: int = 0) -> list[float]:
    """Return the learning rates of the updates 1 to `total_steps` of parameter group `group`.

    The scheduler is one that has not been stepped yet, and steps after every `every` updates. A copy is stepped
    on an optimiser of its own, so that neither the scheduler nor its optimiser notices; functions that it was
    given are called, and must not count their calls.
    Raises InvalidInput where that cannot be done: a scheduler that waits for a metric, that was stepped
    before, or that takes too long.
    """
    inner, calls = _inner(scheduler)
    if type(inner).__name__ in ("ReduceLROnPlateau", "GreedyLR"):
        raise InvalidInput(field="scheduler", reason=f"{type(inner).__name__} decides while it trains")
    if getattr(inner, "last_epoch", 0) > 0:
        raise InvalidInput(field="scheduler", reason="it has been stepped before")
    optimizer = _stand_in(inner.optimizer)
    copied = copy.deepcopy(inner, _kept(inner.optimizer, optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of updates that were never done
        return _stepped(copied, optimizer.param_groups[group], total_steps, every, calls)


def _stepped(scheduler: Any, group: dict[str, Any], total_steps: int, every: int, calls: int) -> list[float]:
    deadline = time.monotonic() + LONGEST_S
    rates = []
    for step in range(1, total_steps + 1):
        rates.append(float(group["lr"]))
        if step % every == 0 and step < total_steps:
            for _ in range(calls):
                scheduler.step()
        if step % STEPS_BETWEEN_LOOKS == 0 and time.monotonic() > deadline:
            reason = f"{total_steps} steps of it take longer than {LONGEST_S:g} s"
            raise InvalidInput(field="scheduler", reason=reason)
    return rates


def _inner(scheduler: Any) -> tuple[Any, int]:
    """The torch scheduler inside Accelerate's, and how often that steps it at once."""
    if not hasattr(scheduler, "step_with_optimizer"):
        return scheduler, 1
    alone = scheduler.split_batches or not scheduler.step_with_optimizer
    return scheduler.scheduler, 1 if alone else _n_processes()


def _n_processes() -> int:
    from accelerate.state import AcceleratorState

    return int(AcceleratorState().num_processes)


def _stand_in(optimizer: Any) -> Any:
    """An optimiser of one number for each parameter group, with the settings of the groups."""
    import torch

    groups = [
        {
            **{name: _copied(value) for name, value in group.items() if name != "params"},
            "params": [torch.zeros(1, requires_grad=True)],
        }
        for group in optimizer.param_groups
    ]
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=0.0)
    stand_in.param_groups[:] = groups
    stand_in.defaults = dict(optimizer.defaults)
    return stand_in


def _copied(value: Any) -> Any:
    return float(value) if hasattr(value, "detach") and value.numel() == 1 else copy.copy(value)


def _kept(optimizer: Any, stand_in: Any) -> dict[int, Any]:
    """What a copy does not copy: the optimiser, in whose place it gets another, and the weights."""
    kept: dict[int, Any] = {id(optimizer): stand_in}
    for group in optimizer.param_groups:
        kept.update((id(weight), weight) for weight in group["params"])
    return kept

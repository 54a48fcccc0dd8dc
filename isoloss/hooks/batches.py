"""The batch of a run, read off the first updates that it makes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UPDATES_READ = 2
"""Updates whose batches are compared; then the model is left alone."""


@dataclass(frozen=True)
class Batch:
    """What one update of this process was computed from; `sequence_length` None where lengths differ."""

    tokens: int = 0
    sequence_length: int | None = None
    autocast: str | None = None

    def with_call(self, tokens: Any) -> Batch:
        """The batch after one more call of the model with `tokens` (sequences, length)."""
        length = int(tokens.shape[-1])
        same = not self.tokens or length == self.sequence_length
        return Batch(
            self.tokens + int(tokens.numel()), length if same else None, self.autocast or _autocast(tokens)
        )


class BatchReader:
    """Counts the tokens that a model is called with until its optimiser steps: accumulation is seen, not asked.

    It looks at the shapes of the first updates' inputs in training, never at their values, and then takes its
    hook off.
    """

    def __init__(self, model: Any) -> None:
        self._current = Batch()
        self._batches: list[Batch] = []
        self._handle: Any = None
        if getattr(model, "_compiled_call_impl", None) is None:  # a hook would compile it anew
            self._handle = model.register_forward_pre_hook(self._called, with_kwargs=True)

    def _called(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tokens = _tokens(args, kwargs) if module.training else None
        if tokens is not None:
            self._current = self._current.with_call(tokens)

    def step_ended(self) -> bool:
        """Note that the optimiser has stepped; whether enough has been seen."""
        self._batches.append(self._current)
        self._current = Batch()
        return len(self._batches) >= UPDATES_READ

    def close(self) -> None:
        """Leave the model alone."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @property
    def batch(self) -> Batch | None:
        """What every update so far was computed from, None where they differ or no tokens were seen."""
        first = self._batches[0] if self._batches else Batch()
        return first if first.tokens and all(batch == first for batch in self._batches) else None


def world_size() -> int:
    """How many processes share an update: torch.distributed knows it, else the environment does."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else 1


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The tensor of token ids among a model's arguments, None where there is none."""
    given = [kwargs.get("input_ids"), *args[:1]]
    if args and isinstance(args[0], Mapping):
        given.append(args[0].get("input_ids"))
    for value in given:
        if hasattr(value, "is_floating_point") and value.ndim == 2 and not value.is_floating_point():
            return value
    return None


def _autocast(tokens: Any) -> str | None:
    import torch

    device = tokens.device.type
    if not torch.is_autocast_enabled(device):
        return None
    return f"mixed_{torch.get_autocast_dtype(device)}".replace("torch.", "")

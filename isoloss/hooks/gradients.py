"""Norms of the gradient of one micro-batch and of the whole update, before anything clips them.

Source: McCandlish et al. 2018, arXiv 1812.06162, A.1, reads the gradient noise scale off two such norms.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MOST_SHARE = 0.02
"""Of the time of all updates, what measuring may take; what is not seen of its cost has room to 5 percent."""

LEAST_EVERY = 2
FIRST_COSTS, TIMES_KEPT = 3, 9
"""Of measurements whose median is the cost of one: the first alone is slower than all others."""


@dataclass(frozen=True)
class Norms:
    """Of one update: norms of the first micro-batch's gradient on this process, and of all, after `passes`."""

    first: Any
    last: Any
    passes: int


class Unmeasurable(Exception):
    """Why the norms of a training cannot be measured."""


class GradientNorms:
    """Measures an update now and then, so rarely that it takes few percent of the time; waits for no device.

    Where `is_shared`, other processes have a part of each update (DistributedDataParallel): the first norm is
    then taken while a gradient is this process's own, weight by weight, the last one when it is everybody's.
    """

    def __init__(self, weights: Sequence[Any], *, is_shared: bool) -> None:
        _check(weights)
        self._weights = weights
        self._is_shared = is_shared
        self._handles: list[Any] = []
        self._costs: deque[float] = deque(maxlen=TIMES_KEPT)
        self._paces: deque[float] = deque(maxlen=TIMES_KEPT)
        self._left = 2
        self._began_at: float | None = None
        self._begin()

    def _begin(self) -> None:
        """Know nothing of an update yet."""
        self._own: list[Any] = []
        self._first: Any = None
        self._last: Any = None
        self._passes = 0
        self._is_in_pass = False
        self._in_first: set[int] = set()
        self._is_repeated = False
        self._fault: Exception | None = None
        self._cost = 0.0

    @property
    def every(self) -> int:
        """Of how many updates one is measured."""
        if len(self._costs) < FIRST_COSTS or not self._paces:
            return LEAST_EVERY
        share = statistics.median(self._costs) / statistics.median(self._paces)
        return max(math.ceil(share / MOST_SHARE), LEAST_EVERY)

    def update_ended(self) -> Norms | None:
        """Note that the optimiser has stepped; the norms if this update was measured. Raises Unmeasurable."""
        now = time.perf_counter()
        norms = self._norms() if self._handles else None
        if self._handles:
            self.close()
            self._costs.append(self._cost + time.perf_counter() - now)
            self._left = self.every
        elif self._began_at is not None:
            self._paces.append(now - self._began_at)
        self._left -= 1
        if self._left <= 0:
            self._open()
        self._began_at = time.perf_counter()
        return norms

    def close(self) -> None:
        """Leave the weights alone."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _open(self) -> None:
        started = time.perf_counter()
        self._begin()
        self._handles = [
            weight.register_post_accumulate_grad_hook(self._accumulated) for weight in self._weights
        ]
        self._cost = time.perf_counter() - started

    def _norms(self) -> Norms:
        if self._fault is not None:
            raise Unmeasurable(str(self._fault)) from self._fault
        if not self._passes:
            raise Unmeasurable("no backward pass reaches the optimiser's own weights")
        if self._passes > 1 and not self._is_repeated:
            raise Unmeasurable("a backward pass comes in parts (checkpointing that is reentrant)")
        first = _root(self._own) if self._is_shared else self._first
        return Norms(first, self._last, self._passes)

    def _accumulated(self, weight: Any) -> None:
        """A weight has the gradient of a micro-batch added to its own, before others' is."""
        started = time.perf_counter()
        try:
            self._note(weight)
        except Exception as error:  # said when the update has ended; the backward pass goes on
            self._fault = error
        self._cost += time.perf_counter() - started

    def _note(self, weight: Any) -> None:
        if not self._is_in_pass:
            self._is_in_pass = True
            _after_backward(lambda: _after_backward(self._pass_ended))  # behind what others do after it
        if self._passes == 0:
            self._in_first.add(id(weight))
            if self._is_shared:
                self._own.append(_norm_of([weight.grad]))
        elif id(weight) in self._in_first:
            self._is_repeated = True

    def _pass_ended(self) -> None:
        started = time.perf_counter()
        try:
            self._last = _norm_of([weight.grad for weight in self._weights if weight.grad is not None])
        except Exception as error:
            self._fault = error
        if self._passes == 0:
            self._first = self._last
        self._passes += 1
        self._is_in_pass = False
        self._cost += time.perf_counter() - started


def _check(weights: Sequence[Any]) -> None:
    if any(hasattr(weight, "to_local") or hasattr(weight, "ds_numel") for weight in weights):
        raise Unmeasurable("the gradients are spread over ranks")
    if any(hasattr(weight, "_handle") or hasattr(weight, "_shard_param_infos") for weight in weights):
        raise Unmeasurable("the gradients are spread over ranks")


def _after_backward(call: Callable[[], None]) -> None:
    """Have something called when the backward pass that is running has ended, after what asked for it before."""
    from torch.autograd import Variable

    Variable._execution_engine.queue_callback(call)


def _norm_of(gradients: list[Any]) -> Any:
    """The norm of gradients together, in single precision at least, as a tensor."""
    import torch

    dtype = torch.float64 if gradients[0].dtype == torch.float64 else torch.float32
    return _root(torch._foreach_norm(gradients, 2, dtype))


def _root(norms: Sequence[Any]) -> Any:
    import torch

    device = norms[0].device
    return torch.linalg.vector_norm(torch.stack([norm.to(device, non_blocking=True) for norm in norms]))

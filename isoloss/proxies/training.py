"""Training of a proxy: a pure function of configuration and data, which can be cut anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import InvalidInput, UnusableData
from isoloss.proxies.checkpoints import read_checkpoint, write_checkpoint
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.logbook import Columns, Logbook
from isoloss.proxies.measurements import Moment, measured
from isoloss.proxies.model import Transformer
from isoloss.proxies.updates import Updates

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch says on a CPU, where it has no exception for it."""


class Training:
    """One training of a proxy, at some step of it.

    `status` is running, finished or diverged: a loss that is not finite, or `logbook.HIGH_STEPS` in a row that are
    `HIGH_FACTOR` times the first, ends it there. `notes` say what was changed on the way. On a CPU the numbers are
    those of one thread, bit for bit, however calls of `advance`, `save` and `resume` cut it; on CUDA they are
    equal up to rounding.
    """

    def __init__(self, config: ProxyConfig, data: TokenData, device: str, compile_with: str | None) -> None:
        self.config, self.data = config, data
        self.device = usable_device(device)
        data.check(config)
        with torch.random.fork_rng([]):  # layers draw weights of their own before they get those of the seed
            self.model = Transformer(config, data.vocab_size).to(self.device)
        self._updates = Updates(config, self.model)
        self._random = torch.Generator().manual_seed(config.seed).get_state()
        self._device_random: Tensor | None = None
        if self.device.type == "cuda":
            self._device_random = torch.Generator(self.device).manual_seed(config.seed).get_state()
        self._loss_of = _compiled(self.model, self.device, compile_with)
        self._schedule = config.lr_schedule()
        self._hidden_factor = config.lr_factor("hidden")
        self._micro_sequences = (config.micro_batch_tokens or config.batch_tokens) // config.sequence_length
        self._logbook = Logbook(config)
        self._evaluated_at = config.steps_at(config.eval_every)
        self._measured_at = config.steps_at(config.measure_every) if config.measure else frozenset()
        self.step = 0
        self.notes: list[str] = list(data.notes)

    @classmethod
    def start(
        cls, config: ProxyConfig, data: TokenData, device: str = "cpu", compile_with: str | None = None
    ) -> Self:
        """Return a training at its beginning.

        `device` is cpu, cuda, cuda:0 and so on; `compile_with` a backend of torch.compile, None: inductor on CUDA
        and none on a CPU. Raises InvalidInput where the device is not there or the data are too few.
        """
        return cls(config, data, device, compile_with)

    @classmethod
    def resume(
        cls,
        config: ProxyConfig,
        data: TokenData,
        device: str,
        path: Path | str,
        compile_with: str | None = None,
    ) -> Self:
        """Return a training as it was saved.

        Raises FileNotFoundError where nothing was, UnusableData for a file that is no checkpoint, or one of another
        configuration or other data.
        """
        state = read_checkpoint(Path(path))
        training = cls(config, data, device, compile_with)
        training._restore(state, Path(path).name)
        return training

    @property
    def total_steps(self) -> int:
        return self.config.total_steps

    @property
    def status(self) -> str:
        if self._logbook.is_diverged:
            return "diverged"
        return "finished" if self.step >= self.total_steps else "running"

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that are computed at once."""
        return self._micro_sequences * self.config.sequence_length

    def advance(self, until_step: int | None = None, seconds: float | None = None) -> Columns:
        """Train to a step, None: to the end, and return the columns of the steps that were done.

        It ends earlier where the training diverges or the time is over; at least one step is done. Columns are as
        long as each other, None where a step has no such number: step, loss, val_loss, lr (that of hidden
        matrices), tokens, grad_norm (before clipping), and those that are measured.
        """
        last = self.total_steps if until_step is None else min(until_step, self.total_steps)
        deadline = math.inf if seconds is None else time.perf_counter() + seconds
        with self._undisturbed():
            while self.step < last and self.status == "running":
                self._train_step(self.step + 1)
                if time.perf_counter() >= deadline:
                    break
            columns = self._logbook.taken()
        if self._logbook.is_diverged:
            self.step = self._logbook.last_step
        return columns

    def save(self, path: Path | str) -> None:
        """Write a checkpoint in place of the one there. Raises OSError, and leaves that one whole, on a full disk.

        Columns that `advance` has returned are not in it: they belong to the run.
        """
        write_checkpoint(Path(path), self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.document(),
            "data": self.data.fingerprint,
            "step": self.step,
            "notes": list(self.notes),
            "micro_sequences": self._micro_sequences,
            "logbook": self._logbook.state(),
            "model": self.model.state_dict(),
            "optimizer": self._updates.optimizer.state_dict(),
            "random": self._random,
            "device_random": self._device_random,
        }

    def _restore(self, state: Mapping[str, Any], name: str) -> None:
        if state.get("config") != self.config.document():
            raise UnusableData(reason=f"{name} is a checkpoint of another configuration")
        if state.get("data") != self.data.fingerprint:
            reason = f"{name} is a checkpoint of a training on other data than {self.data.name}"
            raise UnusableData(reason=reason)
        try:
            self.model.load_state_dict(state["model"])
            self._updates.optimizer.load_state_dict(state["optimizer"])
            self._logbook.restore(state["logbook"])
            self._random, self._device_random = state["random"], state["device_random"]
            self._micro_sequences = state["micro_sequences"]
            self.step, self.notes = state["step"], list(state["notes"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnusableData(reason=f"{name} is a checkpoint of another version") from error

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """One thread on a CPU, random numbers of this training's own; the caller's are left as they were."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), _one_thread(self.device):
            torch.set_rng_state(self._random)
            if self._device_random is not None:
                torch.cuda.set_rng_state(self._device_random, self.device)
            yield
            self._random = torch.get_rng_state()
            if self._device_random is not None:
                self._device_random = torch.cuda.get_rng_state(self.device)

    def _train_step(self, step: int) -> None:
        windows = self._on_device(self.data.batch(self.config, step))
        lr = float(self._schedule.lr([step])[0])
        loss = self._gradient(windows)
        if step in self._measured_at:
            self._measure(step, windows, lr * self._hidden_factor)
        norm = self._updates.apply(lr)
        self._logbook.note(step, loss=loss, lr=lr * self._hidden_factor, grad_norm=norm)
        self.step = step
        if step in self._evaluated_at and not self._logbook.is_diverged:
            self._logbook.note(step, val_loss=self.validation_loss())

    def _gradient(self, windows: Tensor) -> Tensor:
        """Put the gradient of the mean loss into the weights, and return that loss; halve what is too large."""
        while True:
            try:
                return self._accumulated(windows)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._micro_sequences == 1:
                    raise
            self._halve()

    def _halve(self) -> None:
        self._micro_sequences = max(1, self._micro_sequences // 2)
        self.notes.append(
            f"step {self.step + 1}: micro-batch halved to {self._micro_sequences} sequences: out of memory"
        )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _accumulated(self, windows: Tensor) -> Tensor:
        """The mean loss of the batch; its gradient is the sum over micro-batches of those of its parts."""
        self._updates.optimizer.zero_grad(set_to_none=True)
        n_tokens = windows.shape[0] * (windows.shape[1] - 1)
        total: Tensor | None = None
        for part in torch.split(windows, self._micro_sequences):
            loss = self._forward(part) / n_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _forward(self, windows: Tensor) -> Tensor:
        """The summed loss, computed in the precision that is asked for."""
        is_mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_mixed):
            loss: Tensor = self._loss_of(windows)
        return loss

    def _measure(self, step: int, windows: Tensor, lr: float) -> None:
        seed = int(np.random.SeedSequence((self.config.seed, step)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        moment = Moment(
            self.config, step, self.model, windows, self._micro_sequences, lr=lr, generator=generator
        )
        for name in self.config.measure:
            try:
                self._logbook.note(step, **measured(name, moment))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.notes.append(f"step {step}: {name} is not measured: out of memory")

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean loss over the validation windows, in nats per token."""
        windows = self.data.validation(self.config)
        parts = torch.split(self._on_device(windows), self._micro_sequences)
        total = math.fsum(float(self._forward(part)) for part in parts)
        return total / float(windows.shape[0] * (windows.shape[1] - 1))

    def _on_device(self, windows: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        tensor = torch.from_numpy(windows)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def usable_device(name: str) -> torch.device:
    """Return a device by name. Raises InvalidInput where it is not there."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InvalidInput(field="device", reason=f"{name!r} is no device: cpu, cuda, cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(field="device", reason=f"{name!r} is neither cpu nor cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InvalidInput(field="device", reason=f"{name!r} is asked for, and torch finds no CUDA here")
        if (device.index or 0) >= torch.cuda.device_count():
            reason = f"{name!r} is asked for, and there are {torch.cuda.device_count()} CUDA devices"
            raise InvalidInput(field="device", reason=reason)
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or on the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _compiled(model: Transformer, device: torch.device, backend: str | None) -> Any:
    if backend is None and device.type == "cpu":
        return model.summed_loss
    return torch.compile(model.summed_loss, backend=backend or "inductor")


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """One thread of torch on a CPU: a process for each core is faster, and sums keep one order."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""What a hook says of a run by itself: never against what its owner said, and never at the cost of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from isoloss.client.messages import Messages
from isoloss.client.recorder import Recorder
from isoloss.hooks.batches import BatchReader, world_size
from isoloss.hooks.futures import rates_ahead
from isoloss.hooks.models import read_model
from isoloss.hooks.optimizers import Optimizer, read_optimizer
from isoloss.notes import first_line
from isoloss.schedules import spec_of_table

T = TypeVar("T")

MOST_SAID = 200
"""Characters of an error that are told."""

TOGETHER = ({"n_params", "n_params_kind"}, {"weight_decay", "weight_decay_kind"})
"""Fields of which none means anything without the other."""


class Statements:
    """Reads a training and declares what it finds; says once what it cannot find."""

    def __init__(self, run: Recorder) -> None:
        self._run = run
        self._messages = Messages(f"run {run.run_id}")
        self._own: set[str] = set()

    def attempt(self, what: str, work: Callable[[], T]) -> T | None:
        """Do something that must not hurt the training; None, and one message, where it fails."""
        try:
            return work()
        except Exception as error:
            self._messages.warn(what, f"{what} is not known: {first_line(error, MOST_SAID)}")
            return None

    def say(self, what: str, text: str) -> None:
        """Say something once."""
        self._messages.warn(what, text)

    def declare(self, config: Mapping[str, Any]) -> None:
        """Add to the configuration what its owner has not stated."""
        stated = set(self._run.stated.get("config", {})) - self._own
        for fields in TOGETHER:
            stated |= fields if stated & fields else set()
        new = {name: value for name, value in config.items() if name not in stated}
        if new:
            self._own |= new.keys()
            self._run.update(config=new)

    def optimizer(self, optimizer: Any) -> Optimizer | None:
        """Read and declare the optimiser."""
        found = self.attempt("the optimiser", lambda: read_optimizer(optimizer))
        if found is not None:
            self.declare(found.config())
            if found.weight_decay and found.weight_decay_kind is None:
                text = f"what {found.name} does with its weight decay is not known"
                self.say("weight decay", f"{text}; config weight_decay_kind= says it")
        return found

    def model(self, model: Any, n_params_active: int | None = None) -> None:
        """Read and declare the parameter counts and the precision."""
        self.declare(self.attempt("the model", lambda: read_model(model, n_params_active)) or {})

    def schedule(self, scheduler: Any, total_steps: int | None, every: int, optimizer: Optimizer) -> None:
        """Declare the schedule of a training that has not begun, and its peak."""
        if "schedule" in self._run.stated:
            return
        if scheduler is None or total_steps is None:
            what = "scheduler" if scheduler is None else "total_steps"
            self.say(
                "schedule", f"the schedule is not declared without {what}=; the logged learning rates tell it"
            )
            return

        def declared() -> dict[str, Any]:
            rates = rates_ahead(scheduler, total_steps, every=every, group=optimizer.group)
            spec = spec_of_table(rates)
            self.declare({"peak_lr": max(rates)})
            return spec

        spec = self.attempt("the schedule ahead", declared)
        if spec is not None:
            self._run.update(schedule=spec)

    def batch(self, reader: BatchReader, total_steps: int | None, *, processes: int | None = None) -> None:
        """Declare the batch that the first updates had."""
        stated = self._run.stated.get("config", {})
        batch = reader.batch
        tokens = stated.get("batch_tokens") or (batch and batch.tokens * (processes or world_size()))
        found: dict[str, Any] = {}
        if batch is not None and batch.sequence_length is not None:
            found["sequence_length"] = batch.sequence_length
        if batch is not None and batch.autocast is not None:
            found["precision"] = batch.autocast
        if tokens:
            found["batch_tokens"] = tokens
            if total_steps is not None:
                found["n_tokens"] = tokens * total_steps
        else:
            text = "the batch is not known: the first updates have no equal number of tokens"
            self.say("batch", f"{text}; config batch_tokens= says it")
        self.declare(found)

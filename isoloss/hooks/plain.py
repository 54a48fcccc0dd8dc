"""A loop in plain PyTorch: what its optimiser, scheduler and model say of the run is read off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoloss.client.recorder import Recorder
from isoloss.errors import InvalidInput
from isoloss.hooks.batches import BatchReader
from isoloss.hooks.noise import NoiseScale
from isoloss.hooks.optimizers import unwrapped
from isoloss.hooks.statements import Statements


def watch(
    run: Recorder,
    optimizer: Any,
    scheduler: Any = None,
    *,
    model: Any = None,
    total_steps: int | None = None,
    scheduler_every: int = 1,
    steps_done: int | None = None,
    n_params_active: int | None = None,
    noise_scale: bool = False,
) -> Watch:
    """Declare what a training loop's parts say of its run, and record the learning rate of every update.

    Of the optimiser its name, weight decay and the decay's kind; of the scheduler, stepped after every
    `scheduler_every` updates, the schedule of all `total_steps`; of the model its parameters and precision, and
    of its first two updates the batch in tokens and the sequence length. What the run's own `config` and
    `schedule` say goes first. Call it before the first update, and after a checkpoint is loaded: the updates
    done so far are `steps_done`, by default those that the optimiser remembers. With `noise_scale` norms of the
    gradient at two batches are logged, so rarely that they take less than 5 percent of the time.

    Raises InvalidInput for an argument that makes no sense; nothing after that raises.

    >>> watched = isoloss.watch(run, optimizer, scheduler, model=model, total_steps=1000)
    >>> for batch in batches:
    ...     loss = train_step(batch)  # it calls optimizer.step() and scheduler.step()
    ...     run.log({"loss": loss}, step=watched.step)
    """
    _check(run, optimizer, {"total_steps": total_steps, "scheduler_every": scheduler_every})
    watched = Watch(run, unwrapped(optimizer), total_steps)
    watched.begin(scheduler, model, scheduler_every, steps_done, n_params_active)
    if noise_scale:
        watched.measure_noise()
    return watched


class Watch:
    """An optimiser whose updates are counted and recorded; `isoloss.watch` makes it."""

    def __init__(self, run: Recorder, optimizer: Any, total_steps: int | None) -> None:
        self.step = 0
        """Updates that the optimiser has done, on every rank."""
        self._run = run
        self._optimizer = optimizer
        self._total_steps = total_steps
        self._statements = Statements(run)
        self._reader: BatchReader | None = None
        self._noise: NoiseScale | None = None
        self._group: Mapping[str, Any] = optimizer.param_groups[0]
        self._handle = optimizer.register_step_post_hook(self._stepped)

    def begin(
        self,
        scheduler: Any,
        model: Any,
        scheduler_every: int,
        steps_done: int | None,
        n_params_active: int | None,
        called: Any = None,
    ) -> None:
        """Declare what there is to read; `watch` does it. `called` is what takes the tokens, if not the model."""
        found = self._statements.optimizer(self._optimizer)
        self.step = _first(steps_done, None if found is None else found.steps_done, 0)
        if found is None or not self._run.is_recording:
            return
        self._group = self._optimizer.param_groups[found.group]
        if self.step == 0:
            self._statements.schedule(scheduler, self._total_steps, scheduler_every, found)
        if model is not None:
            self._statements.model(model, n_params_active)
            self._reader = self._statements.attempt("the batch", lambda: BatchReader(called or model))

    def measure_noise(self) -> None:
        """Log norms of the gradient at two batches from now on."""
        if self._run.is_recording:
            self._noise = NoiseScale(self._run, self._statements, self._optimizer)

    def close(self) -> None:
        """Leave optimiser and model alone; a run that has ended does not need it."""
        self._handle.remove()
        self._stop_reading()

    def _stepped(self, *_: Any) -> None:
        self.step += 1
        if not self._run.is_recording:
            self._stop_reading()
            return
        rate = self._group["lr"]
        # A rate that is a tensor is changed in place by its scheduler.
        self._run.log({"lr": rate.detach().clone() if hasattr(rate, "detach") else rate}, step=self.step)
        reader = self._reader
        if reader is not None and reader.step_ended():
            self._statements.attempt("the batch", lambda: self._statements.batch(reader, self._total_steps))
            self._stop_reading_batch()
        if self._noise is not None:
            self._noise.update_ended(self.step)

    def _stop_reading(self) -> None:
        self._stop_reading_batch()
        if self._noise is not None:
            self._noise.close()
            self._noise = None

    def _stop_reading_batch(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _check(run: Any, optimizer: Any, counts: Mapping[str, Any]) -> None:
    if not isinstance(run, Recorder):
        reason = f"is the run that isoloss.init returns, not {type(run).__name__}: watch(run, optimizer, scheduler)"
        raise InvalidInput(field="run", reason=reason)
    if not hasattr(unwrapped(optimizer), "register_step_post_hook"):
        reason = f"is a torch optimiser, not {type(optimizer).__name__}"
        raise InvalidInput(field="optimizer", reason=reason)
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise InvalidInput(field=name, reason="must be a whole number, 1 or more")

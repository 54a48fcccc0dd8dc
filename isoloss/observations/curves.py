"""The loss curve of a run, with the learning-rate history that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, UnusableData
from isoloss.observations.counts import check_kind, n_params_of
from isoloss.schedules import Schedule, branch, from_log, schedule_from_spec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Trained(Protocol):
    """A run as a law sees it: what was trained, and how; not what came of it.

    `step` (n,) increasing, each at least 1 and inside the schedule. None where the run does not say.
    """

    @property
    def step(self) -> IntArray: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def n_params(self) -> float | None: ...
    @property
    def batch_tokens(self) -> float | None: ...
    @property
    def weight_decay(self) -> float | None: ...


@dataclass(frozen=True)
class PlannedRun:
    """A run that need not have been trained: what a prediction is asked for."""

    step: IntArray
    schedule: Schedule
    n_params: float | None = None
    batch_tokens: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class Curve:
    """One run's loss, with the schedule that it was trained under.

    `step` (n,) increasing, each at least 1: the loss at step s follows s optimiser updates. `loss_nats` (n,)
    finite and above 0, in nats per token. `n_params` is of the kind `n_params_kind`; `weight_decay` is that of
    w *= 1 - lr * decay, None for another kind. `target` is the column that the losses come from. `scatter` (n,) is
    how far, in log loss, a single point lay from the mean that stands for it, None where points are points.
    `notes` say in words what was changed or left out when the curve was made.
    """

    run_id: str
    step: IntArray
    loss_nats: FloatArray
    schedule: Schedule
    n_params: float | None = None
    n_params_kind: str | None = None
    batch_tokens: float | None = None
    weight_decay: float | None = None
    target: str = "loss"
    scatter: FloatArray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_kind(self.n_params_kind)
        if self.step.shape != self.loss_nats.shape or self.step.ndim != 1:
            raise InvalidInput(field="loss", reason="step and loss must be columns of equal length")
        if self.step.size and (self.step[0] < 1 or np.any(np.diff(self.step) <= 0)):
            raise InvalidInput(field="step", reason="steps must be at least 1 and increase strictly")
        if not np.all(np.isfinite(self.loss_nats) & (self.loss_nats > 0)):
            raise InvalidInput(field="loss", reason="losses must be finite and above 0")
        if self.step.size and self.step[-1] > self.schedule.total_steps:
            reason = f"points reach step {self.step[-1]}, the schedule ends at {self.schedule.total_steps}"
            raise InvalidInput(field="step", reason=reason)

    @property
    def n_points(self) -> int:
        return len(self.step)

    def from_step(self, first: int) -> Curve:
        """Return the curve without the points before step `first`; the schedule keeps them."""
        return self._where(self.step >= first)

    def _where(self, kept: npt.NDArray[np.bool_]) -> Curve:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        scatter = None if self.scatter is None else self.scatter[kept]
        parts = {"step": self.step[kept], "loss_nats": self.loss_nats[kept], "scatter": scatter}
        return Curve(**{**fields, **parts})

    @classmethod
    def from_columns(
        cls,
        run_id: str,
        columns: Mapping[str, npt.ArrayLike],
        *,
        schedule: Schedule | Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        target: str = "loss",
        n_params_kind: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Curve:
        """Return the curve of `target` from columns of equal length: `step`, the target, and perhaps `lr`.

        Missing values are NaN. Points without a finite target, and points at step 0, are left out with a note.
        `n_params_kind` asks for another count than the run's own. Raises UnusableData where nothing is left or
        no learning rate is known, InvalidInput and InvalidSchedule for values that contradict themselves.
        """
        if isinstance(schedule, Mapping):
            schedule = schedule_from_spec(schedule)
        step = _steps(columns["step"])
        if target not in columns:
            raise UnusableData(reason=f"run {run_id!r} has no {target}")
        loss = _column(columns, target, step.size)
        history, disagreement = learning_rates(run_id, step, _column(columns, "lr", step.size), schedule)
        kept, dropped = _usable(step, loss, history)
        if not kept.any():
            raise UnusableData(reason=f"run {run_id!r} has no finite {target} at a step inside its schedule")
        kind, count = n_params_of(config or {}, n_params_kind)
        return cls(
            run_id,
            step[kept],
            loss[kept],
            history,
            n_params=count,
            n_params_kind=kind,
            batch_tokens=(config or {}).get("batch_tokens"),
            weight_decay=weight_decay_of(config or {}),
            target=target,
            notes=tuple(note for note in (*notes, disagreement, *dropped) if note),
        )


def weight_decay_of(config: Mapping[str, Any]) -> float | None:
    """Return the decay of w *= 1 - lr * decay, None where a run states none, or another kind (laws.md, units)."""
    decay = config.get("weight_decay")
    scaled = config.get("weight_decay_kind", "lr_scaled") == "lr_scaled"
    return float(decay) if decay is not None and scaled else None


def learning_rates(
    run_id: str, step: IntArray, lr: FloatArray, declared: Schedule | None
) -> tuple[Schedule, str | None]:
    """Return the schedule of a run from its logged rates (NaN where none) and its declaration, and a note."""
    logged = np.isfinite(lr) & (step >= 1)
    if logged.any():
        return from_log(step[logged], lr[logged], declared)
    if declared is None:
        raise UnusableData(reason=f"run {run_id!r} has no learning rate: declare its schedule or log its lr")
    return declared, None


def branch_learning_rates(
    run_id: str,
    parent: Schedule,
    branch_step: int,
    step: IntArray,
    lr: FloatArray,
    declared: Schedule | None,
) -> tuple[Schedule, str | None]:
    """Return a branch's schedule: its parent's up to branch_step, then its own log or declaration, and a note.

    Raises UnusableData where the branch says nothing of its own, InvalidSchedule where the two do not meet.
    """
    own = step > branch_step
    if declared is not None or not np.isfinite(lr[own]).any():
        later, note = learning_rates(run_id, step[own], lr[own], declared)
        return branch(parent, branch_step, later), note
    # Without a declaration the parent's schedule fills the steps before the branch's first log.
    later, _ = learning_rates(run_id, step[own], lr[own], parent)
    return branch(parent, branch_step, later), None


def _usable(
    step: IntArray, loss: FloatArray, schedule: Schedule
) -> tuple[npt.NDArray[np.bool_], tuple[str | None, ...]]:
    finite = np.isfinite(loss)
    if np.any(loss[finite] <= 0):
        raise InvalidInput(field="loss", reason="a loss in nats per token is above 0")
    diverged = int(np.isinf(loss).sum())
    inside = (step >= 1) & (step <= schedule.total_steps)
    outside = int((finite & ~inside).sum())
    return finite & inside, (
        f"{diverged} points whose loss is not finite were left out" if diverged else None,
        f"{outside} points outside steps 1..{schedule.total_steps} were left out" if outside else None,
    )


def _steps(values: npt.ArrayLike) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise InvalidInput(field="step", reason="must be a column of whole numbers")
    if array.dtype.kind == "f" and not np.all(np.isfinite(array) & (array == np.floor(array))):
        raise InvalidInput(field="step", reason="must be whole numbers")
    return array.astype(np.int64)


def _column(columns: Mapping[str, npt.ArrayLike], name: str, length: int) -> FloatArray:
    values = np.asarray(columns.get(name, np.full(length, np.nan)), dtype=np.float64)
    if values.shape != (length,):
        raise InvalidInput(field=name, reason=f"has {values.size} values where step has {length}")
    return values

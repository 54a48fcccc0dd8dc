"""The loss curve of a run, with the learning-rate history that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, InvalidSchedule, UnusableData
from isoloss.notes import counted
from isoloss.observations.counts import check_kind, mapping_of, n_params_of, number_of
from isoloss.schedules import Schedule, branch, from_log, schedule_from_spec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

WEIGHT_DECAY_KINDS = ("lr_scaled", "independent", "l2")
HIGHEST_WEIGHT_DECAY = 10.0
"""Beyond any that was ever trained with: a larger one is a slip of the pen, or of the unit."""

MOST_APART = 10.0
"""Factor between a declared and a logged learning rate beyond which they are not of one run."""


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

    def __post_init__(self) -> None:
        batch_tokens_of(self.batch_tokens)
        _checked_decay(self.weight_decay)


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
        _check_parts(self)
        if self.step.shape != self.loss_nats.shape or self.step.ndim != 1:
            raise InvalidInput(field="loss", reason="step and loss must be columns of equal length")
        if self.step.size and (self.step[0] < 1 or np.any(np.diff(self.step) <= 0)):
            raise InvalidInput(field="step", reason="steps must be at least 1 and increase strictly")
        if not np.all(np.isfinite(self.loss_nats) & (self.loss_nats > 0)):
            raise InvalidInput(field="loss", reason="losses must be finite and above 0")
        if self.step.size and self.step[-1] > self.schedule.total_steps:
            reason = f"points reach step {self.step[-1]}, the schedule ends at {self.schedule.total_steps}"
            raise InvalidInput(field="step", reason=reason)

    def __repr__(self) -> str:
        """Return what the curve is in a line, and not its numbers."""
        reach = f", steps {self.step[0]} to {self.step[-1]}" if self.n_points else ""
        size = "" if self.n_params is None else f", n_params {self.n_params:g}"
        kind = f" ({self.n_params_kind})" if size and self.n_params_kind else ""
        return (
            f"Curve({self.run_id!r}: {counted(self.n_points, 'point')} of {self.target}{reach}{size}{kind})"
        )

    @property
    def n_points(self) -> int:
        return len(self.step)

    def from_step(self, first: int) -> Curve:
        """Return the curve without the points before step `first`; the schedule keeps them."""
        return self._where(self.step >= first)

    def _where(self, kept: BoolArray) -> Curve:
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

        A missing value is masked or None and passed over. Points whose target is NaN or infinite, and points at
        step 0, are left out with a note, which asks whether the run diverged where they reach to the end.
        `n_params_kind` asks for another count than the run's own. Raises UnusableData where nothing is left or
        no learning rate is known, InvalidInput and InvalidSchedule for values that contradict themselves.
        """
        if schedule is not None and not isinstance(schedule, Schedule):
            schedule = schedule_from_spec(schedule)
        columns, config = mapping_of(columns, "columns"), mapping_of(config, "config")
        if "step" not in columns:
            raise InvalidInput(field="step", reason=f"run {run_id!r} has no such column")
        step = _steps(columns["step"])
        if not isinstance(target, str) or target not in columns:
            raise UnusableData(reason=f"run {run_id!r} has no {target}")
        loss = _column(columns, target, step.size)
        history, disagreement = learning_rates(run_id, step, _column(columns, "lr", step.size), schedule)
        missing = _missing(columns[target], step.size)
        kept, dropped = _usable(step, loss, history)
        dropped = (*_not_finite(target, step[~missing], loss[~missing]), *dropped)
        if not kept.any():
            raise UnusableData(reason=f"run {run_id!r} has no finite {target} at a step inside its schedule")
        kind, count = n_params_of(config, n_params_kind)
        return cls(
            run_id,
            step[kept],
            loss[kept],
            history,
            n_params=count,
            n_params_kind=kind,
            batch_tokens=batch_tokens_of(config.get("batch_tokens")),
            weight_decay=weight_decay_of(config),
            target=target,
            notes=tuple(note for note in (*notes, disagreement, *dropped) if note),
        )


def _check_parts(curve: Curve) -> None:
    """Refuse parts of a kind that later checks could not look at."""
    for name, column, kinds in (("step", curve.step, "iu"), ("loss", curve.loss_nats, "iuf")):
        if not isinstance(column, np.ndarray) or column.dtype.kind not in kinds:
            reason = "must be an array of numbers, steps of whole ones; Curve.from_columns takes lists"
            raise InvalidInput(field=name, reason=reason)
    if not isinstance(curve.schedule, Schedule):
        reason = "must be a Schedule; isoloss.schedule_from_spec makes one of a declaration"
        raise InvalidInput(field="schedule", reason=reason)
    for name in ("run_id", "target"):
        if not isinstance(getattr(curve, name), str):
            raise InvalidInput(
                field=name, reason=f"must be a name, not {type(getattr(curve, name)).__name__}"
            )
    number_of(curve.n_params, "n_params")
    batch_tokens_of(curve.batch_tokens)
    _checked_decay(curve.weight_decay)


def batch_tokens_of(said: object) -> float | None:
    """Return the tokens of a step, None where a run states none; raises InvalidInput where that is no count."""
    tokens = number_of(said, "batch_tokens")
    if tokens is not None and not 0 < tokens < np.inf:
        raise InvalidInput(field="batch_tokens", reason=f"must be finite and above 0, not {tokens:g}")
    return tokens


def weight_decay_of(config: Mapping[str, Any]) -> float | None:
    """Return the decay of w *= 1 - lr * decay, None where a run states none, or another kind (laws.md, units)."""
    kind = config.get("weight_decay_kind")
    if kind is not None and not (isinstance(kind, str) and kind in WEIGHT_DECAY_KINDS):
        reason = f"{kind!r} is not one of {', '.join(WEIGHT_DECAY_KINDS)}"
        raise InvalidInput(field="weight_decay_kind", reason=reason)
    decay = _checked_decay(config.get("weight_decay"))
    return decay if kind in (None, "lr_scaled") else None


def _checked_decay(said: object) -> float | None:
    decay = number_of(said, "weight_decay")
    if decay is not None and not 0 <= decay <= HIGHEST_WEIGHT_DECAY:
        reason = f"must lie between 0 and {HIGHEST_WEIGHT_DECAY:g}, not {decay:g}"
        raise InvalidInput(field="weight_decay", reason=reason)
    return decay


def learning_rates(
    run_id: str, step: IntArray, lr: FloatArray, declared: Schedule | None
) -> tuple[Schedule, str | None]:
    """Return the schedule of a run from its logged rates (NaN where none) and its declaration, and a note.

    Raises InvalidInput for rates below 0, or that are 0 at all steps, and InvalidSchedule where the two are so far
    apart that one of them is no rate of this run.
    """
    logged = np.isfinite(lr) & (step >= 1)
    if logged.any():
        _refuse_negative(run_id, step[logged], lr[logged])
        if not lr[logged].any():
            reason = f"run {run_id!r}: every logged learning rate is 0, from step {step[logged][0]} on"
            raise InvalidInput(field="lr", reason=reason)
        if declared is not None:
            _refuse_contradiction(run_id, step[logged], lr[logged], declared)
        return from_log(step[logged], lr[logged], declared)
    if declared is None:
        raise UnusableData(reason=f"run {run_id!r} has no learning rate: declare its schedule or log its lr")
    return declared, None


def _refuse_negative(run_id: str, step: IntArray, lr: FloatArray) -> None:
    below = np.flatnonzero(lr < 0)
    if below.size:
        first = below[0]
        reason = f"run {run_id!r}: at step {step[first]} the logged learning rate is {lr[first]:.6g}, below 0"
        raise InvalidInput(field="lr", reason=reason)


def _refuse_contradiction(run_id: str, step: IntArray, lr: FloatArray, declared: Schedule) -> None:
    """Refuse a declaration that the first logged rate belies: it would be taken for the steps before.

    Rates of 0 are passed over: logs that count from 0 have one where the warm-up begins.
    """
    inside = (step <= declared.total_steps) & (lr > 0)
    expected = declared.lr(step[inside])
    told = np.flatnonzero(expected > 0)
    if step[0] == 1 or not told.size:
        return
    at, said, shown = step[inside][told[0]], expected[told[0]], lr[inside][told[0]]
    if max(said, shown) > MOST_APART * min(said, shown):
        times = f"{said / shown:,.0f} times" if said > shown else f"one {shown / said:,.0f}th of"
        reason = (
            f"run {run_id!r}: at step {at} the declared learning rate, {said:.6g}, is {times} the logged one, "
            f"{shown:.6g}"
        )
        raise InvalidSchedule(field="lr", reason=reason)


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
    # Without a declaration the parent's schedule fills the steps before the branch's first log, and may end in
    # a jump to any other rate.
    logged = own & np.isfinite(lr)
    _refuse_negative(run_id, step[logged], lr[logged])
    later, _ = from_log(step[logged], lr[logged], parent)
    return branch(parent, branch_step, later), None


def _usable(step: IntArray, loss: FloatArray, schedule: Schedule) -> tuple[BoolArray, tuple[str, ...]]:
    finite = np.isfinite(loss)
    if np.any(loss[finite] <= 0):
        raise InvalidInput(field="loss", reason="a loss in nats per token is above 0")
    inside = (step >= 1) & (step <= schedule.total_steps)
    outside = int((finite & ~inside).sum())
    note = f"{outside} of its points left out: outside steps 1..{schedule.total_steps}"
    return finite & inside, (note,) if outside else ()


def _not_finite(target: str, step: IntArray, logged: FloatArray) -> tuple[str, ...]:
    """Return notes on logged values that are not finite: how many, and from where on if they reach the end."""
    odd = ~np.isfinite(logged)
    if not odd.any():
        return ()
    count = f"{int(odd.sum())} of its points left out: {target} not finite"
    finite = np.flatnonzero(~odd)
    gaps = np.diff(finite, prepend=-1, append=odd.size) - 1
    # A column that is filled every so many steps ends between two of them as it goes on: that is no divergence.
    if not finite.size or gaps[-1] <= gaps[:-1].max():
        return (count,)
    last = int(finite[-1]) + 1
    what = "NaN" if np.isnan(logged[last:]).all() else "not finite"
    return count, f"the {target} is {what} from step {step[last]} on: diverged?"


def _steps(values: npt.ArrayLike) -> IntArray:
    array = _array(values, "step")
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise InvalidInput(field="step", reason="must be a column of whole numbers")
    if array.dtype.kind == "f" and not np.all(np.isfinite(array) & (array == np.floor(array))):
        raise InvalidInput(field="step", reason="must be whole numbers")
    return array.astype(np.int64)


def _column(columns: Mapping[str, npt.ArrayLike], name: str, length: int) -> FloatArray:
    values = _array(columns.get(name, np.full(length, np.nan)), name, np.float64)
    if values.shape != (length,):
        raise InvalidInput(field=name, reason=f"has {values.size} values where step has {length}")
    return np.where(_missing(columns.get(name), length), np.nan, values)


def _missing(values: npt.ArrayLike | None, length: int) -> BoolArray:
    """Return where a column (length,) says nothing: masked or None; a NaN was logged as such."""
    if values is None:
        return np.ones(length, dtype=bool)
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.getmaskarray(values)
    array = np.asarray(values)
    if array.dtype != object:
        return np.zeros(length, dtype=bool)
    return np.array([value is None for value in array.flat], dtype=bool)


def _array(values: npt.ArrayLike, name: str, dtype: type[np.float64] | None = None) -> npt.NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(field=name, reason=f"must be a column of numbers ({error})") from error

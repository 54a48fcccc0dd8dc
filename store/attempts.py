"""A worker's part in a trial: it begins it, tells how far it is, and leaves it.

The number of an attempt stands in all that its worker writes, in the transaction that writes it. A worker that was
taken for dead, whose trial another trains by now, is told TakenOver and changes nothing, points included.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import intake, points, sweeps, trials
from store.tables import Sweep, Trial

MOST_DEATHS = 3
MOST_NOTES = 50
WORN_OUT = (
    f"it was begun {MOST_DEATHS + 1} times from one checkpoint and its process died each time; it may need more "
    "memory than there is (the workers' log tells more)"
)

Order = Literal["go_on", "paused", "cancelled", "unfinished"]
"""What a worker is to do after a report: train on, or leave the trial as this."""


class TakenOver(Exception):
    """Another worker has the trial now, or it is gone: this one must not write."""


@dataclass(frozen=True)
class Begun:
    """A trial to be trained: from `checkpoint`, a file's name, where there is one, until step `stop_at`."""

    trial_id: uuid.UUID
    attempt: int
    name: str
    config: Mapping[str, Any]
    device: str
    stop_at: int
    checkpoint: str | None
    checkpoint_step: int | None


def start(session: Session, trial_id: uuid.UUID, queue_id: int, worker: str) -> Begun | None:
    """Make the trial this worker's; None where there is nothing to do."""
    sweep = _sweep_of(session, trial_id)
    if sweep is None:
        return None
    trial = session.get(Trial, trial_id, with_for_update=True, populate_existing=True)
    if trial is None or trial.queue_id != queue_id or trial.status not in ("queued", "running"):
        return None
    if trial.status == "running":  # its worker died
        trial.deaths += 1
    order = _order(session, sweep)
    if order != "go_on" or trial.deaths > MOST_DEATHS:
        _settled(
            session, sweep, trial, *(("failed", WORN_OUT) if order == "go_on" else (order, sweep.reason))
        )
        return None
    trial.status, trial.message, trial.worker = "running", None, worker
    trial.attempts += 1
    session.flush()
    return Begun(
        trial_id=trial.id,
        attempt=trial.attempts,
        name=trial.run_id,
        config=trial.config,
        device=sweep.device,
        stop_at=trial.stop_at,
        checkpoint=trial.checkpoint,
        checkpoint_step=trial.checkpoint_step,
    )


def begin(
    session: Session,
    trial_id: uuid.UUID,
    attempt: int,
    step: int,
    device: str,
    said: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> bool:
    """The training stands at `step`: declare its run as `said`, or take back what that has after this step.

    False, and nothing changed, where the run lacks points before it: the training must begin earlier.
    """
    sweep, trial = _ours(session, trial_id, attempt)
    if trial.started_at is None:
        trials.declare(session, sweep, trial, said)
    held = points.hold(session, trial.project_id, trial.run_id)
    if (held.last_step or 0) < step:
        return False
    if trial.started_at is None:
        trial.started_at = sa.func.clock_timestamp()
    else:
        trials.say(session, trial, "running")
    if (held.last_step or 0) > step:
        points.rewind(session, held, step)
    trial.repeated_steps += max(0, trial.step - step)
    trial.step, trial.device = step, device
    _note(trial, notes)
    session.flush()
    return True


def report(
    session: Session,
    trial_id: uuid.UUID,
    attempt: int,
    step: int,
    columns: Mapping[str, Sequence[Any]],
    seconds: float,
    notes: Sequence[str] = (),
) -> Order:
    """Store the points up to `step` and the time that they took; returns what to do next."""
    trial = _locked(session, trial_id, attempt)
    if columns.get(intake.STEP):
        sent = intake.points_of_columns(columns)
        intake.accept(session, trial.project_id, trial.run_id, sent)
    trial.step = step
    trial.device_seconds += seconds
    _note(trial, notes)
    session.flush()
    return _order(session, session.get_one(Sweep, trial.sweep_id, populate_existing=True))


def saved(session: Session, trial_id: uuid.UUID, attempt: int, name: str, step: int) -> str | None:
    """Note the checkpoint that the trial goes on from; returns the one before, which nobody needs any more."""
    trial = _locked(session, trial_id, attempt)
    before, trial.checkpoint, trial.checkpoint_step = trial.checkpoint, name, step
    trial.deaths = 0
    session.flush()
    return before if before != name else None


def put_back(session: Session, trial_id: uuid.UUID, attempt: int) -> None:
    """Have another worker go on with the trial: this one was told to stop."""
    sweep, trial = _ours(session, trial_id, attempt)
    _again(session, sweep, trial)


def died(session: Session, trial_id: uuid.UUID, attempt: int, reason: str) -> None:
    """Have the trial begun again after its process died, from its checkpoint; not for ever."""
    sweep, trial = _ours(session, trial_id, attempt)
    trial.deaths += 1
    if trial.deaths > MOST_DEATHS:
        _settled(session, sweep, trial, "failed", reason)
    else:
        _note(trial, [f"begun again at step {trial.checkpoint_step or 0}: {reason}"])
        _again(session, sweep, trial)


def leave(
    session: Session, trial_id: uuid.UUID, attempt: int, status: str, message: str | None = None
) -> None:
    """End the trial, or have it wait, as `status` says."""
    sweep, trial = _ours(session, trial_id, attempt)
    waits = status in ("paused", "cancelled", "unfinished")
    _settled(session, sweep, trial, status, sweep.reason if message is None and waits else message)


def _again(session: Session, sweep: Sweep, trial: Trial) -> None:
    order = _order(session, sweep)
    if order == "go_on":
        trial.worker = None
        trials.enqueue(session, sweep, trial)
        session.flush()
    else:
        _settled(session, sweep, trial, order, sweep.reason)


def _settled(session: Session, sweep: Sweep, trial: Trial, status: str, message: str | None = None) -> None:
    trials.leave(session, trial, status, message)
    sweeps.settle(session, sweep)


def _order(session: Session, sweep: Sweep) -> Order:
    if sweep.status == "running":
        return "unfinished" if sweeps.over(session, sweep) else "go_on"
    ends: dict[str, Order] = {"paused": "paused", "cancelled": "cancelled"}
    return ends.get(sweep.status, "unfinished")


def _sweep_of(session: Session, trial_id: uuid.UUID) -> Sweep | None:
    """The trial's sweep, locked."""
    mine = sa.select(Trial.sweep_id).where(Trial.id == trial_id).scalar_subquery()
    chosen = sa.select(Sweep).where(Sweep.id == mine).with_for_update()
    return session.scalars(chosen.execution_options(populate_existing=True)).one_or_none()


def _ours(session: Session, trial_id: uuid.UUID, attempt: int) -> tuple[Sweep, Trial]:
    """The sweep and the trial, both locked, in the order in which all do."""
    sweep = _sweep_of(session, trial_id)
    if sweep is None:
        raise TakenOver
    return sweep, _locked(session, trial_id, attempt)


def _locked(session: Session, trial_id: uuid.UUID, attempt: int) -> Trial:
    trial = session.get(Trial, trial_id, with_for_update=True, populate_existing=True)
    if trial is None or trial.status != "running" or trial.attempts != attempt:
        raise TakenOver
    return trial


def _note(trial: Trial, notes: Sequence[str]) -> None:
    new = [note for note in notes if note not in trial.notes]
    if new:
        trial.notes = [*trial.notes, *new][-MOST_NOTES:]

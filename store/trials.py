"""Trials: the models of a sweep, one row each, and how they come to the queue and off it.

A worker's part, from the start of a trial to its end, is in `attempts.py`; what moves a whole sweep in `sweeps.py`.
Whoever changes a trial that no worker trains holds the lock of its sweep.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, NotFound
from store import intake, points, queue, runs
from store.columns import Points
from store.runs import Specification
from store.tables import Forecast, Run, Sweep, Trial

TASK = "trial"
DEVICES = ("cpu", "cuda")
ACTIVE = ("queued", "running", "held")
ENDED = ("finished", "diverged", "pruned", "unfinished", "cancelled", "failed")
WAITING = ("queued", "held", "paused")
"""A trial that waits: no worker trains it."""

ENDS = 0.01
"""The final loss of a trial is the mean of this last share of its steps."""

RUN_STATUSES = {"running": "running", "finished": "finished", "diverged": "diverged", "failed": "failed"}
"""What a trial's run is said to be; `preempted` where nothing stands here."""


def queue_of(device: str) -> str:
    """The queue of the trials for a kind of device."""
    return f"trials-{device}"


def of_sweep(session: Session, sweep_id: uuid.UUID, *statuses: str) -> Sequence[Trial]:
    """The sweep's trials in their order, of these statuses where any are given."""
    chosen = sa.select(Trial).where(Trial.sweep_id == sweep_id).order_by(Trial.number)
    if statuses:
        chosen = chosen.where(Trial.status.in_(statuses))
    return session.scalars(chosen.execution_options(populate_existing=True)).all()


def locked(session: Session, sweep_id: uuid.UUID, *statuses: str) -> Sequence[Trial]:
    """The same, locked."""
    chosen = sa.select(Trial).where(Trial.sweep_id == sweep_id, Trial.status.in_(statuses))
    ordered = chosen.order_by(Trial.number).with_for_update()
    return session.scalars(ordered.execution_options(populate_existing=True)).all()


def enqueue(session: Session, sweep: Sweep, trial: Trial) -> None:
    """Have a worker train the trial: pilots first, then those that have passed a rung."""
    priority = 2 if trial.pilot else min(trial.rung, 1)
    trial.status, trial.message = "queued", None
    trial.queue_id = queue.defer(
        session,
        TASK,
        {"trial_id": str(trial.id)},
        queue=queue_of(sweep.device),
        lock=f"{TASK} {trial.id}",
        priority=priority,
    )


def leave(session: Session, trial: Trial, status: str, message: str | None = None) -> None:
    """Take the trial off the queue, and say how it and its run stand now, for good or until it goes on."""
    if trial.queue_id is not None and trial.status == "queued":
        queue.abort(session, trial.queue_id)
    trial.status, trial.message, trial.queue_id, trial.worker = status, message, None, None
    if status in ENDED:
        trial.finished_at = sa.func.clock_timestamp()
    if trial.started_at is not None:
        quietly = status == "held"  # a moment between two parts of its training, that nobody need be told of
        say(session, trial, RUN_STATUSES.get(status, "preempted"), quietly=quietly)
    session.flush()


def say(session: Session, trial: Trial, status: str, *, quietly: bool = False) -> None:
    """Give the trial's run its status; nothing where it was deleted. What else is said of the run stays."""
    run = run_of(session, trial)
    if run is None:
        return
    if quietly:
        run.status = status
        session.flush()
        return
    summary = outcome(session, run) if status == "finished" else {}
    said = Specification(
        name=run.name,
        status=status,
        recipe=run.recipe,
        tags=run.tags,
        notes=run.notes,
        config=run.config,
        schedule=run.schedule,
        summary={**run.summary, **summary},
    )
    intake.declare(session, trial.project_id, trial.run_id, said)


def declare(session: Session, sweep: Sweep, trial: Trial, said: Mapping[str, Any]) -> None:
    """Declare the trial's run, of `config` and `schedule`. Raises Conflict where its name is taken."""
    if run_of(session, trial) is not None:
        raise Conflict(reason=f"there is a run {trial.run_id!r} already that is not of this sweep")
    specification = Specification(
        name=f"{sweep.name} {trial.number}",
        status="running",
        recipe=sweep.name,
        tags=[f"sweep:{sweep.name}", *sweep.asked.get("tags", ())],
        config={**said["config"], "sweep": sweep.name, "trial": trial.number},
        schedule=said["schedule"],
    )
    intake.declare(session, trial.project_id, trial.run_id, specification)


def run_of(session: Session, trial: Trial) -> Run | None:
    """The trial's run, None where it has not begun or its run was deleted."""
    try:
        return runs.get(session, trial.project_id, trial.run_id)
    except NotFound:
        return None


def runs_of(session: Session, trials: Sequence[Trial]) -> dict[str, Run]:
    """The runs of trials of one sweep, by name, as far as they are there."""
    if not trials:
        return {}
    names = [trial.run_id for trial in trials]
    chosen = sa.select(Run).where(Run.project_id == trials[0].project_id, Run.run_id.in_(names))
    return {run.run_id: run for run in session.scalars(chosen)}


def outcome(session: Session, run: Run) -> dict[str, float]:
    """The final losses that the points tell: the mean loss of the last steps, and the last validation loss."""
    last = run.last_step or 0
    tail = points.read(session, run, ["loss"], from_step=int(last * (1 - ENDS)) + 1)
    found = {"final_loss": _mean(tail)}
    if "val_loss" in run.columns:
        found["final_val_loss"] = _last(points.read(session, run, ["val_loss"], from_step=last))
    return {name: value for name, value in found.items() if value is not None}


def forecasts(session: Session, trials: Sequence[Trial]) -> dict[str, Forecast]:
    """The live forecasts of the trials' runs, by the name of the run."""
    names = [trial.run_id for trial in trials if trial.status == "running"]
    if not names:
        return {}
    of_runs = sa.select(Run.run_id, Forecast).join(Forecast, Forecast.run == Run.id)
    chosen = of_runs.where(Run.project_id == trials[0].project_id, Run.run_id.in_(names))
    found = session.execute(chosen.where(Forecast.document.is_not(None)))
    return {name: forecast for name, forecast in found}  # noqa: C416  (rows are not pairs)


def checkpoints_over(session: Session, files: Mapping[uuid.UUID, Sequence[tuple[int, str]]]) -> list[str]:
    """Of checkpoint files, an attempt and a name each by trial, those that no trial will ever go on from.

    Files of trials that this database does not know are left alone: they may be another service's.
    """
    known = session.scalars(sa.select(Trial).where(Trial.id.in_(list(files)))).all()
    return [
        name
        for trial in known
        for attempt, name in files[trial.id]
        if trial.status in ENDED or (attempt < trial.attempts and name != trial.checkpoint)
    ]


def _mean(found: Points) -> float | None:
    values = found["loss"].values[found["loss"].present]
    return float(np.mean(values)) if values.size and np.isfinite(values).all() else None


def _last(found: Points) -> float | None:
    values = found["val_loss"].values[found["val_loss"].present]
    return float(values[-1]) if values.size and np.isfinite(values[-1]) else None

"""Sweeps: what was asked for, and what becomes of all their trials at once.

Whoever moves trials that no worker trains locks the sweep first, then the trials. Trials that a worker trains are
moved by that worker alone, which hears at its next report how the sweep stands (`attempts.py`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, NotFound
from isoloss.notes import counted
from store import jobs, queue, trainers, trials
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Job, Run, Sweep, Trial
from store.where import Field

JUDGING = "judge"
"""The task that decides at the rungs of a `halving` sweep."""

SOON = 1
SETTLES_S = 0.2

FIELDS = {
    "name": Field(Sweep.name.expression),
    "status": Field(Sweep.status.expression),
    "strategy": Field(Sweep.strategy.expression),
    "created_at": Field(sa.extract("epoch", Sweep.created_at)),
}


@dataclass(frozen=True)
class Planned:
    """A trial to be made: its configuration, how long it is, and where it stops first."""

    config: Mapping[str, Any]
    total_steps: int
    stop_at: int
    pilot: bool = False


@dataclass(frozen=True)
class Budget:
    """What a sweep may take; None is no limit."""

    device_seconds: float | None = None
    deadline: dt.datetime | None = None


def create(
    session: Session,
    project_id: int,
    name: str,
    strategy: str,
    device: str,
    asked: Mapping[str, Any],
    planned: Sequence[Planned],
    budget: Budget,
) -> Sweep:
    """A new sweep with its trials on the queue.

    Raises Conflict where the project has a sweep of this name, or a run of the name of one of its trials.
    """
    taken = sa.exists().where(Sweep.project_id == project_id, Sweep.name == name)
    if session.execute(sa.select(taken)).scalar_one():
        raise Conflict(reason=f"there is a sweep {name!r} already")
    names = [f"{name}-{number:03d}" for number in range(len(planned))]
    clash = sa.select(Run.run_id).where(Run.project_id == project_id, Run.run_id.in_(names)).limit(1)
    run_id = session.execute(clash).scalar_one_or_none()
    if run_id is not None:
        raise Conflict(reason=f"there is a run {run_id!r} already: give the sweep another name")
    sweep = Sweep(
        project_id=project_id,
        name=name,
        strategy=strategy,
        device=device,
        asked=dict(asked),
        device_seconds=budget.device_seconds,
        deadline=budget.deadline,
    )
    session.add(sweep)
    session.flush()
    for number, one in enumerate(planned):
        trial = Trial(
            sweep_id=sweep.id,
            project_id=project_id,
            number=number,
            run_id=names[number],
            config=dict(one.config),
            total_steps=one.total_steps,
            stop_at=one.stop_at,
            pilot=one.pilot,
            rung=0,
        )
        session.add(trial)
    session.flush()
    for trial in trials.of_sweep(session, sweep.id):
        trials.enqueue(session, sweep, trial)
    session.flush()
    session.refresh(sweep)
    return sweep


def get(session: Session, sweep_id: uuid.UUID, project_id: int) -> Sweep:
    """The project's sweep. Raises NotFound."""
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None or sweep.project_id != project_id:
        raise NotFound(kind="sweep", name=str(sweep_id))
    return sweep


def by_name(session: Session, name: str, project_id: int) -> Sweep:
    """The project's sweep of this name. Raises NotFound."""
    mine = sa.select(Sweep).where(Sweep.project_id == project_id, Sweep.name == name)
    sweep = None if "\0" in name else session.execute(mine).scalar_one_or_none()
    if sweep is None:
        raise NotFound(kind="sweep", name=name)
    return sweep


def page(session: Session, project_id: int, asked: Asked) -> Page[Sweep]:
    """Part of a project's sweeps."""
    of_project = sa.select(Sweep).where(Sweep.project_id == project_id)
    return page_of(session, of_project, Sweep.id, FIELDS, asked)


def lock(session: Session, sweep_id: uuid.UUID) -> Sweep | None:
    """The sweep, this transaction's alone to move; None where it is gone."""
    return session.get(Sweep, sweep_id, with_for_update=True, populate_existing=True)


def pause(session: Session, sweep: Sweep) -> None:
    """Have nothing of the sweep train until it is resumed. Raises Conflict where it has ended."""
    held = _open(session, sweep)
    held.status, held.reason = "paused", "it was paused"
    for trial in trials.locked(session, held.id, "queued", "held"):
        trials.leave(session, trial, "paused")
    session.flush()


def resume(session: Session, sweep: Sweep) -> None:
    """Have the trials that are paused go on from where they stood. Raises Conflict where the sweep has ended."""
    held = _open(session, sweep)
    held.status, held.reason = "running", None
    for trial in trials.locked(session, held.id, "paused"):
        if trial.step >= trial.stop_at:  # it waited at a rung
            trials.leave(session, trial, "held")
        else:
            trials.enqueue(session, held, trial)
    settle(session, held)


def cancel(session: Session, sweep: Sweep) -> None:
    """End the sweep, within seconds where trials are trained; one that has ended stays as it is."""
    held = lock(session, sweep.id)
    if held is not None and held.status in ("running", "paused"):
        _end(session, held, "cancelled", "it was cancelled", "cancelled")


def over(session: Session, sweep: Sweep) -> bool:
    """Whether the budget of the sweep is spent."""
    if sweep.deadline is not None and sweep.deadline <= dt.datetime.now(dt.UTC):
        return True
    return sweep.device_seconds is not None and seconds_spent(session, sweep.id) >= sweep.device_seconds


def seconds_spent(session: Session, sweep_id: uuid.UUID) -> float:
    """The device time of all trials, in seconds."""
    spent = sa.select(sa.func.coalesce(sa.func.sum(Trial.device_seconds), 0.0))
    return float(session.execute(spent.where(Trial.sweep_id == sweep_id)).scalar_one())


def settle(session: Session, sweep: Sweep) -> None:
    """Say how the sweep stands after one of its trials has moved; the caller holds its lock."""
    if sweep.status != "running":
        return
    if over(session, sweep):
        _end(session, sweep, "finished", None, "unfinished")
        sweep.reason = _why_over(session, sweep)
        session.flush()
        return
    counts = count_by_status(session, sweep.id)
    if not any(counts.get(status) for status in (*trials.ACTIVE, "paused")):
        sweep.status, sweep.finished_at = "finished", sa.func.clock_timestamp()
        sweep.reason = None
    elif not any(counts.get(status) for status in trials.ACTIVE):
        sweep.status = "paused"
        sweep.reason = f"{counted(counts['paused'], 'trial')} paused, each for its own reason"
    elif sweep.strategy == "halving":
        judge_soon(session, sweep)
    session.flush()


def judge_soon(session: Session, sweep: Sweep) -> None:
    """See to it that the rungs are looked at: one job for all that ask."""
    name, args = f"{JUDGING} {sweep.id}", {"sweep_id": str(sweep.id)}
    queue.defer_once(session, JUDGING, args, lock=name, after_s=SETTLES_S, priority=SOON)


def count_by_status(session: Session, sweep_id: uuid.UUID) -> dict[str, int]:
    """How many of its trials stand how."""
    rows = sa.select(Trial.status, sa.func.count()).where(Trial.sweep_id == sweep_id).group_by(Trial.status)
    return {status: count for status, count in session.execute(rows)}  # noqa: C416  (rows are not pairs)


def free_workers(session: Session, sweep: Sweep) -> int:
    """How many workers for the sweep's device have no trial to train, nor one waiting for them."""
    busy = sa.select(sa.func.count()).select_from(Trial).join(Sweep, Sweep.id == Trial.sweep_id)
    of_device = busy.where(Sweep.device == sweep.device, Trial.status.in_(("queued", "running")))
    return max(0, trainers.count(session, sweep.device) - session.execute(of_device).scalar_one())


def tend(session: Session) -> int:
    """End sweeps whose time is over and queue again what the queue lost; returns how much that was."""
    running = session.scalars(sa.select(Sweep.id).where(Sweep.status == "running").order_by(Sweep.id)).all()
    return sum(_tend_one(session, sweep_id) for sweep_id in running)


def _tend_one(session: Session, sweep_id: uuid.UUID) -> int:
    sweep = lock(session, sweep_id)
    if sweep is None or sweep.status != "running":
        return 0
    if over(session, sweep):
        settle(session, sweep)
        return 0
    lost = _lost(session, sweep_id)
    for trial in lost:
        if trial.status == "running":  # its worker stumbled over something that nobody expected
            trial.deaths += 1
        trials.enqueue(session, sweep, trial)
    counts = count_by_status(session, sweep_id)
    stuck = counts.get("held") and not (counts.get("queued") or counts.get("running"))
    if stuck or (counts.get("held") and free_workers(session, sweep)):
        judge_soon(session, sweep)
    session.flush()
    return len(lost)


def _lost(session: Session, sweep_id: uuid.UUID) -> Sequence[Trial]:
    """Trials that wait or are trained on our books and are not on the queue."""
    queued = sa.table("procrastinate_jobs", sa.column("id"), schema="jobs")
    on_queue = sa.exists().where(queued.c.id == Trial.queue_id)
    lost = sa.select(Trial).where(
        Trial.sweep_id == sweep_id,
        Trial.status.in_(("queued", "running")),
        sa.or_(Trial.queue_id.is_(None), ~on_queue),
    )
    return session.scalars(lost.with_for_update().execution_options(populate_existing=True)).all()


def _open(session: Session, sweep: Sweep) -> Sweep:
    held = lock(session, sweep.id)
    if held is None:
        raise NotFound(kind="sweep", name=str(sweep.id))
    if held.status not in ("running", "paused"):
        raise Conflict(reason=f"the sweep {held.name!r} is {held.status}")
    return held


def _end(session: Session, sweep: Sweep, status: str, reason: str | None, of_trials: str) -> None:
    sweep.status, sweep.reason, sweep.finished_at = status, reason, sa.func.clock_timestamp()
    for trial in trials.locked(session, sweep.id, *trials.WAITING):
        trials.leave(session, trial, of_trials)
    session.flush()


def _why_over(session: Session, sweep: Sweep) -> str:
    past = sweep.deadline is not None and sweep.deadline <= dt.datetime.now(dt.UTC)
    what = "the deadline has passed" if past else "the budget of device hours is spent"
    counts = count_by_status(session, sweep.id)
    left = sum(counts.get(status, 0) for status in ("unfinished", "running"))
    return f"{what}: {left} of {counted(sum(counts.values()), 'trial')} not done"


def begin_judging(session: Session, sweep_id: uuid.UUID, queue_id: int) -> uuid.UUID | None:
    """The job of what the queue hands out, the same when it is handed out again; None where nothing is to judge."""
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None or sweep.status != "running":
        return None
    same = sa.select(Job.id).where(Job.kind == JUDGING, Job.queue_id == queue_id)
    found = session.execute(same).scalar_one_or_none()
    if found is not None:
        return found
    job = jobs.create(session, JUDGING, sweep.project_id)
    job.queue_id, job.result = queue_id, {"sweep_id": str(sweep_id)}
    ended = sa.delete(Job).where(
        Job.kind == JUDGING, Job.project_id == sweep.project_id, Job.status == "succeeded"
    )
    session.execute(ended, execution_options={"synchronize_session": False})
    session.flush()
    return job.id

"""Rungs of a `halving` sweep: what its curves tell of each trial's final loss, and which trials go on."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput, IsolossError, UnusableData
from isoloss.observations import Curve
from isoloss.proxies.halving import Expected, Rungs, Standing, decide
from store import jobs, sweeps, trials
from store.curves import Histories, sampled_curve
from store.tables import Sweep, Trial
from workers.child import unexpected
from workers.fits import storable
from workers.work import Tools, Work, carry_out, in_transaction

TARGET = "loss"
MOST_POINTS = 2000
MOST_FINISHED = 24
"""Finished trials that are learned from: more tell little more of the shape of the others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What is expected of each trial, by its number, and what was learned; or why nothing can be said."""

    sweep_id: uuid.UUID | None
    expected: Mapping[int, Expected]
    learned: dict[str, Any] | None
    reason: str | None


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """The curves of the sweep's trials, those that have ended and those that train."""
    sweep = _sweep(session, job_id)
    if sweep is None:
        return {"sweep_id": None, "finished": {}, "going": {}, "rungs": Rungs(()), "learned": None}
    finished: dict[int, Curve] = {}
    going: dict[int, Curve] = {}
    histories: Histories = {}
    for trial in trials.of_sweep(session, sweep.id, "finished", "held", "running"):
        if trial.status == "finished" and len(finished) >= MOST_FINISHED:
            continue
        curve = _curve(session, trial, histories)
        if curve is not None:
            (finished if trial.status == "finished" else going)[trial.number] = curve
    curves = {"finished": finished, "going": going}
    return {"sweep_id": sweep.id, **curves, "rungs": _rungs(sweep), "learned": sweep.learned}


def _curve(session: Session, trial: Trial, histories: Histories) -> Curve | None:
    run = trials.run_of(session, trial)
    if run is None:
        return None
    try:
        return sampled_curve(session, run, TARGET, MOST_POINTS, histories)
    except (InvalidInput, UnusableData):
        return None


def compute(
    sweep_id: uuid.UUID | None,
    finished: Mapping[int, Curve],
    going: Mapping[int, Curve],
    rungs: Rungs,
    learned: Mapping[str, Any] | None,
    progress: Callable[[float, str], None],
) -> Found:
    """What each trial that goes on will reach, as those that have ended tell."""
    # Here, in the child process: the worker itself does without the numerical libraries of a fit.
    from isoloss.proxies.final_losses import FinalLosses

    progress(0.0, "what the finished trials tell")
    try:
        known = FinalLosses.from_document(learned) if learned is not None else None
        if known is None or not known.knows(finished, going):
            known = FinalLosses.learn(finished, going, rungs.shares, progress=progress)
        told = {number: known.expect(curve) for number, curve in going.items()}
        expected = {number: one for number, one in told.items() if one is not None}
    except Exception as error:
        return Found(sweep_id, {}, None, _in_words(error))
    return Found(sweep_id, expected, known.as_document(), None)


def _in_words(error: Exception) -> str:
    """Why nothing is known: a surprise must not keep the trials waiting."""
    if isinstance(error, IsolossError):
        return str(error)
    log.exception("a sweep's forecasts failed unexpectedly")
    return unexpected(error)


def write(session: Session, job_id: uuid.UUID, found: Found) -> dict[str, Any]:  # noqa: ARG001
    """Store what is expected, and have the trials at rungs go on or end."""
    sweep = None if found.sweep_id is None else sweeps.lock(session, found.sweep_id)
    if sweep is None or sweep.status != "running":
        return {"go_on": 0, "pruned": 0}
    if found.learned is not None:
        sweep.learned = storable(found.learned)
    for trial in trials.of_sweep(session, sweep.id, "held", "running"):
        if trial.number in found.expected:
            trial.forecast = storable(found.expected[trial.number].as_document())
        elif found.reason is not None and trial.forecast is None:
            trial.message = found.reason if trial.status == "held" else trial.message
    session.flush()
    return _decided(session, sweep)


def _decided(session: Session, sweep: Sweep) -> dict[str, Any]:
    everyone = trials.of_sweep(session, sweep.id)
    standings = [_standing(session, trial) for trial in everyone]
    rungs = _rungs(sweep)
    decisions = decide(standings, rungs, free=sweeps.free_workers(session, sweep))
    held = {trial.number: trial for trial in trials.locked(session, sweep.id, "held")}
    for number, decision in decisions.items():
        trial = held.get(number)
        if trial is None:
            continue
        if decision.prune:
            trials.leave(session, trial, "pruned", decision.reason)
        else:
            trial.rung += 1
            trial.stop_at = rungs.stop_at(trial.rung, trial.total_steps)
            trials.enqueue(session, sweep, trial)
    session.flush()
    n_pruned = sum(decision.prune for decision in decisions.values())
    if n_pruned:
        sweeps.settle(session, sweep)
    return {"go_on": len(decisions) - n_pruned, "pruned": n_pruned}


def _standing(session: Session, trial: Trial) -> Standing:
    expected = None if trial.forecast is None else Expected.from_document(trial.forecast)
    if trial.status == "finished":
        run = trials.run_of(session, trial)
        final = None if run is None else run.summary.get("final_loss")
        expected = None if final is None else Expected.known(float(final), trial.total_steps)
    return Standing(
        number=trial.number,
        status=trial.status,
        rung=trial.rung,
        expected=expected,
    )


def _rungs(sweep: Sweep) -> Rungs:
    said = sweep.asked["halving"]
    return Rungs(tuple(said["rungs"]), said["eta"])


def _sweep(session: Session, job_id: uuid.UUID) -> Sweep | None:
    """The sweep that a job is about; None where it is gone."""
    about = jobs.get(session, job_id).result or {}
    return session.get(Sweep, uuid.UUID(about["sweep_id"])) if "sweep_id" in about else None


JUDGE = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, sweep_id: str) -> None:
    """The task `judge`."""
    assert context.job.id is not None
    tools = Tools.of(context)
    job_id = await in_transaction(tools, sweeps.begin_judging, uuid.UUID(sweep_id), context.job.id)
    if job_id is not None:
        await carry_out(JUDGE, context, job_id)

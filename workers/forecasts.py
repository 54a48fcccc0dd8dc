"""Forecasts of the runs that train: what the finished ones tell, learned again when these have changed."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput, IsolossError, UnusableData
from isoloss.observations import Curve
from store import forecasts, jobs
from store.curves import Histories, sampled_curve
from store.forecasts import Kind, Said
from store.tables import Run
from store.watch import Watching
from workers.child import unexpected
from workers.fits import storable
from workers.work import Tools, Work, carry_out, in_transaction

if TYPE_CHECKING:
    from isoloss.advice.forecasts import Forecaster

MOST_RUNS = 100
"""Runs that a job forecasts; more wait for the next one."""

MOST_LEARNED = 8
"""Kinds of runs that a job learns anew: seconds each."""

MOST_POINTS = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """A run that trains: its points so far with its whole schedule, or why it has none that can be used."""

    run: int
    step: int
    curve: Curve | None
    reason: str | None


@dataclass(frozen=True)
class Group:
    """Runs that are forecast from the same finished ones.

    `finished` is None where those are as they were: then `document`, or `reason`, is what was learned last.
    """

    kind: str
    data: str
    training: list[Training]
    finished: list[Curve] | None
    document: dict[str, Any] | None
    reason: str | None


@dataclass(frozen=True)
class Found:
    """What came of a group: what was learned, None where it is as it was, and what is said of its runs."""

    kind: str
    data: str
    learned: tuple[dict[str, Any] | None, str | None] | None
    said: list[Said]


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """The project's runs whose forecast is behind, by what tells of them."""
    project_id = jobs.get(session, job_id).project_id
    assert project_id is not None
    every_s = Watching.from_environment(os.environ).every_s
    kinds: dict[str, tuple[Kind, list[Run], list[Run]]] = {}
    known: dict[str, list[Run]] = {}
    for run in forecasts.due(session, project_id, every_s, MOST_RUNS):
        kind, finished = forecasts.kind_of(session, run, known)
        kinds.setdefault(kind.name, (kind, finished, []))[2].append(run)
    histories: Histories = {}
    groups: list[Group] = []
    n_learned = 0
    for kind, finished, training in kinds.values():
        group = _group(session, project_id, kind, finished, training, histories, n_learned < MOST_LEARNED)
        if group is not None:
            n_learned += group.finished is not None
            groups.append(group)
    return {"groups": groups}


def _group(
    session: Session,
    project_id: int,
    kind: Kind,
    finished: Sequence[Run],
    training: Sequence[Run],
    histories: Histories,
    may_learn: bool,
) -> Group | None:
    data, kept = forecasts.fingerprint(finished), forecasts.forecaster(session, project_id, kind)
    known = kept is not None and kept.data == data
    if not known and not may_learn:
        return None
    runs = [_training(session, run, kind, histories) for run in training]
    if kept is not None and known:
        return Group(kind.name, data, runs, None, forecasts.unpacked(kept), kept.reason)
    curves = [curve for run in finished if (curve := _finished(session, run, kind, histories)) is not None]
    return Group(kind.name, data, runs, curves, None, None)


def _finished(session: Session, run: Run, kind: Kind, histories: Histories) -> Curve | None:
    try:
        return sampled_curve(session, run, kind.target, MOST_POINTS, histories)
    except (InvalidInput, UnusableData):
        return None


def _training(session: Session, run: Run, kind: Kind, histories: Histories) -> Training:
    assert run.last_step is not None
    curve, reason = None, None
    try:
        curve = sampled_curve(session, run, kind.target, MOST_POINTS, histories)
    except (InvalidInput, UnusableData) as error:
        reason = str(error)
    return Training(run.id, run.last_step, curve, reason)


def compute(groups: Sequence[Group], progress: Callable[[float, str], None]) -> list[Found]:
    """What is learned of each group, and the forecast of each of its runs."""
    found = []
    for number, group in enumerate(groups):
        share = 1 / len(groups)

        def within(fraction: float, message: str, done: float = number * share, share: float = share) -> None:
            progress(done + share * fraction, message)

        found.append(_forecast_group(group, within))
    return found


def _forecast_group(group: Group, progress: Callable[[float, str], None]) -> Found:
    curves = [training.curve for training in group.training if training.curve is not None]
    if not curves:
        return Found(
            group.kind, group.data, None, [_said(None, None, training) for training in group.training]
        )
    forecaster, reason = _learned(group, curves[0], progress)
    said = [_said(forecaster, reason, run) for run in group.training]
    learned = None
    if group.finished is not None:
        learned = (None if forecaster is None else forecaster.as_document(), reason)
    return Found(group.kind, group.data, learned, said)


def _learned(
    group: Group, run: Curve, progress: Callable[[float, str], None]
) -> tuple[Forecaster | None, str | None]:
    # Here, in the child process: the worker itself does without the numerical libraries of a fit.
    from isoloss.advice.forecasts import Forecaster, companions

    try:
        if group.finished is not None:
            return Forecaster.learn(companions(group.finished, run), progress=progress), None
        if group.document is not None:
            return Forecaster.from_document(group.document), None
    except Exception as error:
        return None, _in_words(error)
    return None, group.reason


def _said(forecaster: Forecaster | None, reason: str | None, training: Training) -> Said:
    if forecaster is None or training.curve is None:
        return Said(training.run, training.step, None, training.reason or reason)
    try:
        made = forecaster.forecast(training.curve)
    except Exception as error:
        return Said(training.run, training.step, None, _in_words(error))
    return Said(training.run, training.step, storable(made.as_document()), None)


def _in_words(error: Exception) -> str:
    """The reason that an error gives; a surprise of one run must not keep the others waiting."""
    if isinstance(error, IsolossError):
        return str(error)
    log.exception("a forecast failed unexpectedly")
    return unexpected(error)


def write(session: Session, job_id: uuid.UUID, found: Sequence[Found]) -> dict[str, Any]:
    """Store what was learned and what is said of each run, with its alarms."""
    project_id = jobs.get(session, job_id).project_id
    assert project_id is not None
    for one in found:
        if one.learned is not None:
            forecasts.keep(session, project_id, one.kind, one.data, *one.learned)
        for said in one.said:
            forecasts.save(session, said)
    return {"forecasts": sum(said.document is not None for one in found for said in one.said)}


FORECAST = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, project_id: int) -> None:
    """The task `forecast`."""
    assert context.job.id is not None
    job_id = await in_transaction(Tools.of(context), forecasts.begin, project_id, context.job.id)
    if job_id is not None:
        await carry_out(FORECAST, context, job_id)

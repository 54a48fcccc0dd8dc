"""What changed in a project lately, for those who watch it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from store.forecasts import TASK as FORECASTING
from store.sweeps import JUDGING
from store.tables import Alarm, Fit, Forecast, Job, Run, Sweep, Trial

FORECAST_FACTS = ("target", "step", "last_step", "value", "lower", "upper", "level", "left_band")


@dataclass(frozen=True)
class Change:
    """A run, fit, job, forecast, sweep or trial as it is now, or an alarm; `at` is its last change."""

    kind: str
    name: str
    at: dt.datetime
    facts: dict[str, Any]


def now(session: Session) -> dt.datetime:
    """The database's time."""
    moment: dt.datetime = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment


def since(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    """What of the project changed at `moment` or later, in that order."""
    changes = [
        *_runs(session, project_id, moment),
        *_jobs(session, project_id, moment),
        *_forecasts(session, project_id, moment),
        *_alarms(session, project_id, moment),
        *_sweeps(session, project_id, moment),
        *_trials(session, project_id, moment),
    ]
    return sorted(changes, key=lambda change: change.at)


def _runs(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    facts = (Run.run_id, Run.updated_at, Run.status, Run.last_step)
    changed = sa.select(*facts).where(Run.project_id == project_id, Run.updated_at >= moment)
    return [
        Change("run", row[0], row[1], {"run_id": row[0], "status": row[2], "last_step": row[3]})
        for row in session.execute(changed)
    ]


def _jobs(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    """Jobs, and the fits that are made by them: a fit changes when its job or its refit does."""
    first = aliased(Job)
    of_fit = (Fit.id, Fit.law, Fit.job_id, first.status, Fit.revision)
    changed = (
        sa.select(Job.id, Job.updated_at, Job.status, Job.progress, Job.message, Job.kind, *of_fit)
        .outerjoin_from(Job, Fit, sa.or_(Fit.job_id == Job.id, Fit.refit_job_id == Job.id))
        .outerjoin(first, first.id == Fit.job_id)
        .where(
            Job.project_id == project_id, Job.updated_at >= moment, Job.kind.not_in((FORECASTING, JUDGING))
        )
    )
    found: dict[str, Change] = {}  # a job may have made several fits
    fits: dict[str, Change] = {}
    for key, at, status, progress, message, kind, fit_id, *of_it in session.execute(
        changed.order_by(Job.updated_at)
    ):
        stands = {"status": status, "progress": progress, "message": message}
        found[str(key)] = Change("job", str(key), at, {"id": str(key), "kind": kind, **stands})
        if fit_id is not None:
            law, job_id, state, revision = of_it
            facts = {"law": law, "job_id": str(job_id), "status": state, "revision": revision}
            fits[str(fit_id)] = Change("fit", str(fit_id), at, {"id": str(fit_id), **facts})
    return [*found.values(), *fits.values()]


def _forecasts(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    changed = (
        sa.select(Run.run_id, Forecast.updated_at, Forecast.document)
        .join(Run, Run.id == Forecast.run)
        .where(Forecast.project_id == project_id, Forecast.updated_at >= moment)
        .where(Forecast.document.is_not(None))
    )
    return [
        Change("forecast", name, at, {"run_id": name, **{key: document.get(key) for key in FORECAST_FACTS}})
        for name, at, document in session.execute(changed)
    ]


def _alarms(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    given = (
        sa.select(Alarm.id, Alarm.created_at, Run.run_id, Alarm.kind, Alarm.step, Alarm.message)
        .join(Run, Run.id == Alarm.run)
        .where(Alarm.project_id == project_id, Alarm.created_at >= moment)
    )
    return [
        Change(
            "alarm",
            str(key),
            at,
            {"id": str(key), "run_id": name, "kind": kind, "step": step, "message": text},
        )
        for key, at, name, kind, step, text in session.execute(given)
    ]


def _sweeps(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    facts = (Sweep.id, Sweep.updated_at, Sweep.name, Sweep.status, Sweep.reason)
    changed = sa.select(*facts).where(Sweep.project_id == project_id, Sweep.updated_at >= moment)
    return [
        Change("sweep", str(key), at, {"id": str(key), "name": name, "status": status, "reason": reason})
        for key, at, name, status, reason in session.execute(changed)
    ]


def _trials(session: Session, project_id: int, moment: dt.datetime) -> list[Change]:
    facts = (Trial.sweep_id, Trial.number, Trial.run_id, Trial.status, Trial.step, Trial.total_steps)
    changed = sa.select(Trial.id, Trial.updated_at, *facts, Trial.message)
    found = session.execute(changed.where(Trial.project_id == project_id, Trial.updated_at >= moment))
    names = ("number", "run_id", "status", "step", "total_steps", "message")
    return [
        Change("trial", str(key), at, {"sweep_id": str(sweep_id), **dict(zip(names, told, strict=True))})
        for key, at, sweep_id, *told in found
    ]

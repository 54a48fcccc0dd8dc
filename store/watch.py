"""Looking after runs that train: which of them went silent, which report again, which need a new forecast."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from store import alarms
from store.tables import Alarm, Forecast, Run, Watch

TICK_S = 60
SILENT_TIMES = 10.0
"""How many of the intervals at which a run's points came lately a silence is longer than."""

MOST_AT_ONCE = 1000
ALMOST = 0.9
"""The share of its interval after which a forecast may be made anew: ticks do not come to the second."""


@dataclass(frozen=True)
class Watching:
    """How often a run is forecast, and from how long a silence on there is an alarm."""

    every_s: float = 60.0
    silent_after_s: float = 300.0

    @property
    def tick_s(self) -> int:
        """How often runs are looked after."""
        return max(1, min(TICK_S, int(self.every_s)))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Watching:
        """What ISOLOSS_FORECAST_EVERY_S and ISOLOSS_SILENT_AFTER_S say. Raises InvalidInput."""
        every_s = _seconds(environment, "ISOLOSS_FORECAST_EVERY_S", cls.every_s)
        return cls(every_s, _seconds(environment, "ISOLOSS_SILENT_AFTER_S", cls.silent_after_s))


def look(session: Session, watching: Watching) -> None:
    """Give the alarms of runs that went silent, and tell of those that report again.

    After a break of ours nobody could have reported, so that silences count from its end.
    """
    since = _noted(session, watching)
    for run, later_s in _reporting_again(session):
        alarms.report_again(session, run, f"points come again, {_duration(later_s)} after they were missed")
    for run, silence_s in _silent(session, watching, since):
        usually = "" if run.report_every_s is None else f"; they came every {_duration(run.report_every_s)}"
        alarms.sound(session, run, "silent", f"no point has come for {_duration(silence_s)}{usually}")


def due(session: Session, watching: Watching) -> list[int]:
    """The projects with runs whose forecast is behind their points."""
    of_runs = sa.select(Run.project_id).outerjoin(Forecast, Forecast.run == Run.id)
    return list(session.scalars(of_runs.where(*is_due(watching.every_s)).distinct()))


def is_due(every_s: float) -> tuple[sa.ColumnElement[bool], ...]:
    """That a run trains under a schedule and has points that its forecast, if any, has not seen."""
    long_ago = sa.func.clock_timestamp() - dt.timedelta(seconds=ALMOST * every_s)
    return (
        Run.status == "running",
        Run.schedule.is_not(None),
        Run.last_step.is_not(None),
        sa.or_(
            Forecast.run.is_(None),
            sa.and_(Forecast.step != Run.last_step, Forecast.updated_at < long_ago),
        ),
    )


def _noted(session: Session, watching: Watching) -> dt.datetime:
    """Note that runs are looked after now; returns since when without a break."""
    now = sa.func.clock_timestamp()
    break_s = dt.timedelta(seconds=3 * watching.tick_s)
    statement = insert(Watch).values(id=1, looked_at=now, since=now)
    kept = sa.case((now - Watch.looked_at > break_s, now), else_=Watch.since)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"looked_at": now, "since": kept})
    since: dt.datetime = session.execute(statement.returning(Watch.since)).scalar_one()
    return since


def _silent(session: Session, watching: Watching, since: dt.datetime) -> list[tuple[Run, float]]:
    """The runs that train, as they say, and have been silent for too long, each with for how long."""
    silence = sa.extract("epoch", sa.func.clock_timestamp() - Run.reported_at)
    seen = sa.extract("epoch", sa.func.clock_timestamp() - sa.func.greatest(Run.reported_at, since))
    usual = SILENT_TIMES * sa.func.coalesce(Run.report_every_s, 0.0)
    told = sa.exists().where(Alarm.run == Run.id, Alarm.kind == "silent", Alarm.over_at.is_(None))
    training = (Run.status == "running", Run.reported_at.is_not(None))
    chosen = (*training, seen > sa.func.greatest(watching.silent_after_s, usual), ~told)
    found = session.execute(sa.select(Run, silence).where(*chosen).order_by(Run.id).limit(MOST_AT_ONCE))
    return [(run, float(silence_s)) for run, silence_s in found]


def _reporting_again(session: Session) -> list[tuple[Run, float]]:
    """The runs whose silence is over, each with how long after its alarm."""
    later = sa.extract("epoch", Run.reported_at - Alarm.created_at)
    over = (Alarm.kind == "silent", Alarm.over_at.is_(None), Run.reported_at > Alarm.created_at)
    found = sa.select(Run, later).join(Alarm, Alarm.run == Run.id).where(*over).limit(MOST_AT_ONCE)
    return [(run, float(later_s)) for run, later_s in session.execute(found)]


def _duration(seconds: float) -> str:
    """A length of time in words, to two digits."""
    for name, unit in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    written = environment.get(name)
    if not written:
        return default
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 1 <= value < 1e9:
        raise InvalidInput(field=name, reason="must be a number of seconds, 1 or more")
    return value

"""Alarms: what the owner of a run should know, told once for each cause.

Of each kind a run has at most one alarm that is not over, which the database itself holds to. So whatever finds a
cause again, after a restart or beside another worker, tells nobody twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store import webhooks
from store.tables import Alarm
from store.webhooks import Subject

Kind = Literal["left_band", "diverged", "silent", "resumed"]
MOST_SHOWN = 100
SAME_CAUSE_S = 600.0
"""How soon after a run was back in its band it may leave it again for what is the same reason."""


def sound(session: Session, run: Subject, kind: Kind, message: str) -> bool:
    """Give the alarm and tell the project's webhooks; False where one of this kind is not over yet.

    A run that goes in and out of its band is told of once: an alarm that was just over goes on.
    """
    if kind == "left_band" and _goes_on(session, run.id, kind):
        return False
    made = session.execute(
        insert(Alarm)
        .values(run=run.id, project_id=run.project_id, kind=kind, step=run.last_step, message=message)
        .on_conflict_do_nothing(index_elements=["run", "kind"], index_where=sa.text("over_at IS NULL"))
        .returning(Alarm.id)
    ).scalar_one_or_none()
    if made is not None:
        webhooks.notify(session, run, kind, message)
    return made is not None


def end(session: Session, run: int, *kinds: Kind) -> bool:
    """Say that what these alarms were about is over; whether there were any."""
    still = (Alarm.run == run, Alarm.kind.in_(kinds), Alarm.over_at.is_(None))
    ended = sa.update(Alarm).where(*still).values(over_at=sa.func.clock_timestamp()).returning(Alarm.id)
    return bool(session.execute(ended, execution_options={"synchronize_session": False}).all())


def _goes_on(session: Session, run: int, kind: Kind) -> bool:
    """Whether the last alarm of this kind is not over, or was until just now: then it is not over any more."""
    ended_s = sa.extract("epoch", sa.func.clock_timestamp() - Alarm.over_at)
    last = sa.select(Alarm, ended_s).where(Alarm.run == run, Alarm.kind == kind)
    newest = last.order_by(Alarm.created_at.desc(), Alarm.id.desc()).limit(1)
    found = session.execute(newest.execution_options(populate_existing=True)).first()
    if found is None or (found[1] is not None and found[1] > SAME_CAUSE_S):
        return False
    found[0].over_at = None
    session.flush()
    return True


def report_again(session: Session, run: Subject, message: str) -> None:
    """End a silence, and tell of it."""
    if end(session, run.id, "silent") and sound(session, run, "resumed", message):
        end(session, run.id, "resumed")  # a moment, and no state


def status_changed(session: Session, run: Subject, before: str, now: str, why: str | None = None) -> None:
    """Give the alarm of a run that diverges, tell of one that ends, and end what it makes obsolete."""
    if now != "running":
        end(session, run.id, "silent", "left_band")
    if now != "diverged" and before == "diverged":
        end(session, run.id, "diverged")
    if now == "diverged" and before == "running":
        sound(session, run, "diverged", why or "the run is said to have diverged")
    elif now in webhooks.ENDS and before in ("running", "diverged"):
        webhooks.notify(session, run, now, f"the run is {now}")


def of_run(session: Session, run: int) -> Sequence[Alarm]:
    """The run's last alarms, the newest first."""
    newest = sa.select(Alarm).where(Alarm.run == run).order_by(Alarm.created_at.desc(), Alarm.id.desc())
    return session.scalars(newest.limit(MOST_SHOWN)).all()


def open_of(session: Session, runs: Sequence[int]) -> dict[int, list[Alarm]]:
    """By run, the alarms that are not over, the oldest first."""
    found: dict[int, list[Alarm]] = {}
    still = sa.select(Alarm).where(Alarm.run.in_(runs), Alarm.over_at.is_(None)).order_by(Alarm.id)
    for alarm in session.scalars(still):
        found.setdefault(alarm.run, []).append(alarm)
    return found

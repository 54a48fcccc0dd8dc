"""Webhooks: who is told of a project's events, and what is on its way to them.

An event is stored with the change that it tells of, one delivery for each webhook, and queued in the same
transaction. A delivery is made at least once, with the same id and the same bytes each time.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, NotFound
from store import queue
from store.ids import uuid7
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Delivery, Forecast, Project, Webhook
from store.where import Field

TASK = "deliver"
TEST = "test"
ENDS = ("finished", "failed", "preempted")
EVENTS = ("left_band", "diverged", "silent", "resumed", *ENDS)
MOST_PER_PROJECT = 20
KEPT_DELIVERIES = 50
SECRET_PREFIX = "whsec_"
SHOWN = ("target", "step", "last_step", "value", "lower", "upper", "level")

PAUSES_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""After how long a delivery that failed is tried again: six attempts in about an hour and a quarter."""

FIELDS = {"created_at": Field(sa.extract("epoch", Webhook.created_at))}


class Subject(Protocol):
    """The run that an event is about."""

    @property
    def id(self) -> int: ...
    @property
    def project_id(self) -> int: ...
    @property
    def run_id(self) -> str: ...
    @property
    def last_step(self) -> int | None: ...


@dataclass(frozen=True)
class Outgoing:
    """One attempt at a delivery: what is sent, and where."""

    id: uuid.UUID
    url: str
    secret: str
    event: str
    body: str
    attempt: int


@dataclass(frozen=True)
class Answered:
    """What came of an attempt: a status, or the reason why there is none."""

    status: int | None
    error: str | None


def create(
    session: Session, project_id: int, url: str, events: Sequence[str], secret: str | None = None
) -> Webhook:
    """A new webhook, with a secret of its own unless it brings one. Raises Conflict for one too many."""
    session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update())
    there = sa.select(sa.func.count()).select_from(Webhook).where(Webhook.project_id == project_id)
    if session.execute(there).scalar_one() >= MOST_PER_PROJECT:
        raise Conflict(reason=f"a project has at most {MOST_PER_PROJECT} webhooks: delete one first")
    secret = secret or SECRET_PREFIX + secrets.token_urlsafe(32)
    hook = Webhook(project_id=project_id, url=url, events=list(dict.fromkeys(events)), secret=secret)
    session.add(hook)
    session.flush()
    session.refresh(hook)
    return hook


def get(session: Session, webhook_id: uuid.UUID, project_id: int) -> Webhook:
    """The project's webhook. Raises NotFound."""
    hook = session.get(Webhook, webhook_id)
    if hook is None or hook.project_id != project_id:
        raise NotFound(kind="webhook", name=str(webhook_id))
    return hook


def page(session: Session, project_id: int, asked: Asked) -> Page[Webhook]:
    """Part of a project's webhooks."""
    return page_of(
        session, sa.select(Webhook).where(Webhook.project_id == project_id), Webhook.id, FIELDS, asked
    )


def delete(session: Session, webhook_id: uuid.UUID, project_id: int) -> None:
    """Delete the webhook; what is on its way to it is dropped. Raises NotFound."""
    session.delete(get(session, webhook_id, project_id))
    session.flush()


def deliveries(session: Session, webhook_id: uuid.UUID, most: int = 10) -> Sequence[Delivery]:
    """The webhook's last deliveries, the newest first."""
    of_hook = sa.select(Delivery).where(Delivery.webhook_id == webhook_id)
    return session.scalars(of_hook.order_by(Delivery.created_at.desc(), Delivery.id.desc()).limit(most)).all()


def notify(session: Session, run: Subject, event: str, message: str) -> None:
    """Queue the event for every webhook of the run's project that asked for it."""
    asked = sa.select(Webhook).where(Webhook.project_id == run.project_id, Webhook.events.contains([event]))
    hooks = session.scalars(asked).all()
    if not hooks:
        return
    said = {"run_id": run.run_id, "step": run.last_step, "message": message}
    for hook in hooks:
        _send(session, hook, event, {**said, "forecast": _forecast(session, run.id)})


def send_test(session: Session, hook: Webhook) -> Delivery:
    """Queue a delivery that tells of nothing."""
    said = {"run_id": None, "step": None, "message": "a test: nothing has happened", "forecast": None}
    return _send(session, hook, TEST, said)


def begin(session: Session, delivery_id: uuid.UUID) -> Outgoing | None:
    """Count an attempt and return what is to be sent; None where the delivery has ended or is gone."""
    found = session.get(Delivery, delivery_id, with_for_update=True, populate_existing=True)
    if found is None or found.status != "queued":
        return None
    found.attempts += 1
    session.flush()
    hook = session.get_one(Webhook, found.webhook_id)
    return Outgoing(found.id, hook.url, hook.secret, found.event, found.body, found.attempts)


def record(session: Session, delivery_id: uuid.UUID, answered: Answered) -> str | None:
    """Store what came of an attempt, and queue the next one where it failed; the delivery's status."""
    found = session.get(Delivery, delivery_id, with_for_update=True, populate_existing=True)
    if found is None or found.status != "queued":
        return None
    found.answered, found.error = answered.status, answered.error
    pause = pause_after(found.attempts)
    if answered.error is not None and pause is not None:
        _defer(session, found.id, pause)
    else:
        found.status = "succeeded" if answered.error is None else "failed"
        found.finished_at = sa.func.clock_timestamp()
    session.flush()
    _forget_old(session, found.webhook_id)
    return found.status


def pause_after(attempts: int) -> float | None:
    """Seconds until the next attempt after so many have failed; None where there is none."""
    return PAUSES_S[attempts - 1] if attempts <= len(PAUSES_S) else None


def _send(session: Session, hook: Webhook, event: str, said: dict[str, Any]) -> Delivery:
    delivery_id = uuid7()
    project = session.get_one(Project, hook.project_id).name
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"id": str(delivery_id), "event": event, "project": project, "at": now, **said}
    text = json.dumps(body, allow_nan=False)
    delivery = Delivery(id=delivery_id, webhook_id=hook.id, event=event, body=text)
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    _defer(session, delivery.id)
    return delivery


def _defer(session: Session, delivery_id: uuid.UUID, after_s: float = 0.0) -> None:
    queue.defer(session, TASK, {"delivery_id": str(delivery_id)}, queue=queue.DELIVERIES, after_s=after_s)


def _forecast(session: Session, run: int) -> dict[str, Any] | None:
    document = session.execute(sa.select(Forecast.document).where(Forecast.run == run)).scalar_one_or_none()
    return None if document is None else {name: document.get(name) for name in SHOWN}


def _forget_old(session: Session, webhook_id: uuid.UUID) -> None:
    of_hook = sa.select(Delivery.id).where(Delivery.webhook_id == webhook_id, Delivery.status != "queued")
    old = of_hook.order_by(Delivery.created_at.desc(), Delivery.id.desc()).offset(KEPT_DELIVERIES)
    session.execute(
        sa.delete(Delivery).where(Delivery.id.in_(old)), execution_options={"synchronize_session": False}
    )

"""The workers that train trials: who is there, for which kind of device."""

from __future__ import annotations

import datetime as dt
import uuid

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import Trainer

EVERY_S = 10.0
GONE_AFTER = dt.timedelta(seconds=45)
FORGOTTEN_AFTER = dt.timedelta(hours=1)


def seen(session: Session, trainer_id: uuid.UUID, device: str, name: str) -> None:
    """Note that this worker is there; call it every `EVERY_S` seconds."""
    now = sa.func.clock_timestamp()
    made = insert(Trainer).values(id=trainer_id, device=device, name=name, seen_at=now)
    session.execute(made.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))
    session.execute(sa.delete(Trainer).where(Trainer.seen_at < now - FORGOTTEN_AFTER))


def left(session: Session, trainer_id: uuid.UUID) -> None:
    """Note that this worker goes."""
    session.execute(sa.delete(Trainer).where(Trainer.id == trainer_id))


def count(session: Session, device: str) -> int:
    """How many workers train on this kind of device now."""
    alive = Trainer.seen_at > sa.func.clock_timestamp() - GONE_AFTER
    found = sa.select(sa.func.count()).where(Trainer.device == device, alive)
    return session.execute(found).scalar_one()

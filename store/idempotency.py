"""Answers that were given to creating requests, so that a retry is answered and not done again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from store.tables import IdempotencyKey

KEPT_FOR = dt.timedelta(days=2)


@dataclass(frozen=True)
class Answer:
    """A status and a body as they were sent."""

    status: int
    body: bytes


def claim(session: Session, owner: str, key: str, request_hash: bytes) -> Answer | None:
    """The answer that this key was given before; None makes it the caller's to `record` in this transaction.

    Two requests at once with one key wait for one another here. Raises InvalidInput where the key was used
    for another request.
    """
    made = session.execute(
        insert(IdempotencyKey)
        .values(owner=owner, key=key, request_hash=request_hash)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.key)
    ).scalar_one_or_none()
    if made is not None:
        return None
    before = session.get_one(IdempotencyKey, (owner, key), populate_existing=True)
    if before.request_hash != request_hash:
        raise InvalidInput(field="Idempotency-Key", reason="was used for another request")
    return Answer(before.status or 200, before.answer or b"")


def record(session: Session, owner: str, key: str, answer: Answer) -> None:
    """Keep the answer for the next request with this key."""
    mine = (IdempotencyKey.owner == owner, IdempotencyKey.key == key)
    session.execute(sa.update(IdempotencyKey).where(*mine).values(status=answer.status, answer=answer.body))


def forget_old(session: Session) -> int:
    """Delete the answers that no retry asks for any more, and count them."""
    old = IdempotencyKey.created_at < sa.func.now() - KEPT_FOR
    return len(session.execute(sa.delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)).all())

"""API keys: random secrets of 256 bits, of which only the hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import NotFound
from store.arrays import cursor
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import ApiKey
from store.where import Field

PREFIX = "isl_"
SCOPES = ("read", "write", "admin")


@dataclass(frozen=True)
class Caller:
    """The holder of a key; `project_id` is the project that was asked for, None where there is none."""

    key_id: uuid.UUID
    scopes: Sequence[str]
    only_project_id: int | None
    project_id: int | None


_FIND = """
    SELECT k.id, k.scopes, k.project_id, p.id
    FROM public.api_key k LEFT JOIN public.project p ON p.name = %s WHERE k.key_hash = %s
"""
FIELDS = {"name": Field(ApiKey.name.expression)}


def create(
    session: Session, name: str, scopes: Sequence[str], project_id: int | None = None
) -> tuple[ApiKey, str]:
    """A new key and its secret, which cannot be had again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name=name, key_hash=_hash(secret), scopes=list(scopes), project_id=project_id)
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def find(session: Session, secret: str, project: str | None = None) -> Caller | None:
    """Who has this secret, and the number of the project that is named.

    Every request begins with this: one statement, and not through the ORM, which costs several times as much.
    """
    with cursor(session) as rows:
        found = rows.execute(_FIND, (project, _hash(secret))).fetchone()
    return None if found is None else Caller(*found)


def page(session: Session, asked: Asked) -> Page[ApiKey]:
    """Part of the keys."""
    return page_of(session, sa.select(ApiKey), ApiKey.id, FIELDS, asked)


def delete(session: Session, key_id: uuid.UUID) -> None:
    """Revoke the key. Raises NotFound."""
    gone = session.execute(
        sa.delete(ApiKey).where(ApiKey.id == key_id).returning(ApiKey.id)
    ).scalar_one_or_none()
    if gone is None:
        raise NotFound(kind="key", name=str(key_id))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

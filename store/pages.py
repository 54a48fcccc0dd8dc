"""Lists in pages: filtered, sorted, and continued where the last page ended."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

from isoloss.errors import InvalidInput
from store.where import JSON_NULL, Fields, condition, field_at

Row = TypeVar("Row")
MAX_CURSOR = 10_000


@dataclass(frozen=True)
class Asked:
    """What part of a list is asked for; `sort` is a field, `-` before it turns the order round."""

    limit: int = 50
    cursor: str | None = None
    where: str | None = None
    sort: str | None = None


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some of a list, and the cursor of the next part; None at the end."""

    items: list[Row]
    next_cursor: str | None


def page(
    session: Session,
    statement: sa.Select[Row],
    identity: InstrumentedAttribute[Any],
    fields: Fields,
    asked: Asked,
) -> Page[Row]:
    """The part of a list that is asked for, in the order of `identity` where no other is.

    What is added or deleted between two pages neither repeats nor hides another item. Raises InvalidInput for
    a field, filter or cursor that cannot be read.
    """
    key, descending = _sort_key(fields, asked.sort)
    if asked.where is not None and asked.where.strip():
        statement = statement.where(condition(asked.where, fields))
    if asked.cursor is not None:
        statement = statement.where(_beyond(asked.cursor, key, identity, descending))
    order = [expression.desc() if descending else expression.asc() for expression in (key, identity)]
    with_place = statement.add_columns(key, identity).order_by(*order).limit(asked.limit + 1)
    rows: Sequence[Any] = session.execute(with_place).all()
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    return Page([row[0] for row in rows], _cursor(rows[-1][1], rows[-1][2]) if more else None)


def _sort_key(fields: Fields, sort: str | None) -> tuple[sa.ColumnElement[Any], bool]:
    """Any value as jsonb: its order is total, whatever types a free field mixes."""
    if not sort:
        return JSON_NULL, False
    found, path = field_at(fields, sort.removeprefix("-"), "sort")
    if found.tags:
        raise InvalidInput(field="sort", reason="tags have no order")
    return sa.func.coalesce(found.at(path), JSON_NULL, type_=JSONB), sort.startswith("-")


def _cursor(key: Any, identity: int | str | uuid.UUID) -> str:
    place = [key, identity if isinstance(identity, int) else str(identity)]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _beyond(
    cursor: str, key: sa.ColumnElement[Any], identity: InstrumentedAttribute[Any], descending: bool
) -> sa.ColumnElement[bool]:
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        place, last = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        typed = identity.type.python_type(last)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(field="cursor", reason="is none that this list gave out") from None
    here = sa.tuple_(key, identity)
    there = sa.tuple_(
        sa.cast(sa.literal(place, JSONB(none_as_null=False)), JSONB), sa.cast(typed, identity.type)
    )
    return here < there if descending else here > there

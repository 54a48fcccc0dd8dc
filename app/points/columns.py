"""Batches of points: checked a column at a time, because a model for every number would cost too much."""

from __future__ import annotations

import json
from typing import Any

from app.bodies import parsed
from app.problems import Malformed
from isoloss.errors import InvalidInput
from isoloss.observations.point_columns import COLUMN_NAME, KNOWN_COLUMNS
from store.columns import Points
from store.intake import STEP, points_of_columns


def points_of(body: bytes) -> Points:
    """The points that a body holds. Raises Malformed, and InvalidInput that names the column at fault.

    A learning rate of 0 is let through: whether the schedule reaches it is for `store.intake` to say.
    """
    return points_of_columns(_columns(body))


def _columns(body: bytes) -> dict[str, list[Any]]:
    try:
        document = parsed(body)
    except json.JSONDecodeError as error:
        raise Malformed(reason=f"{error.msg} (at character {error.pos})") from None
    if not isinstance(document, dict):
        raise InvalidInput(field="body", reason="must be an object of columns")
    if STEP not in document:
        raise InvalidInput(field=STEP, reason="is missing")
    for name, cells in document.items():
        if name not in KNOWN_COLUMNS and name != STEP and COLUMN_NAME.fullmatch(name) is None:
            raise InvalidInput(
                field=name[:100],
                reason=f"is no column: names are {', '.join(KNOWN_COLUMNS)}, or {COLUMN_NAME.pattern}",
            )
        if not isinstance(cells, list):
            raise InvalidInput(field=name, reason="must be a list")
    _check_lengths(document)
    _refuse_repeated(body, document)
    return document


def _refuse_repeated(body: bytes, columns: dict[str, list[Any]]) -> None:
    """Refuse a name that stands twice in the object: reading it keeps the last value and loses the others.

    Column names and their numbers hold no colon, so that counting colons tells; only where there are more
    than names is the body read a second time.
    """
    if body.count(b":") == len(columns):
        return

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput(field=name[:100], reason="stands more than once in the batch")
            seen.add(name)
        return dict(pairs)

    json.loads(body, object_pairs_hook=once, parse_int=str, parse_float=str)


def _check_lengths(columns: dict[str, list[Any]]) -> None:
    n_steps = len(columns[STEP])
    if not n_steps:
        raise InvalidInput(field=STEP, reason="the batch is empty")
    for name, cells in columns.items():
        if len(cells) != n_steps:
            raise InvalidInput(field=name, reason=f"has {len(cells)} values where step has {n_steps}")

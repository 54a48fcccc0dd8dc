"""What all documents of the API share: strict types, names, numbers, pages."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.json_schema import WithJsonSchema

from isoloss.errors import NotFound
from isoloss.observations.point_columns import MAX_STEP
from store.pages import Asked

NAME_PATTERN = r"^(\.*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})$"
"""Letters, digits, `.`, `_` and `-`, and neither `.` nor `..`: those are no names in a path."""
MAX_NAME = 100

Item = TypeVar("Item")


class Document(BaseModel):
    """A JSON object of the API: unknown fields are refused, and strings and booleans are no numbers."""

    model_config = ConfigDict(
        extra="forbid", strict=True, from_attributes=True, ser_json_inf_nan="strings", protected_namespaces=()
    )


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[
    dt.datetime,
    PlainSerializer(_rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-03-01T12:00:00.000Z"]}),
]
"""A moment, RFC 3339 in UTC."""

NonFinite = Literal["NaN", "Infinity", "-Infinity"]
Number = int | float | NonFinite
"""A number; those that are not finite are strings, because JSON has none."""

Count = Annotated[int | float, Field(gt=0)]
Positive = Annotated[int | float, Field(gt=0)]
NotNegative = Annotated[int | float, Field(ge=0)]
Step = Annotated[int, Field(ge=0, le=MAX_STEP)]
Text = Annotated[str, Field(max_length=10_000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(max_length=MAX_NAME, pattern=NAME_PATTERN, examples=["pilot"])]


class PageOf(Document, Generic[Item]):
    """Part of a list."""

    items: Sequence[Item] = Field(description="The items, in the order asked for.")
    next_cursor: str | None = Field(
        description="Send it as `cursor` for the next part; null at the end of the list.", examples=[None]
    )


def identifier(kind: str, text: str) -> uuid.UUID:
    """The id that a path names. Raises NotFound: what is no id names nothing."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound(kind=kind, name=text) from None


def page_query(
    limit: Annotated[int, Query(ge=1, le=1000, description="The most items to return.")] = 50,
    cursor: Annotated[
        str | None, Query(description="Where to go on: `next_cursor` of the part before.")
    ] = None,
    where: Annotated[
        str | None,
        Query(
            description="Comparisons (`=`, `!=`, `<`, `<=`, `>`, `>=`) joined by `and`, `or` and brackets.",
            examples=['config.n_params >= 1e8 and (status = "finished" or tags = "pilot")'],
        ),
    ] = None,
    sort: Annotated[
        str | None,
        Query(description="A field to sort by, with `-` before it downwards.", examples=["-created_at"]),
    ] = None,
) -> Asked:
    """What part of a list is asked for, as a dependency."""
    return Asked(limit=limit, cursor=cursor, where=where, sort=sort)


class ProblemDocument(Document):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="A URN that names the kind of problem.", examples=["urn:isoloss:not-found"])
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The status.", examples=[404])
    detail: str = Field(
        description="What is wrong in this case, and what to do about it.",
        examples=["There is no run 'wsd-1'."],
    )
    errors: list[dict[str, str]] | None = Field(
        default=None,
        description="The fields at fault, each with `field` and `reason`.",
        examples=[[{"field": "schedule.decay_start", "reason": "must lie before total_steps"}]],
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer with, for its OpenAPI description."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in sorted(statuses)}


_MEANINGS = {
    400: "The body is not JSON.",
    401: "No key, or none that is known.",
    403: "The key lacks the scope.",
    404: "It does not exist, or belongs to a project that the key does not open.",
    409: "It contradicts what is there, or the result is not ready.",
    413: "The body is too long.",
    422: "A field is invalid or unknown.",
    503: "The database cannot be reached; try again after `Retry-After` seconds.",
}

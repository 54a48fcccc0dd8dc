"""Every error as a problem document (RFC 9457); the one place that knows which error has which status."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, get_args

import orjson
import psycopg
import sqlalchemy.exc
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.schemas import NAME_PATTERN
from isoloss.errors import (
    Conflict,
    FitFailed,
    InvalidInput,
    InvalidSchedule,
    IsolossError,
    NotFound,
    Unavailable,
    UnusableData,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
MAX_ERRORS = 20
LONG_BODY_BYTES = 65_536

log = logging.getLogger(__name__)


class Unauthorized(IsolossError):
    """{reason}: send `Authorization: Bearer <key>`."""


class Forbidden(IsolossError):
    """{reason}"""


class Malformed(IsolossError):
    """The body is not JSON: {reason}"""


STATUSES: dict[type[IsolossError], int] = {
    Malformed: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    InvalidInput: 422,
    UnusableData: 422,
    FitFailed: 422,
    Unavailable: 503,
}
"""The status of each kind of error and of the kinds below it, the nearest counts; of any other 500."""

DATABASE_ERRORS = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
"""The database is down, starting or overloaded: what was asked may well succeed a little later."""


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document; `errors` tells which fields are at fault."""
    title = HTTPStatus(status).phrase
    name = kind or title.lower().replace(" ", "-")
    document: dict[str, Any] = {
        "type": f"urn:isoloss:{name}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if errors:
        document["errors"] = errors
    return Response(orjson.dumps(document), status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(IsolossError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _database)
    app.add_exception_handler(sqlalchemy.exc.DataError, _unstorable)
    app.add_exception_handler(psycopg.DataError, _unstorable)


def status_of(error: IsolossError) -> int:
    """The status that an error answers with."""
    known = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return next(known, 500)


def _domain(request: Request, error: Exception) -> Response:
    assert isinstance(error, IsolossError)
    status = status_of(error)
    if status == 500:
        return _unexpected(request, error)
    errors = []
    if isinstance(error, InvalidInput):
        prefix = "schedule." if isinstance(error, InvalidSchedule) else ""
        field = f"{prefix}{error.fields.get('field')}"
        errors = [{"field": field, "reason": str(error.fields.get("reason"))}]
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}.get(status, {})
    if status == 401 and _is_long(request):
        headers = {**headers, "Connection": "close"}  # rather than wait for a body that nobody reads
    return problem(status, str(error), kind=_kind(error), errors=errors, headers=headers)


def _is_long(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or not length.isdigit() or int(length) > LONG_BODY_BYTES


def _kind(error: IsolossError) -> str:
    """`not-ready` for NotReady: what a program can tell errors of one status apart by."""
    name = type(error).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    for one in found:
        if one["type"] == "json_invalid":
            where = f"{one['ctx']['error']} (at character {one['loc'][-1]})"
            return problem(400, f"The body is not JSON: {where}", kind="malformed")
    errors = _reasons([_suggesting(one, request) for one in found])[:MAX_ERRORS]
    detail = "; ".join(f"{one['field']}: {one['reason']}" for one in errors[:3])
    return problem(422, detail, kind="invalid-input", errors=errors)


def _reasons(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A reason for each field; of the types that it may have, the last one tells it best, but for numbers."""
    by_field: dict[str, str] = {}
    kinds: dict[str, set[str]] = {}
    for one in found:
        field = _field(one["loc"])
        kinds.setdefault(field, set()).add(one["type"])
        by_field[field] = _in_words(one)
    for field, tried in kinds.items():
        if (
            "float_type" in tried
        ):  # the words of the last type would be about the strings for NaN and infinity
            by_field[field] = "must be a number"
    return [{"field": field, "reason": reason} for field, reason in by_field.items()]


def _in_words(one: Mapping[str, Any]) -> str:
    """The reason of an error; of a name that is none the characters that it may have, and not their pattern."""
    if one["type"] == "string_pattern_mismatch" and one["ctx"]["pattern"] == NAME_PATTERN:
        return "may have letters, digits, '.', '_' and '-' alone, and be neither '.' nor '..'"
    return str(one["msg"]).removeprefix("Value error, ")


def _suggesting(one: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """An error, of a field that is unknown with the one that was probably meant."""
    if one["type"] != "extra_forbidden":
        return one
    name = str(one["loc"][-1])
    meant = get_close_matches(name, _siblings(request, one["loc"]), n=1)
    return {**one, "msg": f"unknown; did you mean {meant[0]}?" if meant else "unknown"}


def _siblings(request: Request, location: Sequence[str | int]) -> list[str]:
    """The fields that the object at a place in the body may have."""
    body = getattr(request.scope.get("route"), "body_field", None)
    model = None if body is None else _model_in(body.field_info.annotation)
    for part in location[1:-1]:
        field = None if model is None else model.model_fields.get(str(part))
        model = model if isinstance(part, int) else None if field is None else _model_in(field.annotation)
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is about: `Options | None` is about `Options`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


_TYPES = frozenset({"int", "float", "str", "constrained-int", "constrained-float", "constrained-str"})


def _field(location: Sequence[str | int]) -> str:
    """`config.n_params` for ("body", "config", "n_params", "int"): the types tried at the end are no field."""
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    while len(parts) > 1 and (parts[-1] in _TYPES or parts[-1].startswith("literal[")):
        parts.pop()
    return ".".join(parts) or "body"


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.url.path} does not answer {request.method}.",
    }
    return problem(error.status_code, details.get(error.status_code, error.detail), headers=error.headers)


def _database(request: Request, error: Exception) -> Response:
    log.warning("%s %s: the database failed: %s", request.method, request.url.path, _first_line(error))
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return problem(503, "The database cannot be reached now; try again.", kind="unavailable", headers=headers)


def _unstorable(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, _first_line(error))
    return problem(422, "A value is none that the database can hold.", kind="invalid-input")


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "An unexpected error; the service's log tells more.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

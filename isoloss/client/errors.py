"""What the service answered when it could not do what was asked, one class per status.

Every class carries the fields of the server's problem document (RFC 9457): `status`, `title`, `detail`,
`type` and `errors`. Where the library raises an error of the same meaning, the class is one of those too:
`except isoloss.errors.NotFound` catches a missing run whether the service or the library missed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoloss import errors
from isoloss.errors import IsolossError

SHOWN_ERRORS = 3


class ApiError(IsolossError):
    """{message}"""

    def __init__(
        self,
        *,
        status: int,
        title: str = "",
        detail: str = "",
        type: str = "about:blank",
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
        message: str | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type
        self.errors = tuple(dict(entry) for entry in errors)
        self.retry_after = retry_after
        super().__init__(
            status=status,
            title=title,
            detail=detail,
            type=type,
            errors=self.errors,
            retry_after=retry_after,
            message=message or _message(status, title, detail, self.errors),
        )

    def problem(self) -> dict[str, Any]:
        """The problem document, as the service sent it or would have sent it."""
        document: dict[str, Any] = {"type": self.type, "title": self.title, "status": self.status}
        if self.detail:
            document["detail"] = self.detail
        if self.errors:
            document["errors"] = list(self.errors)
        return document


class BadRequest(ApiError):
    """{message}"""


class Unauthorized(ApiError):
    """{message}"""


class Forbidden(ApiError):
    """{message}"""


class NotFound(ApiError, errors.NotFound):
    """{message}"""


class Conflict(ApiError, errors.Conflict):
    """{message}"""


class TooLarge(ApiError):
    """{message}"""


class ValidationProblem(ApiError, errors.InvalidInput):
    """{message}"""


class RateLimited(ApiError):
    """{message}"""


class ServerError(ApiError):
    """{message}"""


class ServerUnavailable(ServerError, errors.Unavailable):
    """{message}"""


class JobFailed(IsolossError):
    """{kind} {name} failed: {reason}"""


class JobCancelled(IsolossError):
    """{kind} {name} was cancelled."""


class WaitTimedOut(IsolossError):
    """{kind} {name} was still {status} after {seconds:g} s; it goes on without this client."""


class NoCredentials(IsolossError):
    """No service is known: set ISOLOSS_URL and ISOLOSS_API_KEY, or start one with `isoloss up` ({reason})."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: ValidationProblem,
    429: RateLimited,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: ServerUnavailable,
}


def from_problem(status: int, document: object, retry_after: float | None = None) -> ApiError:
    """The exception for a status and its problem document; anything but a problem still gives one."""
    problem = document if isinstance(document, dict) else {}
    entries = problem.get("errors")
    return class_for(status)(
        status=status,
        title=str(problem.get("title") or f"HTTP {status}"),
        detail=str(problem.get("detail") or ""),
        type=str(problem.get("type") or "about:blank"),
        errors=[entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else (),
        retry_after=retry_after,
    )


def class_for(status: int) -> type[ApiError]:
    return BY_STATUS.get(status, ServerError if status >= 500 else ApiError)


def _message(status: int, title: str, detail: str, entries: Sequence[Mapping[str, Any]]) -> str:
    message = detail or title or f"the service answered {status}"
    told = [_entry(entry) for entry in entries[:SHOWN_ERRORS]]
    shown = [f"{where}: {reason}" if where else reason for where, reason in told if reason not in message]
    if len(entries) > SHOWN_ERRORS:
        shown.append(f"and {len(entries) - SHOWN_ERRORS} more")
    return f"{message} ({'; '.join(shown)})" if shown else message


def _entry(entry: Mapping[str, Any]) -> tuple[str, str]:
    where = next((entry[key] for key in ("field", "pointer", "loc") if entry.get(key)), "")
    if isinstance(where, list | tuple):
        where = ".".join(str(part) for part in where)
    reason = next((entry[key] for key in ("reason", "message", "msg", "detail") if entry.get(key)), "")
    return str(where), str(reason)

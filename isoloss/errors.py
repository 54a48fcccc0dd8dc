"""Every error that Isoloss raises on purpose.

A class's docstring is its message, filled in with the fields that it was raised with; the same fields reach
the user of the HTTP API. These errors know no HTTP: `app/problems.py` gives each its status.
"""

from __future__ import annotations


class IsolossError(Exception):
    """Isoloss could not do this."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        template = type(self).__doc__ or type(self).__name__
        super().__init__(template.strip().format(**fields))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by fields, so that errors cross from a fit's child process to its worker."""
        return _rebuild, (type(self), self.fields)


def _rebuild(kind: type[IsolossError], fields: dict[str, object]) -> IsolossError:
    return kind(**fields)


class InvalidInput(IsolossError):
    """{field}: {reason}"""


class InvalidSchedule(InvalidInput):
    """schedule.{field}: {reason}"""


class InvalidExpression(InvalidInput):
    """{field}: the expression {expression!r} is refused: {reason}"""


class UnusableData(IsolossError):
    """{reason}"""


class NotFound(IsolossError):
    """There is no {kind} {name!r}."""


class Conflict(IsolossError):
    """{reason}"""


class NotReady(Conflict):
    """{kind} {name!r} has no result to use: {reason}"""


class Unidentified(Conflict):
    """The data do not determine this: {reason}"""


class FitFailed(IsolossError):
    """The fit found no estimate: {reason}"""


class Unavailable(IsolossError):
    """{service} cannot be reached: {reason}"""


class DataDirectoryRefused(IsolossError):
    """The data directory {path} cannot be used: {reason}. {remedy}"""


class DatabaseFailed(IsolossError):
    """PostgreSQL failed: {reason}"""


class NewerDatabase(IsolossError):
    """The database is of a newer Isoloss: its schema is {found}, the last known here is {known}. Update Isoloss."""


class JobFailed(IsolossError):
    """The job could not be done: {reason}"""


class ServiceFailed(IsolossError):
    """The service did not start: {reason}"""

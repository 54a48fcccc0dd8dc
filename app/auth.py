"""Who may do what: bearer keys, their scopes and their project, and the transaction of a request."""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from app.problems import Forbidden, Unauthorized
from isoloss.errors import NotFound
from store import keys

Scope = Literal["read", "write", "admin"]
IMPLIED: dict[str, frozenset[str]] = {
    "read": frozenset({"read", "write", "admin"}),
    "write": frozenset({"write", "admin"}),
    "admin": frozenset({"admin"}),
}
"""For each scope those that include it."""

SEEN_FOR_S = 30.0
MAX_SEEN = 10_000
"""How long, and of how many keys, it is remembered that they are good enough to read a body for."""

bearer = HTTPBearer(auto_error=False, description="An API key, as `isoloss key create` prints it.")


@dataclass(frozen=True)
class Access:
    """A request that may go on: its transaction, its key, and the project that its path names.

    `only_project_id` is the one project that the key opens, None where it opens all.
    """

    session: Session
    key_id: uuid.UUID
    secret: str
    only_project_id: int | None
    named_project_id: int | None

    @property
    def project_id(self) -> int:
        """The project that the path names."""
        assert self.named_project_id is not None
        return self.named_project_id


Dependency = Callable[..., Iterator[Access]]


def _requiring(scope: Scope, unlimited: bool = False) -> Dependency:
    """A dependency that opens the request's transaction for keys of this scope and commits it at the end.

    `unlimited` refuses keys of a single project.
    """

    def authorise(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> Iterator[Access]:
        # Commits where the route returns, rolls back where it raises, before the answer is sent.
        with _opened(request, credentials, scope, unlimited) as access:
            yield access

    return authorise


@dataclass(frozen=True)
class Door:
    """A request that may yet go on: for routes that open the transaction themselves, in their own thread."""

    request: Request
    credentials: HTTPAuthorizationCredentials | None

    def open(self, scope: Scope) -> AbstractContextManager[Access]:
        """The request's transaction, for keys of this scope; it ends with the block."""
        return _opened(self.request, self.credentials, scope, unlimited=False)


async def _door(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Door:
    return Door(request, credentials)


async def refuse_strangers(request: Request) -> None:
    """Raises Unauthorized for a request without a known key, before its body is read.

    The request's own transaction asks again: a key that was good a moment ago opens nothing by itself.
    """
    credentials = await bearer(request)
    if credentials is None:
        raise Unauthorized(reason="This needs a key")
    seen: dict[bytes, float] = request.app.state.keys_seen
    fingerprint = hashlib.sha256(credentials.credentials.encode()).digest()
    if time.monotonic() - seen.get(fingerprint, -math.inf) < SEEN_FOR_S:
        return
    await run_in_threadpool(_recognise, request.app.state.sessions, credentials.credentials)
    if len(seen) >= MAX_SEEN:
        seen.clear()
    seen[fingerprint] = time.monotonic()


def _recognise(sessions: sessionmaker[Session], secret: str) -> None:
    with sessions() as session:
        if keys.find(session, secret) is None:
            raise Unauthorized(reason="The key is not known")


@contextmanager
def _opened(
    request: Request, credentials: HTTPAuthorizationCredentials | None, scope: Scope, unlimited: bool
) -> Iterator[Access]:
    sessions: sessionmaker[Session] = request.app.state.sessions
    with sessions.begin() as session:
        yield _access(session, credentials, request.path_params.get("project"), scope, unlimited)


def _access(
    session: Session,
    credentials: HTTPAuthorizationCredentials | None,
    project: str | None,
    scope: Scope,
    unlimited: bool,
) -> Access:
    if credentials is None:
        raise Unauthorized(reason="This needs a key")
    # No name holds a NUL, and PostgreSQL would not take it to look one up.
    named = None if project is None or "\0" in project else project
    caller = keys.find(session, credentials.credentials, named)
    if caller is None:
        raise Unauthorized(reason="The key is not known")
    if IMPLIED[scope].isdisjoint(caller.scopes):
        raise Forbidden(
            reason=f"This needs a key with the scope {scope}; yours has {', '.join(caller.scopes)}."
        )
    if unlimited and caller.only_project_id is not None:
        raise Forbidden(reason="This needs a key that is not limited to one project.")
    others = caller.only_project_id not in (None, caller.project_id)
    if project is not None and (caller.project_id is None or others):
        # The same answer for both, so that a key tells nothing of other projects.
        raise NotFound(kind="project", name=project)
    return Access(session, caller.key_id, credentials.credentials, caller.only_project_id, caller.project_id)


Unopened = Annotated[Door, Depends(_door)]
Reading = Annotated[Access, Depends(_requiring("read"), scope="function")]
Writing = Annotated[Access, Depends(_requiring("write"), scope="function")]
WritingAnywhere = Annotated[Access, Depends(_requiring("write", unlimited=True), scope="function")]
Administering = Annotated[Access, Depends(_requiring("admin", unlimited=True), scope="function")]

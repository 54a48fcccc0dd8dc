"""Request bodies: bounded before they are read, and read as strict JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import refuse_strangers
from app.problems import problem

MAX_DEPTH = 20
"""How deep a body may nest; what is stored is nested a little deeper again in answers, which end at 255."""
_CONTAINERS = {list, dict}


class BodyLimit:
    """Answers 413 to a body above `max_bytes`: by its declared length, else as soon as it has come so far."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.detail = f"The body is longer than {max_bytes} bytes; send it in parts."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _declared_length(scope) > self.max_bytes:
            await problem(413, self.detail, headers={"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self.detail, headers={"Connection": "close"})
            return message

        return receive_within_limit


class StrictRequest(Request):
    """A request whose body is read as JSON whatever its content type says, and without bare NaN."""

    async def json(self) -> Any:
        return parsed(await self.body())


class StrictRoute(APIRoute):
    """A route that reads its body strictly, and only of those who have a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if request.method not in ("GET", "HEAD"):
                await refuse_strangers(request)
            return await handle(StrictRequest(_as_json(request.scope), request.receive))

        return handle_strictly


def parsed(body: bytes) -> Any:
    """The document of a body. Raises `json.JSONDecodeError`, and HTTPException for what cannot be stored."""
    document = orjson.loads(body)
    if b"\\u0000" in body and _holds_nul(document):
        # FastAPI lets no other exception through from here.
        raise HTTPException(422, "body: a string holds a NUL character, which no database text can")
    # Counting what opens costs nothing, and settles it for almost every body.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(document, MAX_DEPTH):
        raise HTTPException(422, f"body: lists and objects are nested more than {MAX_DEPTH} deep")
    return document


async def raw_body(request: Request) -> bytes:
    """The body as it came, as a dependency."""
    return await request.body()


def _as_json(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _is_deeper(document: Any, depth: int) -> bool:
    level = [document]
    for _ in range(depth):
        level = [entry for one in level for entry in _containers(one)]
        if not level:
            return False
    return True


def _containers(value: Any) -> list[Any]:
    entries = list(value.values()) if isinstance(value, dict) else value
    if _CONTAINERS.isdisjoint(map(type, entries)):  # a column of a thousand numbers
        return []
    return [entry for entry in entries if type(entry) in _CONTAINERS]


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(entry) for key, entry in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))

"""`Idempotency-Key`: the same creating request twice is done once and answered twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from app.auth import Access
from app.bodies import raw_body
from store import idempotency


@dataclass(frozen=True)
class Once:
    """A creating request, with the key under which its answer is kept, if it has one."""

    key: str | None
    request_hash: bytes

    def answer(self, access: Access, status: int, create: Callable[[], BaseModel]) -> Response:
        """What `create` makes, as a response; the same bytes again where the key was used for this before."""
        if self.key is None:
            return _response(status, create().model_dump_json().encode())
        owner = str(access.key_id)
        before = idempotency.claim(access.session, owner, self.key, self.request_hash)
        if before is not None:
            body = _sealed(before.body, access.secret, self.key)
            return _response(before.status, body, {"Idempotency-Replayed": "true"})
        body = create().model_dump_json().encode()
        kept = idempotency.Answer(status, _sealed(body, access.secret, self.key))
        idempotency.record(access.session, owner, self.key, kept)
        return _response(status, body)


def creating_once(
    request: Request,
    body: Annotated[bytes, Depends(raw_body)],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="Any text of your own, new for each thing to create. A request that repeats it gets "
            "the first answer again and creates nothing.",
            examples=["6f1c2f0e-5d0a-4a53-9a53-0d3e5f0c8c55"],
        ),
    ] = None,
) -> Once:
    """The request's idempotency, as a dependency."""
    said = b"\0".join((request.method.encode(), request.url.path.encode(), body))
    return Once(idempotency_key, hashlib.sha256(said).digest())


Idempotent = Annotated[Once, Depends(creating_once)]


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")


def _sealed(body: bytes, secret: str, key: str) -> bytes:
    """Seal an answer, or open it again, with the caller's own secret: a new API key must not lie readable.

    The stream of SHAKE-256 is used once for each pair of secret and key.
    """
    stream = hashlib.shake_256(f"{secret}\0{key}".encode()).digest(len(body))
    return bytes(one ^ other for one, other in zip(body, stream, strict=True))

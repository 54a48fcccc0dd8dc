"""Access keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast
from urllib.parse import quote

from isoloss.client.documents import Key
from isoloss.client.transport import Transport

Scope = Literal["read", "write", "admin"]


class Keys:
    """Access keys, as in `client.keys.create("ci", ["read"])`; the client's own key needs the scope admin."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, scopes: Sequence[Scope], *, project: str | None = None) -> Key:
        """Make a key; the answer's `key` is shown this once and cannot be read again.

        With `project` the key opens that project alone.
        """
        body = {"name": name, "scopes": list(scopes)}
        if project is not None:
            body["project"] = project
        return cast(Key, self._transport.post("/v1/keys", body, creates=True))

    def list(self) -> Iterator[Key]:
        """All keys, without their secrets."""
        return self._transport.items("/v1/keys")

    def delete(self, key_id: str) -> None:
        """Revoke a key at once."""
        self._transport.delete(f"/v1/keys/{quote(key_id, safe='')}")

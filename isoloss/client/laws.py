"""The laws that the service can fit."""

from __future__ import annotations

from typing import cast

from isoloss.client import wire
from isoloss.client.documents import Law
from isoloss.client.transport import Transport
from isoloss.errors import NotFound


class Laws:
    """The laws that can be fitted: `client.laws.get("lr_annealing")["formula"]`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Law]:
        """Every law with its formula, parameters, the fields that a run must have, and its reference."""
        document = self._transport.get("/v1/laws")
        items = document["items"] if isinstance(document, dict) else document
        return [cast(Law, wire.numbers(item)) for item in items]

    def get(self, name: str) -> Law:
        """One law by its name; raises NotFound."""
        for law in self.list():
            if law["name"] == name:
                return law
        raise NotFound(kind="law", name=name)

"""Webhooks: addresses that a project's events are sent to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from isoloss.client.documents import Delivery, Webhook
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport

Event = Literal["left_band", "diverged", "silent", "resumed", "finished", "failed", "preempted"]


class Webhooks:
    """Webhooks of a project: `client.webhooks.create("pilot", url, ["diverged", "silent"])`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, project: str, url: str, events: Sequence[Event], *, secret: str | None = None
    ) -> Webhook:
        """Have events sent to an address; the answer's `secret` is shown this once.

        `isoloss.signatures.is_signed` tells whether what comes was signed with it.
        """
        body: dict[str, Any] = {"url": url, "events": list(events)}
        if secret is not None:
            body["secret"] = secret
        return cast(Webhook, self._transport.post(project_path(project, "webhooks"), body, creates=True))

    def list(self, project: str) -> Iterator[Webhook]:
        """The project's webhooks, each with its last deliveries; the key must be one that may write."""
        return self._transport.items(project_path(project, "webhooks"))

    def get(self, project: str, webhook_id: str) -> Webhook:
        """One webhook with its last deliveries; raises NotFound."""
        return cast(Webhook, self._transport.get(project_path(project, "webhooks", webhook_id)))

    def delete(self, project: str, webhook_id: str) -> None:
        """Send nothing to it any more."""
        self._transport.delete(project_path(project, "webhooks", webhook_id))

    def test(self, project: str, webhook_id: str) -> Delivery:
        """Send it an event `test`; its deliveries tell what came of it."""
        return cast(Delivery, self._transport.post(project_path(project, "webhooks", webhook_id, "test")))

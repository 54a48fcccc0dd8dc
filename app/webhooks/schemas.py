"""Webhooks as the API shows them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from app.schemas import Document, Time
from store.tables import Delivery, Webhook

Event = Literal["left_band", "diverged", "silent", "resumed", "finished", "failed", "preempted"]
URL = Annotated[str, Field(min_length=1, max_length=2000, examples=["https://example.org/isoloss"])]


class NewWebhook(Document):
    """A webhook to create."""

    url: URL = Field(description="Where to POST; http or https, without a password in it.")
    events: Annotated[list[Event], Field(min_length=1, max_length=20)] = Field(
        description="What to tell: `left_band`, `diverged`, `silent`, `resumed`, and how runs end: `finished`, "
        "`failed`, `preempted`.",
        examples=[["left_band", "diverged", "silent"]],
    )
    secret: Annotated[str, Field(min_length=16, max_length=200, pattern=r"^[\x21-\x7e]+$")] | None = Field(
        None, description="What deliveries are signed with; null: a new random one."
    )


class DeliveryDocument(Document):
    """One event that was sent, or is to be sent, to a webhook."""

    id: uuid.UUID = Field(description="The delivery: `Isoloss-Delivery`, the same at each attempt.")
    event: str = Field(description="What it tells.", examples=["diverged"])
    status: Literal["queued", "succeeded", "failed"] = Field(description="How it stands.")
    attempts: int = Field(description="How often it was tried: six times at most, in about 75 minutes.")
    answered: int | None = Field(description="The status that the last attempt got.", examples=[204])
    error: str | None = Field(description="Why the last attempt failed.", examples=["it answered 500"])
    created_at: Time = Field(description="When it happened.")
    finished_at: Time | None = Field(description="When it arrived, or was given up.")


class WebhookDocument(Document):
    """A webhook, without its secret."""

    id: uuid.UUID = Field(description="The webhook, for `DELETE`.")
    url: str = Field(description="Where it POSTs.", examples=["https://example.org/isoloss"])
    events: Sequence[str] = Field(description="What it tells.", examples=[["diverged", "silent"]])
    created_at: Time = Field(description="When it was created.")
    deliveries: Sequence[DeliveryDocument] = Field(description="The last ten deliveries, the newest first.")

    @classmethod
    def of(cls, hook: Webhook, deliveries: Sequence[Delivery]) -> WebhookDocument:
        """The webhook as the API shows it."""
        sent = [DeliveryDocument.model_validate(one) for one in deliveries]
        return cls(id=hook.id, url=hook.url, events=hook.events, created_at=hook.created_at, deliveries=sent)


class CreatedWebhookDocument(Document):
    """A new webhook with its secret."""

    id: uuid.UUID = Field(description="The webhook, for `DELETE`.")
    url: str = Field(description="Where it POSTs.", examples=["https://example.org/isoloss"])
    events: Sequence[str] = Field(description="What it tells.", examples=[["diverged", "silent"]])
    secret: str = Field(
        description="What its deliveries are signed with. It is shown this once.", examples=["whsec_..."]
    )

"""Jobs as the API shows them."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import Field

from app.schemas import Document, Time

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobDocument(Document):
    """Work that was asked for."""

    id: uuid.UUID = Field(description="The job.")
    kind: str = Field(description="What it does.", examples=["fit"])
    status: JobStatus = Field(description="How it stands.")
    progress: float = Field(description="How far it is, from 0 to 1.", examples=[0.4])
    message: str | None = Field(
        description="What it is doing; why it failed.", examples=["resample 80 of 200"]
    )
    attempts: int = Field(description="How often it was started: again after its worker died.", examples=[1])
    created_at: Time = Field(description="When it was asked for.")
    started_at: Time | None = Field(description="When it was last started.")
    finished_at: Time | None = Field(description="When it ended.")
    result: dict[str, Any] | None = Field(
        description="What came of it, where that is no document of its own."
    )

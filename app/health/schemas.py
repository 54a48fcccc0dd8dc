"""Health as the API shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.schemas import Document


class HealthDocument(Document):
    """The service answers."""

    status: Literal["ok"] = Field("ok", description="Always `ok`: no answer is the other state.")
    version: str = Field(description="Version of the code.", examples=["0.1.0"])


class ReadinessDocument(Document):
    """The service can do its work."""

    status: Literal["ready"] = Field("ready", description="Always `ready`: 503 is the other state.")
    database: str = Field(description="Revision of the database's schema.", examples=["0002"])

"""API keys as the API shows them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from app.schemas import Document, Label, Name, Time

Scope = Literal["read", "write", "admin"]


class NewKey(Document):
    """A key to create."""

    name: Label = Field(description="What the key is for.", examples=["training cluster"])
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = Field(
        description="`read` sees, `write` also changes, `admin` also manages keys.", examples=[["write"]]
    )
    project: Name | None = Field(None, description="The only project that the key opens; null: all.")


class CreatedKeyDocument(Document):
    """A new key with its secret."""

    id: uuid.UUID = Field(description="The key, for `DELETE`.")
    key: str = Field(
        description="The secret. It is shown this once and kept only as a hash.", examples=["isl_..."]
    )
    name: str = Field(description="What the key is for.", examples=["training cluster"])
    scopes: Sequence[Scope] = Field(description="What it may do.", examples=[["write"]])
    project: str | None = Field(description="The only project that it opens; null: all.", examples=["pilot"])


class KeyDocument(Document):
    """A key, without its secret."""

    id: uuid.UUID = Field(description="The key, for `DELETE`.")
    name: str = Field(description="What the key is for.", examples=["training cluster"])
    scopes: Sequence[Scope] = Field(description="What it may do.", examples=[["write"]])
    project: str | None = Field(description="The only project that it opens; null: all.", examples=["pilot"])
    created_at: Time = Field(description="When it was created.")

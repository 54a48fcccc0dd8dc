"""Laws as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from app.schemas import Document


class LawParameterDocument(Document):
    """One parameter of a law."""

    name: str = Field(description="The paper's name, in ASCII.", examples=["alpha"])
    symbol: str = Field(description="The paper's symbol.", examples=["α"])
    unit: str = Field(description="Its unit; empty for a pure number.", examples=[""])
    lower: float | None = Field(
        description="The lowest value that a fit considers; null: none.", examples=[0.05]
    )
    upper: float | None = Field(
        description="The highest value that a fit considers; null: none.", examples=[2.0]
    )
    meaning: str = Field(description="What it says.", examples=["how fast the loss falls with the LR area"])


class LawDocument(Document):
    """A law that can be fitted."""

    name: str = Field(description="What a fit calls it.", examples=["lr_annealing"])
    title: str = Field(description="What people call it.", examples=["Learning-rate annealing law"])
    formula: str = Field(description="The formula.", examples=["L(s) = L0 + A * S1(s)^-alpha - C * S2(s)"])
    quantity: str = Field(description="What it predicts.", examples=["loss"])
    unit: str = Field(description="The unit of that.", examples=["nats per token"])
    requires: Sequence[str] = Field(description="What a run must have.", examples=[["loss", "schedule"]])
    reference: str = Field(
        description="Where it was published.", examples=["Tissue et al. 2024, arXiv 2408.11029"]
    )
    conventions: Mapping[str, str] = Field(
        description="The readings of the law that `options.convention` chooses from, with their meaning; the first "
        "is the usual one.",
        examples=[{}],
    )
    parameters: Sequence[LawParameterDocument] = Field(description="Its parameters.")


class LawsDocument(Document):
    """All laws."""

    items: Sequence[LawDocument] = Field(description="The laws, in the order of the documentation.")

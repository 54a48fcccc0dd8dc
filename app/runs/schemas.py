"""Runs as the API reads and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from app.schemas import Count, Document, Label, Name, NotNegative, Number, Positive, Step, Text, Time
from isoloss.observations.curves import HIGHEST_WEIGHT_DECAY
from store.runs import Specification
from store.tables import Run

RunStatus = Literal["running", "finished", "failed", "preempted", "diverged"]

CONFIG_EXAMPLE: dict[str, JsonValue] = {
    "n_params": 124_000_000,
    "n_params_kind": "non_embedding",
    "n_tokens": 2_500_000_000,
    "batch_tokens": 524_288,
    "optimizer": "adamw",
    "peak_lr": 6e-4,
    "weight_decay": 0.1,
    "weight_decay_kind": "lr_scaled",
    "seed": 1,
}
SCHEDULE_EXAMPLE = {
    "kind": "wsd",
    "total_steps": 5000,
    "warmup_steps": 250,
    "decay_start": 4000,
    "peak_lr": 6e-4,
}


class Free(Document):
    """An object that takes further fields of the user's own."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _names_are_short(self) -> Free:
        if any(len(name) > 200 for name in self.__pydantic_extra__ or {}):
            raise ValueError("the name of a field has at most 200 characters")
        return self


class Config(Free):
    """What the run was made of. Every field is optional; a law that needs a missing one says which."""

    model_config = ConfigDict(json_schema_extra={"examples": [CONFIG_EXAMPLE]})

    n_params: Count | None = Field(None, description="Number of parameters, of the kind `n_params_kind`.")
    n_params_kind: Literal["total", "non_embedding", "active"] | None = Field(
        None, description="Which parameters `n_params` counts."
    )
    n_params_total: Count | None = Field(None, description="Number of all parameters.")
    n_params_non_embedding: Count | None = Field(None, description="Number without the embeddings.")
    n_params_active: Count | None = Field(
        None, description="Number that one token uses (mixture of experts)."
    )
    n_tokens: Count | None = Field(None, description="Tokens that the run trains on.")
    batch_tokens: Count | None = Field(None, description="Tokens in one optimiser step.")
    sequence_length: Count | None = Field(None, description="Tokens in one sequence.")
    optimizer: Label | None = Field(None, description="The optimiser's name.")
    peak_lr: Positive | None = Field(None, description="Highest learning rate that hidden matrices see.")
    weight_decay: NotNegative | None = Field(
        None, le=HIGHEST_WEIGHT_DECAY, description="Weight decay, of the kind `weight_decay_kind`."
    )
    weight_decay_kind: Literal["lr_scaled", "independent", "l2"] | None = Field(
        None,
        description="`lr_scaled`: w *= 1 - lr * decay (AdamW); `independent`: without lr; `l2`: in the gradient.",
    )
    weight_decay_schedule: Literal["lr", "constant"] | None = Field(
        None,
        description="Of an independent decay: `lr`, it goes with the schedule of the learning rate (so also where "
        "nothing is said), or `constant`.",
    )
    mean_lr_share: Positive | None = Field(
        None,
        le=1,
        description="The mean learning rate as a share of the peak, of a run whose `schedule` is not stated.",
    )
    width: Count | None = Field(None, description="Width of the model.")
    depth: Count | None = Field(None, description="Number of layers.")
    parametrization: Literal["standard", "mup"] | None = Field(
        None, description="How width enters the rates."
    )
    dataset: Label | None = Field(None, description="What the run trains on.")
    tokenizer: Label | None = Field(None, description="What splits its text.")
    seed: int | None = Field(None, description="Seed of the run.")


class Summary(Free):
    """What came of the run, where it is not in its points."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"final_loss": 2.913}]})

    final_loss: Number | None = Field(None, description="Loss at the end, nats per token.")
    final_val_loss: Number | None = Field(None, description="Validation loss at the end, nats per token.")
    steps_to_target: Count | None = Field(None, description="Optimiser steps until `target_loss`.")
    target_loss: Positive | None = Field(
        None, description="Loss that `steps_to_target` is about, nats per token."
    )
    reward: Number | None = Field(None, description="Reward at the end.")


class Parent(Document):
    """Where the run branches off another."""

    run_id: Name = Field(description="The run that this one continues.")
    branch_step: Step = Field(description="Last step that the two have in common.", examples=[4000])


class RunIn(Document):
    """A run's specification; what is left out is empty, except `status`, which stays what it was."""

    name: Label = Field(description="What people call the run.", examples=["WSD, 124M, seed 1"])
    status: RunStatus | None = Field(
        None,
        description="`running` for a new run, `finished` once its summary has a final outcome. A point that is not "
        "finite makes it `diverged`.",
    )
    recipe: Label | None = Field(None, description="What the run is an instance of.", examples=["adamw-wsd"])
    tags: Annotated[list[Label], Field(max_length=100)] = Field(
        default_factory=list, description="Any labels to choose runs by.", examples=[["pilot"]]
    )
    notes: Text | None = Field(None, description="Any text.", examples=["restarted once at step 1200"])
    parent: Parent | None = Field(None, description="Where the run branches off another; null: nowhere.")
    config: Config = Field(default_factory=Config, description="What the run was made of.")
    schedule: dict[str, Any] | None = Field(
        None,
        description="Learning rate at steps 1 to `total_steps`: `kind` is constant, linear, cosine, wsd, "
        "two_stage, piecewise_linear or values. "
        "It has `total_steps`, `peak_lr`, `warmup_steps`, `warmup_start_lr`, `end_lr`; "
        "wsd `decay_start` and `decay_shape` (linear, exponential, sqrt, cosine); two_stage `second_lr` and "
        "`switch_step`; piecewise_linear `knots` [[step, lr], ...]; values `lr` [...] from step 1.",
        examples=[SCHEDULE_EXAMPLE],
    )
    summary: Summary = Field(default_factory=Summary, description="What came of the run.")

    def specification(self) -> Specification:
        """The same, as the store takes it; numbers stay as they were sent."""
        parent = None if self.parent is None else (self.parent.run_id, self.parent.branch_step)
        return Specification(
            name=self.name,
            status=self.status,
            recipe=self.recipe,
            tags=self.tags,
            notes=self.notes,
            parent=parent,
            config=_sent(self.config),
            schedule=self.schedule,
            summary=_sent(self.summary),
        )


class RunDocument(Document):
    """A run: its specification, and where its points stand."""

    run_id: Name = Field(description="The run's name, chosen by the client.", examples=["wsd-124m-1"])
    name: Label = Field(description="What people call the run.", examples=["WSD, 124M, seed 1"])
    status: RunStatus = Field(description="How the run stands.")
    recipe: str | None = Field(description="What the run is an instance of.", examples=["adamw-wsd"])
    tags: list[str] = Field(description="Its labels.", examples=[["pilot"]])
    notes: str | None = Field(description="Any text.", examples=[None])
    parent: Parent | None = Field(description="Where the run branches off another; null: nowhere.")
    config: dict[str, Any] = Field(description="What the run was made of.", examples=[CONFIG_EXAMPLE])
    schedule: dict[str, Any] | None = Field(
        description="Its learning-rate schedule, as declared.", examples=[SCHEDULE_EXAMPLE]
    )
    summary: dict[str, Any] = Field(description="What came of the run.", examples=[{"final_loss": 2.913}])
    last_step: int | None = Field(
        description="Last step of the run's own points; null where it has none.", examples=[5000]
    )
    created_at: Time = Field(description="When it was first declared.")
    updated_at: Time = Field(description="When it last changed, its points included.")

    @classmethod
    def of(cls, run: Run, parent_name: str | None) -> RunDocument:
        """The run as the API shows it."""
        parent = None
        if parent_name is not None and run.branch_step is not None:
            parent = Parent(run_id=parent_name, branch_step=run.branch_step)
        shown = {name: getattr(run, name) for name in cls.model_fields if name != "parent"}
        return cls(**shown, parent=parent)


def _sent(document: Free) -> Mapping[str, Any]:
    return document.model_dump(exclude_unset=True)

"""Sweeps and their trials as the API reads and shows them."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, field_validator
from pydantic.json_schema import WithJsonSchema

from app.schemas import Document, Label, Name, Number, Positive, Step, Time
from isoloss.proxies.halving import ETA, Rungs
from isoloss.proxies.spaces import MOST_TRIALS

SweepStatus = Literal["running", "paused", "finished", "cancelled"]
TrialStatus = Literal[
    "queued",
    "running",
    "held",
    "paused",
    "finished",
    "diverged",
    "pruned",
    "unfinished",
    "cancelled",
    "failed",
]
Strategy = Literal["grid", "random", "halving"]

LONGEST_NAME = 90
"""The names of runs are it with a number behind."""

DATA_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
SPACE_EXAMPLE: dict[str, JsonValue] = {
    "width": [64, 128],
    "depth": 2,
    "peak_lr": {"low": 5e-4, "high": 1.6e-2, "scale": "log", "count": 6},
    "batch_tokens": 4096,
    "tokens_per_param": 20,
    "schedule": {"kind": "linear", "warmup_steps": 0.05},
}
EXAMPLE: dict[str, JsonValue] = {
    "name": "lr-64-128",
    "strategy": "grid",
    "space": SPACE_EXAMPLE,
    "budget": {"device_hours": 2},
}


def _moment(value: Any) -> Any:
    """A text as RFC 3339 has it, with its offset; numbers are no times."""
    if not isinstance(value, str):
        raise ValueError("must be a time as RFC 3339 writes it, such as 2026-03-01T12:00:00Z")
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time as RFC 3339 writes it, such as 2026-03-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("needs its offset from UTC: Z, or as in +02:00")
    if moment <= dt.datetime.now(dt.UTC):
        raise ValueError("has passed already")
    return moment


Deadline = Annotated[
    dt.datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-03-01T12:00:00Z"]}),
]


class Budget(Document):
    """What a sweep may take. Where it is spent the sweep ends, and what was not done is told."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"trials": 24, "device_hours": 2}]})

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        None, description="The most trials; of a random sweep, how many.", examples=[24]
    )
    device_hours: Positive | None = Field(
        None, description="Hours that its trials may be trained, all devices together.", examples=[2]
    )
    deadline: Deadline | None = Field(None, description="When it ends at the latest.")


class Halving(Document):
    """How a `halving` sweep prunes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"eta": 3, "rungs": [0.111, 0.333]}]})

    eta: int = Field(ETA, description="At each rung one trial of so many is kept, at least.", examples=[ETA])
    rungs: list[float | int] | None = Field(
        None,
        description="Shares of a trial's steps at which it is judged; left out, powers of 1/eta from a tenth on.",
        examples=[[0.111, 0.333]],
    )

    def asked(self) -> dict[str, Any]:
        """The same with all that was left out. Raises InvalidInput."""
        rungs = Rungs.of(self.eta, self.rungs)
        return {"eta": rungs.eta, "rungs": list(rungs.shares)}


class NewSweep(Document):
    """Small models to be trained over a space of settings."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: Annotated[Name, Field(max_length=LONGEST_NAME)] = Field(
        description="A name of your own, new in the project; the runs of its trials are called NAME-000 and so on.",
        examples=["lr-64-128"],
    )
    strategy: Strategy = Field(
        description="`grid`: every combination; `random`: so many points as `budget.trials` says; `halving`: "
        "either, and trials that will surely not end among the best are pruned by the forecast of their end.",
        examples=["grid"],
    )
    space: dict[str, JsonValue] = Field(
        description="By name of a setting: a list of values, a range, or one value for all. A range is "
        '`{"low", "high", "scale": "log" | "linear", "count"}`; in a grid it needs its count. Settings: width, '
        "depth, peak_lr, batch_tokens and n_tokens (or tokens_per_param) are needed; weight_decay, schedule, "
        "optimizer, parametrization, seed and all others of a proxy may be given.",
        examples=[SPACE_EXAMPLE],
    )
    data: str = Field(
        "python-stdlib",
        max_length=200,
        description="What is trained on: `python-stdlib`, or a name below the workers' ISOLOSS_PROXY_DATA.",
        examples=["python-stdlib"],
    )
    measure: list[str] = Field(
        default_factory=list,
        description="What is measured beside the loss, by name.",
        examples=[["grad_noise_scale"]],
    )
    budget: Budget = Field(
        default_factory=Budget, description="What it may take; without one, all that it needs."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="What trains: `auto` is cuda where a worker with one is there now, else cpu."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        0, description="Seed of what is drawn of the space; the seeds of trainings are a setting."
    )
    halving: Halving | None = Field(None, description="How a `halving` sweep prunes.")
    tags: Annotated[list[Label], Field(max_length=20)] = Field(
        default_factory=list,
        description="Labels of its runs, beside `sweep:NAME`.",
        examples=[["pilot"]],
    )

    @field_validator("name")
    @classmethod
    def _is_no_id(cls, name: str) -> str:
        try:
            uuid.UUID(name)
        except ValueError:
            return name
        raise ValueError("looks like an id, of which there are others")

    @field_validator("data")
    @classmethod
    def _is_below(cls, name: str) -> str:
        if DATA_NAME.fullmatch(name) is None:
            raise ValueError(
                "must be python-stdlib, or the name of a file or folder below ISOLOSS_PROXY_DATA"
            )
        return name


class QueuedSweepDocument(Document):
    """A sweep whose trials are on the queue."""

    id: uuid.UUID = Field(description="The sweep.")
    name: str = Field(description="Its name.", examples=["lr-64-128"])
    status: SweepStatus = Field(description="How it stands.", examples=["running"])
    trials: int = Field(description="How many trials it has.", examples=[12])
    device: str = Field(description="What trains them.", examples=["cpu"])


class ExpectedLossDocument(Document):
    """The final loss that is expected of a trial."""

    value: Number = Field(description="The final loss, in nats.", examples=[2.913])
    lower: Number | None = Field(description="Lower end of its interval.", examples=[2.897])
    upper: Number | None = Field(description="Upper end of its interval.", examples=[2.933])
    step: Step = Field(description="The last step that it has seen.", examples=[400])


class TrialDocument(Document):
    """A model of a sweep, and where its training stands."""

    number: int = Field(description="Its place in the sweep.", examples=[7])
    run_id: str = Field(description="Its run, there once it has begun.", examples=["lr-64-128-007"])
    status: TrialStatus = Field(
        description="`queued`, `running`; `held`: it waits at a rung; `paused`; and the ends: `finished`, "
        "`diverged`, `pruned`, `unfinished` (the budget was spent), `cancelled`, `failed`."
    )
    point: dict[str, Any] = Field(description="Its settings along the axes.", examples=[{"peak_lr": 0.004}])
    pilot: bool = Field(description="Whether it passes all rungs, so that others can be judged by it.")
    step: Step = Field(description="The steps that it has done.", examples=[400])
    total_steps: Step = Field(description="The steps of all of it.", examples=[1200])
    stop_at: Step = Field(description="Where it stops next: at a rung, or at its end.", examples=[1200])
    forecast: ExpectedLossDocument | None = Field(description="Its final loss as it is expected.")
    final_loss: Number | None = Field(
        description="The mean loss of its last hundredth, once it has finished.", examples=[2.915]
    )
    final_val_loss: Number | None = Field(description="Its last validation loss.", examples=[2.951])
    device: str | None = Field(description="What it was last trained on.", examples=["cpu"])
    worker: str | None = Field(
        description="Who trains it now: machine and process.", examples=["host-3:4711"]
    )
    attempts: int = Field(description="How many times it was begun or taken up.", examples=[1])
    repeated_steps: int = Field(
        description="Steps that were trained again, to the same numbers, after a worker died.", examples=[0]
    )
    device_seconds: float = Field(description="The time that it was trained.", examples=[41.5])
    notes: Sequence[str] = Field(description="What was changed on the way.", examples=[[]])
    message: str | None = Field(
        description="Why it stands as it does: why it was pruned, paused or has failed.", examples=[None]
    )
    started_at: Time | None = Field(description="When it first began.")
    finished_at: Time | None = Field(description="When it ended.")


class WorkDocument(Document):
    """Training, counted."""

    trials: int = Field(description="Trials.", examples=[24])
    steps: int = Field(description="Their optimiser steps.", examples=[28800])
    tokens: int = Field(description="The tokens of these.", examples=[117964800])
    device_seconds: float | None = Field(
        description="Their time on a device; where they were not trained, as the trial's own pace tells.",
        examples=[1031.2],
    )


class DoneDocument(WorkDocument):
    """What was trained."""

    repeated_steps: int = Field(
        description="Steps that were trained again after a worker died.", examples=[0]
    )


class SweepDocument(Document):
    """A sweep as lists show it."""

    id: uuid.UUID = Field(description="The sweep.")
    name: str = Field(description="Its name.", examples=["lr-64-128"])
    status: SweepStatus = Field(description="How it stands.")
    reason: str | None = Field(description="Why it stands so, where that needs saying.", examples=[None])
    hint: str | None = Field(
        description="What keeps it from going on: where nobody trains on its device, how to start who does.",
        examples=[None],
    )
    strategy: Strategy = Field(description="How its points were chosen.")
    device: str = Field(description="What trains it.", examples=["cpu"])
    space: dict[str, Any] = Field(description="The space, as it was asked for.", examples=[SPACE_EXAMPLE])
    data: str = Field(description="What is trained on.", examples=["python-stdlib"])
    measure: Sequence[str] = Field(description="What is measured beside the loss.", examples=[[]])
    budget: dict[str, Any] = Field(description="What it may take.", examples=[{"device_hours": 2}])
    seed: int = Field(description="Seed of what was drawn.", examples=[0])
    halving: dict[str, Any] | None = Field(
        description="How a `halving` sweep prunes.", examples=[{"eta": 3, "rungs": [0.111, 0.333]}]
    )
    counts: dict[str, int] = Field(
        description="How many trials stand how.", examples=[{"finished": 20, "running": 4}]
    )
    planned: WorkDocument = Field(description="All trials to their ends.")
    done: DoneDocument = Field(description="What was trained so far.")
    saved: WorkDocument = Field(description="What pruning has spared.")
    left_undone: WorkDocument = Field(
        description="What an end before its time, a failure or a divergence has left undone."
    )
    created_at: Time = Field(description="When it was asked for.")
    updated_at: Time = Field(description="When it last changed.")
    finished_at: Time | None = Field(description="When it ended.")


class SweepWithTrialsDocument(SweepDocument):
    """A sweep with all its trials."""

    trials: Sequence[TrialDocument] = Field(description="Its trials, in their order.")


def point_of(space: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings along the axes of a space, of which a fixed one is none."""
    varied = {name for name, value in space.items() if isinstance(value, list) or _is_range(value)}
    names = {"n_tokens" if name == "tokens_per_param" else name for name in varied}
    return {name: value for name, value in config.items() if name in names}


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and bool({"low", "high"} & value.keys())

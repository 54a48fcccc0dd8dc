"""Fits and predictions as the API reads and shows them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from app.jobs.schemas import JobStatus
from app.schemas import Document, Label, Name, Step, Time
from store.tables import Fit

PARAMETER_EXAMPLE = {
    "name": "alpha",
    "symbol": "α",
    "unit": "",
    "value": 0.47,
    "std_error": 0.01,
    "interval": [0.45, 0.49],
    "at_bound": False,
}


class Select(Document):
    """The runs to fit: exactly one of these."""

    run_ids: Annotated[list[Name], Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="The runs of these names.", examples=[["cosine-1", "constant-1"]]
    )
    tags: Annotated[list[Label], Field(min_length=1, max_length=100)] | None = Field(
        None, description="The runs that have all of these tags.", examples=[["pilot"]]
    )
    recipe: Label | None = Field(None, description="The runs of this recipe.", examples=["adamw-wsd"])
    where: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        None, description="The runs that a list with this `where` holds.", examples=["config.n_params < 1e9"]
    )
    all: Literal[True] | None = Field(None, description="All runs of the project.", examples=[True])

    @model_validator(mode="after")
    def _exactly_one(self) -> Select:
        if len(self.chosen()) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}")
        return self

    def chosen(self) -> dict[str, Any]:
        """The one choice, by its name."""
        return self.model_dump(exclude_none=True)


class NewFit(Document):
    """A law to fit to runs."""

    law: Label = Field(description="A name of `GET /v1/laws`.", examples=["lr_annealing"])
    select: Select = Field(description="The runs to fit.", examples=[{"tags": ["pilot"]}])
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="`target` (loss, val_loss, reward), `fix` {parameter: value}, "
        "`bounds` {parameter: [low, high]}, "
        "`expr` {parameter: expression}, `huber_delta`, `skip_steps`, `starts`, `bootstrap` (200), `level` (0.9), "
        "`holdout` {run_ids} or {fraction}, `seed` (0), `n_params_kind`.",
        examples=[{"bootstrap": 500, "holdout": {"run_ids": ["wsd-1"]}}],
    )


class QueuedFitDocument(Document):
    """A fit that was asked for."""

    id: uuid.UUID = Field(description="The fit.")
    job_id: uuid.UUID = Field(description="Its job: progress, and cancelling.")
    law: str = Field(description="The law.", examples=["lr_annealing"])
    status: JobStatus = Field(description="How it stands.", examples=["queued"])


class FitDocument(Document):
    """A fit, and once it has succeeded what it found; null before."""

    id: uuid.UUID = Field(description="The fit.")
    job_id: uuid.UUID = Field(description="Its job: progress, and cancelling.")
    law: str = Field(description="The law.", examples=["lr_annealing"])
    status: JobStatus = Field(description="How it stands; a fit that the data do not determine succeeds.")
    error: str | None = Field(description="Why it failed.", examples=[None])
    select: dict[str, Any] = Field(
        description="The runs that were asked for.", examples=[{"tags": ["pilot"]}]
    )
    options: dict[str, Any] = Field(
        description="The options that were asked for.", examples=[{"bootstrap": 500}]
    )
    created_at: Time = Field(description="When it was asked for.")
    started_at: Time | None = Field(description="When it was last started.")
    finished_at: Time | None = Field(description="When it ended.")
    parameters: list[dict[str, Any]] | None = Field(
        None,
        description="`name, symbol, unit, value, std_error, interval, at_bound`; null for what is not determined.",
        examples=[[PARAMETER_EXAMPLE]],
    )
    objective: Any = Field(None, description="The sum that the fit made smallest.", examples=[0.00031])
    metrics: dict[str, Any] | None = Field(None, description="Errors on the runs that were fitted.")
    holdout: dict[str, Any] | None = Field(None, description="Errors on the runs that were held out.")
    groups: list[dict[str, Any]] | None = Field(None, description="Parameters by group, such as size.")
    derived: list[dict[str, Any]] | None = Field(
        None, description="`name, unit, value, interval` of what follows."
    )
    diagnostics: dict[str, Any] | None = Field(None, description="How well the problem is posed.")
    left_out: list[dict[str, Any]] | None = Field(
        None, description="Runs that were not used, with the reason."
    )
    verdict: Literal["sound", "weak", "unidentified"] | None = Field(None, description="How far to trust it.")
    reasons: list[str] | None = Field(None, description="Why the verdict is what it is.")
    provenance: dict[str, Any] | None = Field(
        None,
        description="Hash of the data, version of the code, options, seed: what it takes to do it again.",
    )

    @classmethod
    def of(cls, fit: Fit) -> FitDocument:
        """The fit as the API shows it."""
        job, found = fit.job, _found(fit)
        return cls(
            id=fit.id,
            job_id=fit.job_id,
            law=fit.law,
            status=cast(JobStatus, job.status),
            error=job.message if job.status == "failed" else None,
            select=fit.select,
            options=fit.options,
            created_at=fit.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            **{name: value for name, value in found.items() if name in cls.model_fields and name != "law"},
        )


class NewPrediction(Document):
    """A run to predict, which need not have been trained."""

    schedule: dict[str, Any] | None = Field(
        None,
        description="Its learning-rate schedule, for the laws of loss curves.",
        examples=[{"kind": "cosine", "total_steps": 20000, "warmup_steps": 500, "peak_lr": 6e-4}],
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="What else the law asks for.", examples=[{"n_params": 124_000_000}]
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=100_000)] | None = Field(
        None,
        description="The steps to predict; some over the whole run where left out.",
        examples=[[10000, 20000]],
    )
    level: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Coverage of the interval; the fit's own where left out.", examples=[0.9]
    )
    interval: Literal["mean", "new_run"] = Field(
        "mean", description="`mean` covers the law's curve, `new_run` what one more run would show."
    )

    def keywords(self) -> dict[str, Any]:
        """What the library's `predict` is to be called with."""
        return {name: value for name, value in dict(self).items() if value is not None}


class PredictionDocument(Document):
    """A prediction, and how far it reaches beyond the data."""

    quantity: str = Field(description="What is predicted.", examples=["loss"])
    unit: str = Field(description="Its unit.", examples=["nats per token"])
    steps: list[int] | None = Field(
        description="The steps; null for a law without steps.", examples=[[10000, 20000]]
    )
    value: list[float] = Field(description="The predictions.", examples=[[3.01, 2.79]])
    lower: list[float] = Field(description="Lower ends of the intervals.", examples=[[3.0, 2.77]])
    upper: list[float] = Field(description="Upper ends of the intervals.", examples=[[3.02, 2.81]])
    level: float = Field(description="Coverage of the intervals.", examples=[0.9])
    interval: Literal["mean", "new_run"] = Field(description="What the intervals cover.")
    extrapolation: dict[str, Any] = Field(description="How far this lies beyond what was fitted.")


def _found(fit: Fit) -> Mapping[str, Any]:
    return fit.result if fit.result is not None and fit.job.status == "succeeded" else {}

"""Recommendations and Pareto fronts as the API reads and shows them."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, JsonValue

from app.fits.schemas import BasicOptions, Select
from app.jobs.schemas import JobStatus
from app.schemas import Document, NonFinite, Positive, Time
from isoloss.advice import PUBLISHED
from store.tables import Advice

LIMITS_EXAMPLE: dict[str, JsonValue] = {
    "devices": 64,
    "tokens_per_second": 2.5e6,
    "deadline_hours": 24,
    "price_per_device_hour": 2.5,
}
BASIS_EXAMPLE = {
    "fit_id": "0199a3c8-5d0a-7a53-9a53-0d3e5f0c8c55",
    "law": "optimal_lr",
    "verdict": "sound",
    "extrapolation_factor": 5.0,
}
QUANTITY_EXAMPLE = {
    "value": 0.00158,
    "unit": "1",
    "interval": [0.00145, 0.00173],
    "regret_factor_two": 0.0056,
    "basis": [BASIS_EXAMPLE],
    "reason": None,
}
READING_EXAMPLE: dict[str, JsonValue] = {
    "law": "effective_lr",
    "value": 0.0014,
    "unit": "1",
    "interval": [0.0012, 0.0017],
    "at": {"n_params": 1.24e8, "batch_tokens": 102400.0, "n_tokens": 5e9, "schedule": "linear"},
    "beside": 0.0016,
    "basis": [],
    "reason": None,
}
WANTED_EXAMPLE = {
    "law": "timescale",
    "why": "no size and data have their weight decay swept",
    "runs": [{"n_params": 1e8, "n_tokens": 1e9, "weight_decay": 0.1}],
    "compute_flops": 6e17,
}
CHOICE_EXAMPLE = {
    "n_params": 9.5e7,
    "n_tokens": 1.04e10,
    "batch_tokens": 7099.0,
    "critical_batch_tokens": 160412.0,
    "steps": 1.47e6,
    "compute_flops": 5.92e18,
    "compute_interval": [5.69e18, 5.97e18],
    "hours": None,
    "device_hours": None,
    "money": None,
}
FITS = "Every fit is one of the project, to be read and predicted from as any other."

# The database's JSON has no type of its own for an identifier, and gives 6e21 back as a whole number.
Identifier = Annotated[uuid.UUID, Field(strict=False)]
Real = float | NonFinite
Interval = Annotated[list[Real], Field(min_length=2, max_length=2)]


class Limits(Document):
    """What a run may take; every limit may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [LIMITS_EXAMPLE]})

    max_batch_tokens: Positive | None = Field(
        None, description="Largest batch, in tokens.", examples=[4194304]
    )
    devices: Positive | None = Field(None, description="Devices that train together.", examples=[64])
    tokens_per_second: Positive | None = Field(
        None,
        description="What all devices together were measured to train on, for a run of this size; a Pareto front, "
        "whose sizes vary, takes `flops_per_second` alone.",
        examples=[2.5e6],
    )
    flops_per_second: Positive | None = Field(
        None, description="What all devices together were measured to compute.", examples=[2.4e16]
    )
    deadline_hours: Positive | None = Field(None, description="Hours that it may take.", examples=[24])
    compute_flops: Positive | None = Field(
        None, description="Operations (6 N D) that it may take.", examples=[1e22]
    )
    price_per_device_hour: Positive | None = Field(
        None, description="Price of a device for an hour, in any currency.", examples=[2.5]
    )
    width: Positive | None = Field(
        None,
        description="Width of the model, where it is fixed: its depth follows from its size as in the runs.",
        examples=[None],
    )
    depth: Positive | None = Field(
        None, description="Layers of the model, where they are fixed: its width follows.", examples=[None]
    )


class NewAdvice(Document):
    """What all advice is asked with."""

    constraints: Limits = Field(
        default_factory=Limits, description="What the run may take.", examples=[LIMITS_EXAMPLE]
    )
    select: Select = Field(
        default_factory=lambda: Select(all=True),
        description="The finished runs that it rests on; all of the project where left out.",
        examples=[{"tags": ["sweep"]}],
    )
    options: BasicOptions = Field(
        default_factory=BasicOptions, description="How the fits are made.", examples=[{"bootstrap": 500}]
    )

    def asked(self) -> dict[str, Any]:
        """What the library is called with beside the runs; the options of the fits apart."""
        question = self.model_dump(exclude={"select", "options"}, exclude_none=True)
        return {**question, "options": self.options.sent()}


class NewRecommendation(NewAdvice):
    """A run that has not been trained, to be set as the finished ones say."""

    n_params: Positive = Field(
        description="Its parameters, counted as those of the finished runs.", examples=[7_000_000_000]
    )
    n_tokens: Positive = Field(description="The tokens that it trains on.", examples=[140_000_000_000])
    priors: list[str] = Field(
        default_factory=list,
        description="Published laws that may enter where the runs say little, by name: "
        f"{', '.join(PUBLISHED)}. At most one of each law; without a name none enters.",
        examples=[["power_lines.timescale"]],
    )


class NewPareto(NewAdvice):
    """A loss to be reached."""

    target_loss: Positive = Field(description="The loss, nats per token.", examples=[2.1])


class QueuedAdviceDocument(Document):
    """Advice that was asked for."""

    id: uuid.UUID = Field(description="The recommendation or front.")
    job_id: uuid.UUID = Field(description="Its job: progress, and cancelling.")
    status: JobStatus = Field(description="How it stands.", examples=["queued"])


class Basis(Document):
    """A fit that a quantity rests on."""

    fit_id: Identifier = Field(description="The fit: its parameters, reasons, and what it left out.")
    law: str = Field(description="Its law.", examples=["optimal_lr"])
    verdict: str = Field(description="How far to trust it.", examples=["sound"])
    extrapolation_factor: Real | None = Field(
        None, description="How many times beyond its data the run lies.", examples=[5.0]
    )


class Prior(Document):
    """A published law that entered, and how much of the answer came from it."""

    name: str = Field(description="Its name.", examples=["power_lines.timescale"])
    source: str = Field(description="Who published it.", examples=["Bergsma et al. 2025, arXiv:2505.13738"])
    value: Real = Field(description="What it says alone.", examples=[0.14])
    interval: Interval = Field(
        description="Its own interval: how far others' runs lie from it.", examples=[[0.06, 0.33]]
    )
    share: Real = Field(
        description="Its share of the answer: the part of its own variance that the runs leave. 1 where they say "
        "nothing, near 0 where they say all.",
        examples=[0.3],
    )


class Reading(Document):
    """What another law says of the setting; null, with the reason, where it says nothing."""

    law: str = Field(description="The law, or `width_rule`.", examples=["effective_lr"])
    value: Real | None = Field(description="Its best guess.", examples=[0.0014])
    unit: str = Field(description="Its unit; `1` for none.", examples=["1"])
    interval: Interval | None = Field(description="Its interval.", examples=[[0.0012, 0.0017]])
    at: dict[str, Any] = Field(
        description="The run that it holds for, where that is not the one that was asked for.",
        examples=[READING_EXAMPLE["at"]],
    )
    beside: Real | None = Field(
        description="What the law that the setting rests on says of that same run.", examples=[0.0016]
    )
    basis: list[Basis] = Field(description="The fit that it rests on.", examples=[[BASIS_EXAMPLE]])
    reason: str | None = Field(description="Why it has no value, or what to mind.", examples=[None])


class Quantity(Document):
    """A setting or an outcome of the run; null, with the reason, where the runs do not determine it."""

    value: Real | None = Field(description="The best guess.", examples=[0.00158])
    unit: str | None = Field(None, description="Its unit; `1` for none.", examples=["tokens"])
    interval: Interval | None = Field(
        description="Its interval: every resample of the runs goes through the whole chain of fits.",
        examples=[[0.00145, 0.00173]],
    )
    regret_factor_two: Real | None = Field(
        description="The share of the loss that being off by a factor of two costs, either way.",
        examples=[0.0056],
    )
    basis: list[Basis] = Field(description=f"The fits that it rests on. {FITS}", examples=[[BASIS_EXAMPLE]])
    prior: Prior | None = Field(
        None, description="The published law that entered; null where none was asked for.", examples=[None]
    )
    readings: list[Reading] = Field(
        default_factory=list,
        description="What other laws say of it, where there are runs for them: the best peak of curves "
        "(`effective_lr`), the width rule, steps to a loss, and the noise of gradients.",
        examples=[[READING_EXAMPLE]],
    )
    reason: str | None = Field(description="Why there is no value.", examples=[None])


class SuggestedSchedule(Document):
    """The schedule of the finished runs, drawn out to the run; null, with the reason, where they state none."""

    value: dict[str, Any] | None = Field(
        description="A schedule as runs declare it.",
        examples=[{"kind": "linear", "total_steps": 85158, "warmup_steps": 8516, "peak_lr": 0.00158}],
    )
    reason: str | None = Field(description="Why there is none.", examples=[None])


class Shape(Document):
    """Width and depth of a model of the size; null, with the reason, where the runs do not tell."""

    width: Real | None = Field(description="Width.", examples=[4096])
    depth: Real | None = Field(description="Layers.", examples=[32.0])
    params_per_depth_width2: Real | None = Field(
        description="Parameters over depth times width squared, as in the runs.", examples=[12.0]
    )
    aspect_ratios: Interval | None = Field(
        description="The least and the largest width over depth of the runs.", examples=[[32.0, 128.0]]
    )
    reason: str | None = Field(description="What does not follow, or contradicts.", examples=[None])


class Cost(Document):
    """What the run takes; null for what the constraints do not tell."""

    compute_flops: Real = Field(description="Operations, 6 N D.", examples=[5.88e21])
    hours: Real | None = Field(description="Hours, by the measured speed.", examples=[15.6])
    device_hours: Real | None = Field(description="Hours of all devices.", examples=[996.0])
    money: Real | None = Field(description="Their price.", examples=[2489.0])


class WantedRuns(Document):
    """The cheapest runs that would determine a law that the runs so far do not."""

    law: str = Field(description="The law.", examples=["timescale"])
    why: str = Field(description="What it lacks.", examples=["train weight decays on both sides of the best"])
    runs: list[dict[str, Real]] = Field(
        description="Their configurations; none where `why` says all that is known.",
        examples=[WANTED_EXAMPLE["runs"]],
    )
    compute_flops: Real = Field(description="Operations of all of them.", examples=[6e17])


class AdviceDocument(Document):
    """What was asked, and how it stands."""

    id: uuid.UUID = Field(description="The recommendation or front.")
    job_id: uuid.UUID = Field(description="Its job: progress, and cancelling.")
    status: JobStatus = Field(description="How it stands.")
    error: str | None = Field(description="Why it failed.", examples=[None])
    select: dict[str, Any] = Field(description="The runs that were asked for.", examples=[{"all": True}])
    constraints: dict[str, Any] = Field(description="What the run may take.", examples=[LIMITS_EXAMPLE])
    options: dict[str, Any] = Field(
        description="The options that were asked for.", examples=[{"bootstrap": 500}]
    )
    created_at: Time = Field(description="When it was asked for.")
    started_at: Time | None = Field(description="When it was last started.")
    finished_at: Time | None = Field(description="When it ended.")
    level: float | None = Field(None, description="Coverage of the intervals.", examples=[0.9])
    warnings: list[str] | None = Field(
        None,
        description="What to mind before trusting it.",
        examples=[["optimal_lr is asked 12.5 times beyond its runs"]],
    )


class RecommendationDocument(AdviceDocument):
    """A recommendation, and once it has succeeded its settings with intervals; null before."""

    n_params: float = Field(description="The parameters of the run.", examples=[7e9])
    n_tokens: float = Field(description="The tokens that it trains on.", examples=[1.4e11])
    peak_lr: Quantity | None = Field(
        None, description="The highest learning rate.", examples=[QUANTITY_EXAMPLE]
    )
    weight_decay: Quantity | None = Field(
        None, description="The decay, times the learning rate at each step (AdamW)."
    )
    batch_tokens: Quantity | None = Field(None, description="The batch with the lowest loss.")
    critical_batch_tokens: Quantity | None = Field(
        None, description="The batch above which twice the batch no longer halves the steps."
    )
    timescale: Quantity | None = Field(
        None, description="The share of the run over which weights are averaged: B / (lr decay D)."
    )
    predicted_loss: Quantity | None = Field(None, description="The loss to expect of a run that is well set.")
    schedule: SuggestedSchedule | None = Field(None, description="The schedule.")
    shape: Shape | None = Field(
        None, description="Width and depth, where the constraints fix one of them.", examples=[None]
    )
    priors: list[str] = Field(
        default_factory=list, description="The published laws that were asked for.", examples=[[]]
    )
    cost: Cost | None = Field(None, description="What it takes.")
    wanted: list[WantedRuns] | None = Field(
        None, description="The runs that would determine what is null.", examples=[[WANTED_EXAMPLE]]
    )

    @classmethod
    def of(cls, advice: Advice) -> RecommendationDocument:
        """The recommendation as the API shows it."""
        return cls.model_validate(_told(advice))


class Choice(Document):
    """A size, its data and its batch that reach the loss."""

    n_params: Real = Field(description="Parameters.", examples=[9.5e7])
    n_tokens: Real = Field(description="Tokens.", examples=[1.04e10])
    batch_tokens: Real = Field(description="Tokens in one step.", examples=[7099.0])
    critical_batch_tokens: Real = Field(description="The critical batch of its data.", examples=[160412.0])
    steps: Real = Field(description="Steps.", examples=[1.47e6])
    compute_flops: Real = Field(description="Operations, 6 N D.", examples=[5.92e18])
    compute_interval: Interval | None = Field(
        description="The interval of the operations; null without resamples. Its upper end is `Infinity` where "
        "more of the resamples than it leaves out never reach the loss.",
        examples=[[5.69e18, 5.97e18]],
    )
    hours: Real | None = Field(description="Hours; null without `flops_per_second`.", examples=[None])
    device_hours: Real | None = Field(
        None, description="Hours of all devices; null without `devices` too.", examples=[None]
    )
    money: Real | None = Field(
        None, description="Their price; null without `price_per_device_hour` too.", examples=[None]
    )


class ParetoDocument(AdviceDocument):
    """A front, and once it has succeeded its choices; null before."""

    target_loss: float = Field(description="The loss to be reached, nats per token.", examples=[2.1])
    choices: list[Choice] | None = Field(
        None,
        description="Of these none is beaten in both steps and operations, the cheapest in operations first.",
        examples=[[CHOICE_EXAMPLE]],
    )
    extrapolation: dict[str, Real] | None = Field(
        None,
        description="How many times the front lies beyond the sizes, the tokens (the least that reach the loss) "
        "and the batches of the runs that its laws were fitted to.",
        examples=[{"n_params_factor": 2.5, "n_tokens_factor": 1.0, "batch_tokens_factor": 4.0}],
    )
    basis: list[Basis] | None = Field(
        None, description=f"The fits that it rests on. {FITS}", examples=[[BASIS_EXAMPLE]]
    )

    @classmethod
    def of(cls, advice: Advice) -> ParetoDocument:
        """The front as the API shows it."""
        return cls.model_validate(_told(advice))


def _told(advice: Advice) -> dict[str, Any]:
    job = advice.job
    return {
        **(advice.result if advice.result is not None and job.status == "succeeded" else {}),
        **advice.asked,
        "id": advice.id,
        "job_id": advice.job_id,
        "status": cast(JobStatus, job.status),
        "error": job.message if job.status == "failed" else None,
        "select": advice.select,
        "created_at": advice.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }

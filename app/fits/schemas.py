"""Fits and predictions as the API reads and shows them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from app.jobs.schemas import JobStatus
from app.runs.schemas import Config
from app.schemas import Document, Label, Name, NotNegative, Positive, Step, Time
from isoloss.fitting import AUTO
from isoloss.fitting.objective import HUBER_DELTA
from isoloss.fitting.options import MAX_BOOTSTRAP, MAX_SHARE, MAX_STARTS
from store.tables import Fit

MAX_PREDICTED_STEPS = 10_000

PARAMETER_EXAMPLE = {
    "name": "alpha",
    "symbol": "α",
    "unit": "",
    "value": 0.47,
    "std_error": 0.01,
    "interval": [0.45, 0.49],
    "at_bound": False,
    "profile": [0.45, None],
}


def _all_different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return names


RunIds = Annotated[list[Name], Field(min_length=1, max_length=10_000), AfterValidator(_all_different)]
Bounds = Annotated[list[int | float | None], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, lt=1)]
HeldShare = Annotated[float, Field(gt=0, le=MAX_SHARE)]
Prior = Annotated[list[int | float], Field(min_length=2, max_length=2)]


class Select(Document):
    """The runs to fit: exactly one of these."""

    run_ids: RunIds | None = Field(
        None, description="The runs of these names, each once.", examples=[["cosine-1", "constant-1"]]
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


class Holdout(Document):
    """What is predicted and scored instead of fitted: exactly one of these."""

    run_ids: RunIds | None = Field(None, description="The runs of these names.", examples=[["wsd-1"]])
    fraction: HeldShare | None = Field(
        None,
        description="This share of the runs, those that trained furthest or are the largest; for `noise_scale` "
        "of the readings, the last by tokens; at most "
        f"{MAX_SHARE:g}, that no less is fitted than predicted.",
        examples=[0.2],
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Holdout:
        if (self.run_ids is None) == (self.fraction is None):
            raise ValueError("needs exactly one of run_ids, fraction")
        return self


class BasicOptions(Document):
    """How any fit is made. Every option may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bootstrap": 500, "level": 0.8}]})

    target: Literal["loss", "val_loss", "reward"] = Field(
        "loss",
        description="What to fit: the column of the curves; for a law of finished runs `summary.final_loss`, "
        "`summary.final_val_loss` or `summary.reward`. `rl_compute` is a law of `reward` without being told.",
    )
    bootstrap: Annotated[int, Field(ge=0, le=MAX_BOOTSTRAP)] = Field(
        200, description="Resamples that the intervals come from.", examples=[500]
    )
    level: Share = Field(0.9, description="Coverage of the intervals.", examples=[0.9])
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        0, description="Seed of everything random: the same seed gives the same numbers.", examples=[0]
    )
    n_params_kind: Literal["total", "non_embedding", "active"] | None = Field(
        None,
        description="Which count of parameters is meant; null: each run's own, which must be the same.",
        examples=["non_embedding"],
    )

    def sent(self) -> dict[str, Any]:
        """The options that were asked for, as the library takes them."""
        sent = self.model_dump(exclude_unset=True)
        return {name: value for name, value in sent.items() if value is not None}


class Options(BasicOptions):
    """How to fit. Every option may be left out; the law's parameters go by their names in `GET /v1/laws`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"bootstrap": 500, "holdout": {"run_ids": ["wsd-1"]}}]}
    )

    fix: dict[str, int | float] = Field(
        default_factory=dict, description="Parameters that are given.", examples=[{"lambda": 0.999}]
    )
    bounds: dict[str, Bounds] = Field(
        default_factory=dict,
        description="[low, high] within the law's own bounds, null where open.",
        examples=[{"alpha": [0.1, None]}],
    )
    expr: dict[str, str] = Field(
        default_factory=dict,
        description="Parameters that follow from others: numbers, + - * / **, sqrt, exp, log, min, max.",
        examples=[{"C": "2 * A"}],
    )
    huber_delta: Positive = Field(
        HUBER_DELTA, description="Residual of log loss from which the objective grows linearly."
    )
    skip_steps: Annotated[int, Field(ge=0, le=10**10)] | None = Field(
        None,
        description="Points of curves up to this step are left out; null: those of the warm-up.",
        examples=[1000],
    )
    starts: Annotated[int, Field(ge=1, le=MAX_STARTS)] = Field(
        6, description="Starting points of the search.", examples=[6]
    )
    holdout: Holdout | None = Field(
        None, description="Runs to predict instead of fitting.", examples=[{"run_ids": ["wsd-1"]}]
    )
    resample: Literal["runs", "configurations", "blocks"] | None = Field(
        None,
        description="What resamples draw: whole runs, all runs of a configuration, or blocks of curves; null: "
        "what the data allow.",
        examples=["configurations"],
    )
    profile: bool = Field(
        True, description="Whether to find profile-likelihood intervals too.", examples=[False]
    )
    convention: Label | None = Field(
        None,
        description="A reading of the law, of its `conventions` in `GET /v1/laws`; null: the usual one.",
        examples=[None],
    )
    priors: dict[str, Prior | None] = Field(
        default_factory=dict,
        description="[centre, sd] that parameters are expected at, instead of the law's own; null drops one. The "
        "sd is of the logarithm for parameters that the search moves in logarithms, such as exponents.",
        examples=[{"alpha": [0.3, 0.2]}],
    )
    prior_strength: NotNegative | None = Field(
        None, description="Weight of the priors, in log loss; null: the law's own.", examples=[0.005]
    )
    backend: Literal["numpy", "torch", "cuda"] = Field(
        "numpy", description="Where the arithmetic is done; torch must be installed for the others."
    )
    gate: dict[str, bool] = Field(
        default_factory=dict,
        description="Checks of finished runs that are switched off by false: `units`, `duplicates`, `mixed_data`, "
        "`under_annealed`, `mixed_shapes`, `diverged`, `tuned` (a run that another one beats that differs in its "
        "settings alone).",
        examples=[{"tuned": False}],
    )


class NewFit(Document):
    """A law to fit to runs."""

    law: Label = Field(
        AUTO,
        description="A name of `GET /v1/laws`; `auto` for the law that predicts runs best from others: one of "
        "curves, or of finished runs where no chosen run has logged the target and some have it in `summary`. "
        "`noise_scale` and `rl_compute` read the points of runs, or the fields of runs without such points.",
        examples=["lr_annealing"],
    )
    select: Select = Field(description="The runs to fit.", examples=[{"tags": ["pilot"]}])
    options: Options = Field(
        default_factory=Options,
        description="How to fit.",
        examples=[{"bootstrap": 500, "holdout": {"run_ids": ["wsd-1"]}}],
    )
    follow: bool = Field(
        False,
        description="Whether to fit again whenever a run of the project ends, or one that has ended changes or is "
        "deleted; until `POST .../unfollow`.",
        examples=[False],
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
    follow: bool = Field(description="Whether it is fitted again when runs change.")
    revision: int = Field(
        description="How many results it has had: 1 for the first one, 0 before.", examples=[1]
    )
    updated_at: Time | None = Field(description="When the result that it has now was stored.")
    refit_job_id: uuid.UUID | None = Field(description="The job of its last refit, which may be under way.")
    refits_skipped: int = Field(description="Refits that found the data as they were.", examples=[0])
    refit_error: str | None = Field(
        description="Why its last refit failed; what it shows is the last good result.", examples=[None]
    )
    parameters: list[dict[str, Any]] | None = Field(
        None,
        description="`name, symbol, unit, value, std_error, interval, at_bound, profile`; null for what is not "
        "determined. `interval` is from resamples, `profile` from the profile likelihood, null for an open side.",
        examples=[[PARAMETER_EXAMPLE]],
    )
    objective: Any = Field(None, description="The sum that the fit made smallest.", examples=[0.00031])
    metrics: dict[str, Any] | None = Field(None, description="Errors on the runs that were fitted.")
    holdout: dict[str, Any] | None = Field(
        None,
        description="Errors on runs that were predicted and not fitted: the `holdout` that was asked for, else "
        "some of the runs from the others. `predicted` says which; null where too few remain.",
    )
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
    selection: dict[str, Any] | None = Field(
        None,
        description="How the law was chosen, where `auto` was asked for: `best, scores, weights, margin`.",
    )
    provenance: dict[str, Any] | None = Field(
        None,
        description="Hash of the data, version of the code, options, seed: what it takes to do it again.",
    )

    @classmethod
    def of(cls, fit: Fit) -> FitDocument:
        """The fit as the API shows it."""
        job, refit, found = fit.job, fit.refit_job, _found(fit)
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
            follow=fit.follows,
            revision=fit.revision,
            updated_at=fit.updated_at,
            refit_job_id=fit.refit_job_id,
            refits_skipped=fit.refits_skipped,
            refit_error=refit.message if refit is not None and refit.status == "failed" else None,
            **{name: value for name, value in found.items() if name in cls.model_fields and name != "law"},
        )


class NewPrediction(Document):
    """A run to predict, which need not have been trained."""

    schedule: dict[str, Any] | None = Field(
        None,
        description="Its learning-rate schedule, which the laws of loss curves need and the others do not take.",
        examples=[{"kind": "cosine", "total_steps": 20000, "warmup_steps": 500, "peak_lr": 6e-4}],
    )
    config: Config = Field(
        default_factory=Config,
        description="What the law asks for: for a law of finished runs the fields that it `requires`, such as "
        "`n_params` and `n_tokens`.",
        examples=[{"n_params": 124_000_000, "n_params_kind": "non_embedding", "n_tokens": 2_500_000_000}],
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_PREDICTED_STEPS)] | None = Field(
        None,
        description=f"The steps of a curve to predict, at most {MAX_PREDICTED_STEPS}; some over the whole run "
        "where left out.",
        examples=[[10000, 20000]],
    )
    level: Share | None = Field(
        None, description="Coverage of the interval; the fit's own where left out.", examples=[0.9]
    )
    interval: Literal["mean", "new_run"] = Field(
        "mean", description="`mean` covers the law's curve, `new_run` what one more run would show."
    )

    def keywords(self) -> dict[str, Any]:
        """What the library's `predict` is to be called with, beside the schedule; `config` says the sizes."""
        config = self.config.model_dump(exclude_unset=True, exclude_none=True)
        given = {"steps": self.steps, "level": self.level, "interval": self.interval, "config": config}
        return {name: value for name, value in given.items() if value is not None}


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
    extrapolation: dict[str, Any] = Field(
        description="How far this lies beyond what was fitted; `not_read` names what of the configuration the law "
        "does not read."
    )


def _found(fit: Fit) -> Mapping[str, Any]:
    return fit.result if fit.result is not None and fit.job.status == "succeeded" else {}

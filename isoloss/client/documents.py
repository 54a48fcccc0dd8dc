"""The documents of the API as the client returns them: plain dictionaries with known keys."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

RunStatus = Literal["running", "finished", "failed", "preempted", "diverged"]
FitStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Interval = list[float]
Floats = NDArray[np.float64]


class Project(TypedDict):
    name: str
    created_at: NotRequired[str]


class Parent(TypedDict):
    run_id: str
    branch_step: int


class Run(TypedDict):
    """A run's specification and what is known of its points; `config` may carry fields of the user's own."""

    run_id: str
    name: str
    status: RunStatus
    recipe: str | None
    tags: list[str]
    notes: str | None
    parent: Parent | None
    config: dict[str, Any]
    schedule: dict[str, Any] | None
    summary: dict[str, Any]
    last_step: int | None
    created_at: NotRequired[str]
    updated_at: NotRequired[str]


class Accepted(TypedDict):
    """What became of points that were sent; `duplicates` were there already with the same values."""

    accepted: int
    duplicates: int
    last_step: int | None


class Parameter(TypedDict):
    """A parameter of a fitted law; `value` is None where the data do not determine it.

    `interval` comes from resamples, `profile` from the profile likelihood, with None for a side without limit.
    """

    name: str
    symbol: str
    unit: str
    value: float | None
    std_error: float | None
    interval: Interval | None
    at_bound: bool
    profile: NotRequired[list[float | None] | None]


class LeftOut(TypedDict):
    run_id: str
    reason: str


class Fit(TypedDict):
    """A fit; what it found is None, or not there, until `status` is succeeded.

    One that follows its runs has a new `revision` whenever they change; `refit_error` says why the last attempt
    at one failed.
    """

    id: str
    job_id: str
    law: str
    status: FitStatus
    error: NotRequired[str | None]
    select: NotRequired[dict[str, Any]]
    options: NotRequired[dict[str, Any]]
    parameters: NotRequired[list[Parameter] | None]
    objective: NotRequired[float | None]
    metrics: NotRequired[dict[str, Any] | None]
    holdout: NotRequired[dict[str, Any] | None]
    groups: NotRequired[list[dict[str, Any]] | None]
    derived: NotRequired[list[dict[str, Any]] | None]
    diagnostics: NotRequired[dict[str, Any] | None]
    left_out: NotRequired[list[LeftOut] | None]
    verdict: NotRequired[Literal["sound", "weak", "unidentified"] | None]
    reasons: NotRequired[list[str] | None]
    provenance: NotRequired[dict[str, Any] | None]
    created_at: NotRequired[str]
    follow: NotRequired[bool]
    revision: NotRequired[int]
    updated_at: NotRequired[str | None]
    refit_job_id: NotRequired[str | None]
    refits_skipped: NotRequired[int]
    refit_error: NotRequired[str | None]


class Prediction(TypedDict):
    """Predicted values with their interval, as arrays; `steps` is None for a law without steps."""

    quantity: str
    unit: str
    steps: NDArray[np.int64] | None
    value: Floats
    lower: Floats
    upper: Floats
    level: NotRequired[float]
    interval: NotRequired[Literal["mean", "new_run"]]
    extrapolation: dict[str, Any]


class Basis(TypedDict):
    """A fit that advice rests on, and how many times beyond its runs it is asked."""

    fit_id: str
    law: str
    verdict: Literal["sound", "weak", "unidentified"]
    extrapolation_factor: NotRequired[float | None]


class Prior(TypedDict):
    """A published law that entered: what it says alone, and the share of the answer that came from it."""

    name: str
    source: str
    value: float
    interval: Interval
    share: float


class Reading(TypedDict):
    """What another law says of a setting, for the run `at`; `beside` is what the main law says of that one."""

    law: str
    value: float | None
    unit: str
    interval: Interval | None
    at: dict[str, Any]
    beside: float | None
    basis: list[Basis]
    reason: str | None


class Shape(TypedDict):
    """Width and depth of a model, where one of them is fixed."""

    width: float | None
    depth: float | None
    params_per_depth_width2: float | None
    aspect_ratios: Interval | None
    reason: str | None


class Quantity(TypedDict):
    """A recommended setting, or what to expect; `value` is None, with the `reason`, where the runs do not tell.

    `regret_factor_two` is the share of the loss that being off by a factor of two costs.
    """

    value: float | None
    unit: str | None
    interval: Interval | None
    regret_factor_two: float | None
    basis: list[Basis]
    prior: NotRequired[Prior | None]
    readings: NotRequired[list[Reading]]
    reason: str | None


class SuggestedSchedule(TypedDict):
    value: dict[str, Any] | None
    reason: str | None


class Cost(TypedDict):
    """What a run takes; None for what the constraints do not tell."""

    compute_flops: float
    hours: float | None
    device_hours: float | None
    money: float | None


class WantedRuns(TypedDict):
    """The cheapest runs that would determine a law, and their operations in all."""

    law: str
    why: str
    runs: list[dict[str, float]]
    compute_flops: float


class Advice(TypedDict):
    """What recommendations and Pareto fronts share; what was found is None until `status` is succeeded."""

    id: str
    job_id: str
    status: FitStatus
    error: NotRequired[str | None]
    select: NotRequired[dict[str, Any]]
    constraints: NotRequired[dict[str, Any]]
    options: NotRequired[dict[str, Any]]
    level: NotRequired[float | None]
    warnings: NotRequired[list[str] | None]
    created_at: NotRequired[str]
    started_at: NotRequired[str | None]
    finished_at: NotRequired[str | None]


class Recommendation(Advice):
    """How a run is best set."""

    n_params: NotRequired[float]
    n_tokens: NotRequired[float]
    peak_lr: NotRequired[Quantity | None]
    weight_decay: NotRequired[Quantity | None]
    batch_tokens: NotRequired[Quantity | None]
    critical_batch_tokens: NotRequired[Quantity | None]
    timescale: NotRequired[Quantity | None]
    predicted_loss: NotRequired[Quantity | None]
    schedule: NotRequired[SuggestedSchedule | None]
    shape: NotRequired[Shape | None]
    priors: NotRequired[list[str]]
    cost: NotRequired[Cost | None]
    wanted: NotRequired[list[WantedRuns] | None]


class Choice(TypedDict):
    """A size, its data and its batch that reach a loss."""

    n_params: float
    n_tokens: float
    batch_tokens: float
    critical_batch_tokens: float
    steps: float
    compute_flops: float
    compute_interval: Interval | None
    """Its upper end is infinite where resamples never reach the loss."""
    hours: float | None
    device_hours: NotRequired[float | None]
    money: NotRequired[float | None]


class ParetoFront(Advice):
    """Choices of which none is beaten in both steps and operations, the cheapest in operations first."""

    target_loss: NotRequired[float]
    choices: NotRequired[list[Choice] | None]
    extrapolation: NotRequired[dict[str, float] | None]
    basis: NotRequired[list[Basis] | None]


class Job(TypedDict):
    """Work in the background; `progress` goes from 0 to 1."""

    id: str
    kind: str
    status: FitStatus
    progress: float | None
    message: str | None
    attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    result: dict[str, Any] | None


class Alarm(TypedDict):
    """Something about a run that its owner should know; `over_at` is None while its cause lasts."""

    id: str
    kind: Literal["left_band", "diverged", "silent", "resumed"]
    step: int | None
    message: str
    at: str
    over_at: str | None


class ForecastOf(TypedDict):
    """A line of a forecast's trail."""

    at: str
    step: int
    value: float | None
    lower: float | None
    upper: float | None


class Expected(TypedDict):
    """The rest of a curve."""

    steps: list[int]
    value: list[float]
    lower: list[float]
    upper: list[float]


class Forecast(TypedDict):
    """How a run is expected to end; `value` is None where the data do not tell, for the `reasons`.

    A list of forecasts has neither `expected` nor `trail`, and of the alarms those that are not over.
    """

    run_id: str
    target: str
    step: int
    last_step: int
    value: float | None
    lower: float | None
    upper: float | None
    level: float
    reasons: list[str]
    law: str | None
    n_runs: int
    n_families: int
    left_band: str | None
    updated_at: str
    alarms: list[Alarm]
    expected: NotRequired[Expected | None]
    trail: NotRequired[list[ForecastOf]]


class ExpectedLoss(TypedDict):
    """The final loss that is expected of a trial that has come to `step`."""

    value: float
    lower: float | None
    upper: float | None
    step: int


class Trial(TypedDict):
    """A model of a sweep; `point` are its settings along the axes, `message` says why it stands as it does."""

    number: int
    run_id: str
    status: str
    point: dict[str, Any]
    pilot: bool
    step: int
    total_steps: int
    stop_at: int
    forecast: ExpectedLoss | None
    final_loss: float | None
    final_val_loss: float | None
    device: str | None
    worker: str | None
    attempts: int
    repeated_steps: int
    device_seconds: float
    notes: list[str]
    message: str | None
    started_at: str | None
    finished_at: str | None


class TrainingWork(TypedDict):
    """Training, counted."""

    trials: int
    steps: int
    tokens: int
    device_seconds: float | None
    repeated_steps: NotRequired[int]


class Sweep(TypedDict):
    """Small models trained over a space; `trials` is there where one sweep was asked for."""

    id: str
    name: str
    status: Literal["running", "paused", "finished", "cancelled"]
    reason: str | None
    hint: str | None
    strategy: str
    device: str
    space: dict[str, Any]
    data: str
    measure: list[str]
    budget: dict[str, Any]
    seed: int
    halving: dict[str, Any] | None
    counts: dict[str, int]
    planned: TrainingWork
    done: TrainingWork
    saved: TrainingWork
    left_undone: TrainingWork
    created_at: str
    updated_at: str
    finished_at: str | None
    trials: NotRequired[list[Trial]]


class Delivery(TypedDict):
    """One event on its way to a webhook; `answered` is the status that the last attempt got."""

    id: str
    event: str
    status: Literal["queued", "succeeded", "failed"]
    attempts: int
    answered: int | None
    error: str | None
    created_at: str
    finished_at: str | None


class Webhook(TypedDict):
    """An address that events are sent to; `secret` is there only in the answer that creates it."""

    id: str
    url: str
    events: list[str]
    secret: NotRequired[str]
    created_at: NotRequired[str]
    deliveries: NotRequired[list[Delivery]]


class LawParameter(TypedDict):
    """A parameter of a law; a bound is None where there is none."""

    name: str
    symbol: str
    unit: str
    lower: float | None
    upper: float | None
    meaning: str


class Law(TypedDict):
    """A law that can be fitted; `requires` is what a run must have."""

    name: str
    title: str
    formula: str
    quantity: str
    unit: str
    requires: list[str]
    reference: str
    conventions: NotRequired[dict[str, str]]
    parameters: list[LawParameter]


class Key(TypedDict):
    """An access key; `key` itself is there only in the answer that creates it."""

    id: str
    key: NotRequired[str]
    name: NotRequired[str]
    scopes: NotRequired[list[str]]
    project: NotRequired[str | None]
    created_at: NotRequired[str]


class Health(TypedDict):
    """`alive`: the service answers; `ready`: it can also reach its database."""

    url: str
    alive: bool
    ready: bool
    details: dict[str, Any]

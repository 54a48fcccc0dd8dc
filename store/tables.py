"""Every table of Isoloss, as SQLAlchemy sees it.

The tables live in the schema `public`; those of the job queue, which are procrastinate's own, in `jobs`.
`migrations/` makes them; a test holds the two to be the same.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from store.ids import uuid7

SCHEMA = "public"

RUN_STATUSES = ("running", "finished", "failed", "preempted", "diverged")
JOB_STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")
ADVICE_KINDS = ("recommendation", "pareto")
ALARM_KINDS = ("left_band", "diverged", "silent", "resumed")
DELIVERY_STATUSES = ("queued", "succeeded", "failed")
SWEEP_STATUSES = ("running", "paused", "finished", "cancelled")
TRIAL_STATUSES = (
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
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _references(table: str, on_delete: str | None) -> ForeignKey:
    return ForeignKey(f"{SCHEMA}.{table}.id", ondelete=on_delete)


class Base(DeclarativeBase):
    """What all tables share: types by annotation, and constraint names that migrations can drop."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        },
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: Text,
        int: BigInteger,
        float: Double,
        bytes: LargeBinary,
        dt.datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }


class Created:
    """A row that remembers when it was made."""

    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class Changed(Created):
    """A row whose changes the event stream follows."""

    updated_at: Mapped[dt.datetime] = mapped_column(
        server_default=func.clock_timestamp(), onupdate=func.clock_timestamp()
    )


class Project(Created, Base):
    """A name under which runs, fits and jobs are kept apart from those of others."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Run(Changed, Base):
    """One training run: its specification, and where its points stand.

    `run_id` is the client's name for it, unique in its project. `last_step` is the last step of the run's own
    points. `columns` names the columns that they have, in the order of first use; those that have no typed
    column stand in that order in `point.free`. `reported_at` is when points last came, `report_every_s` how far
    apart they came lately.
    """

    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("project_id", "run_id"),
        CheckConstraint(_one_of("status", RUN_STATUSES), name="status"),
        CheckConstraint("(parent_id IS NULL) = (branch_step IS NULL)", name="branch"),
        # No index on updated_at or last_step: every batch of points changes them, and an update that
        # touches no index stays on its page.
        Index(None, "parent_id"),
        Index("run_running_idx", "project_id", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    run_id: Mapped[str]
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="running")
    recipe: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    notes: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(_references("run", None))
    branch_step: Mapped[int | None]
    config: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    schedule: Mapped[dict[str, Any] | None]
    summary: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    last_step: Mapped[int | None]
    columns: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    reported_at: Mapped[dt.datetime | None]
    report_every_s: Mapped[float | None]


class Point(Base):
    """What one run logged at one step: the recent, uncompacted form.

    A row holds all that is known of its step, so that it stands above a chunk's point of the same step.
    There is no foreign key: checking it costs more than the insert itself. Writers hold the run's row lock
    instead, and deleting a run deletes its points (`store/runs.py`).
    """

    __tablename__ = "point"

    run: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    loss: Mapped[float | None]
    val_loss: Mapped[float | None]
    lr: Mapped[float | None]
    tokens: Mapped[float | None]
    grad_norm: Mapped[float | None]
    grad_norm_l1: Mapped[float | None]
    grad_noise_scale: Mapped[float | None]
    reward: Mapped[float | None]
    compute_flops: Mapped[float | None]
    wall_time_s: Mapped[float | None]
    free: Mapped[list[float | None] | None] = mapped_column(ARRAY(Double))


class PointChunk(Base):
    """One column of one to four thousand points of a run, compressed: the form of finished runs."""

    __tablename__ = "point_chunk"

    run: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(primary_key=True)
    first_step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last_step: Mapped[int]
    n_points: Mapped[int]
    data: Mapped[bytes]


class Job(Changed, Base):
    """Work asked for: what the user sees of it. The queue's own row is `queue_id` in the schema `jobs`.

    `attempts` counts the starts. It also tells a worker that was taken for dead that another has its job now.
    `message` says what is being done or, at the end, why it failed.
    """

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(_one_of("status", JOB_STATUSES), name="status"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        Index(None, "project_id", "updated_at"),
        Index(None, "queue_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int | None] = mapped_column(_references("project", "CASCADE"))
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="queued")
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    message: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    result: Mapped[dict[str, Any] | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    queue_id: Mapped[int | None]
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Fit(Created, Base):
    """A law fitted, or to be fitted, to chosen runs. Its status is its job's.

    `result` is the public document. `state` is the private one, from which predictions are made (zlib over
    JSON: it holds every resample). `revision` counts the results so far, of which the last one, of `updated_at`,
    is kept. A fit that is to `follow` its runs has them replaced by refits: `refit_job` is the last of these,
    `refits_skipped` how many found nothing new.
    """

    __tablename__ = "fit"
    __table_args__ = (Index(None, "project_id"), Index(None, "job_id"), Index(None, "refit_job_id"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    job_id: Mapped[uuid.UUID] = mapped_column(_references("job", "CASCADE"))
    law: Mapped[str]
    select: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    state: Mapped[bytes | None] = mapped_column(deferred=True)
    follow: Mapped[bool] = mapped_column(server_default=text("false"))
    revision: Mapped[int] = mapped_column(server_default=text("0"))
    updated_at: Mapped[dt.datetime | None]
    refits_skipped: Mapped[int] = mapped_column(server_default=text("0"))
    refit_job_id: Mapped[uuid.UUID | None] = mapped_column(_references("job", "SET NULL"))

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True, foreign_keys=job_id)
    refit_job: Mapped[Job | None] = relationship(lazy="joined", foreign_keys=refit_job_id)

    @property
    def follows(self) -> bool:
        """Whether a run that lands is to change the fit: a cancelled one is left as it is."""
        return self.follow and self.job.status != "cancelled"


class Advice(Created, Base):
    """A recommendation or a Pareto front, or one to be made. Its status is its job's.

    `asked` is what the library is called with beside the runs, `result` the public document. The fits that it
    rests on are fits of the same job.
    """

    __tablename__ = "advice"
    __table_args__ = (
        CheckConstraint(_one_of("kind", ADVICE_KINDS), name="kind"),
        Index(None, "project_id"),
        Index(None, "job_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    job_id: Mapped[uuid.UUID] = mapped_column(_references("job", "CASCADE"))
    kind: Mapped[str]
    select: Mapped[dict[str, Any]]
    asked: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True)


class Forecaster(Created, Base):
    """What the finished runs of one kind tell of how others end. `kind` says which runs are of it (canonical JSON).

    `data` is the fingerprint of the runs that it was learned from. `document` (zlib over JSON) is None where they
    do not allow a forecast, for the `reason`.
    """

    __tablename__ = "forecaster"

    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[str]
    document: Mapped[bytes | None]
    reason: Mapped[str | None]


class Forecast(Changed, Base):
    """The last forecast of a run, as the library wrote it, None where there is none for the `reason`.

    `step` is where the run stood when it was looked at. `trail` has earlier forecasts in a line each, the oldest
    first: `at`, `step`, `value`, `lower`, `upper`.
    """

    __tablename__ = "forecast"
    __table_args__ = (Index(None, "project_id", "updated_at"),)

    run: Mapped[int] = mapped_column(_references("run", "CASCADE"), primary_key=True, autoincrement=False)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    step: Mapped[int]
    document: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    trail: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))


class Alarm(Created, Base):
    """Something about a run that its owner should know. Of each kind a run has one at a time that is not over."""

    __tablename__ = "alarm"
    __table_args__ = (
        CheckConstraint(_one_of("kind", ALARM_KINDS), name="kind"),
        Index(None, "project_id", "created_at"),
        Index(None, "run"),
        Index("alarm_open_idx", "run", "kind", unique=True, postgresql_where=text("over_at IS NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    run: Mapped[int] = mapped_column(_references("run", "CASCADE"))
    kind: Mapped[str]
    step: Mapped[int | None]
    message: Mapped[str]
    over_at: Mapped[dt.datetime | None]


class Watch(Base):
    """The one row that tells when runs were last looked after, and since when without a break."""

    __tablename__ = "watch"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    looked_at: Mapped[dt.datetime]
    since: Mapped[dt.datetime]


class Webhook(Created, Base):
    """An address that is told of events of a project. `secret` signs what is sent, and so is kept as it is."""

    __tablename__ = "webhook"
    __table_args__ = (Index(None, "project_id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    url: Mapped[str]
    events: Mapped[list[str]]
    secret: Mapped[str]


class Delivery(Created, Base):
    """One event on its way to a webhook: `body` is what is sent, the same at each of the `attempts`.

    `answered` is the status that the last attempt was answered with, `error` why it failed.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        CheckConstraint(_one_of("status", DELIVERY_STATUSES), name="status"),
        Index(None, "webhook_id", "created_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    webhook_id: Mapped[uuid.UUID] = mapped_column(_references("webhook", "CASCADE"))
    event: Mapped[str]
    body: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    answered: Mapped[int | None]
    error: Mapped[str | None]
    finished_at: Mapped[dt.datetime | None]


class ApiKey(Created, Base):
    """A bearer key: only its SHA-256 is kept. 256 random bits need no salt and no slow hash."""

    __tablename__ = "api_key"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    project_id: Mapped[int | None] = mapped_column(_references("project", "CASCADE"))

    limited_to: Mapped[Project | None] = relationship(lazy="joined")

    @property
    def project(self) -> str | None:
        """The name of the only project that the key opens."""
        return None if self.limited_to is None else self.limited_to.name


class IdempotencyKey(Created, Base):
    """The answer that was given to a creating request, kept to be given again."""

    __tablename__ = "idempotency_key"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    status: Mapped[int | None]
    answer: Mapped[bytes | None]


class Sweep(Changed, Base):
    """Small models to be trained over a space. `asked` is what was asked for beside name, strategy and device.

    `device_seconds` and `deadline` are the budget, None where it has no end. `reason` says in words why the sweep
    stands as it does. `learned` is what its curves told a `halving` sweep of how runs end.
    """

    __tablename__ = "sweep"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint(_one_of("status", SWEEP_STATUSES), name="status"),
        Index(None, "project_id", "updated_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="running")
    strategy: Mapped[str]
    device: Mapped[str]
    asked: Mapped[dict[str, Any]]
    device_seconds: Mapped[float | None]
    deadline: Mapped[dt.datetime | None]
    reason: Mapped[str | None]
    learned: Mapped[dict[str, Any] | None]
    finished_at: Mapped[dt.datetime | None]


class Trial(Changed, Base):
    """One model of a sweep. Its points are those of the ordinary run `run_id`, declared when it first begins.

    `config` is all that it is trained from. It is trained until `stop_at`, the `rung`-th of the sweep's rungs or
    the end, unless it is a `pilot`, which passes all rungs. `attempts` counts the starts, and tells a worker that
    was taken for dead that another trains it now; `deaths` those that ended in a dead process since the last
    checkpoint. `checkpoint` names the file that it goes on from, `checkpoint_step` where that stands.
    `repeated_steps` were trained again after a death, `device_seconds` are its own. `forecast` is what a
    `halving` sweep last expected of it.
    """

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("sweep_id", "number"),
        CheckConstraint(_one_of("status", TRIAL_STATUSES), name="status"),
        Index(None, "project_id", "updated_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    sweep_id: Mapped[uuid.UUID] = mapped_column(_references("sweep", "CASCADE"))
    project_id: Mapped[int] = mapped_column(_references("project", "CASCADE"))
    number: Mapped[int]
    run_id: Mapped[str]
    config: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(server_default="queued")
    pilot: Mapped[bool] = mapped_column(server_default=text("false"))
    rung: Mapped[int] = mapped_column(server_default=text("0"))
    stop_at: Mapped[int]
    total_steps: Mapped[int]
    step: Mapped[int] = mapped_column(server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    deaths: Mapped[int] = mapped_column(server_default=text("0"))
    repeated_steps: Mapped[int] = mapped_column(server_default=text("0"))
    device_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    device: Mapped[str | None]
    worker: Mapped[str | None]
    notes: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    message: Mapped[str | None]
    forecast: Mapped[dict[str, Any] | None]
    checkpoint: Mapped[str | None]
    checkpoint_step: Mapped[int | None]
    queue_id: Mapped[int | None]
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Trainer(Base):
    """A worker process that trains on a kind of device, and when it last said so."""

    __tablename__ = "trainer"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    device: Mapped[str]
    name: Mapped[str]
    seen_at: Mapped[dt.datetime] = mapped_column(server_default=func.clock_timestamp())

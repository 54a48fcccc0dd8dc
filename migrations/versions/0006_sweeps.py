"""Sweeps, their trials, and the workers that train them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
SWEEP_STATUSES = "'running', 'paused', 'finished', 'cancelled'"
TRIAL_STATUSES = (
    "'queued', 'running', 'held', 'paused', "
    "'finished', 'diverged', 'pruned', 'unfinished', 'cancelled', 'failed'"
)


def upgrade() -> None:
    _sweeps()
    _trials()
    op.create_table(
        "trainer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_at", TIME, server_default=sa.func.clock_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("trainer_pkey")),
    )


def _sweeps() -> None:
    op.create_table(
        "sweep",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("asked", postgresql.JSONB(), nullable=False),
        sa.Column("device_seconds", sa.Double()),
        sa.Column("deadline", TIME),
        sa.Column("reason", sa.Text()),
        sa.Column("learned", postgresql.JSONB()),
        sa.Column("finished_at", TIME),
        *_times(),
        sa.CheckConstraint(f"status IN ({SWEEP_STATUSES})", name=op.f("sweep_status_check")),
        _reference("sweep", "project"),
        sa.PrimaryKeyConstraint("id", name=op.f("sweep_pkey")),
        sa.UniqueConstraint("project_id", "name", name=op.f("sweep_project_id_name_key")),
    )
    op.create_index(op.f("sweep_project_id_updated_at_idx"), "sweep", ["project_id", "updated_at"])


def _trials() -> None:
    nothing = sa.text("0")
    op.create_table(
        "trial",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sweep_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("pilot", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rung", sa.BigInteger(), server_default=nothing, nullable=False),
        sa.Column("stop_at", sa.BigInteger(), nullable=False),
        sa.Column("total_steps", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), server_default=nothing, nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=nothing, nullable=False),
        sa.Column("deaths", sa.BigInteger(), server_default=nothing, nullable=False),
        sa.Column("repeated_steps", sa.BigInteger(), server_default=nothing, nullable=False),
        sa.Column("device_seconds", sa.Double(), server_default=nothing, nullable=False),
        sa.Column("device", sa.Text()),
        sa.Column("worker", sa.Text()),
        sa.Column("notes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("forecast", postgresql.JSONB()),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("checkpoint_step", sa.BigInteger()),
        sa.Column("queue_id", sa.BigInteger()),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        *_times(),
        sa.CheckConstraint(f"status IN ({TRIAL_STATUSES})", name=op.f("trial_status_check")),
        _reference("trial", "sweep"),
        _reference("trial", "project"),
        sa.PrimaryKeyConstraint("id", name=op.f("trial_pkey")),
        sa.UniqueConstraint("sweep_id", "number", name=op.f("trial_sweep_id_number_key")),
    )
    op.create_index(op.f("trial_project_id_updated_at_idx"), "trial", ["project_id", "updated_at"])


def _times() -> tuple[sa.Column[object], sa.Column[object]]:
    return (
        sa.Column("updated_at", TIME, server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False),
    )


def _reference(table: str, other: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"{table}_{other}_id_fkey")
    return sa.ForeignKeyConstraint([f"{other}_id"], [f"{other}.id"], name=name, ondelete="CASCADE")


def downgrade() -> None:
    # The runs of trials stay: they are as good as any.
    for table in ("trainer", "trial", "sweep"):
        op.drop_table(table)

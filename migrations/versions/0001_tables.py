"""Projects, runs, points, jobs, fits and keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for create in (_projects, _runs, _points, _jobs, _fits, _keys):
        create()


def downgrade() -> None:
    for table in ("idempotency_key", "api_key", "fit", "job", "point_chunk", "point", "run", "project"):
        op.drop_table(table)


def _projects() -> None:
    op.create_table(
        "project",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("project_pkey")),
        sa.UniqueConstraint("name", name=op.f("project_name_key")),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("recipe", sa.Text()),
        sa.Column("tags", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.Column("parent_id", sa.BigInteger()),
        sa.Column("branch_step", sa.BigInteger()),
        sa.Column("config", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("schedule", JSONB()),
        sa.Column("summary", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("last_step", sa.BigInteger()),
        sa.Column("columns", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'failed', 'preempted', 'diverged')",
            name=op.f("run_status_check"),
        ),
        sa.CheckConstraint("(parent_id IS NULL) = (branch_step IS NULL)", name=op.f("run_branch_check")),
        sa.ForeignKeyConstraint(["parent_id"], ["run.id"], name=op.f("run_parent_id_fkey")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("run_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("run_pkey")),
        sa.UniqueConstraint("project_id", "run_id", name=op.f("run_project_id_run_id_key")),
    )
    op.create_index(op.f("run_parent_id_idx"), "run", ["parent_id"])


def _points() -> None:
    op.create_table(
        "point",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("loss", sa.Double()),
        sa.Column("val_loss", sa.Double()),
        sa.Column("lr", sa.Double()),
        sa.Column("tokens", sa.Double()),
        sa.Column("grad_norm", sa.Double()),
        sa.Column("grad_norm_l1", sa.Double()),
        sa.Column("grad_noise_scale", sa.Double()),
        sa.Column("reward", sa.Double()),
        sa.Column("compute_flops", sa.Double()),
        sa.Column("wall_time_s", sa.Double()),
        sa.Column("free", ARRAY(sa.Double())),
        sa.PrimaryKeyConstraint("run", "step", name=op.f("point_pkey")),
    )
    op.create_table(
        "point_chunk",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("n_points", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", "first_step", name=op.f("point_chunk_pkey")),
    )
    # The bytes are compressed already: keep them out of line, and do not try again.
    op.execute("ALTER TABLE point_chunk ALTER COLUMN data SET STORAGE EXTERNAL")


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("result", JSONB()),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("queue_id", sa.BigInteger()),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("job_status_check"),
        ),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("job_progress_check")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("job_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("job_pkey")),
    )
    op.create_index(op.f("job_project_id_updated_at_idx"), "job", ["project_id", "updated_at"])
    op.create_index(op.f("job_queue_id_idx"), "job", ["queue_id"])


def _fits() -> None:
    op.create_table(
        "fit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("law", sa.Text(), nullable=False),
        sa.Column("select", JSONB(), nullable=False),
        sa.Column("options", JSONB(), nullable=False),
        sa.Column("result", JSONB()),
        sa.Column("state", sa.LargeBinary()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fit_job_id_fkey"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fit_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("fit_pkey")),
    )
    op.create_index(op.f("fit_job_id_idx"), "fit", ["job_id"])
    op.create_index(op.f("fit_project_id_idx"), "fit", ["project_id"])


def _keys() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("project_id", sa.BigInteger()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("api_key_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("key_hash", name=op.f("api_key_key_hash_key")),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.BigInteger()),
        sa.Column("answer", sa.LargeBinary()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("idempotency_key_pkey")),
    )

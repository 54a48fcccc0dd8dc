"""Recommendations and Pareto fronts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "advice",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("select", postgresql.JSONB(), nullable=False),
        sa.Column("asked", postgresql.JSONB(), nullable=False),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("kind IN ('recommendation', 'pareto')", name=op.f("advice_kind_check")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("advice_project_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("advice_job_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("advice_pkey")),
    )
    op.create_index(op.f("advice_project_id_idx"), "advice", ["project_id"])
    op.create_index(op.f("advice_job_id_idx"), "advice", ["job_id"])


def downgrade() -> None:
    # The fits of advice stay: they are as good as any.
    op.drop_table("advice")

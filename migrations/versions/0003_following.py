"""Fits that follow their runs: refitted when one lands, with a revision for each result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDED = ("follow", "revision", "updated_at", "refits_skipped", "refit_job_id")


def upgrade() -> None:
    op.add_column("fit", sa.Column("follow", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("fit", sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("fit", sa.Column("updated_at", sa.DateTime(timezone=True)))
    op.add_column(
        "fit", sa.Column("refits_skipped", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("fit", sa.Column("refit_job_id", sa.Uuid()))
    op.create_foreign_key(
        op.f("fit_refit_job_id_fkey"), "fit", "job", ["refit_job_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(op.f("fit_refit_job_id_idx"), "fit", ["refit_job_id"])
    op.execute(
        "UPDATE fit SET revision = 1, updated_at = job.finished_at"
        " FROM job WHERE job.id = fit.job_id AND fit.result IS NOT NULL"
    )


def downgrade() -> None:
    for column in reversed(ADDED):
        op.drop_column("fit", column)

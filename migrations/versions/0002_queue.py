"""The job queue: procrastinate's own tables and functions, in a schema of their own."""

from __future__ import annotations

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA jobs")
    # Its statements name no schema: what they make lands in the first of the search path.
    op.execute("SET LOCAL search_path TO jobs, public")
    op.get_bind().exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))
    op.execute("SET LOCAL search_path TO public")


def downgrade() -> None:
    op.execute("DROP SCHEMA jobs CASCADE")

"""Forecasts of runs that train, their alarms, and the webhooks that are told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("run", sa.Column("reported_at", TIME))
    op.add_column("run", sa.Column("report_every_s", sa.Double()))
    running = sa.text("status = 'running'")
    op.create_index("run_running_idx", "run", ["project_id"], postgresql_where=running)
    _forecasts()
    _alarms()
    _webhooks()


def _forecasts() -> None:
    op.create_table(
        "forecaster",
        _project(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary()),
        sa.Column("reason", sa.Text()),
        _created(),
        _reference("forecaster", "project"),
        sa.PrimaryKeyConstraint("project_id", "kind", name=op.f("forecaster_pkey")),
    )
    op.create_table(
        "forecast",
        sa.Column("run", sa.BigInteger(), nullable=False),
        _project(),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("document", postgresql.JSONB()),
        sa.Column("reason", sa.Text()),
        sa.Column("trail", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        _created(),
        sa.Column("updated_at", TIME, server_default=sa.func.clock_timestamp(), nullable=False),
        _reference("forecast", "run", "run"),
        _reference("forecast", "project"),
        sa.PrimaryKeyConstraint("run", name=op.f("forecast_pkey")),
    )
    op.create_index(op.f("forecast_project_id_updated_at_idx"), "forecast", ["project_id", "updated_at"])


def _alarms() -> None:
    op.create_table(
        "alarm",
        sa.Column("id", sa.Uuid(), nullable=False),
        _project(),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("over_at", TIME),
        _created(),
        sa.CheckConstraint(
            "kind IN ('left_band', 'diverged', 'silent', 'resumed')", name=op.f("alarm_kind_check")
        ),
        _reference("alarm", "project"),
        _reference("alarm", "run", "run"),
        sa.PrimaryKeyConstraint("id", name=op.f("alarm_pkey")),
    )
    op.create_index(op.f("alarm_project_id_created_at_idx"), "alarm", ["project_id", "created_at"])
    op.create_index(op.f("alarm_run_idx"), "alarm", ["run"])
    still = sa.text("over_at IS NULL")
    op.create_index("alarm_open_idx", "alarm", ["run", "kind"], unique=True, postgresql_where=still)
    op.create_table(
        "watch",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("looked_at", TIME, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("watch_one_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("watch_pkey")),
    )


def _webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", sa.Uuid(), nullable=False),
        _project(),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        _created(),
        _reference("webhook", "project"),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_pkey")),
    )
    op.create_index(op.f("webhook_project_id_idx"), "webhook", ["project_id"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("answered", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        sa.Column("finished_at", TIME),
        _created(),
        sa.CheckConstraint("status IN ('queued', 'succeeded', 'failed')", name=op.f("delivery_status_check")),
        _reference("delivery", "webhook"),
        sa.PrimaryKeyConstraint("id", name=op.f("delivery_pkey")),
    )
    op.create_index(op.f("delivery_webhook_id_created_at_idx"), "delivery", ["webhook_id", "created_at"])


def _project() -> sa.Column[int]:
    return sa.Column("project_id", sa.BigInteger(), nullable=False)


def _created() -> sa.Column[object]:
    return sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False)


def _reference(table: str, other: str, column: str | None = None) -> sa.ForeignKeyConstraint:
    column = column or f"{other}_id"
    name = op.f(f"{table}_{column}_fkey")
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete="CASCADE")


def downgrade() -> None:
    for table in ("delivery", "webhook", "watch", "alarm", "forecast", "forecaster"):
        op.drop_table(table)
    op.drop_index("run_running_idx", "run")
    for column in ("report_every_s", "reported_at"):
        op.drop_column("run", column)

"""Alembic's entry: one connection, one transaction, one migration at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from store.migrate import LOCK, refuse_newer
from store.tables import SCHEMA, Base


def main() -> None:
    url = context.config.attributes["url"]
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        refuse_newer(connection)
        connection.execute(sa.text(f"SET LOCAL search_path TO {SCHEMA}"))
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            version_table_schema=SCHEMA,
            include_schemas=True,
        )
        context.run_migrations()


main()

"""Bring a database to the schema that this code needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from store.engine import normalise_url

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

# Any fixed number: two services that start at once on one database migrate one after the other.
LOCK = 7_461_002


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at `url` up to `revision`; all of it or nothing."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate the database at `url` down to `revision` (`base`: nothing left); all of it or nothing."""
    command.downgrade(_config(url), revision)


def current(url: str) -> str | None:
    """The revision that the database at `url` stands at; None where it has none."""
    engine = sa.create_engine(normalise_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return revision(connection)


def revision(connection: sa.Connection) -> str | None:
    """The revision that the connected database stands at; None where it has none."""
    options = {"version_table_schema": "public"}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


@cache
def head() -> str | None:
    """The revision that this code needs."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = normalise_url(url)
    return config

"""Bring a database to the schema that this code needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from isoloss.errors import NewerDatabase
from store.engine import normalise_url

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

# Any fixed number: two services that start at once on one database migrate one after the other.
LOCK = 7_461_002


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at `url` up to `revision`; all of it or nothing.

    Raises NewerDatabase where it stands at a revision that this code does not know.
    """
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate the database at `url` down to `revision` (`base`: nothing left); all of it or nothing.

    Raises NewerDatabase as `upgrade` does.
    """
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


def refuse_newer(connection: sa.Connection) -> None:
    """Raise NewerDatabase where the connected database stands at a revision that this code does not know."""
    found = revision(connection)
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if found is not None and found not in known:
        raise NewerDatabase(found=found, known=head())


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = normalise_url(url)
    return config

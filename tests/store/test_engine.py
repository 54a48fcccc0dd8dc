from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from isoloss.errors import InvalidInput
from store.engine import conninfo, create_engine, normalise_url


@pytest.mark.parametrize(
    "written",
    ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg2://u@h/d", "postgresql+psycopg://u@h/d"],
)
def test_every_spelling_of_an_address_gets_our_driver(written: str) -> None:
    """However the address of a PostgreSQL is written, psycopg 3 serves it."""
    assert normalise_url(written).render_as_string() == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize("written", ["sqlite:///x", "mysql://u:secret@h/d", "not an address: secret"])
def test_other_databases_are_refused_without_repeating_a_password(written: str) -> None:
    """What is no PostgreSQL is refused, and the message holds no part of the address."""
    with pytest.raises(InvalidInput, match="database_url") as refusal:
        normalise_url(written)
    assert "secret" not in str(refusal.value)


def test_a_user_option_in_the_address_is_kept(empty_database_url: str) -> None:
    """Options that the address brings are joined with our search path."""
    engine = create_engine(empty_database_url + "&options=-c%20work_mem%3D7MB", statement_timeout_s=2.5)
    with engine.connect() as connection:
        shown = [
            connection.scalar(text(f"SHOW {name}"))
            for name in ("search_path", "work_mem", "statement_timeout")
        ]
    engine.dispose()
    assert shown == ["jobs,public", "7MB", "2500ms"]


def test_libpq_sees_the_same_search_path(empty_database_url: str) -> None:
    """psycopg on its own finds the jobs where SQLAlchemy does."""
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        found = connection.execute("SHOW search_path").fetchone()
    assert found == ("jobs,public",)

"""Connections to PostgreSQL, embedded or not."""

from __future__ import annotations

import select
from typing import Any

from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, event
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.orm import Session, sessionmaker

from isoloss.errors import InvalidInput

SEARCH_PATH = "jobs,public"  # procrastinate's functions name their tables without a schema
CONNECT_TIMEOUT_S = 5


def normalise_url(database_url: str) -> URL:
    """The address with psycopg 3 as its driver; `postgres://`, as hosters write it, is welcome.

    Raises InvalidInput where it is no address of a PostgreSQL.
    """
    try:
        url = make_url(database_url)
    except ArgumentError:
        # Without the text itself: it may hold a password.
        raise InvalidInput(field="database_url", reason="this is no database address") from None
    if url.get_backend_name() not in ("postgres", "postgresql"):
        raise InvalidInput(field="database_url", reason="only PostgreSQL is supported (postgresql://...)")
    return url.set(drivername="postgresql+psycopg")


def conninfo(database_url: str, search_path: str = SEARCH_PATH) -> str:
    """The address as libpq and psycopg read it, with our search path."""
    url = _with_search_path(normalise_url(database_url), search_path)
    # Not as an address: SQLAlchemy writes a space in it as a plus sign, which libpq does not read so.
    words = url.translate_connect_args(username="user", database="dbname")
    for name, value in url.query.items():
        words[name] = value if isinstance(value, str) else ",".join(value)
    return make_conninfo("", **words)


def create_engine(
    database_url: str,
    *,
    pool_size: int = 10,
    max_overflow: int = 10,
    pool_timeout_s: float = 5.0,
    statement_timeout_s: float | None = None,
    application_name: str = "isoloss",
) -> Engine:
    """An engine whose connections see `jobs,public` and are replaced when the server was restarted.

    A connection that cannot be had in `pool_timeout_s` raises `sqlalchemy.exc.TimeoutError`.
    """
    options = (
        "" if statement_timeout_s is None else f"-c statement_timeout={round(statement_timeout_s * 1000)}"
    )
    url = _with_search_path(normalise_url(database_url), SEARCH_PATH, options)
    engine = create_sqlalchemy_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_timeout_s,
        pool_use_lifo=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": application_name},
    )
    event.listen(engine, "checkout", _replace_if_dead)
    return engine


def create_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions that keep what they loaded after a commit; a request or a job commits."""
    return sessionmaker(engine, expire_on_commit=False)


def _replace_if_dead(connection: Any, *_: object) -> None:
    """Has the pool make a new connection where the server has closed this one.

    An idle connection has nothing to read, except that it was closed: looking costs nothing, where SQLAlchemy's
    own test (`pool_pre_ping`) asks the server once more in every transaction.
    """
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    if connection.closed or waiting.poll(0):
        raise DisconnectionError


def _with_search_path(url: URL, search_path: str, more: str = "") -> URL:
    theirs = url.query.get("options", "")
    given = theirs if isinstance(theirs, str) else " ".join(theirs)
    # Theirs last: a user who sets an option in the address means it.
    options = " ".join(part for part in (f"-c search_path={search_path}", more, given) if part)
    return url.update_query_dict({"options": options})

"""A real PostgreSQL for every test process, with databases that are migrated once and copied.

`session` is a transaction that is rolled back. `database_url` is a fresh database for tests that commit, or
that start processes. `empty_database_url` has no tables yet. `live` is the whole service as `isoloss up` starts
it, one for all tests of a process; `client` is the library's at it, and `project` the name of one there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from isoloss.client import Client
    from store.embedded import EmbeddedPostgres

TEMPLATE = "migrated"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The server of this test process."""
    from store.embedded import EmbeddedPostgres

    # Nothing in it outlives the tests; tests/faults and tests/store run with the settings that users get.
    settings = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "32MB"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database, to be copied and never written."""
    from store.engine import normalise_url
    from store.migrate import upgrade

    _administrate(postgres, f"CREATE DATABASE {TEMPLATE}")
    upgrade(normalise_url(postgres.url_of(TEMPLATE)).render_as_string(hide_password=False))
    return TEMPLATE


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """A migrated database of this test's own, which may commit to it."""
    with _database(postgres, template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database of this test's own without a table."""
    with _database(postgres, "template1") as url:
        yield url


@pytest.fixture(scope="session")
def engine(postgres: EmbeddedPostgres, template: str) -> Iterator[Engine]:
    """Connections to a migrated database that stays empty: what `session` does is rolled back."""
    from store.engine import create_engine

    with _database(postgres, template) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session whose commits are undone at the end of the test."""
    from sqlalchemy.orm import Session

    with engine.connect() as connection:
        transaction = connection.begin()
        options = {"join_transaction_mode": "create_savepoint", "expire_on_commit": False}
        with Session(connection, **options) as session:
            yield session
        transaction.rollback()


@contextmanager
def _database(postgres: EmbeddedPostgres, source: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _administrate(postgres, f"CREATE DATABASE {name} TEMPLATE {source}")
    yield postgres.url_of(name)
    _administrate(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _administrate(postgres: EmbeddedPostgres, statement: str) -> None:
    import psycopg

    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Live:
    """A running service."""

    url: str
    api_key: str


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The whole service as `isoloss up` starts it, with one worker, for all tests of this process.

    It looks after runs that train every other second, for nobody wants to wait a minute.
    """
    folder = tmp_path_factory.mktemp("service")
    ready = folder / "ready.json"
    command = [
        sys.executable,
        "-m",
        "isoloss",
        "up",
        "--port",
        "0",
        "--workers",
        "1",
        "--data-dir",
        str(folder),
    ]
    with (folder / "up.log").open("wb") as log:
        env = {**os.environ, "ISOLOSS_FORECAST_EVERY_S": "2"}
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=log, stderr=log, env=env)
        try:
            yield Live(**_wait_for(ready, process, folder / "up.log"))
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    """A client of the library at the running service, which may do everything."""
    from isoloss.client import Client

    with Client(live.url, live.api_key) as client:
        yield client


@pytest.fixture
def project() -> str:
    """The name of a project of this test's own at the running service; nobody has made it yet."""
    return f"test-{uuid.uuid4().hex[:12]}"


def _wait_for(ready: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return json.loads(ready.read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    pytest.fail(f"the service did not start:\n{log.read_text()}")

"""A real HTTP server over a real database, for the tests of the API."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from sqlalchemy.orm import Session, sessionmaker

from app.main import create_app
from app.settings import Settings
from store import keys
from store.embedded import EmbeddedPostgres
from store.engine import create_engine, create_sessions

MAX_BODY = 200_000
_names = count(1)


class Api:
    """A running service: its address, its database, and clients of it."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.engine = create_engine(database_url, pool_size=2)
        self.sessions: sessionmaker[Session] = create_sessions(self.engine)
        with self.sessions.begin() as session:
            self.key = keys.create(session, "tests", keys.SCOPES)[1]
        self._clients: list[httpx.Client] = []
        settings = Settings(database_url, max_body_bytes=MAX_BODY, pool_size=4)
        config = uvicorn.Config(create_app(settings), log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()

    def client(self, key: str | None) -> httpx.Client:
        """A client with this key, or with none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self.engine.dispose()


@pytest.fixture(scope="session")
def api(postgres: EmbeddedPostgres, template: str) -> Iterator[Api]:
    """One service for all tests of the API; each works in a project of its own."""
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE api TEMPLATE {template}".encode())
    service = Api(postgres.url_of("api"))
    yield service
    service.close()


@pytest.fixture
def client(api: Api) -> httpx.Client:
    """A client that may do everything."""
    return api.client(api.key)


@pytest.fixture
def project(client: httpx.Client) -> str:
    """The path of a new project."""
    name = f"p{next(_names)}"
    assert client.post("/v1/projects", json={"name": name}).status_code == 201
    return f"/v1/projects/{name}"


@pytest.fixture
def run(client: httpx.Client, project: str) -> str:
    """The path of a new run with a constant schedule of 100 steps."""
    schedule = {"kind": "constant", "total_steps": 100, "peak_lr": 1e-3}
    assert client.put(f"{project}/runs/r", json={"name": "r", "schedule": schedule}).status_code == 201
    return f"{project}/runs/r"


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a response, which must be one of this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert {"type", "title", "status", "detail"} <= document.keys()
    return document


def fields(response: httpx.Response) -> list[str]:
    """The fields that a 422 answer names."""
    return [one["field"] for one in problem(response, 422)["errors"]]

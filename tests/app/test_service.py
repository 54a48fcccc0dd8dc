from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from isoloss.errors import InvalidInput
from store import migrate
from store.embedded import EmbeddedPostgres
from tests.app.conftest import MAX_BODY, Api, problem


def _declaring(api: Api, length: int, *headers: str) -> bytes:
    """What a server answers to the head of a request whose body has not been sent."""
    port = int(api.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        head = ["POST /v1/projects HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers, "", ""]
        connection.sendall("\r\n".join(head).encode())
        return connection.recv(4096)


def test_a_body_that_declares_too_much_is_refused_unread(api: Api) -> None:
    """A body of 100 MB is 413 before one byte of it has been sent."""
    assert _declaring(api, 100_000_000).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("headers", [(), ("Authorization: Bearer wrong",), ("Authorization: Basic eDp5",)])
@pytest.mark.parametrize("length", [5, MAX_BODY])
def test_the_body_of_a_stranger_is_not_read(api: Api, headers: tuple[str, ...], length: int) -> None:
    """Without a known key the answer is 401 before one byte of the body has been sent."""
    answer = _declaring(api, length, *headers)
    assert answer.startswith(b"HTTP/1.1 401")
    assert (b"connection: close" in answer.lower()) == (length == MAX_BODY)


def test_a_revoked_key_writes_nothing_however_lately_it_was_good(api: Api, client: httpx.Client) -> None:
    """That a key has been seen lately only lets its body be read."""
    made = client.post("/v1/keys", json={"name": "k", "scopes": ["write"]}).json()
    guest = api.client(made["key"])
    assert guest.post("/v1/projects", json={"name": "of-a-guest"}).status_code == 201
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    problem(guest.post("/v1/projects", json={"name": "of-a-stranger"}), 401)


def test_a_body_is_nested_only_so_deep(client: httpx.Client, project: str) -> None:
    """What could be stored and never shown again is 422, in a run's config as in a batch of points."""

    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth

    path = f"{project}/runs/deep"
    for depth in (19, 253, 1000):
        body = f'{{"name": "r", "config": {{"mine": {nested(depth)}}}}}'
        assert "nested" in problem(client.put(path, content=body), 422)["detail"]
    problem(client.get(path), 404)
    body = f'{{"name": "r", "config": {{"mine": {nested(18)}, "brackets": "{"[" * 50}"}}}}'
    assert client.put(path, content=body).status_code == 201
    assert client.get(f"{project}/runs").json()["items"][0]["config"] == json.loads(body)["config"]
    points = f'{{"step": [1], "loss": [{nested(900)}]}}'
    problem(client.post(f"{path}/points", content=points), 422)


def test_a_streamed_body_is_cut_off_at_the_limit(client: httpx.Client, run: str) -> None:
    """A body without a declared length is 413 as soon as it passes the limit, and the service goes on."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b" " * 10_000

    with contextlib.suppress(httpx.WriteError):  # the answer may come while the client is still sending
        problem(client.post(f"{run}/points", content=endless()), 413)
    assert sent < 100 * MAX_BODY
    problem(client.post(f"{run}/points", content=b" " * (MAX_BODY + 1)), 413)
    assert client.post(f"{run}/points", json={"step": [1], "loss": [3.0]}).status_code == 200


@pytest.mark.parametrize(
    "body", [b"{", b'{"name": NaN}', b'{"name": "x",}', b"\xff", b'{"name": "\\ud800"}', b"[" * 5000]
)
def test_malformed_json_is_400(client: httpx.Client, body: bytes) -> None:
    """What is no strict JSON is malformed, whatever content type it declares."""
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        response = client.post("/v1/projects", content=body, headers={"Content-Type": content_type})
        assert problem(response, 400)["type"] == "urn:isoloss:malformed"


@pytest.mark.parametrize("body", [b"", b"5", b"null", b"[]", b'"x"'])
def test_json_of_another_shape_is_422(client: httpx.Client, body: bytes) -> None:
    """A body that is no object is invalid input."""
    problem(client.post("/v1/projects", content=body), 422)


def test_paths_and_methods_that_are_none(client: httpx.Client) -> None:
    """404 and 405 are problem documents too."""
    problem(client.get("/v1/nothing"), 404)
    assert "allow" in client.patch("/v1/projects").headers
    problem(client.patch("/v1/projects"), 405)


def test_health_readiness_and_metrics_need_no_key(api: Api, client: httpx.Client, run: str) -> None:
    """Who watches the service can see that it lives, that it is ready, and what it has counted."""
    client.post(f"{run}/points", json={"step": [1, 2], "loss": [3.0, 2.0]})
    watcher = api.client(None)
    assert watcher.get("/healthz").json()["status"] == "ok"
    assert watcher.get("/readyz").json() == {"status": "ready", "database": migrate.head()}
    counted = dict(
        line.rsplit(" ", 1) for line in watcher.get("/metrics").text.splitlines() if line[0] != "#"
    )
    assert float(counted["isoloss_points_accepted_total"]) >= 2
    assert float(counted['isoloss_requests_total{method="POST",status="200"}']) >= 1


def test_a_project_can_be_watched(api: Api, client: httpx.Client, project: str) -> None:
    """Runs, fits and jobs that change come as events, those of other projects do not."""
    events: list[tuple[str, dict[str, Any]]] = []
    watching = threading.Event()

    def watch() -> None:
        with api.client(api.key).stream("GET", f"{project}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            kind = ""
            for line in stream.iter_lines():
                watching.set()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))
                if {"run", "job", "fit"} <= {kind for kind, _ in events}:
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert watching.wait(10)
    client.post("/v1/projects", json={"name": "elsewhere"})
    client.put("/v1/projects/elsewhere/runs/quiet", json={"name": "quiet"})
    schedule = {"kind": "constant", "total_steps": 9, "peak_lr": 1e-3}
    client.put(f"{project}/runs/r", json={"name": "r", "schedule": schedule})
    fit = client.post(f"{project}/fits", json={"law": "lr_annealing", "select": {"all": True}}).json()
    watcher.join(15)
    assert not watcher.is_alive()
    assert ("run", {"run_id": "r", "status": "running", "last_step": None}) in events
    assert fit["id"] in [facts["id"] for kind, facts in events if kind == "fit"]
    assert "quiet" not in [facts.get("run_id") for _, facts in events]
    problem(client.get("/v1/projects/gone/events"), 404)


def test_every_operation_and_field_is_described(client: httpx.Client) -> None:
    """The published description has words for every operation, field and parameter, and examples to start from."""
    document = client.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) >= 26
    for operation in operations:
        assert operation.get("description"), operation["operationId"]
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                assert parameter.get("description"), (operation["operationId"], parameter["name"])
    for name, schema in document["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            assert said.get("description"), (name, field)
    batch = document["paths"]["/v1/projects/{project}/runs/{run_id}/points"]["post"]["requestBody"]
    assert batch["content"]["application/json"]["schema"]["examples"]


def test_a_database_that_goes_and_comes_back(tmp_path: Path) -> None:
    """503 with Retry-After while the database is down; afterwards all works again, without a restart."""
    with EmbeddedPostgres(tmp_path / "data") as postgres:
        migrate.upgrade(postgres.url)
        api = Api(postgres.url)
        client = api.client(api.key)
        for _ in range(3):
            assert client.get("/v1/projects").status_code == 200
        postgres.stop()
        for path in ("/v1/projects", "/readyz", "/v1/projects"):
            response = client.get(path)
            problem(response, 503)
            assert int(response.headers["retry-after"]) > 0
        problem(client.post("/v1/projects/p/runs/r/points", json={"step": [1], "loss": [1.0]}), 503)
        assert client.get("/healthz").status_code == 200
        postgres.start()
        answers = [client.get("/v1/projects").status_code for _ in range(5)]
        assert answers == [200] * 5
        assert client.get("/readyz").status_code == 200
        api.close()


def test_a_database_without_our_schema_is_not_ready(database_url: str) -> None:
    """The service says 503 on /readyz until its schema is there."""
    api = Api(database_url)
    migrate.downgrade(database_url, "0001")
    assert "0001" in problem(api.client(None).get("/readyz"), 503)["detail"]
    migrate.upgrade(database_url)
    assert api.client(None).get("/readyz").status_code == 200
    api.close()


def test_settings_come_from_the_environment() -> None:
    """ISOLOSS_DATABASE_URL must be there; what makes no sense is told by its name."""
    assert Settings.from_environment({"ISOLOSS_DATABASE_URL": "u"}).database_url == "u"
    bounded = {"ISOLOSS_DATABASE_URL": "u", "ISOLOSS_MAX_BODY_BYTES": "5"}
    assert Settings.from_environment(bounded).max_body_bytes == 5
    with pytest.raises(InvalidInput, match="ISOLOSS_DATABASE_URL"):
        Settings.from_environment({})
    for wrong in ("0", "-1", "many"):
        with pytest.raises(InvalidInput, match="ISOLOSS_MAX_BODY_BYTES"):
            Settings.from_environment({**bounded, "ISOLOSS_MAX_BODY_BYTES": wrong})

"""`isoloss up` in a hostile world: interrupts, kills of any of its processes, a database that goes away."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from store.embedded import EmbeddedPostgres
from tests.faults.service import Up, wait_until

Start = Callable[..., Up]

pytestmark = pytest.mark.faults


def test_ctrl_c_ends_everything_and_the_next_start_goes_on(up: Start, data_dir: Path) -> None:
    """After Ctrl-C no process is left; the next start has the data and the key, which is shown once."""
    first = up().wait_until_ready()
    key = first.ready["api_key"]
    assert first.ready_file.stat().st_mode & 0o777 == 0o600
    assert (data_dir / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((data_dir / "credentials.json").read_text()) == first.ready
    assert data_dir.stat().st_mode & 0o777 == 0o700
    for process in first.relatives():
        assert key not in " ".join(process.cmdline())
    with first.client as client:
        assert client.post("/v1/projects", json={"name": "kept"}).status_code == 201
        first.interrupt()
        printed = first.output()
    assert first.process.returncode == 0
    assert first.relatives() == []
    assert printed.count(key) == 1
    assert f"In another terminal: export ISOLOSS_DATA_DIR={data_dir}" in printed
    assert "Traceback" not in printed

    second = up("--workers", "0").wait_until_ready()
    assert second.ready["api_key"] == key
    with second.client as client:
        assert client.get("/v1/projects/kept").status_code == 200
    second.process.send_signal(signal.SIGTERM)
    assert key not in second.output()
    assert second.process.returncode == 0
    assert second.relatives() == []


def test_a_kill_of_up_itself_leaves_no_process_and_loses_nothing(up: Start) -> None:
    """`kill -9` of `isoloss up`: its children end, PostgreSQL stops cleanly, the next start has the data."""
    first = up("--workers", "1").wait_until_ready()
    with first.client as client:
        assert client.post("/v1/projects", json={"name": "kept"}).status_code == 201
    first.process.kill()
    second = up("--workers", "0").wait_until_ready()  # at once, while the first's children are still ending
    wait_until(lambda: first.relatives() == [], 30)
    with second.client as client:
        assert client.get("/v1/projects/kept").status_code == 200


def test_each_process_that_dies_is_replaced(up: Start) -> None:
    """The API, a worker and the postmaster are killed in turn; the service goes on by itself."""
    service = up("--workers", "1").wait_until_ready()
    with service.client as client:
        assert client.post("/v1/projects", json={"name": "kept"}).status_code == 201
        for name in ("app.server", "workers", "postgres"):
            killed = service.child(name)
            killed.kill()
            wait_until(lambda name=name, killed=killed: _is_replaced(service, name, killed), 30)
            wait_until(lambda: _status(client, "/v1/projects/kept") == 200, 20)
    service.interrupt()
    assert service.process.wait(20) == 0
    assert service.relatives() == []


def test_without_its_database_it_says_503_and_recovers(up: Start, tmp_path: Path) -> None:
    """The database stops in the middle: 503 with Retry-After, alive but not ready; then it is as before."""
    with EmbeddedPostgres(tmp_path / "theirs") as database:
        service = up("--workers", "1", env={"ISOLOSS_DATABASE_URL": database.url}).wait_until_ready()
        assert not (service.data_dir / "postgres").exists()
        with service.client as client:
            assert client.post("/v1/projects", json={"name": "kept"}).status_code == 201
            database.stop()
            for method, path in (("GET", "/v1/projects/kept"), ("POST", "/v1/projects"), ("GET", "/readyz")):
                begun = time.monotonic()
                answer = client.request(method, path, json={"name": "new"} if method == "POST" else None)
                assert (answer.status_code, path) == (503, path)
                assert time.monotonic() - begun < 10
            assert int(client.get("/v1/projects/kept").headers["Retry-After"]) > 0
            assert client.get("/healthz").status_code == 200
            database.start()
            wait_until(lambda: _status(client, "/v1/projects/kept") == 200, 30)
        service.interrupt()
        assert service.process.wait(20) == 0


def test_a_second_up_is_refused_with_the_remedy(up: Start) -> None:
    """Two services on one folder, or one port, end in one sentence that says what to do."""
    first = up("--workers", "0").wait_until_ready()
    second = up()
    said = second.output()
    assert second.process.returncode == 1
    assert f"process {first.process.pid} is using it" in " ".join(said.split())
    assert "Traceback" not in said
    port = httpx.URL(first.ready["url"]).port
    third = up("--port", str(port))
    said = third.output()
    assert third.process.returncode == 1
    assert f"port {port} cannot be listened on" in " ".join(said.split())


def test_an_interrupt_in_the_middle_of_the_start_leaves_nothing(up: Start) -> None:
    """Ctrl-C while it still starts ends it as cleanly."""
    service = up()
    wait_until(lambda: (service.data_dir / "postgres").exists(), 20)
    service.interrupt()
    printed = service.output()
    assert service.process.returncode == 0
    assert "Traceback" not in printed
    # What makes the database dies with its maker, on a busy machine a moment after it.
    wait_until(lambda: service.relatives() == [], 30)


def test_a_database_that_is_not_there_is_said_in_one_sentence(up: Start) -> None:
    """A wrong address ends the start with the reason, without a traceback and without the password."""
    service = up(env={"ISOLOSS_DATABASE_URL": "postgres://someone:secret@127.0.0.1:9/nothing"})
    said = service.output()
    assert service.process.returncode == 1
    assert "The database cannot be reached" in said
    assert "Traceback" not in said
    assert "secret" not in said


def _is_replaced(service: Up, name: str, killed: psutil.Process) -> bool:
    try:
        return service.child(name).pid != killed.pid
    except (AssertionError, psutil.Error, IndexError):
        return False


def _status(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path).status_code
    except httpx.TransportError:
        return 0


def test_the_listening_socket_sends_small_answers_at_once() -> None:
    """The socket names its protocol, which is what makes asyncio turn Nagle's algorithm off."""
    from app.server import listen, url_of

    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert os.get_inheritable(listener.fileno())
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"

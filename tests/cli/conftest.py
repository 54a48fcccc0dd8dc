"""The command line run in this process against a scripted service."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from isoloss.cli import build
from isoloss.client import Client

Routes = dict[str, Any]
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Invoke:
    """Runs `isoloss` with the arguments; `routes` gives the answer, or its document, to "METHOD path"."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ISOLOSS_URL", "http://service.test")
    monkeypatch.delenv("ISOLOSS_API_KEY", raising=False)
    app = build()

    def run(
        *arguments: str,
        routes: Routes | None = None,
        requests: list[httpx.Request] | None = None,
        **options: Any,
    ):
        def answer(request: httpx.Request) -> httpx.Response:
            if requests is not None:
                requests.append(request)
            found = (routes or {}).get(f"{request.method} {request.url.path}")
            if isinstance(found, httpx.TransportError):
                raise found
            if isinstance(found, httpx.Response):
                return found
            return (
                httpx.Response(404, json={"title": "Not found"})
                if found is None
                else httpx.Response(200, json=found)
            )

        scripted = functools.partial(Client, transport=httpx.MockTransport(answer))
        monkeypatch.setattr("isoloss.client.Client", scripted)
        return CliRunner().invoke(app, list(arguments), **options)

    return run


@dataclass(frozen=True)
class Live:
    """A running service."""

    url: str
    api_key: str


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The whole service as `isoloss up` starts it, with one worker, for all tests of this process."""
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
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=log, stderr=log)
        try:
            yield Live(**_wait_for(ready, process, folder / "up.log"))
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(ready: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return json.loads(ready.read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    pytest.fail(f"the service did not start:\n{log.read_text()}")

"""The command line run in this process against a scripted service."""

from __future__ import annotations

import functools
from collections.abc import Callable
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

"""A client whose service is a script: the answers it will give, and the requests it has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from isoloss.client import Client

Answer = httpx.Response | httpx.TransportError


@dataclass
class Script:
    """Gives its answers in order, the last one for ever."""

    answers: list[Answer]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client would have made; none is made."""
    made: list[float] = []
    monkeypatch.setattr("time.sleep", made.append)
    return made


@pytest.fixture
def scripted(pauses: list[float]) -> Callable[..., tuple[Client, Script]]:
    """Makes a client and the script of its service."""

    def make(*answers: Answer, **options: Any) -> tuple[Client, Script]:
        script = Script(list(answers))
        transport = httpx.MockTransport(script)
        return Client("http://service.test", "secret-key", transport=transport, **options), script

    return make

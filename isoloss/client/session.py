"""The client of an Isoloss service."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from isoloss.client.advice import Fronts, Recommendations
from isoloss.client.documents import Health
from isoloss.client.errors import ApiError
from isoloss.client.fits import Fits
from isoloss.client.forecasts import Forecasts
from isoloss.client.jobs import Jobs
from isoloss.client.keys import Keys
from isoloss.client.laws import Laws
from isoloss.client.points import Points
from isoloss.client.projects import Projects
from isoloss.client.retries import RetryPolicy
from isoloss.client.runs import Runs
from isoloss.client.settings import find_settings
from isoloss.client.sweeps import Sweeps
from isoloss.client.transport import Transport
from isoloss.client.webhooks import Webhooks
from isoloss.errors import InvalidInput

LONGEST_TIMEOUT_S = 1e9


class Client:
    """Talks to an Isoloss service; one attribute per noun of its API.

    Without arguments it finds the service by ISOLOSS_URL and ISOLOSS_API_KEY, else the one that
    `isoloss up` started on this machine. Requests that meet a busy or restarting service are repeated, each
    of them safe to repeat. A client keeps connections open: use it in a `with`, or call `close`.

    >>> with isoloss.Client() as client:
    ...     client.projects.create("pilot", exist_ok=True)
    ...     client.runs.put("pilot", "run-1", schedule=schedule)
    ...     client.points.append("pilot", "run-1", {"step": steps, "loss": loss, "lr": lr})
    ...     fit = client.fits.create("pilot", "lr_annealing", all=True, wait=True)
    ...     client.fits.predict("pilot", fit["id"], schedule=other_schedule)["value"]

    Raises `isoloss.client.errors.ApiError` and its subclasses for what the service refuses, and
    `isoloss.errors.Unavailable` where no service answers.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is seconds for one attempt, `retries` how many follow it; `transport` is for tests.

        Raises InvalidInput for an argument of a wrong kind.
        """
        _check(url, api_key, timeout, retries)
        self._transport = Transport(
            find_settings(url, api_key),
            timeout=timeout,
            policy=RetryPolicy(retries=retries),
            transport=transport,
        )
        self.projects = Projects(self._transport)
        self.runs = Runs(self._transport)
        self.points = Points(self._transport)
        self.fits = Fits(self._transport)
        self.recommendations = Recommendations(self._transport)
        self.pareto = Fronts(self._transport)
        self.forecasts = Forecasts(self._transport)
        self.sweeps = Sweeps(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.jobs = Jobs(self._transport)
        self.laws = Laws(self._transport)
        self.keys = Keys(self._transport)

    @property
    def url(self) -> str:
        """The address of the service."""
        return self._transport.url

    def health(self) -> Health:
        """Whether the service is alive and its database ready; raises Unavailable where nothing answers."""
        alive = self._transport.get("/healthz")
        ready, details = self._ask_ready()
        return {"url": self.url, "alive": True, "ready": ready, "details": details or _details(alive)}

    def _ask_ready(self) -> tuple[bool, dict[str, Any]]:
        try:
            return True, _details(self._transport.request("GET", "/readyz", repeated=False))
        except ApiError as error:
            return False, error.problem()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"


def _details(document: object) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}


def _check(url: object, api_key: object, timeout: object, retries: object) -> None:
    """Refuse what a request would only stumble over; a key is not shown."""
    for name, text in (("url", url), ("api_key", api_key)):
        if text is not None and not isinstance(text, str):
            raise InvalidInput(field=name, reason=f"must be a text, not {type(text).__name__}")
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < LONGEST_TIMEOUT_S:  # type: ignore[operator]
        raise InvalidInput(field="timeout", reason="must be a number of seconds above 0")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidInput(field="retries", reason="must be a whole number, 0 or more")

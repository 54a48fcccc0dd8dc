"""One HTTP connection pool to the service: authorised, retried, and its problems raised as exceptions."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from isoloss import __version__
from isoloss.client import wire
from isoloss.client.errors import from_problem
from isoloss.client.retries import RETRIED_STATUSES, RetryPolicy, retry_after_seconds
from isoloss.client.settings import Settings
from isoloss.errors import InvalidInput, Unavailable

PAGE_SIZE = 100


class Transport:
    """Sends requests and returns documents; every request it sends may be repeated without harm.

    GET, PUT and DELETE are idempotent by their nature; a POST that creates something carries an
    Idempotency-Key, the same on each attempt, and the other POSTs of the API are harmless when repeated.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout: float,
        policy: RetryPolicy,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = settings.url
        self.policy = policy
        headers = {"User-Agent": f"isoloss/{__version__}", "Accept": "application/json"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {_checked_key(settings.api_key)}"
        try:
            # A proxy of the environment cannot reach this machine's own loopback.
            self._http = httpx.Client(
                base_url=settings.url,
                headers=headers,
                timeout=timeout,
                transport=transport,
                trust_env=not is_loopback(settings.url),
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidInput(field="url", reason=f"{settings.url!r} is no address ({error})") from error

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self.request("GET", path, params=params)

    def put(self, path: str, body: object) -> Any:
        return self.request("PUT", path, body=body)

    def post(
        self,
        path: str,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        *,
        creates: bool = False,
    ) -> Any:
        headers = {"Idempotency-Key": str(uuid.uuid4())} if creates else {}
        return self.request("POST", path, params=params, body=body, headers=headers)

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def items(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Every item of a list, page by page, fetched as they are asked for."""
        query = {"limit": PAGE_SIZE, **(params or {})}
        while True:
            page = self.get(path, query)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        repeated: bool = True,
    ) -> Any:
        """The document of the answer, None where it has no body; raises ApiError or Unavailable."""
        response = self.send(method, path, params=params, body=body, headers=headers, repeated=repeated)
        return _document(response) if response.is_success and response.content else None

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        repeated: bool = True,
    ) -> httpx.Response:
        """The successful answer, after as many attempts as the policy allows, or one unless `repeated`.

        A body of bytes is JSON already.
        """
        request = self._build(method, path, params, body, headers)
        attempt = 0
        while True:
            answer = self._attempt(request)
            if isinstance(answer, httpx.Response) and _is_done(answer, method, attempt):
                return answer
            pause = self._pause(attempt, answer) if repeated else None
            if pause is None:
                raise self._error(answer)
            time.sleep(pause)
            attempt += 1

    def _build(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        content = body if body is None or isinstance(body, bytes) else wire.dump(body)
        sent = dict(headers or {})
        if content is not None:
            sent["Content-Type"] = "application/json"
        query = {name: value for name, value in (params or {}).items() if value is not None}
        return self._http.build_request(method, path, params=query or None, content=content, headers=sent)

    def _attempt(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(request)
        except httpx.UnsupportedProtocol as error:
            raise InvalidInput(field="url", reason=f"{self.url!r} is no http address") from error
        except httpx.RequestError as error:
            return error

    def _pause(self, attempt: int, answer: httpx.Response | httpx.RequestError) -> float | None:
        asked = None
        if isinstance(answer, httpx.Response):
            if answer.status_code not in RETRIED_STATUSES:
                return None
            asked = retry_after_seconds(answer.headers.get("Retry-After"))
        return self.policy.pause(attempt, random.random(), asked)

    def _error(self, answer: httpx.Response | httpx.RequestError) -> Exception:
        if isinstance(answer, httpx.Response):
            retry_after = retry_after_seconds(answer.headers.get("Retry-After"))
            return from_problem(answer.status_code, _document_or_none(answer), retry_after)
        return Unavailable(service=f"The service at {self.url}", reason=_reason(answer))


def is_loopback(url: str) -> bool:
    """Whether an address is this machine itself."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_key(key: str) -> str:
    # Said here without the key, where HTTP itself would fail late and show it.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidInput(field="api_key", reason="this is no key: it holds blanks or other odd characters")
    return key


def _is_done(answer: httpx.Response, method: str, attempt: int) -> bool:
    # A repeated deletion whose first answer was lost finds nothing left to delete: that is success.
    return answer.is_success or (method == "DELETE" and attempt > 0 and answer.status_code == 404)


def _reason(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return text[0].lower() + text[1:]


def _document(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except ValueError as error:
        raise Unavailable(
            service=f"The service at {response.request.url.host}", reason="its answer is not JSON"
        ) from error


def _document_or_none(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except ValueError:
        return None

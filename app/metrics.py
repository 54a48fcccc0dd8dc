"""Counters of the service in the text format of Prometheus, and the line that is logged for each request."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("isoloss.requests")


@dataclass
class Counter:
    """A number that only grows, for each set of labels."""

    help: str
    values: Counts[tuple[str, ...]] = field(default_factory=Counts)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, amount: float, *labels: str) -> None:
        with self.lock:
            self.values[labels] += amount  # type: ignore[assignment]


@dataclass
class Metrics:
    """What the service counts of itself, since it started."""

    requests: Counter = field(default_factory=lambda: Counter("Requests answered, by method and status."))
    request_seconds: Counter = field(default_factory=lambda: Counter("Seconds spent answering, by method."))
    points_accepted: Counter = field(default_factory=lambda: Counter("Points that brought something new."))
    points_duplicate: Counter = field(default_factory=lambda: Counter("Points that were there already."))

    LABELS = {"requests": ("method", "status"), "request_seconds": ("method",)}  # noqa: RUF012


METRICS = Metrics()


def exposition(jobs_by_status: Mapping[str, int]) -> str:
    """All counters, and the number of jobs of each status, as Prometheus reads them."""
    return "\n".join([*_counters(), *_jobs(jobs_by_status)]) + "\n"


def _counters() -> Iterator[str]:
    for name, counter in vars(METRICS).items():
        full = f"isoloss_{name}_total"
        yield f"# HELP {full} {counter.help}"
        yield f"# TYPE {full} counter"
        names = Metrics.LABELS.get(name, ())
        with counter.lock:
            values = dict(counter.values) or ({(): 0} if not names else {})
        for labels, value in values.items():
            pairs = ",".join(f'{key}="{label}"' for key, label in zip(names, labels, strict=True))
            yield f"{full}{{{pairs}}} {value}" if pairs else f"{full} {value}"


def _jobs(by_status: Mapping[str, int]) -> Iterator[str]:
    yield "# HELP isoloss_jobs Jobs in the database, by status."
    yield "# TYPE isoloss_jobs gauge"
    for status, count in sorted(by_status.items()):
        yield f'isoloss_jobs{{status="{status}"}} {count}'


class Observed:
    """Counts and logs every request that the application answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            seconds = time.perf_counter() - started
            METRICS.requests.add(1, scope["method"], str(status))
            METRICS.request_seconds.add(seconds, scope["method"])
            log.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, seconds * 1000)

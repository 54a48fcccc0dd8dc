"""Ingest and reading over HTTP: the real service, the embedded database with fsync on, four client processes.

Bodies are made before the clock starts, so that the service is measured and not the clients; everything else
counts: HTTP, the key, the checks, the conflict check, the commit to disk, the log.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing as mp
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import psutil
import sqlalchemy as sa

from app.up import Service, Wanted, serving
from benchmarks.tables import print_table
from store.engine import create_engine

N_CLIENTS = 4
LONG_RUN = 1_000_000
MEBIBYTE = 1024**2
COLUMNS = ("loss", "lr", "tokens", "grad_norm")
PROJECT = "bench"


@dataclass(frozen=True)
class Measured:
    """One number beside what it must reach."""

    name: str
    value: float
    target: float
    unit: str
    at_least: bool = False

    @property
    def reached(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def main() -> list[Measured]:
    """Measure all, print a table, and return the numbers."""
    with (
        tempfile.TemporaryDirectory(prefix="isoloss-bench-") as folder,
        serving(Wanted(Path(folder))) as service,
        _watching_memory() as peak,
    ):
        Client(service.url, service.api_key).send("POST", "/v1/projects", {"name": PROJECT})
        found = [
            _ingest(service, 1000, 300, 100_000),
            _ingest(service, 10, 1000, 3_000),
            *_reads(service),
        ]
        found.append(Measured("memory of the API, highest", peak() / MEBIBYTE, 400, "MiB"))
    print_table("Ingest and reading over HTTP", [_row(one) for one in found])
    return found


class Client:
    """One connection that is kept open."""

    def __init__(self, url: str, key: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def send(self, method: str, path: str, document: object = None) -> bytes:
        return self.send_bytes(method, path, None if document is None else json.dumps(document).encode())

    def send_bytes(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content


def _ingest(service: Service, batch: int, n_batches: int, target: float) -> Measured:
    """Points per second that four clients reach together, each on a run of its own."""
    context = mp.get_context("spawn")
    barrier = context.Barrier(N_CLIENTS + 1)
    answers: Any = context.Queue()
    arguments = (service.url, service.api_key, batch, n_batches, barrier, answers)
    clients = [context.Process(target=_write, args=(number, *arguments)) for number in range(N_CLIENTS)]
    for client in clients:
        client.start()
    barrier.wait()
    started = time.perf_counter()
    latencies = np.concatenate([answers.get() for _ in clients])
    seconds = time.perf_counter() - started
    for client in clients:
        client.join()
    print(f"{batch} a batch: median {np.median(latencies):.1f} ms, p99 {np.quantile(latencies, 0.99):.1f} ms")
    points = N_CLIENTS * n_batches * batch
    return Measured(f"ingest, {batch} points a batch", points / seconds, target, "points/s", at_least=True)


def _write(
    number: int, url: str, key: str, batch: int, n_batches: int, barrier: Barrier, answers: Any
) -> None:
    client = Client(url, key)
    run = f"/v1/projects/{PROJECT}/runs/b{batch}-{number}"
    client.send("PUT", run, {"name": "bench"})
    points = _made(batch * n_batches, seed=number)
    bodies = [_body(points, at, batch) for at in range(0, batch * n_batches, batch)]
    latencies = []
    barrier.wait()
    for body in bodies:
        started = time.perf_counter()
        client.send_bytes("POST", f"{run}/points", body)
        latencies.append(1000 * (time.perf_counter() - started))
    answers.put(np.array(latencies))


def _reads(service: Service) -> Iterator[Measured]:
    client = Client(service.url, service.api_key)
    run = f"/v1/projects/{PROJECT}/runs/long"
    client.send("PUT", run, {"name": "long"})
    points = _made(LONG_RUN, seed=9)
    for at in range(0, LONG_RUN, 10_000):
        client.send_bytes("POST", f"{run}/points", _body(points, at, 10_000))
    thin = f"{run}/points?columns=loss&max_points=2000&x_scale=log"
    yield Measured("read a million points back, rows", _exact_read(client, run, points), 3.0, "s")
    yield Measured("thin them to 2,000, rows", _best(lambda: client.send_bytes("GET", thin)), 0.8, "s")
    client.send("PUT", run, {"name": "long", "status": "finished"})
    _wait_until_compacted(service)
    client = Client(service.url, service.api_key)  # the service closes connections that are idle for long
    yield Measured("read a million points back, chunks", _exact_read(client, run, points), 3.0, "s")
    yield Measured("thin them to 2,000, chunks", _best(lambda: client.send_bytes("GET", thin)), 0.2, "s")


def _exact_read(client: Client, run: str, points: dict[str, Any]) -> float:
    """Seconds until the client holds the arrays, which must be those that were sent, to the bit."""
    started = time.perf_counter()
    columns = orjson.loads(client.send_bytes("GET", f"{run}/points"))["columns"]
    found = {name: np.array(cells) for name, cells in columns.items()}
    seconds = time.perf_counter() - started
    for name, sent in points.items():
        if found[name].astype(sent.dtype).tobytes() != sent.tobytes():
            raise RuntimeError(f"the column {name} came back changed")
    return seconds


def _wait_until_compacted(service: Service) -> None:
    engine = create_engine(service.database_url, pool_size=1)
    rows = sa.text("SELECT count(*) FROM point JOIN run ON run.id = point.run WHERE run.run_id = 'long'")
    started = time.perf_counter()
    while True:
        with engine.connect() as connection:
            if not connection.execute(rows).scalar_one():
                break
        time.sleep(0.2)
    print(f"compacted {time.perf_counter() - started:.1f} s after the run had ended")
    engine.dispose()


def _best(act: Callable[[], object], times: int = 5) -> float:
    def once() -> float:
        started = time.perf_counter()
        act()
        return time.perf_counter() - started

    return min(once() for _ in range(times))


def _made(n_points: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    step = np.arange(1, n_points + 1)
    values = {name: random.gamma(4.0, size=n_points) + 0.1 for name in COLUMNS}
    return {"step": step, **values, "tokens": step * 524_288.0}


def _body(points: dict[str, Any], at: int, length: int) -> bytes:
    part = {name: column[at : at + length] for name, column in points.items()}
    return orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)


@contextmanager
def _watching_memory() -> Iterator[Callable[[], float]]:
    """The highest resident memory of the API process, in bytes, seen so far."""
    found = [0.0]
    stop = threading.Event()
    api = next(
        child for child in psutil.Process().children(recursive=True) if "app.server" in child.cmdline()
    )

    def watch() -> None:
        while not stop.wait(0.02):
            found[0] = max(found[0], api.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: found[0]
    finally:
        stop.set()
        watcher.join()


def _row(one: Measured) -> dict[str, str]:
    value = f"{one.value:.3g}" if one.value < 1000 else f"{one.value:,.0f}"
    target = f"{'at least' if one.at_least else 'at most'} {one.target:,g}"
    return {
        "what": one.name,
        "measured": value,
        "target": target,
        "unit": one.unit,
        "reached": "yes" if one.reached else "NO",
    }


if __name__ == "__main__":
    main()

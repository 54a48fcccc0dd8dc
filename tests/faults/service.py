"""`isoloss up` as a process of its own, for tests that kill parts of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from isoloss.client import Client

ISOLOSS = Path(sys.executable).with_name("isoloss")
STARTS_WITHIN_S = 60


class Up:
    """One `isoloss up`, in a session of its own as in a terminal of its own."""

    def __init__(self, data_dir: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.ready_file = data_dir.parent / f"ready-{uuid.uuid4().hex}.json"
        # Every descendant inherits it, so that none can hide.
        self.mark = uuid.uuid4().hex
        places = ["--data-dir", str(data_dir), "--port", "0", "--ready-file", str(self.ready_file)]
        self.process = subprocess.Popen(
            [str(ISOLOSS), "up", *places, *flags],
            env={**os.environ, "ISOLOSS_TEST_MARK": self.mark, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self) -> Up:
        """Returns once the ready file is there."""
        wait_until(lambda: self.ready_file.exists() or self.process.poll() is not None, STARTS_WITHIN_S)
        assert self.ready_file.exists(), self.output()
        self.ready = json.loads(self.ready_file.read_text())
        return self

    @property
    def client(self) -> httpx.Client:
        """A client with the key."""
        key = {"Authorization": f"Bearer {self.ready['api_key']}"}
        return httpx.Client(base_url=self.ready["url"], headers=key, timeout=20, trust_env=False)

    def relatives(self) -> list[psutil.Process]:
        """Every living process that `isoloss up` started, however it is related by now, and itself."""
        return [process for process in psutil.process_iter() if _has_mark(process, self.mark)]

    def child(self, module: str) -> psutil.Process:
        """A direct child, by its module: `app.server`, `workers`; `postgres` for the postmaster."""
        for process in psutil.Process(self.process.pid).children():
            words = process.cmdline()
            if module in words or words[0].endswith(f"/{module}"):
                return process
        raise AssertionError(f"no {module}: {self.relatives()}")

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: the whole foreground group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def output(self) -> str:
        """What it printed, once it has ended."""
        return self.process.communicate(timeout=30)[0].decode()

    def close(self) -> None:
        """Ends what is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(40)
        for stream in (self.process.stdout,):
            if stream is not None:
                stream.close()
        left = self.relatives()
        for process in left:
            process.kill()
        assert left == []


class Service:
    """A service that is killed and started again at the same address; one that only records needs no workers."""

    def __init__(self, data_dir: Path, workers: int = 1) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self._data_dir, self._workers = data_dir, str(workers)
        self.start()

    def start(self) -> None:
        self.running = Up(self._data_dir, "--port", self.port, "--workers", self._workers).wait_until_ready()
        self.url, self.api_key = self.running.ready["url"], self.running.ready["api_key"]

    def kill(self) -> None:
        """All of its processes at once."""
        for process in self.running.relatives():
            process.kill()
        wait_until(lambda: not self.running.relatives(), 20)
        self.running.close()

    def client(self) -> Client:
        return Client(self.url, self.api_key)


def wait_until(holds: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.03)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("ISOLOSS_TEST_MARK") == mark
    except psutil.Error:
        return False

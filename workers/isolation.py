"""CPU work in a process of its own, which can be stopped, limited, and lost without harm.

A thread cannot be stopped and a pool's process cannot be spared, so each worker keeps one child of its own.
The child is kept for the next job, for starting it and importing the numerical libraries takes a second; it
is replaced after anything but a clean end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from isoloss.errors import InvalidInput, IsolossError, JobFailed
from workers.child import LENGTH, encode

BEAT_S = 0.3
Beat = Callable[[float, str], Awaitable[bool]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one job may take: `seconds` of wall time, `memory_bytes` of its own, at niceness `nice`."""

    seconds: float = 1800.0
    memory_bytes: int = 4 * 2**30
    nice: int = 5  # the service answers first

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The limits that ISOLOSS_JOB_SECONDS and ISOLOSS_JOB_MEMORY_MB give. Raises InvalidInput."""
        seconds = _positive(environment, "ISOLOSS_JOB_SECONDS", cls.seconds)
        megabytes = _positive(environment, "ISOLOSS_JOB_MEMORY_MB", cls.memory_bytes / 2**20)
        return cls(seconds, round(megabytes * 2**20))


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    written = environment.get(name)
    if not written:
        return default
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidInput(field=name, reason="must be a number above 0")
    return value


class Stopped(Exception):
    """The job was told to stop, and its process is gone."""


class Isolation:
    """Runs functions in a child process, one at a time; the child dies with this process."""

    def __init__(self, limits: Limits | None = None, preload: Sequence[str] = ()) -> None:
        self.limits = limits or Limits()
        self._preload = preload
        self._child: Child | None = None

    async def warm(self) -> None:
        """Starts the child ahead of the first job."""
        await self._take()

    async def run(self, function: Callable[..., Any], *, beat: Beat, **keywords: Any) -> Any:
        """Calls `function(**keywords, progress=...)` in the child and returns what it returns.

        `function` must be importable, its keywords and result picklable. Its `progress(fraction, message)`
        reaches `beat`, which is awaited every 0.3 s and answers whether to go on.

        Raises the function's own IsolossError, JobFailed where it went over a limit, crashed or raised
        anything else, Stopped where `beat` said no. Cancelling the task ends the child too.
        """
        child = await self._take()
        healthy = False
        try:
            kind, value = await self._follow(child, encode((function, keywords)), beat)
            healthy = not isinstance(value, JobFailed)
        finally:
            if not healthy:
                self._child = None
                await child.kill()
        if kind == "error":
            raise value
        return value

    async def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.kill()

    async def _take(self) -> Child:
        if self._child is None or self._child.process.returncode is not None:
            self._child = await Child.start(self.limits, self._preload)
        return self._child

    async def _follow(self, child: Child, request: bytes, beat: Beat) -> tuple[str, Any]:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self.limits.seconds
        answer = asyncio.create_task(child.ask(request))
        try:
            while True:
                done, _ = await asyncio.wait({answer}, timeout=BEAT_S)
                if done:
                    return answer.result()
                if clock.time() > deadline:
                    raise JobFailed(reason=f"it took longer than {self.limits.seconds:g} s")
                if not await beat(child.fraction, child.message):
                    raise Stopped
        finally:
            answer.cancel()
            with suppress(asyncio.CancelledError, IsolossError):
                await answer


class Child:
    """The child process and what it said last."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.fraction = 0.0
        self.message = ""

    @classmethod
    async def start(cls, limits: Limits, preload: Sequence[str]) -> Child:
        """Starts a fresh interpreter: a fork would inherit this process's connections and threads."""
        command = [sys.executable, "-P", "-m", "workers.child", "--parent", str(os.getpid())]
        command += ["--memory-bytes", str(limits.memory_bytes), "--nice", str(limits.nice)]
        for module in preload:
            command += ["--preload", module]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, **threads},
            start_new_session=True,  # a Ctrl-C in the terminal is for the worker
        )
        return cls(process)

    async def ask(self, request: bytes) -> tuple[str, Any]:
        """Sends the request and returns the answer, noting progress on the way."""
        self.fraction, self.message = 0.0, ""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request)
            await self.process.stdin.drain()
            while True:
                kind, *values = await self._receive()
                if kind != "progress":
                    return kind, values[0]
                self.fraction, self.message = values
        except (asyncio.IncompleteReadError, ConnectionError):
            raise JobFailed(reason=_obituary(await self.process.wait())) from None

    async def _receive(self) -> tuple[Any, ...]:
        assert self.process.stdout is not None
        (length,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
        message: tuple[Any, ...] = pickle.loads(await self.process.stdout.readexactly(length))
        return message

    async def kill(self) -> None:
        """Ends the process at once and waits until it is gone."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        # asyncio lets go of the pipes only after the loop has turned once more.
        await asyncio.sleep(0)


def _obituary(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9); the machine may be out of memory"
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    return f"its process ended by itself (code {code})"

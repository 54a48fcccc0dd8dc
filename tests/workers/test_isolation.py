"""CPU work in a child process: its answers, its limits, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from isoloss.errors import InvalidInput, JobFailed, UnusableData
from tests.workers import chores
from tests.workers.chores import go_on
from workers.isolation import Isolation, Limits, Stopped

pytestmark = pytest.mark.faults


def isolated(body: Callable[[Isolation], Awaitable[Any]], limits: Limits | None = None) -> Any:
    """What `body` returns, given an Isolation that is closed after it."""

    async def main() -> Any:
        isolation = Isolation(limits)
        try:
            return await body(isolation)
        finally:
            await isolation.close()

    return asyncio.run(main())


def ask(function: Callable[..., Any], limits: Limits | None = None, **keywords: Any) -> Any:
    return isolated(lambda isolation: isolation.run(function, beat=go_on, **keywords), limits)


def test_a_function_gives_its_result_from_a_nicer_process() -> None:
    """The result comes back from another process, of lower priority than this one."""
    pid, nice = ask(chores.who, Limits(nice=3))
    assert pid != os.getpid()
    assert nice == os.nice(0) + 3


def test_a_healthy_child_is_kept_and_a_failed_one_replaced() -> None:
    """Two jobs share a child, also after an error of the user's; after a crash there is another."""

    async def body(isolation: Isolation) -> list[int]:
        pids = [(await isolation.run(chores.who, beat=go_on))[0]]
        with pytest.raises(UnusableData):
            await isolation.run(chores.refuse, beat=go_on)
        pids.append((await isolation.run(chores.who, beat=go_on))[0])
        with pytest.raises(JobFailed):
            await isolation.run(chores.leave, beat=go_on)
        pids.append((await isolation.run(chores.who, beat=go_on))[0])
        return pids

    first, second, third = isolated(body)
    assert first == second != third


def test_progress_is_heard_while_it_runs() -> None:
    """Fractions and messages reach the beat in order."""
    heard: list[tuple[float, str]] = []

    async def listen(fraction: float, message: str) -> bool:
        heard.append((fraction, message))
        return True

    isolated(lambda isolation: isolation.run(chores.sleep, beat=listen, seconds=1.5))
    assert heard == sorted(heard)
    assert heard[-1][0] > 0.3
    assert heard[-1][1].startswith("step ")


def test_an_error_of_ours_arrives_with_its_fields() -> None:
    """An IsolossError raised in the child is raised here."""
    with pytest.raises(UnusableData) as refusal:
        ask(chores.refuse)
    assert refusal.value.fields == {"reason": "the curve has no learning rate"}


@pytest.mark.parametrize(
    ("function", "keywords", "reason"),
    [
        (chores.stumble, {}, r"an unexpected error, KeyError: 'surprise'"),
        (chores.die, {"signum": signal.SIGKILL}, r"killed \(signal 9\)"),
        (chores.die, {"signum": chores.SEGFAULT}, r"crashed \(SIGSEGV\)"),
        (chores.leave, {}, r"ended by itself \(code 3\)"),
    ],
)
def test_every_other_end_is_a_failed_job_with_its_reason(
    function: Callable[..., Any], keywords: dict[str, Any], reason: str
) -> None:
    """An exception, a kill, a crash and an exit each become one sentence."""
    with pytest.raises(JobFailed, match=reason):
        ask(function, **keywords)


def test_the_memory_limit_holds_and_is_named() -> None:
    """A job that wants a gigabyte too many is told so; one within the limit is not."""
    limits = Limits(memory_bytes=512 * 2**20)
    with pytest.raises(JobFailed, match=r"more than 0\.5 GiB of memory"):
        ask(chores.eat, limits, n_bytes=2**30)
    assert ask(chores.eat, limits, n_bytes=2**26) == 2**26


def test_the_time_limit_holds_and_is_named() -> None:
    """A job that takes too long is ended."""
    with pytest.raises(JobFailed, match=r"longer than 0\.5 s"):
        ask(chores.sleep, Limits(seconds=0.5), seconds=60)


@pytest.mark.parametrize(
    ("function", "keywords"), [(chores.sleep, {"seconds": 60}), (chores.hang_in_native_code, {})]
)
def test_a_beat_that_says_no_ends_it_at_once(function: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """A cancelled job is gone within 2 s of the request, even when stuck in native code."""
    asked_at: list[float] = []

    async def refuse_the_third(fraction: float, message: str) -> bool:
        asked_at.append(time.monotonic())
        return len(asked_at) < 3

    async def body(isolation: Isolation) -> int:
        await isolation.warm()
        assert isolation._child is not None
        pid = isolation._child.process.pid
        with pytest.raises(Stopped):
            await isolation.run(function, beat=refuse_the_third, **keywords)
        return pid

    pid = isolated(body)
    assert time.monotonic() - asked_at[2] < 2
    assert not psutil.pid_exists(pid)


def test_cancelling_the_task_ends_the_child() -> None:
    """A worker that is told to stop takes its child along."""

    async def body(isolation: Isolation) -> None:
        await isolation.warm()
        assert isolation._child is not None
        pid = isolation._child.process.pid
        task = asyncio.create_task(isolation.run(chores.sleep, beat=go_on, seconds=60))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.pid_exists(pid)

    isolated(body)


def test_what_a_library_prints_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the protocol; prints go to the log."""
    assert ask(chores.chatter) == "said"
    assert "and so would this" in capfd.readouterr().err


def test_large_inputs_and_results_pass() -> None:
    """Megabytes go through the pipe both ways."""
    blob = os.urandom(8_000_000)
    assert ask(chores.echo, blob=blob) == blob


def test_a_killed_worker_takes_its_child_along() -> None:
    """The child of a worker that gets `kill -9` is gone at once."""
    program = (
        "import asyncio\n"
        "from tests.workers import chores\n"
        "from workers.isolation import Isolation\n"
        "async def main():\n"
        "    isolation = Isolation()\n"
        "    await isolation.warm()\n"
        "    await isolation.run(chores.double, n=1, beat=chores.go_on)\n"
        "    print(isolation._child.process.pid, flush=True)\n"
        "    await isolation.run(chores.hang_in_native_code, beat=chores.go_on)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
        worker.wait(5)
        child.wait(5)


def test_the_limits_can_be_set_by_the_environment() -> None:
    """Seconds and megabytes come from the environment; what is no positive number is refused."""
    limits = Limits.from_environment({"ISOLOSS_JOB_SECONDS": "90.5", "ISOLOSS_JOB_MEMORY_MB": "512"})
    assert (limits.seconds, limits.memory_bytes) == (90.5, 512 * 2**20)
    assert Limits.from_environment({}) == Limits()
    for wrong in ("0", "-1", "many", "nan", "inf"):
        with pytest.raises(InvalidInput, match="ISOLOSS_JOB_SECONDS"):
            Limits.from_environment({"ISOLOSS_JOB_SECONDS": wrong})

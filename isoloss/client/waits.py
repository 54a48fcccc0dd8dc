"""Waiting for work in the background without asking too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from isoloss.client.documents import Job
from isoloss.client.errors import JobCancelled, JobFailed, WaitTimedOut

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


def wait_for(
    fetch: Callable[[], Job], timeout: float | None, on_progress: Callable[[Job], None] | None
) -> Job:
    """The job once it has ended, however it ended; `on_progress` sees each state. Raises WaitTimedOut."""
    started = time.monotonic()
    for pause in pauses():
        job = fetch()
        if on_progress is not None:
            on_progress(job)
        if job["status"] in FINISHED:
            return job
        waited = time.monotonic() - started
        if timeout is not None and waited + pause > timeout:
            raise WaitTimedOut(kind="Job", name=job["id"], status=job["status"], seconds=timeout)
        time.sleep(pause)
    raise AssertionError("pauses never end")


def wait_until_done(
    fetch: Callable[[], Job],
    what: tuple[str, str],
    timeout: float | None,
    on_progress: Callable[[Job], None] | None,
) -> None:
    """Wait until the job of `what`, a kind and a name, has succeeded.

    Raises JobFailed with the reason, JobCancelled or WaitTimedOut.
    """
    job = wait_for(fetch, timeout, on_progress)
    kind, name = what
    if job["status"] == "failed":
        raise JobFailed(kind=kind, name=name, reason=job.get("message") or "no reason is recorded")
    if job["status"] == "cancelled":
        raise JobCancelled(kind=kind, name=name)


def pauses() -> Iterator[float]:
    """Short pauses first, for fits that take a moment; a second each for those that take minutes."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_PAUSE_S)

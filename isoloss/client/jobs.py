"""Jobs: the work that the service does in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import quote

from isoloss.client.documents import Job
from isoloss.client.transport import Transport
from isoloss.client.waits import wait_for


class Jobs:
    """Jobs: `client.jobs.wait(fit["job_id"])`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, job_id: str) -> Job:
        """One job as it stands; raises NotFound."""
        return cast(Job, self._transport.get(f"/v1/jobs/{quote(job_id, safe='')}"))

    def list(self, *, where: str | None = None, sort: str | None = None) -> Iterator[Job]:
        """The jobs that the key may see, fetched page by page."""
        return self._transport.items("/v1/jobs", {"where": where, "sort": sort})

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; one that has ended is left as it is."""
        return cast(Job, self._transport.post(f"/v1/jobs/{quote(job_id, safe='')}/cancel"))

    def wait(
        self, job_id: str, *, timeout: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """The job once it has ended, whether it succeeded, failed or was cancelled.

        `on_progress(job)` is called with each state that is seen.
        Raises WaitTimedOut after `timeout` seconds.
        """
        return wait_for(lambda: self.get(job_id), timeout, on_progress)

"""Sweeps: small models trained over a space of settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from isoloss.client import wire
from isoloss.client.documents import Sweep
from isoloss.client.errors import WaitTimedOut
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport
from isoloss.client.waits import pauses

AT_REST = frozenset({"finished", "cancelled", "paused"})


class Sweeps:
    """Sweeps of a project: `client.sweeps.create("pilot", "lr", space, wait=True)`; each by its id or name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        project: str,
        name: str,
        space: Mapping[str, Any],
        *,
        strategy: str = "grid",
        budget: Mapping[str, Any] | None = None,
        data: str = "python-stdlib",
        measure: Sequence[str] = (),
        device: str = "auto",
        seed: int = 0,
        halving: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        wait: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[Sweep], None] | None = None,
    ) -> Sweep:
        """Have small models trained over a space, each an ordinary run `NAME-000`, ... with the tag `sweep:NAME`.

        An axis of `space` is a list, a range {"low", "high", "scale", "count"}, or one value. `strategy` is grid,
        random or halving; `budget` {"trials", "device_hours", "deadline"}. Every point is checked before any is
        trained. Returns at once, or with `wait` as `wait` does. Raises Conflict where the name is taken.

        >>> space = {"width": 64, "depth": 2, "peak_lr": [1e-3, 2e-3, 4e-3], "batch_tokens": 4096,
        ...     "n_tokens": 2_000_000}
        >>> sweep = client.sweeps.create("pilot", "lr", space, wait=True)
        >>> {trial["point"]["peak_lr"]: trial["final_loss"] for trial in sweep["trials"]}
        """
        body: dict[str, Any] = {
            "name": name,
            "strategy": strategy,
            "space": dict(space),
            "data": data,
            "measure": list(measure),
            "budget": dict(budget or {}),
            "device": device,
            "seed": seed,
            "tags": list(tags),
        }
        if halving is not None:
            body["halving"] = dict(halving)
        queued = self._transport.post(project_path(project, "sweeps"), body, creates=True)
        if not wait:
            return self.get(project, queued["id"])
        return self.wait(project, queued["id"], timeout=timeout, on_progress=on_progress)

    def get(self, project: str, sweep: str) -> Sweep:
        """One sweep with all its trials as they stand; raises NotFound."""
        return _sweep(self._transport.get(project_path(project, "sweeps", sweep)))

    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterator[Sweep]:
        """The sweeps of a project without their trials, fetched page by page."""
        items = self._transport.items(project_path(project, "sweeps"), {"where": where, "sort": sort})
        return map(_sweep, items)

    def pause(self, project: str, sweep: str) -> Sweep:
        """Have nothing of it train, until it is resumed; raises Conflict where it has ended."""
        return self._move(project, sweep, "pause")

    def resume(self, project: str, sweep: str) -> Sweep:
        """Have its paused trials go on from where they stood; raises Conflict where it has ended."""
        return self._move(project, sweep, "resume")

    def cancel(self, project: str, sweep: str) -> Sweep:
        """End it; its runs keep their points. One that has ended stays as it is."""
        return self._move(project, sweep, "cancel")

    def wait(
        self,
        project: str,
        sweep: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Sweep], None] | None = None,
    ) -> Sweep:
        """The sweep once it has ended or is paused; `on_progress(sweep)` sees each state. Raises WaitTimedOut."""
        started = time.monotonic()
        for pause in pauses():
            found = self.get(project, sweep)
            if on_progress is not None:
                on_progress(found)
            if found["status"] in AT_REST and not found["counts"].get("running"):
                return found
            if timeout is not None and time.monotonic() - started + pause > timeout:
                raise WaitTimedOut(kind="Sweep", name=found["name"], status=found["status"], seconds=timeout)
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _move(self, project: str, sweep: str, how: str) -> Sweep:
        return _sweep(self._transport.post(project_path(project, "sweeps", sweep, how)))


def _sweep(document: Any) -> Sweep:
    return cast(Sweep, wire.numbers(document))

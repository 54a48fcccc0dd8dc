"""Runs: one training run each, with its configuration, schedule and outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from isoloss.client import wire
from isoloss.client.documents import Parent, Run, RunStatus
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport


class Runs:
    """Runs of a project: `client.runs.put("pilot", "run-1", config={"peak_lr": 3e-4})`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def put(
        self,
        project: str,
        run_id: str,
        *,
        name: str | None = None,
        status: RunStatus | None = None,
        recipe: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        parent: Parent | None = None,
        config: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create a run or replace its specification; sending the same again changes nothing.

        You choose `run_id` (letters, digits, `.`, `_`, `-`; at most 100), so that a retry makes no second
        run. `name` defaults to it. What is left out is left out of the specification.

        >>> client.runs.put("pilot", "cosine-60m", config={"n_params": 60_000_000},
        ...     schedule={"kind": "cosine", "total_steps": 5000, "warmup_steps": 200, "peak_lr": 3e-4})
        """
        fields = {
            "status": status,
            "recipe": recipe,
            "tags": tags,
            "notes": notes,
            "parent": parent,
            "config": config,
            "schedule": schedule,
            "summary": summary,
        }
        body = {"name": name or run_id, **{key: value for key, value in fields.items() if value is not None}}
        return self.put_document(project, run_id, body)

    def put_document(self, project: str, run_id: str, document: Mapping[str, Any]) -> Run:
        """Create or replace a run from a whole specification, as `put` does from its parts."""
        return _run(self._transport.put(project_path(project, "runs", run_id), document))

    def get(self, project: str, run_id: str) -> Run:
        """One run; raises NotFound."""
        return _run(self._transport.get(project_path(project, "runs", run_id)))

    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterator[Run]:
        """The runs of a project, fetched page by page.

        `where` is comparisons joined by and/or, as in `config.n_params >= 60000000 and status = finished`.
        """
        items = self._transport.items(project_path(project, "runs"), {"where": where, "sort": sort})
        return (_run(item) for item in items)

    def delete(self, project: str, run_id: str) -> None:
        """Delete a run with its points; this cannot be undone."""
        self._transport.delete(project_path(project, "runs", run_id))


def _run(document: dict[str, Any]) -> Run:
    for part in ("config", "summary"):
        if document.get(part):
            document[part] = wire.numbers(document[part])
    return cast(Run, document)

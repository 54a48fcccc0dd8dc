"""A run as Isoloss itself wrote it down, and what it becomes: what is written is what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.logged_fields import FieldNames
from isoloss.importers.logged_plans import RUN_ID, PlannedImport, Wishes
from isoloss.importers.logged_points import LoggedPoints
from isoloss.importers.specifications import merged


@dataclass(frozen=True)
class ExportedRun:
    """A run with its id, its whole specification, and its own points without those of its parent."""

    place: str
    run_id: str
    document: Mapping[str, Any]
    points: LoggedPoints


def plan_exported(run: ExportedRun, wishes: Wishes, known: Mapping[str, Any] | None) -> PlannedImport:
    """What becomes of an exported run: itself, but for what the user says of all runs; raises InvalidInput."""
    if RUN_ID.fullmatch(run.run_id) is None:
        raise InvalidInput(field=run.place, reason=f"{run.run_id!r} is no run id")
    if wishes.names.metrics or wishes.names.config:
        raise InvalidInput(field="map", reason="an export says itself what its columns are")
    said = {name: value for name, value in run.document.items() if value is not None}
    over = {"recipe": wishes.recipe, "status": wishes.status, "schedule": wishes.schedule}
    said |= {name: value for name, value in over.items() if value is not None}
    said["tags"] = [*said.get("tags", ()), *wishes.tags]
    said["config"] = {**said.get("config", {}), **wishes.config}
    document = {"name": run.run_id, **merged(said, known)}
    return PlannedImport(run.place, run.run_id, document, run.points, FieldNames(), ())

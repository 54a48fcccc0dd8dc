"""Curves from CSV files into a project: specifications and points, idempotent, with a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.importers.csv_files import CurveTable, MaskedColumn, read_table
from isoloss.importers.fields import lacking
from isoloss.importers.plans import ImportPlan, SkippedFile, parents_first, plan_imports
from isoloss.notes import counted
from isoloss.observations.point_columns import MAY_BE_NON_FINITE

FITTED = frozenset({"loss", "val_loss", "reward", "grad_noise_scale", "grad_norm_small"})
"""Columns of points that laws are fitted to."""

Progress = Callable[[int, int, str], None]


class ProjectsRoom(Protocol):
    def create(self, name: str) -> Any: ...


class RunsRoom(Protocol):
    def get(self, project: str, run_id: str) -> Any: ...
    def put_document(self, project: str, run_id: str, document: Mapping[str, Any]) -> Any: ...


class PointsRoom(Protocol):
    def append(
        self,
        project: str,
        run_id: str,
        columns: Mapping[str, Any],
        *,
        on_conflict: Literal["error", "replace"] = "error",
    ) -> Any: ...


class HasProjects(Protocol):
    @property
    def projects(self) -> ProjectsRoom: ...


class Service(Protocol):
    """What an import asks of `isoloss.Client`, which lives in a room that this one does not know."""

    @property
    def projects(self) -> ProjectsRoom: ...
    @property
    def runs(self) -> RunsRoom: ...
    @property
    def points(self) -> PointsRoom: ...


@dataclass(frozen=True)
class ImportedRun:
    """A run that is in the project now; `duplicates` of its points were there before."""

    path: Path
    run_id: str
    accepted: int
    duplicates: int
    fields: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImportReport:
    """What an import did; `created` says whether it made the project."""

    project: str
    runs: tuple[ImportedRun, ...]
    skipped: tuple[SkippedFile, ...]
    created: bool = False


def import_curves(
    service: Service,
    project: str,
    paths: Iterable[str | Path],
    runs_file: str | Path | None = None,
    *,
    run_ids: Sequence[str] | None = None,
    schedule: Mapping[str, Any] | None = None,
    map: Mapping[str, str] | None = None,
    on_conflict: Literal["error", "replace"] = "error",
    on_progress: Progress | None = None,
) -> ImportReport:
    """Send CSV files of curves to a project, one run a file; importing again changes nothing.

    `runs_file` is a JSON list with an entry a run (`file`, `run_id`, `name`, `recipe`, `config`, `schedule`,
    `status`, ...), its files relative to itself or known by their base names; without `paths` all of its
    files are imported, and a file that it does not name is skipped. Without a runs file a file becomes a
    run called after it, or by `run_ids` in the order of the files, with `schedule`; a run that exists keeps
    its specification. A file that cannot be used is skipped and the
    report says why; InvalidInput is raised where the whole request makes no sense.
    `on_progress(done, total, file)` follows the files.
    """
    plans, skipped = plan_imports([Path(path) for path in paths], runs_file, run_ids, schedule)
    created = bool(plans) and create_project(service, project)
    imported: list[ImportedRun] = []
    for done, plan in enumerate(parents_first(plans)):
        if on_progress is not None:
            on_progress(done, len(plans), plan.path.name)
        try:
            imported.append(_import_one(service, project, plan, map, on_conflict))
        except (InvalidInput, Conflict) as error:
            skipped.append(SkippedFile(plan.path, str(error)))
    if on_progress is not None:
        on_progress(len(plans), len(plans), "")
    return ImportReport(project, tuple(imported), tuple(skipped), created)


def create_project(service: HasProjects, project: str) -> bool:
    """Make the project; whether it had to be made."""
    try:
        service.projects.create(project)
    except Conflict:
        return False
    return True


def _import_one(
    service: Service,
    project: str,
    plan: ImportPlan,
    map: Mapping[str, str] | None,
    on_conflict: Literal["error", "replace"],
) -> ImportedRun:
    table = read_table(plan.path, map)
    columns, notes = sendable_columns(table)
    parent = _put_specification(service, project, plan).get("parent")
    if parent is not None:
        columns, dropped = _own_points(plan.path, columns, int(parent["branch_step"]))
        notes += dropped
    answer = service.points.append(project, plan.run_id, columns, on_conflict=on_conflict)
    fields = {column: name for column, name in table.field_map.fields.items() if name in columns}
    if not FITTED & columns.keys():
        notes.append(lacking("loss", [*table.field_map.fields, *table.field_map.ignored]))
    return ImportedRun(plan.path, plan.run_id, answer["accepted"], answer["duplicates"], fields, tuple(notes))


def _put_specification(service: Service, project: str, plan: ImportPlan) -> Mapping[str, Any]:
    """Send what is known of a run, and return what then holds of it."""
    try:
        known: Mapping[str, Any] = service.runs.get(project, plan.run_id)
    except NotFound:
        # A file is the log of a run that has ended, where nobody says otherwise.
        new = {"name": plan.run_id, "status": "finished", **(plan.specification or {})}
        service.runs.put_document(project, plan.run_id, new)
        return new
    if plan.specification is None:
        return known
    service.runs.put_document(project, plan.run_id, plan.specification)
    return plan.specification


def _own_points(
    path: Path, columns: Mapping[str, MaskedColumn], branch_step: int
) -> tuple[dict[str, MaskedColumn], list[str]]:
    """A branch's columns without the points that are its parent's, and a note on how many these were.

    Raises InvalidInput where it has no others.
    """
    own = np.ma.getdata(columns["step"]) > branch_step
    if own.all():
        return dict(columns), []
    if not own.any():
        reason = (
            f"all of its points lie at or before step {branch_step}, where it branches: they are its parent's"
        )
        raise InvalidInput(field=str(path), reason=reason)
    kept = {name: column[own] for name, column in columns.items() if np.ma.count(column[own])}
    shared = counted(int(np.sum(~own)), "point")
    return kept, [f"{shared} up to step {branch_step} left out: there the run's points are its parent's"]


def sendable_columns(table: CurveTable) -> tuple[dict[str, MaskedColumn], list[str]]:
    """A table's columns as the service takes them, and notes of what was left out of them.

    Rows are put in the order of their steps; rows of one step that complete each other become one.
    Raises InvalidInput for a step with two values, and for a file without rows.
    """
    if not len(table.columns["step"]):
        raise InvalidInput(field=str(table.path), reason="there are no rows under the header")
    notes = [f"column {column!r} left out: {reason}" for column, reason in table.field_map.ignored.items()]
    columns: dict[str, MaskedColumn] = {}
    for name, column in _in_step_order(table).items():
        finite, dropped = _finite_only(name, column)
        if dropped:
            notes.append(f"{dropped} values of {name} left out: only a loss may be NaN or infinite")
        odd = _count_odd(column) if name in MAY_BE_NON_FINITE else 0
        if odd:
            notes.append(
                f"{odd} values of {name} are NaN or infinite: no fit uses them, and the run is diverged"
            )
        if np.ma.count(finite):
            columns[name] = finite
        else:
            notes.append(f"column of {name} left out: it is empty")
    return columns, notes


def _finite_only(name: str, column: MaskedColumn) -> tuple[MaskedColumn, int]:
    if name == "step" or name in MAY_BE_NON_FINITE:
        return column, 0
    odd = ~np.isfinite(np.ma.getdata(column)) & ~np.ma.getmaskarray(column)
    return np.ma.masked_where(odd, column), _count_odd(column)


def _count_odd(column: MaskedColumn) -> int:
    """Count the values that were logged and are not finite."""
    return int((~np.isfinite(np.ma.getdata(column)) & ~np.ma.getmaskarray(column)).sum())


def _in_step_order(table: CurveTable) -> dict[str, MaskedColumn]:
    steps = np.ma.getdata(table.columns["step"])
    if np.all(np.diff(steps) > 0):
        return table.columns
    order = np.argsort(steps, kind="stable")
    unique, starts = np.unique(steps[order], return_index=True)
    columns: dict[str, MaskedColumn] = {"step": np.ma.MaskedArray(unique, mask=np.zeros(len(unique), bool))}
    for name, column in table.columns.items():
        if name != "step":
            columns[name] = _merge_rows(table.path, name, column[order], unique, starts)
    return columns


def _merge_rows(path: Path, name: str, column: MaskedColumn, steps: Any, starts: Any) -> MaskedColumn:
    """One value a step out of the rows of that step, which may be blank but not disagree."""
    values, blank = np.ma.getdata(column), np.ma.getmaskarray(column)
    group = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    merged = np.full(len(starts), np.nan)
    merged[group[~blank]] = values[~blank]
    missing = np.ones(len(starts), bool)
    missing[group[~blank]] = False
    same = (merged[group] == values) | (np.isnan(merged[group]) & np.isnan(values)) | blank
    if not same.all():
        step = int(steps[group[np.flatnonzero(~same)[0]]])
        raise InvalidInput(field=str(path), reason=f"step {step} has two values of {name}")
    return np.ma.MaskedArray(merged, mask=missing)

"""Which files of an import become which runs, and with what specification."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.paths import checked_path

ENTRY_FIELDS = frozenset(
    {"name", "status", "recipe", "tags", "notes", "parent", "config", "schedule", "summary", "file", "run_id"}
)
SUFFIXES = (".csv.gz", ".tsv.gz", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class SkippedFile:
    """A file of which nothing was imported beyond, at most, its run's specification."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ImportPlan:
    """One file to import: which run it is, and the specification to send if one is known."""

    path: Path
    run_id: str
    specification: dict[str, Any] | None


def plan_imports(
    paths: Sequence[Path],
    runs_file: str | Path | None,
    run_ids: Sequence[str] | None,
    schedule: Mapping[str, Any] | None,
) -> tuple[list[ImportPlan], list[SkippedFile]]:
    """Which files become which runs, in their order, and the files that cannot; raises InvalidInput."""
    if schedule is not None and not isinstance(schedule, Mapping):
        reason = f"must be a declaration, a mapping with a kind, not {type(schedule).__name__}"
        raise InvalidInput(field="schedule", reason=reason)
    entries = read_runs_file(runs_file) if runs_file is not None else {}
    files = list(paths) or list(entries)
    if not files:
        raise InvalidInput(field="files", reason="no file to import was named")
    if run_ids and len(run_ids) != len(files):
        raise InvalidInput(field="run_id", reason=f"{len(run_ids)} run ids were given for {len(files)} files")
    chosen: Sequence[str | None] = run_ids or [None] * len(files)
    plans: list[ImportPlan] = []
    unnamed: list[SkippedFile] = []
    for path, run_id in zip(files, chosen, strict=True):
        entry = _entry_of(path, entries)
        if entry is None and runs_file is not None:
            reason = f"no entry of {Path(runs_file).name} names {path.name}"
            unnamed.append(SkippedFile(path, reason))
        else:
            plans.append(_plan_one(path, entry, run_id, schedule))
    kept, doubles = _without_doubles(plans)
    return kept, unnamed + doubles


def _entry_of(path: Path, entries: Mapping[Path, dict[str, Any]]) -> dict[str, Any] | None:
    """The entry that names a file: by its place, else by its base name where only one entry has that."""
    here = [entry for file, entry in entries.items() if _same_file(file, path)]
    found = here or [entry for file, entry in entries.items() if file.name == path.name]
    return found[0] if len(found) == 1 else None


def _plan_one(
    path: Path, entry: dict[str, Any] | None, run_id: str | None, schedule: Mapping[str, Any] | None
) -> ImportPlan:
    if entry is None:
        name = run_id or _name_of(path)
        return ImportPlan(path, name, {"name": name, "schedule": dict(schedule)} if schedule else None)
    specification = {key: value for key, value in entry.items() if key not in ("file", "run_id")}
    name = run_id or entry.get("run_id") or _name_of(path)
    specification.setdefault("name", name)
    if schedule is not None:
        specification["schedule"] = dict(schedule)
    return ImportPlan(path, name, specification)


def _same_file(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def _name_of(path: Path) -> str:
    return run_id_of(
        next((path.name.removesuffix(end) for end in SUFFIXES if path.name.endswith(end)), path.name)
    )


def run_id_of(name: str) -> str:
    """A name as a run's id, which has only letters, digits, `.`, `_` and `-`, at most 100."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100]


def _without_doubles(plans: Sequence[ImportPlan]) -> tuple[list[ImportPlan], list[SkippedFile]]:
    taken: dict[str, Path] = {}
    kept: list[ImportPlan] = []
    doubles: list[SkippedFile] = []
    for plan in plans:
        if plan.run_id in taken:
            reason = f"run {plan.run_id!r} comes from {taken[plan.run_id]} already"
            doubles.append(SkippedFile(plan.path, reason))
        else:
            taken[plan.run_id] = plan.path
            kept.append(plan)
    return kept, doubles


def parents_first(plans: Sequence[ImportPlan]) -> list[ImportPlan]:
    """The plans in an order in which no branch comes before its parent, else as they stand."""
    # A branch is refused while its parent is not there; a circle of parents is left to the service to refuse.
    waiting, ordered = list(plans), []
    while waiting:
        open_ids = {plan.run_id for plan in waiting}
        ready = [plan for plan in waiting if _parent_of(plan) not in open_ids - {plan.run_id}] or waiting
        ordered.extend(ready)
        waiting = [plan for plan in waiting if plan not in ready]
    return ordered


def _parent_of(plan: ImportPlan) -> str | None:
    parent = (plan.specification or {}).get("parent")
    return parent.get("run_id") if isinstance(parent, dict) else None


def read_runs_file(path: str | Path) -> dict[Path, dict[str, Any]]:
    """The entries of a runs file by the file of each, without runs that have none; raises InvalidInput."""
    path = checked_path(path, "runs_file")
    entries = _read_list(path)
    runs: dict[Path, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("file", "") is None:
            continue  # as an export says it of a run without points
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise InvalidInput(
                field=f"{path}, entry {index + 1}", reason="an entry is an object with a `file`"
            )
        unknown = sorted(set(entry) - ENTRY_FIELDS)
        if unknown:
            raise InvalidInput(field=f"{path}, entry {index + 1}", reason=f"unknown: {', '.join(unknown)}")
        _check_entry(entry, f"{path}, entry {index + 1}")
        runs[path.parent / entry["file"]] = entry
    return runs


def _check_entry(entry: Mapping[str, Any], place: str) -> None:
    """Refuse what this side reads of an entry and is not of its kind; the service checks the rest."""
    kinds = {"run_id": (str, "a name"), "config": (dict, "an object"), "parent": (dict, "an object")}
    for name, (kind, words) in kinds.items():
        if entry.get(name) is not None and not isinstance(entry[name], kind):
            raise InvalidInput(field=f"{place}, {name}", reason=f"must be {words}")
    parent = entry.get("parent")
    step = None if parent is None else parent.get("branch_step")
    whole = isinstance(step, int) and not isinstance(step, bool)
    if parent is not None and not (isinstance(parent.get("run_id"), str) and whole):
        raise InvalidInput(field=f"{place}, parent", reason="needs a run_id and the whole number branch_step")


def _read_list(path: Path) -> list[Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(field=str(path), reason=error.strerror or str(error)) from error
    except ValueError as error:
        raise InvalidInput(field=str(path), reason=f"this is not JSON ({error})") from error
    if not isinstance(document, list):
        raise InvalidInput(field=str(path), reason="a runs file is a JSON list with one entry a run")
    return document

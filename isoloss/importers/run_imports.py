"""A table of finished runs into a project: a run a row, idempotent, with a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from isoloss.errors import Conflict, InvalidInput
from isoloss.importers.curves import Progress, ProjectsRoom, create_project
from isoloss.importers.journals import Journal, RunEntry
from isoloss.importers.run_tables import read_specifications
from isoloss.importers.specifications import is_there, merged
from isoloss.importers.undoing import before_and_after

AT_ONCE = 4
"""Requests that are under way at the same time: the service answers others too."""


class RunsRoom(Protocol):
    def list(self, project: str) -> Iterable[Any]: ...
    def put_document(self, project: str, run_id: str, document: Mapping[str, Any]) -> Any: ...


class Service(Protocol):
    """What an import asks of `isoloss.Client`, which lives in a room that this one does not know."""

    @property
    def projects(self) -> ProjectsRoom: ...
    @property
    def runs(self) -> RunsRoom: ...


@dataclass(frozen=True)
class SkippedRow:
    """A row that the service refused."""

    run_id: str
    reason: str


@dataclass(frozen=True)
class TableReport:
    """What an import did: runs that are new, that changed, and that were there as the table has them.

    `created` says whether it made the project; `fields` what the rows' configurations and summaries hold; `notes`
    which columns no law reads.
    """

    project: str
    path: Path
    new: int
    changed: int
    unchanged: int
    fields: tuple[str, ...]
    skipped: tuple[SkippedRow, ...]
    created: bool = False
    notes: tuple[str, ...] = ()
    import_id: str | None = None


def import_table(
    service: Service,
    project: str,
    path: str | Path,
    map: Mapping[str, str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    recipe: str | None = None,
    prefix: str = "",
    on_progress: Progress | None = None,
    journal: Journal | None = None,
) -> TableReport:
    """Send a table of finished runs to a project, a run a row; importing again changes nothing.

    `map` and `config` as for `isoloss.read_runs`; every run gets the `tags` and the `recipe`. Rows without a
    `run_id` go by their number behind the `prefix`, which keeps two such tables apart. What is known of
    a run already and the table does not say stays. A row that the service refuses is skipped and the report says
    why; InvalidInput is raised, and nothing sent, where the table cannot be read. What is about to change is
    written to the `journal` first, so that it can be undone.
    """
    rows, notes = read_specifications(path, map, config=config, prefix=prefix)
    created = create_project(service, project)
    known = {} if created else {run["run_id"]: run for run in service.runs.list(project)}
    sent = [_merged(row, tags, recipe, known.get(row["run_id"])) for row in rows]
    changes = [
        (row["run_id"], document)
        for row, document in zip(rows, sent, strict=True)
        if not is_there(document, known.get(row["run_id"]))
    ]
    if journal is not None:
        journal.record(*(_entry(run_id, document, known.get(run_id)) for run_id, document in changes))
    skipped = _send(service, project, changes, on_progress or _silent)
    if journal is not None:
        journal.finish()
    refused = {one.run_id for one in skipped}
    done = [run_id for run_id, _ in changes if run_id not in refused]
    return TableReport(
        project,
        Path(path),
        new=sum(run_id not in known for run_id in done),
        changed=sum(run_id in known for run_id in done),
        unchanged=len(rows) - len(changes),
        fields=tuple(sorted({name for row in rows for name in (*row["config"], *row["summary"])})),
        skipped=tuple(skipped),
        created=created,
        notes=notes,
        import_id=None if journal is None else journal.import_id,
    )


def _entry(run_id: str, document: Mapping[str, Any], known: Mapping[str, Any] | None) -> RunEntry:
    before, after = before_and_after(known, document)
    last_step = (known or {}).get("last_step")
    return RunEntry(run_id, created=known is None, before=before, after=after, points_before=last_step)


def _merged(
    row: Mapping[str, Any], tags: Sequence[str], recipe: str | None, known: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The run's specification as it shall be: what the row says, over what is known of the run."""
    said = {name: value for name, value in row.items() if name != "run_id"}
    named = (known or {}).get("name") if row["name"] == row["run_id"] else None
    shared = {"name": named or row["name"], "tags": list(tags)}
    return merged({**said, **shared, **({"recipe": recipe} if recipe is not None else {})}, known)


def _send(
    service: Service, project: str, changes: Sequence[tuple[str, Mapping[str, Any]]], tell: Progress
) -> list[SkippedRow]:
    """Put the runs, several at once; return those that were refused. Any other failure ends it."""
    put = partial(_put, service, project)
    skipped = []
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for done, refused in enumerate(
            pool.map(put, *zip(*changes, strict=True)) if changes else (), start=1
        ):
            tell(done, len(changes), "")
            if refused is not None:
                skipped.append(refused)
    finally:
        pool.shutdown(cancel_futures=True)
    return skipped


def _put(service: Service, project: str, run_id: str, document: Mapping[str, Any]) -> SkippedRow | None:
    try:
        service.runs.put_document(project, run_id, document)
    except (InvalidInput, Conflict) as error:
        return SkippedRow(run_id, str(error))
    return None


def _silent(done: int, total: int, what: str) -> None:
    """Report progress to nobody."""

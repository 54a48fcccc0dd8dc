"""An import taken back: what it made is deleted, what it changed is put back, what it appended is cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.importers.journals import PastImport, RunEntry, append
from isoloss.importers.specifications import is_there, specification_of
from isoloss.notes import counted


class RunsRoom(Protocol):
    def get(self, project: str, run_id: str) -> Any: ...
    def put_document(self, project: str, run_id: str, document: Mapping[str, Any]) -> Any: ...
    def delete(self, project: str, run_id: str) -> None: ...


class PointsRoom(Protocol):
    def rewind(self, project: str, run_id: str, step: int) -> Any: ...


class Service(Protocol):
    """What taking back asks of `isoloss.Client`, which lives in a room that this one does not know."""

    @property
    def runs(self) -> RunsRoom: ...
    @property
    def points(self) -> PointsRoom: ...


@dataclass(frozen=True)
class Stays:
    """What of a run cannot be taken back, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True)
class UndoReport:
    """What became of the runs of an import; `before` says that it had been undone before."""

    import_id: str
    project: str
    deleted: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    rewound: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    stays: tuple[Stays, ...] = ()
    before: bool = False


def undo(
    service: Service, past: PastImport, on_progress: Callable[[float, str], None] | None = None
) -> UndoReport:
    """Take an import back; doing it again is harmless, and goes on where a first attempt was cut short.

    A run that has points, or a specification, that the import did not bring keeps them, and the report says so.
    """
    header = past.header
    if past.undone:
        return UndoReport(header.import_id, header.project, before=True)
    undoing = _Undoing(service, header.project)
    # The last first: a branch goes before its parent.
    for done, entry in enumerate(reversed(past.runs)):
        if on_progress is not None:
            on_progress(done / len(past.runs), entry.run_id)
        undoing.undo(entry)
    append(past.path, [{"undone": True}])
    return undoing.report(header.import_id)


class _Undoing:
    """Takes back run by run and keeps the account."""

    def __init__(self, service: Service, project: str) -> None:
        self._service = service
        self._project = project
        self._done: dict[str, list[str]] = {"deleted": [], "restored": [], "rewound": [], "gone": []}
        self._stays: list[Stays] = []

    def report(self, import_id: str) -> UndoReport:
        deleted, restored, rewound, gone = (tuple(run_ids) for run_ids in self._done.values())
        return UndoReport(import_id, self._project, deleted, restored, rewound, gone, tuple(self._stays))

    def undo(self, entry: RunEntry) -> None:
        try:
            known = self._service.runs.get(self._project, entry.run_id)
        except NotFound:
            self._done["gone"].append(entry.run_id)
            return
        try:
            if entry.created:
                self._delete(entry, known)
            else:
                self._take_points_off(entry, known)
                self._restore(entry, known)
        except (Conflict, InvalidInput) as error:
            self._stay(entry, str(error))

    def _stay(self, entry: RunEntry, reason: str) -> None:
        self._stays.append(Stays(entry.run_id, reason))

    def _delete(self, entry: RunEntry, known: Mapping[str, Any]) -> None:
        last = known.get("last_step")
        brought = -1 if entry.points_after is None else entry.points_after
        if last is not None and last > brought:
            reason = f"it has points up to step {last:,}, which this import did not bring; it is not deleted"
            self._stay(entry, reason)
            return
        self._service.runs.delete(self._project, entry.run_id)
        self._done["deleted"].append(entry.run_id)

    def _take_points_off(self, entry: RunEntry, known: Mapping[str, Any]) -> None:
        last, before, after = known.get("last_step"), entry.points_before, entry.points_after
        if entry.filled or entry.replaced:
            kinds = {"added": entry.filled, "replaced": entry.replaced}
            told = " and ".join(f"{counted(count, 'value')} {what}" for what, count in kinds.items() if count)
            self._stay(entry, f"{told} among the points that it had stay as they are")
        if last is None or after is None or last <= (-1 if before is None else before):
            return
        if last > after:
            self._stay(entry, f"it has gone on to step {last:,} since: its points are left alone")
            return
        answer = self._service.points.rewind(self._project, entry.run_id, 0 if before is None else before)
        self._done["rewound"].append(entry.run_id)
        if before is None and answer["last_step"] is not None:
            self._stay(entry, "its point at step 0 stays")

    def _restore(self, entry: RunEntry, known: Mapping[str, Any]) -> None:
        if entry.before is None or entry.after is None or is_there(entry.before, known):
            return
        changed = {name for name in entry.after if name != "status"}
        if not is_there({name: entry.after[name] for name in changed}, known):
            self._stay(entry, "its specification was changed since: that stays")
            return
        self._service.runs.put_document(self._project, entry.run_id, entry.before)
        self._done["restored"].append(entry.run_id)


def before_and_after(
    known: Mapping[str, Any] | None, document: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A run's specification before and after an import, for its journal; None for both where nothing changes."""
    if known is None or is_there(document, known):
        return None, None
    return specification_of(known), dict(document)

"""Logged runs of any source into a project: named, resolved, sent, idempotent, with a report and a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from isoloss.arrays import BoolArray, IntArray
from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.importers.curves import RunsRoom, create_project
from isoloss.importers.exported_runs import ExportedRun, plan_exported
from isoloss.importers.journals import Journal, RunEntry
from isoloss.importers.logged_fields import FieldNames
from isoloss.importers.logged_plans import PlannedImport, Wishes, plan_logged, run_id_for
from isoloss.importers.logged_points import LoggedPoints, MaskedColumn
from isoloss.importers.logged_runs import LoggedRun, Unreadable
from isoloss.importers.specifications import is_there
from isoloss.importers.undoing import before_and_after
from isoloss.notes import counted

MOST_TAKEN_OUT = 20
"""Fields of one specification that the service may refuse before the run is given up."""

ENOUGH_ALIKE = 5
"""Different values that two columns share at the same steps, from which on they are taken for one metric."""

State = Literal["new", "changed", "unchanged"]
Advance = Callable[[float, str], None]


class ProjectsRoom(Protocol):
    def get(self, name: str) -> Any: ...
    def create(self, name: str) -> Any: ...


class PointsRoom(Protocol):
    def append(
        self,
        project: str,
        run_id: str,
        columns: Mapping[str, Any],
        *,
        on_conflict: Literal["error", "replace"] = "error",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Any: ...
    def read(
        self, project: str, run_id: str, *, from_step: int | None = None
    ) -> Mapping[str, MaskedColumn]: ...
    def rewind(self, project: str, run_id: str, step: int) -> Any: ...


class Service(Protocol):
    """What an import asks of `isoloss.Client`, which lives in a room that this one does not know."""

    @property
    def projects(self) -> ProjectsRoom: ...
    @property
    def runs(self) -> RunsRoom: ...
    @property
    def points(self) -> PointsRoom: ...


@dataclass(frozen=True)
class ImportedLog:
    """A run that is in the project now, or would be: points that are new, that were there, values left out."""

    place: str
    run_id: str
    state: State
    accepted: int
    duplicates: int
    left_out: int
    schedule: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SkippedLog:
    """A run, or a file, of which nothing was imported."""

    place: str
    reason: str


@dataclass(frozen=True)
class LoggedReport:
    """What an import did, or would do; `names` is the map that it used, `import_id` what undoes it."""

    project: str
    runs: tuple[ImportedLog, ...]
    skipped: tuple[SkippedLog, ...]
    names: FieldNames
    created: bool = False
    dry_run: bool = False
    import_id: str | None = None
    notes: tuple[str, ...] = ()


def import_logged(
    service: Service,
    project: str,
    source: Iterable[LoggedRun | ExportedRun | Unreadable],
    wishes: Wishes | None = None,
    *,
    on_conflict: Literal["error", "replace"] = "error",
    journal: Journal | None = None,
    dry_run: bool = False,
    on_progress: Advance | None = None,
) -> LoggedReport:
    """Send the runs of a source to a project; importing again sends what is missing, and else nothing.

    Metrics and hyper-parameters are named by `wishes.names`, else by guesses. What is known of a run and the
    source does not say stays. A run that cannot be imported is skipped and the report says why; so is a run that
    has other values at the same steps, unless `on_conflict="replace"`. With `dry_run` nothing is sent.
    `on_progress(share, text)` follows. Raises IsolossError where the service cannot be reached; all that was sent
    until then stays, and importing again goes on.
    """
    importing = _Import(service, project, wishes or Wishes(), on_conflict, journal, dry_run, on_progress)
    for run in source:
        importing.take(run)
    if journal is not None:
        journal.finish()
    return importing.report()


@dataclass
class _Import:
    """An import that is going on."""

    service: Service
    project: str
    wishes: Wishes
    on_conflict: Literal["error", "replace"]
    journal: Journal | None
    dry_run: bool
    on_progress: Advance | None
    created: bool | None = None
    runs: list[ImportedLog] = field(default_factory=list)
    skipped: list[SkippedLog] = field(default_factory=list)
    names: FieldNames = field(default_factory=FieldNames)
    n_points: int = 0
    _places: dict[str, str] = field(default_factory=dict)

    def take(self, run: LoggedRun | ExportedRun | Unreadable) -> None:
        if isinstance(run, Unreadable):
            self.skipped.append(SkippedLog(run.place, run.reason))
            return
        try:
            self._one(run)
        except (InvalidInput, Conflict) as error:
            self.skipped.append(SkippedLog(run.place, str(error)))

    def report(self) -> LoggedReport:
        return LoggedReport(
            self.project,
            tuple(self.runs),
            tuple(self.skipped),
            self.names,
            bool(self.created),
            self.dry_run,
            None if self.journal is None else self.journal.import_id,
            tuple(self._unused()),
        )

    def _unused(self) -> list[str]:
        """Notes on names of the map that no run had."""
        said = self.wishes.names
        seen = {*self.names.metrics, *self.names.config}
        unused = [
            name
            for name, meant in {**said.metrics, **said.config}.items()
            if name not in seen and meant != "-"
        ]
        return [f"the map names {', '.join(map(repr, unused))}, which no run has"] if unused else []

    def _one(self, run: LoggedRun | ExportedRun) -> None:
        run_id = run.run_id if isinstance(run, ExportedRun) else run_id_for(run)
        if run_id in self._places:
            raise InvalidInput(
                field=run.place, reason=f"run {run_id!r} comes from {self._places[run_id]} already"
            )
        self._places[run_id] = run.place
        known = self._known(run_id)
        plan = _planned(run, self.wishes, known)
        self.names = self.names.with_more(plan.names)
        there = self._there(plan, known)
        news = compare(plan.points, there)
        if news.differs is not None and self.on_conflict == "error":
            reason = f"{news.differs}; --replace overwrites what is there"
            raise Conflict(reason=f"{run_id}: {reason}")
        state: State = "new" if known is None else "changed"
        if is_there(plan.document, known) and not news.rows.any():
            state = "unchanged"
        accepted, notes = int(news.rows.sum()), (*plan.notes, *under_other_names(plan.points, there))
        if not self.dry_run and state != "unchanged":
            notes = (*self._send(plan, known, news), *notes)
        self.n_points += plan.points.step.size
        self.runs.append(
            ImportedLog(
                run.place,
                run_id,
                state,
                accepted,
                plan.points.step.size - accepted,
                plan.points.left_out,
                (plan.document.get("schedule") or {}).get("kind"),
                notes,
            )
        )

    def _known(self, run_id: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self.service.runs.get(self.project, run_id)
        except NotFound:
            return None
        return found

    def _there(
        self, plan: PlannedImport, known: Mapping[str, Any] | None
    ) -> Mapping[str, MaskedColumn] | None:
        """The points that the run has, from the first on that the source has; None where it has none."""
        last = None if known is None else known.get("last_step")
        if last is None or not plan.points.step.size or last < plan.points.step[0]:
            return None
        return self.service.points.read(self.project, plan.run_id, from_step=int(plan.points.step[0]))

    def _send(self, plan: PlannedImport, known: Mapping[str, Any] | None, news: News) -> list[str]:
        if self.created is None:
            self.created = known is None and self._make_project()
        points, rewind_to = self._to_send(plan, news)
        if self.journal is not None:
            self.journal.record(_entry(plan, known, points, news, rewind_to))
        notes: list[str] = []
        if not is_there(plan.document, known):
            notes = _put(self.service, self.project, plan)
        if rewind_to is not None:
            self.service.points.rewind(self.project, plan.run_id, rewind_to)
            notes.append(f"its points after step {rewind_to:,} were replaced")
        if points.step.size:
            self.service.points.append(
                self.project,
                plan.run_id,
                points.sendable(),
                on_conflict=self.on_conflict,
                on_progress=lambda sent, total: self._tell(plan.run_id, sent, total),
            )
            if points.has_diverged() and plan.document.get("status") not in (None, "diverged"):
                # A point that is not finite makes a run diverged, whatever was said of it before.
                _put(self.service, self.project, plan)
        return notes

    def _make_project(self) -> bool:
        """Make the project where it is not there, which a key for one project cannot and need not."""
        try:
            self.service.projects.get(self.project)
        except NotFound:
            return create_project(self.service, self.project)
        return False

    def _to_send(self, plan: PlannedImport, news: News) -> tuple[LoggedPoints, int | None]:
        """The points to send, and where to rewind to first: points that the source has no more are replaced."""
        if news.differs is None or not news.beyond:
            return plan.points.at(news.rows), None
        rewind_to = max(0, news.first_different - 1)
        return plan.points.at(news.rows | (plan.points.step > rewind_to)), rewind_to

    def _tell(self, run_id: str, sent: int, total: int) -> None:
        if self.on_progress is not None:
            done = counted(len(self.runs) + 1, "run")
            self.on_progress(sent / total, f"{done}, {self.n_points + sent:,} points: {run_id}")


def _planned(run: LoggedRun | ExportedRun, wishes: Wishes, known: Mapping[str, Any] | None) -> PlannedImport:
    if isinstance(run, ExportedRun):
        return plan_exported(run, wishes, known)
    return plan_logged(run, wishes, known)


def _entry(
    plan: PlannedImport,
    known: Mapping[str, Any] | None,
    points: LoggedPoints,
    news: News,
    rewind_to: int | None,
) -> RunEntry:
    """What is about to happen to a run, for the journal."""
    before, after = before_and_after(known, plan.document)
    last = None if known is None else known.get("last_step")
    replaced = news.n_different if rewind_to is None else int((points.step > rewind_to).sum())
    return RunEntry(
        plan.run_id,
        created=known is None,
        before=before,
        after=after,
        points_before=last,
        points_after=points.last_step,
        filled=0
        if last is None
        else max(0, int((news.rows & (plan.points.step <= last)).sum()) - news.n_different),
        replaced=replaced,
    )


def _put(service: Service, project: str, plan: PlannedImport) -> list[str]:
    """Send what is said of a run, without the fields that the service refuses; returns notes on these."""
    document, notes = plan.document, []
    for _ in range(MOST_TAKEN_OUT):
        try:
            service.runs.put_document(project, plan.run_id, document)
        except InvalidInput as error:
            name = _refused_field(error, document)
            if name is None:
                raise
            notes.append(f"config {name} left out: {error}")
            config = {key: value for key, value in document["config"].items() if key != name}
            document = {**document, "config": config}
        else:
            return notes
    raise InvalidInput(field=plan.place, reason="; ".join(notes))


def _refused_field(error: InvalidInput, document: Mapping[str, Any]) -> str | None:
    """The field of the configuration that a refusal names."""
    for entry in getattr(error, "errors", ()) or ():
        place = str(entry.get("field", "")) if isinstance(entry, Mapping) else ""
        top, _, inner = place.partition(".")
        if top == "config":
            names = sorted(document["config"], key=len, reverse=True)
            return next((name for name in names if inner == name or inner.startswith(f"{name}.")), None)
    return None


@dataclass(frozen=True)
class News:
    """Points against those that are there: which have something new (n,), and what differs.

    `beyond` says whether there are points behind the first difference at steps that the source does not have.
    """

    rows: BoolArray
    differs: str | None = None
    first_different: int = 0
    n_different: int = 0
    beyond: bool = False


def compare(points: LoggedPoints, there: Mapping[str, MaskedColumn] | None) -> News:
    """What of a run's points is news to the service."""
    if there is None or not len(there["step"]):
        return News(np.ones(points.step.size, dtype=bool))
    steps = np.asarray(np.ma.getdata(there["step"]), dtype=np.int64)
    at = np.minimum(np.searchsorted(steps, points.step), steps.size - 1)
    met = steps[at] == points.step
    rows = ~met
    first: tuple[int, str] | None = None
    n_different = 0
    for name, column in points.columns.items():
        logged = ~np.ma.getmaskarray(column)
        known, other = _known_values(there.get(name), at, met)
        mine = np.ma.getdata(column)
        different = logged & known & ~((mine == other) | (np.isnan(mine) & np.isnan(other)))
        rows |= logged & ~known | different
        if different.any():
            n_different += int(different.sum())
            place = int(np.argmax(different))
            values = f"{other[place]:.6g}, not {mine[place]:.6g}"
            told = (
                int(points.step[place]),
                f"step {points.step[place]:,} has another {name} there ({values})",
            )
            first = told if first is None else min(first, told)
    if first is None:
        return News(rows)
    return News(rows, first[1], first[0], n_different, _has_beyond(steps, points.step, first[0]))


def under_other_names(points: LoggedPoints, there: Mapping[str, MaskedColumn] | None) -> Iterator[str]:
    """Say which metrics the service has under another name too, as after an import with another map."""
    if there is None or not len(there["step"]):
        return
    steps = np.asarray(np.ma.getdata(there["step"]), dtype=np.int64)
    at = np.minimum(np.searchsorted(steps, points.step), steps.size - 1)
    met = steps[at] == points.step
    for name, column in points.columns.items():
        mine = np.ma.getdata(column)
        for other in there.keys() - {"step", *points.columns}:
            known, values = _known_values(there[other], at, met)
            both = known & ~np.ma.getmaskarray(column)
            if np.unique(mine[both]).size >= ENOUGH_ALIKE and np.array_equal(mine[both], values[both]):
                took = f"{name} is there as {other} too, as another map named it"
                yield f"{took}: `isoloss import undo` takes one back"


def _known_values(column: MaskedColumn | None, at: IntArray, met: BoolArray) -> tuple[BoolArray, Any]:
    """Whether the service has a value at each of the steps, and which."""
    if column is None:
        return np.zeros(at.size, dtype=bool), np.full(at.size, np.nan)
    return met & ~np.ma.getmaskarray(column)[at], np.ma.getdata(column)[at]


def _has_beyond(there: IntArray, mine: IntArray, step: int) -> bool:
    later = there[there > step]
    return bool(later.size) and not bool(np.isin(later, mine, assume_unique=True).all())

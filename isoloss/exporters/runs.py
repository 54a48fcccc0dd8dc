"""A project, or a selection of its runs, as a folder that holds everything, or the points alone as one file."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from isoloss.client.wire import plain
from isoloss.errors import NotFound
from isoloss.exporters.chosen import Family, OwnPoints, Run, Selection, Service, with_ancestors
from isoloss.exporters.point_files import FILES, PointFile, check_format, format_of, in_order
from isoloss.exporters.targets import new_file, new_folder
from isoloss.importers.exported_files import MANIFEST, POINTS_FOLDER, RUNS_FILE, VERSION
from isoloss.importers.paths import checked_path
from isoloss.importers.specifications import specification_of
from isoloss.version import __version__

AHEAD = 3
"""Runs whose points are asked for before they are written."""

Advance = Callable[[float, str], None]


@dataclass(frozen=True)
class LeftOutRun:
    """What of a run is not in an export, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True)
class ExportReport:
    """What an export holds: `n_points` of `n_runs`, and the `columns` that any of them has.

    `ancestors` are runs that are there because others branch off them, `without_points` such as have none,
    `training` those that go on: of them there is what there was.
    """

    path: str
    project: str
    format: str
    n_runs: int
    n_points: int
    columns: tuple[str, ...]
    ancestors: tuple[str, ...] = ()
    without_points: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    left_out: tuple[LeftOutRun, ...] = ()


def export_runs(
    service: Service,
    project: str,
    folder: str | Path,
    selection: Selection | None = None,
    *,
    format: str = "csv",
    one_file: bool = False,
    force: bool = False,
    on_progress: Advance | None = None,
) -> ExportReport:
    """Write runs with all that is known of them, and their points, to a folder; `isoloss import export` reads it.

    Specifications go to `runs.json`, points to a file for each run, or with `one_file` to one of all. A branch has
    its own points alone, so runs that others branch off are written too. `format` is csv, parquet, json or jsonl.
    The folder is there when it is complete, and not before; one that exists is refused, or with `force` replaced
    if it is an export. `on_progress(share, text)` follows. Raises NotFound, and InvalidInput where no run is meant
    or nothing can be written.

    >>> isoloss.export_runs(client, "pilots", "pilots-export", isoloss.Selection(tags=["train"]))
    """
    check_format(format)
    path = checked_path(folder, "folder").expanduser()
    with new_folder(path, force=force) as part:
        selection = selection or Selection()
        family = with_ancestors(service, project, selection.runs(service, project))
        exporting = Exporting(service, project, format, on_progress)
        beside = {"select": selection.said() or {"all": True}}
        exporting.write_folder(part, family, beside, one_file=one_file)
    return exporting.report(path, family)


def export_points(
    service: Service,
    project: str,
    path: str | Path,
    selection: Selection | None = None,
    *,
    force: bool = False,
    on_progress: Advance | None = None,
) -> ExportReport:
    """Write the points of runs to one file, a row a step with the run's id; its name says the format.

    Raises as `export_runs` does, and InvalidInput where none of the runs has a point.
    """
    path = checked_path(path, "path").expanduser()
    format = format_of(path)
    with new_file(path, force=force) as part:
        selection = selection or Selection()
        family = with_ancestors(service, project, selection.runs(service, project))
        exporting = Exporting(service, project, format, on_progress)
        exporting.write_one_file(part, family.runs)
    return exporting.report(path, family)


@dataclass
class Exporting:
    """An export that is going on. `wanted` are the columns to write, None for all."""

    service: Service
    project: str
    format: str
    on_progress: Advance | None = None
    wanted: Sequence[str] | None = None
    n_runs: int = 0
    n_points: int = 0
    columns: set[str] = field(default_factory=set)
    without_points: list[str] = field(default_factory=list)
    left_out: list[LeftOutRun] = field(default_factory=list)
    run_column: str | None = None

    def write_folder(
        self, folder: Path, family: Family, beside: Mapping[str, Any], *, one_file: bool = False
    ) -> None:
        """Write everything into a folder that is empty; the manifest, with what stands `beside`, last."""
        name = f"points.{self.format}" if one_file else None
        if name is None:
            self._write_files(folder, family.runs)
        else:
            self.run_column = self.write_one_file(folder / name, family.runs)
            gone = {one.run_id for one in self.left_out}
            kept = [run for run in family.runs if run["run_id"] not in gone]
            _write_list(folder / RUNS_FILE, (entry_of(run, None) for run in kept))
        manifest = {
            "isoloss_export": VERSION,
            "code_version": __version__,
            "project": self.project,
            "format": self.format,
            "points_file": name,
            "run_column": self.run_column,
            "n_runs": self.n_runs,
            "n_points": self.n_points,
            "columns": ["step", *in_order(self.columns)],
            **beside,
        }
        write_json(folder / MANIFEST, manifest)

    def _write_files(self, folder: Path, runs: Sequence[Run]) -> None:
        (folder / POINTS_FOLDER).mkdir()
        names = _file_names([run["run_id"] for run in runs], self.format)
        _write_list(folder / RUNS_FILE, self._entries(folder, runs, names))

    def _entries(
        self, folder: Path, runs: Sequence[Run], names: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        for points in self._opened(runs):
            name = f"{POINTS_FOLDER}/{names[points.run['run_id']]}"
            kept = self._kept(points.names)
            try:
                if kept:
                    with FILES[self.format](folder / name, kept) as file:
                        self._write_points(file, points)
                self._count(points.run, bool(kept))
                yield entry_of(points.run, name if kept else None)
            except NotFound:
                (folder / name).unlink()
                self._gone(points.run)

    def _opened(self, runs: Sequence[Run]) -> Iterator[OwnPoints]:
        """The points of runs, in their order; the next few are asked for while one is written."""
        waiting: deque[tuple[OwnPoints, Future[bool]]] = deque()
        coming = iter([] if self.wanted == () else runs)
        with ThreadPoolExecutor(AHEAD) as pool:
            for done, run in enumerate(runs):
                for one in islice(coming, AHEAD - len(waiting)):
                    points = OwnPoints(self.service, self.project, one)
                    waiting.append((points, pool.submit(points.open)))
                self._tell(done, len(runs), run)
                if not waiting:
                    yield OwnPoints(self.service, self.project, run)
                    continue
                points, opened = waiting.popleft()
                try:
                    opened.result()
                    yield points
                except NotFound:
                    self._gone(run)

    def write_one_file(self, path: Path, runs: Sequence[Run]) -> str | None:
        """Write the points of all runs to one file, those of a run together; the column of their runs."""
        with ExitStack() as stack:
            file = stack.enter_context(FILES[self.format](path, self._all_names(runs), many=True))
            for points in self._opened(runs):
                self._write_points(file, points)
                self._count(points.run, bool(points.names))
            return file.run_column

    def _all_names(self, runs: Iterable[Run]) -> tuple[str, ...]:
        """The columns that any of the runs has, as a first look at each says."""
        with ThreadPoolExecutor(AHEAD) as pool:
            found = pool.map(self._names_of, (run for run in runs if run.get("last_step") is not None))
            return self._kept({name for names in found for name in names})

    def _names_of(self, run: Run) -> set[str]:
        try:
            found = self.service.points.read(self.project, run["run_id"], from_step=0, to_step=0)
        except NotFound:
            return set()
        return found.keys() - {"step"}

    def _kept(self, names: Iterable[str]) -> tuple[str, ...]:
        return in_order(name for name in names if self.wanted is None or name in self.wanted)

    def _write_points(self, file: PointFile, points: OwnPoints) -> None:
        self.columns |= {*points.names} & {*file.names}
        for found in points.stretches():
            file.write(points.run["run_id"], found)
            self.n_points += len(found["step"])

    def _count(self, run: Run, there: bool) -> None:
        self.n_runs += 1
        if not there:
            self.without_points.append(run["run_id"])

    def _gone(self, run: Run) -> None:
        self.left_out.append(LeftOutRun(run["run_id"], "it was deleted meanwhile"))

    def _tell(self, done: int, total: int, run: Run) -> None:
        if self.on_progress is not None:
            told = f"run {done + 1:,} of {total:,}, {self.n_points:,} points: {run['run_id']}"
            self.on_progress(done / total, told)

    def report(self, path: Path, family: Family) -> ExportReport:
        """What was written."""
        training = tuple(run["run_id"] for run in family.runs if run.get("status") == "running")
        return ExportReport(
            str(path),
            self.project,
            self.format,
            self.n_runs,
            self.n_points,
            ("step", *in_order(self.columns)),
            family.ancestors,
            tuple(self.without_points),
            training,
            tuple(self.left_out),
        )


def entry_of(run: Run, file: str | None) -> dict[str, Any]:
    """The entry of a run in a runs file: what was said of it, and where its points are."""
    return {"file": file, "run_id": run["run_id"], **specification_of(run)}


def write_json(path: Path, document: object) -> None:
    """Write a document as strict JSON, numbers that it cannot write by their names."""
    text = json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_list(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a list as it comes, an entry a line."""
    with path.open("w", encoding="utf-8") as file:
        between = "[\n"
        for entry in entries:
            file.write(between + json.dumps(plain(entry), ensure_ascii=False, allow_nan=False))
            between = ",\n"
        file.write("\n]\n" if between == ",\n" else "[]\n")


def _file_names(run_ids: Iterable[str], format: str) -> dict[str, str]:
    """A file's name for each run: not two that differ in case alone, and none that is hidden."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for run_id in run_ids:
        stem = f"_{run_id}" if run_id.startswith(".") else run_id
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}~{number}"
        taken.add(name.lower())
        names[run_id] = f"{name}.{format}"
    return names

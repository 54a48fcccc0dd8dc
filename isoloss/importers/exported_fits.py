"""The data of an exported fit as the service read them: curves, a table of runs, or readings off points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers.exported_files import FIT_FILE, Export, open_export, read_json, runs_of
from isoloss.importers.exported_runs import ExportedRun
from isoloss.importers.logged_runs import Unreadable
from isoloss.observations import Curve, FloatArray, RunTable, branch_learning_rates, learning_rates
from isoloss.observations.tables import LeftOut
from isoloss.readings import READERS, LoggedRun, joined, lacking, tabulated
from isoloss.readings.logged import Parent
from isoloss.schedules import Schedule, schedule_from_spec

KINDS = ("curves", "table", "readings")


@dataclass(frozen=True)
class FitData:
    """What a fit was made of: `isoloss.fit(law, observations, left_out=left_out, **options)` makes it again.

    `served` is the fit as the service has it, for comparison.
    """

    law: str
    observations: list[Curve] | RunTable
    left_out: LeftOut
    options: dict[str, Any]
    served: dict[str, Any]


def read_fit_data(folder: str | Path) -> FitData:
    """The data that lie beside the notebook of a fit, in the order in which the service reads them.

    Raises InvalidInput for a folder that is none of these, and for damaged files.

    >>> data = isoloss.read_fit_data("fit-data")
    >>> fit = isoloss.fit(data.law, data.observations, left_out=data.left_out, **data.options)
    """
    export = open_export(folder)
    asked = export.manifest.get("fit")
    place = str(export.folder)
    if not isinstance(asked, dict) or asked.get("kind") not in KINDS:
        raise InvalidInput(field=place, reason="this is the export of runs, not of a fit's data")
    law, options, chosen = asked["law"], dict(asked["options"]), list(asked["run_ids"])
    runs = _all_runs(export)
    missing = sorted(set(chosen) - runs.keys())
    if missing:
        raise InvalidInput(field=place, reason=f"run {missing[0]!r} of the fit is not there")
    observations, left_out = _READ[asked["kind"]](law, runs, chosen, options)
    return FitData(law, observations, left_out, options, read_json(export.folder / FIT_FILE))


def _all_runs(export: Export) -> dict[str, ExportedRun]:
    found: dict[str, ExportedRun] = {}
    for run in runs_of(export):
        if isinstance(run, Unreadable):
            raise InvalidInput(field=run.place, reason=run.reason.removeprefix(f"{run.place}: "))
        found[run.run_id] = run
    return found


Runs = Mapping[str, ExportedRun]
Observed = tuple[list[Curve] | RunTable, LeftOut]


def _curves(_law: str, runs: Runs, chosen: Sequence[str], options: Mapping[str, Any]) -> Observed:
    reader = _Curves(runs, options.get("target") or "loss", options.get("n_params_kind"))
    curves: list[Curve] = []
    left_out: LeftOut = []
    for run_id in chosen:
        try:
            curves.append(reader.curve(run_id))
        except (InvalidInput, UnusableData) as error:
            left_out.append({"run_id": run_id, "reason": str(error)})
    return curves, left_out


@dataclass
class _Curves:
    """Reads curves, of a branch with what it has from its parent."""

    runs: Runs
    target: str
    n_params_kind: str | None
    histories: dict[str, tuple[Schedule, str | None]] = field(default_factory=dict)

    def curve(self, run_id: str) -> Curve:
        schedule, note = self._history(run_id)
        step, loss = self._whole(run_id)
        return Curve.from_columns(
            run_id,
            {"step": step, self.target: loss},
            schedule=schedule,
            config=self.runs[run_id].document.get("config"),
            target=self.target,
            n_params_kind=self.n_params_kind,
            notes=(note,) if note else (),
        )

    def _history(self, run_id: str) -> tuple[Schedule, str | None]:
        if run_id not in self.histories:
            self.histories[run_id] = self._read_history(run_id)
        return self.histories[run_id]

    def _read_history(self, run_id: str) -> tuple[Schedule, str | None]:
        run = self.runs[run_id]
        step, spec, parent = run.points.step, run.document.get("schedule"), _parent(run)
        declared = None if spec is None else schedule_from_spec(spec)
        lr = _with_nan(run, "lr")
        if parent is None:
            return learning_rates(run_id, step, lr, declared)
        trunk, _ = self._history(parent[0])
        return branch_learning_rates(run_id, trunk, parent[1], step, lr, declared)

    def _whole(self, run_id: str) -> tuple[Any, Any]:
        """The steps and losses of a curve, masked where nothing was logged: its parent's, then its own."""
        run = self.runs[run_id]
        step, loss = run.points.step, _masked(run, self.target)
        parent = _parent(run)
        if parent is None:
            return step, loss
        above, before = self._whole(parent[0])
        early = above <= parent[1]
        both = np.ma.concatenate([before[early], loss])  # type: ignore[no-untyped-call]
        return np.concatenate([above[early], step]), both


def _table(_law: str, runs: Runs, chosen: Sequence[str], options: Mapping[str, Any]) -> Observed:
    kind, target = options.get("n_params_kind"), options.get("target") or "loss"
    rows = [_specification(runs[name]) for name in chosen]
    return RunTable.from_runs(rows, target=target, n_params_kind=kind), []


def _specification(run: ExportedRun) -> dict[str, Any]:
    return {"run_id": run.run_id, **run.document}


def _readings(law: str, runs: Runs, chosen: Sequence[str], options: Mapping[str, Any]) -> Observed:
    reader, logs = READERS[law], _Logs(runs)
    options = {"target": reader.target, **options}
    logged: list[str] = []
    rows: list[str] = []
    left_out: LeftOut = []
    for name in chosen:
        document = runs[name].document
        why = lacking(reader, name, logs)
        if why is None:
            logged.append(name)
        elif reader.has_row(document.get("config") or {}, document.get("summary") or {}):
            rows.append(name)
        else:
            left_out.append({"run_id": name, "reason": f"{why}; nor has it {reader.row}"})
    table, unread = tabulated(reader, logged, logs, n_params_kind=options.get("n_params_kind"))
    tables = [] if table is None else [replace(table, target=options["target"])]
    if rows or not tables:
        beside, _ = _table(law, runs, rows, options)
        assert isinstance(beside, RunTable)
        tables.append(beside)
    return joined(tables), [*left_out, *unread]


@dataclass(frozen=True)
class _Logs:
    """The points of exported runs, as what reads readings asks for them."""

    runs: Runs

    def parent(self, run_id: str) -> Parent | None:
        return _parent(self.runs[run_id])

    def columns(self, run_id: str) -> tuple[str, ...]:
        return tuple(self.runs[run_id].points.columns)

    def config(self, run_id: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.runs[run_id].document.get("config") or {}
        return found

    def own(self, run_id: str, names: tuple[str, ...]) -> LoggedRun:
        run = self.runs[run_id]
        held = {name: _with_nan(run, name) for name in names if name in run.points.columns}
        anything = np.zeros(run.points.step.size, dtype=bool)
        for name in held:
            anything |= ~np.ma.getmaskarray(run.points.columns[name])
        columns = {name: values[anything] for name, values in held.items()}
        return LoggedRun(run_id, run.points.step[anything], columns, self.config(run_id), self.parent(run_id))


def _parent(run: ExportedRun) -> Parent | None:
    said = run.document.get("parent")
    return None if said is None else (str(said["run_id"]), int(said["branch_step"]))


def _masked(run: ExportedRun, name: str) -> Any:
    found = run.points.columns.get(name)
    return np.ma.masked_all(run.points.step.size) if found is None else found  # type: ignore[no-untyped-call]


def _with_nan(run: ExportedRun, name: str) -> FloatArray:
    return np.asarray(np.ma.filled(_masked(run, name).astype(np.float64), np.nan))


_READ = {"curves": _curves, "table": _table, "readings": _readings}

"""The readings that a fit asks for, read from the points of runs, or of what runs were and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from isoloss.errors import UnusableData
from isoloss.observations import RunTable
from isoloss.observations.tables import LeftOut
from isoloss.readings import READERS, LoggedRun, Reader, joined, lacking, tabulated
from isoloss.readings.logged import Parent
from store import points, runs
from store.run_tables import table_of
from store.tables import Run


def load_readings(
    session: Session, project_id: int, law: str, select: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[RunTable, LeftOut]:
    """Return the readings of the chosen runs for a law that takes them, and the runs that have none with why.

    A run is read from its points where they have what the law needs, else it is one reading by its own fields.
    Raises InvalidInput where `select` means no run.
    """
    reader, chosen = READERS[law], runs.chosen(session, project_id, select)
    options = {"target": reader.target, **options}
    logs = StoredLogs(session, chosen)
    logged, rows, left_out = _sorted_out(reader, chosen, logs)
    table, unread = tabulated(reader, logged, logs, n_params_kind=options.get("n_params_kind"))
    tables = [] if table is None else [replace(table, target=options["target"])]
    tables += [table_of(rows, options)] if rows or not tables else []
    return joined(tables), [*left_out, *unread]


def readable(
    session: Session, law: str, chosen: Sequence[Run], options: Mapping[str, Any]
) -> tuple[set[str], RunTable | None]:
    """Return the runs whose points may have readings, and the table of those that are readings by themselves.

    No point is read for it. Raises UnusableData where there are neither.
    """
    reader = READERS[law]
    logged, rows, left_out = _sorted_out(reader, chosen, StoredLogs(session, chosen))
    if not logged and not rows:
        raise UnusableData(reason="no run is left to fit: run '{run_id}': {reason}".format(**left_out[0]))
    return set(logged), table_of(rows, {"target": reader.target, **options}) if rows else None


def _sorted_out(
    reader: Reader, chosen: Sequence[Run], logs: StoredLogs
) -> tuple[list[str], list[Run], LeftOut]:
    """Return the runs that are read from their points, those that are a reading themselves, and the others."""
    logged: list[str] = []
    rows: list[Run] = []
    left_out: LeftOut = []
    for run in chosen:
        why = lacking(reader, run.run_id, logs)
        if why is None:
            logged.append(run.run_id)
        elif reader.has_row(run.config, run.summary):
            rows.append(run)
        else:
            left_out.append({"run_id": run.run_id, "reason": f"{why}; nor has it {reader.row}"})
    return logged, rows, left_out


class StoredLogs:
    """The logs of runs that are stored, and of those that they branch off."""

    def __init__(self, session: Session, chosen: Sequence[Run]) -> None:
        self._session = session
        self._runs = {run.run_id: run for run in chosen}
        self._parents: dict[str, Parent | None] = {}

    def parent(self, run_id: str) -> Parent | None:
        if run_id not in self._parents:
            self._parents[run_id] = self._read_parent(self._runs[run_id])
        return self._parents[run_id]

    def columns(self, run_id: str) -> tuple[str, ...]:
        return tuple(self._runs[run_id].columns)

    def config(self, run_id: str) -> Mapping[str, Any]:
        return self._runs[run_id].config

    def own(self, run_id: str, names: tuple[str, ...]) -> LoggedRun:
        run = self._runs[run_id]
        held = [name for name in names if name in run.columns]
        found = points.read(self._session, run, held, inherit=False)
        anything = np.zeros(len(found), dtype=bool)
        for name in held:
            anything |= found[name].present
        columns = {name: found[name].with_nan()[anything] for name in held}
        return LoggedRun(run_id, found.step[anything], columns, run.config, self.parent(run_id))

    def _read_parent(self, run: Run) -> Parent | None:
        if run.parent_id is None or run.branch_step is None:
            return None
        above = self._session.get_one(Run, run.parent_id)
        self._runs.setdefault(above.run_id, above)
        return above.run_id, run.branch_step

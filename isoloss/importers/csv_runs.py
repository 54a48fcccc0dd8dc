"""CSV files of training curves as logged runs: one file a run, or one file of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.csv_files import CellPlace, floats_of, read_rows, starts_with_text
from isoloss.importers.fields import bare_name
from isoloss.importers.logged_runs import LoggedRun, Series, Source, Unreadable
from isoloss.importers.paths import Paths
from isoloss.importers.plans import ImportPlan, parents_first, plan_imports
from isoloss.importers.row_files import METRIC_NAMES, RowColumn, Rows, find_files, runs_of

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def read_csv_runs(
    paths: Paths,
    runs_file: str | Path | None = None,
    *,
    run_ids: Sequence[str] | None = None,
    run_column: str | None = None,
    step_column: str | None = None,
) -> Source:
    """The runs in CSV files: one a file, or those that a column tells apart.

    `runs_file` is a JSON list that says which file is which run and what is stated of it; without `paths` all of
    its files are read. `run_ids` names the runs in the order of the files. Rows may stand in any order; where their
    steps go back and their values disagree, they are taken for those of a training that was resumed. A file that
    cannot be used is Unreadable. Raises InvalidInput where the request makes no sense.
    """
    found = find_files(paths, SUFFIXES)
    if runs_file is None and not run_ids:
        if not found:
            raise InvalidInput(field="files", reason="no file to import was named")
        plans = [ImportPlan(one.path, one.key, None) for one in found]
        return _read(plans, (), run_column, step_column)
    plans, refused = plan_imports([one.path for one in found], runs_file, run_ids, None)
    return _read(plans, [Unreadable(str(one.path), one.reason) for one in refused], run_column, step_column)


def _read(
    plans: Sequence[ImportPlan],
    refused: Sequence[Unreadable],
    run_column: str | None,
    step_column: str | None,
) -> Source:
    yield from refused
    for plan in parents_first(plans):
        place = str(plan.path)
        try:
            runs = runs_of(_rows(plan), run_column, step_column)
            yield from (_stated(_in_step_order(run), plan) for run in runs)
        except InvalidInput as error:
            yield Unreadable(place, str(error).removeprefix(f"{place}: "))


def _rows(plan: ImportPlan) -> Rows:
    header, rows, lines = read_rows(plan.path)
    if not rows:
        raise InvalidInput(field=str(plan.path), reason="there are no rows under the header")
    columns = {
        name: _column([row[index].strip() for row in rows], CellPlace(plan.path, name, lines))
        for index, name in enumerate(header)
        if name
    }
    filled = {name: column for name, column in columns.items() if column.rows.size}
    return Rows(str(plan.path), plan.run_id, len(rows), filled, np.array(lines, dtype=np.int64))


def _column(cells: list[str], place: CellPlace) -> RowColumn:
    rows = np.flatnonzero(np.array([bool(cell) for cell in cells], dtype=bool))
    if starts_with_text(cells) and bare_name(place.column) not in METRIC_NAMES:
        return RowColumn(rows, [cells[row] for row in rows.tolist()])
    return RowColumn(rows, np.ma.getdata(floats_of(cells, place))[rows])


def _in_step_order(run: LoggedRun) -> LoggedRun:
    """The run with its rows in the order of their steps, where that contradicts nothing."""
    if all(np.all(np.diff(one.step) >= 0) for one in run.series.values()):
        return run
    ordered = {name: _ordered(one) for name, one in run.series.items()}
    if any(map(_disagrees, ordered.values())):
        return run
    return replace(run, series=ordered)


def _ordered(series: Series) -> Series:
    order = np.argsort(series.step, kind="stable")
    return Series(series.step[order], series.value[order])


def _disagrees(series: Series) -> bool:
    """Whether a step has two values."""
    repeated = np.diff(series.step) == 0
    value, later = series.value[:-1][repeated], series.value[1:][repeated]
    return not np.array_equal(value, later, equal_nan=True)


def _stated(run: LoggedRun, plan: ImportPlan) -> LoggedRun:
    """The run with what the runs file states of it."""
    said: dict[str, Any] = dict(plan.specification or {})
    name, tags, notes, status = (said.pop(field, None) for field in ("name", "tags", "notes", "status"))
    return replace(
        run,
        name=name or run.name,
        tags=tuple(tags or ()),
        notes=notes,
        status=status or run.status,
        specification=said,
    )

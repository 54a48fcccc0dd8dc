"""The points of runs as a table of readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, UnusableData
from isoloss.notes import counted
from isoloss.observations import RunTable
from isoloss.observations.tables import LOGGED_BY, LeftOut
from isoloss.readings.counters import Counter
from isoloss.readings.logged import LoggedRun, Logs, Parent
from isoloss.readings.reader import Reader, Readings
from isoloss.readings.readers import reader_of
from isoloss.readings.shares import Curves, Stretch, shared_once, whole_curves

MOST_OF_A_CURVE = 4_000
"""The most readings of a curve that enter a table; of longer ones, so many blocks of neighbours."""

MOST_IN_ALL = 40_000
"""The most readings of all curves together, as long as each keeps `LEAST_OF_A_CURVE`."""

LEAST_OF_A_CURVE = 160
"""What every curve may have, however many there are: twice the parts that a noise scale's windows are cut into."""

KEPT = 2
"""Runs whose points are kept at hand, for branches of one trunk follow each other."""

NOTHING_OWN = "all of its points are also those of other runs, and count there"


def tabulated(
    reader: Reader, run_ids: Sequence[str], logs: Logs, *, n_params_kind: str | None = None
) -> tuple[RunTable | None, LeftOut]:
    """Return the readings of runs, a row each with the label `curve`, and the runs that have none with why.

    A curve with more readings than it may have is averaged in blocks of neighbours. None where no run has any.
    """
    store = _Points(reader, logs)
    curves = _curves(reader, run_ids, logs)
    most = int(np.clip(MOST_IN_ALL // max(1, len(curves)), LEAST_OF_A_CURVE, MOST_OF_A_CURVE))
    tables: list[RunTable] = []
    left_out: LeftOut = []
    for name, stretches in curves.items():
        try:
            tables.append(_table(reader, name, store.readings(stretches), most, n_params_kind))
        except (InvalidInput, UnusableData) as error:
            left_out.append({"run_id": name, "reason": str(error)})
    return (joined(tables) if tables else None), left_out


def table_of_readings(law: str, runs: Iterable[LoggedRun]) -> RunTable:
    """Return the readings that runs have for a law of readings in time, ready for `isoloss.fit`.

    Raises InvalidInput for another law, for two runs of one name and for a parent that is not among them,
    UnusableData for a run that lacks what the law needs.
    """
    reader, logs = reader_of(law), logs_of(runs)
    for name in logs.runs:
        why = lacking(reader, name, logs)
        if why is not None:
            raise UnusableData(reason=f"run {name!r}: {why}")
    table, left_out = tabulated(reader, list(logs.runs), logs)
    several = [one for one in left_out if one["reason"] != NOTHING_OWN]
    if several or table is None:
        named = (several or left_out or [{"run_id": "", "reason": "there is none"}])[0]
        raise UnusableData(reason="run '{run_id}': {reason}".format(**named))
    return table


def lacking(reader: Reader, run_id: str, logs: Logs) -> str | None:
    """Return what a run lacks, with the runs that it descends from, for readings of its points; None: nothing."""
    columns: set[str] = set()
    config: dict[str, Any] = {}
    for stretch in whole_curves([run_id], logs.parent)[run_id]:
        columns |= set(logs.columns(stretch.run_id))
        config |= logs.config(stretch.run_id)
    return reader.lacking(columns, config)


def joined(tables: Sequence[RunTable]) -> RunTable:
    """Return the rows of several tables of one target as one."""
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    labels = list(dict.fromkeys(name for table in tables for name in table.labels))
    kinds = [table.n_params_kind for table in tables if table.n_params_kind is not None]
    return RunTable(
        tuple(name for table in tables for name in table.run_ids),
        {name: np.concatenate([_column(table, name) for table in tables]) for name in columns},
        np.concatenate([table.outcome for table in tables]),
        tables[0].target,
        kinds[0] if kinds else None,
        tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        {name: tuple(said for table in tables for said in table.label(name)) for name in labels},
    )


def _column(table: RunTable, name: str) -> FloatArray:
    return table.columns.get(name, np.full(table.n_runs, np.nan))


def by_runs(left_out: Sequence[dict[str, str]], table: RunTable) -> LeftOut:
    """Return what is left out with readings of points told together: a run once for a reason, with the steps."""
    owner = dict(zip(table.run_ids, table.label(LOGGED_BY), strict=True))
    step = dict(zip(table.run_ids, _column(table, "step"), strict=True))
    alike: dict[tuple[str, str | None, str], list[str]] = {}
    for one in left_out:
        run = owner.get(one["run_id"])
        alike.setdefault((one["run_id"] if run is None else run, run, one["reason"]), []).append(
            one["run_id"]
        )
    found = []
    for (name, run, reason), rows in alike.items():
        at = sorted(int(step[row]) for row in rows) if run is not None else []
        where = "" if not at else f"step {at[0]}: " if len(at) == 1 else f"steps {at[0]} to {at[-1]}: "
        found.append({"run_id": name, "reason": where + reason})
    return list({(one["run_id"], one["reason"]): one for one in found}.values())


@dataclass
class InMemory:
    """Runs that are at hand."""

    runs: Mapping[str, LoggedRun]

    def parent(self, run_id: str) -> Parent | None:
        return self._of(run_id).parent

    def columns(self, run_id: str) -> tuple[str, ...]:
        return tuple(self._of(run_id).columns)

    def config(self, run_id: str) -> Mapping[str, Any]:
        return self._of(run_id).config

    def own(self, run_id: str, names: tuple[str, ...]) -> LoggedRun:
        run = self._of(run_id)
        return replace(run, columns={name: run.columns[name] for name in names if name in run.columns})

    def _of(self, run_id: str) -> LoggedRun:
        if run_id not in self.runs:
            raise InvalidInput(field="parent", reason=f"a run branches off {run_id!r}: read it too")
        return self.runs[run_id]


def logs_of(runs: Iterable[LoggedRun]) -> InMemory:
    """Return the logs of runs that are at hand; raises InvalidInput for two of one name and for what is none."""
    found: dict[str, LoggedRun] = {}
    for number, run in enumerate(runs):
        if not isinstance(run, LoggedRun):
            raise InvalidInput(
                field=f"runs[{number}]", reason=f"must be a LoggedRun, not {type(run).__name__}"
            )
        if run.run_id in found:
            raise InvalidInput(field="runs", reason=f"run {run.run_id!r} stands in it twice")
        found[run.run_id] = run
    return InMemory(found)


def _curves(reader: Reader, run_ids: Sequence[str], logs: Logs) -> Curves:
    split = shared_once if reader.counts_once else whole_curves
    return split(run_ids, logs.parent)


@dataclass
class _Points:
    """The points of runs as readings, with the counters where branches set out."""

    reader: Reader
    logs: Logs
    begins: dict[str, tuple[int, float]] = field(default_factory=dict)
    at_hand: dict[str, LoggedRun] = field(default_factory=dict)

    def readings(self, stretches: Sequence[Stretch]) -> Readings:
        """Return the readings of a curve. Raises InvalidInput, and UnusableData where it has none."""
        if not stretches:
            raise UnusableData(reason=NOTHING_OWN)
        parts = [self._read(stretch) for stretch in stretches]
        found = _one_after_the_other(parts)
        if not found.step.size:
            why = "".join(f": {one}" for one in found.dropped[:1])
            raise UnusableData(reason=f"it has no readings of its own{why}")
        return found

    def _read(self, stretch: Stretch) -> Readings:
        run = self._own(stretch.run_id)
        counter = self._counter(run)
        inside = (run.step > stretch.after) & (run.step <= stretch.last)
        columns = {name: values[inside] for name, values in run.columns.items()}
        step = run.step[inside]
        return self.reader.read(step, columns, counter.at(step), run.config)

    def _own(self, run_id: str) -> LoggedRun:
        found = self.at_hand.pop(run_id, None) or self.logs.own(run_id, self.reader.points)
        self.at_hand[run_id] = found  # the last one is the latest that was asked for
        for old in list(self.at_hand)[:-KEPT]:
            del self.at_hand[old]
        return found

    def _counter(self, run: LoggedRun) -> Counter:
        name = self.reader.counter
        begin, per_step = self._begin(run.run_id, run.parent), self.reader.per_step(run.config)
        return Counter(name, run.step, run.column(name), begin, per_step)

    def _begin(self, run_id: str, parent: Parent | None) -> tuple[int, float]:
        """Return where a run's counter sets out: at 0, or of a branch where its parent's stood."""
        if parent is None:
            return 0, 0.0
        if run_id not in self.begins:
            counter = self._counter(self._own(parent[0]))
            self.begins[run_id] = (parent[1], float(counter.at(np.array([parent[1]]))[0]))
        return self.begins[run_id]


def _one_after_the_other(parts: Sequence[Readings]) -> Readings:
    """Return the readings of stretches as one; where they differ in kind, those of the better kind."""
    dropped = [why for one in parts for why in one.dropped]
    read = [one for one in parts if one.step.size] or parts[:1]
    kinds = {tuple(one.columns) for one in read}
    if len(kinds) > 1:
        best = max(kinds, key=len)
        worse = sum(one.step.size for one in read if tuple(one.columns) != best)
        dropped.append(f"{counted(worse, 'point')} left out: others of the curve have more than a ratio")
        read = [one for one in read if tuple(one.columns) == best]
    columns = {name: np.concatenate([one.columns[name] for one in read]) for name in read[0].columns}
    step, outcome = (
        np.concatenate(one) for one in zip(*((one.step, one.outcome) for one in read), strict=True)
    )
    return Readings(step, columns, outcome, tuple(dict.fromkeys(dropped)))


def _table(reader: Reader, name: str, readings: Readings, most: int, n_params_kind: str | None) -> RunTable:
    notes = [f"run {name}: {why}" for why in readings.dropped]
    edges = _blocks(readings.step.size, reader.apart(readings), most)
    last = readings.step[edges[1:] - 1]
    if edges.size <= readings.step.size:
        count = counted(readings.step.size, "reading")
        notes.append(f"run {name}: {edges.size - 1:,} averages of neighbours stand for its {count}")
        readings = reader.averaged(readings, edges)
    return RunTable(
        tuple(_row_name(name, *steps) for steps in zip(readings.step.tolist(), last.tolist(), strict=True)),
        {**readings.columns, "step": readings.step.astype(np.float64)},
        readings.outcome,
        reader.target,
        n_params_kind,
        tuple(notes),
        dict.fromkeys(("curve", LOGGED_BY), (name,) * readings.step.size),
    )


def _blocks(count: int, apart: int, most: int) -> IntArray:
    """Return where blocks of readings begin, and the end: blocks of as equal sizes as can be, `most` of them."""
    apart = min(apart, most - 1)
    blocks = min(most - apart, count - apart)
    edges = np.floor(np.linspace(apart, count, blocks + 1)).astype(np.int64)
    return np.concatenate([np.arange(apart), edges])


def _row_name(run_id: str, first: int, last: int) -> str:
    return f"{run_id}@{first}" if first == last else f"{run_id}@{first}-{last}"

"""CSV files as the library's curves, without a service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers.csv_files import CurveTable, MaskedColumn, read_table
from isoloss.importers.curves import sendable_columns
from isoloss.importers.fields import checked_map, lacking
from isoloss.importers.paths import Paths, expand
from isoloss.importers.plans import ImportPlan, parents_first, plan_imports
from isoloss.observations import Curve, IntArray, branch_learning_rates, learning_rates
from isoloss.observations.counts import mapping_of
from isoloss.schedules import Schedule, schedule_from_spec

WEIGHTS = frozenset({"weight", "weights", "sample_weight", "sample_weights"})


def read_curves(
    paths: Paths,
    schedule: Mapping[str, Any] | None = None,
    map: Mapping[str, str] | None = None,
    *,
    runs_file: str | Path | None = None,
    target: str = "loss",
    config: Mapping[str, Any] | None = None,
) -> list[Curve]:
    """The curves in CSV files, one a file and in their order, ready for `isoloss.fit`.

    `paths` is a file, a pattern such as `"curves/*.csv"`, or several of them; a run is called after its file.
    `schedule` and `config` hold for all files; `runs_file`, a JSON list as for `isoloss import csv --runs`,
    says them for each, by its place or its base name, parents of branches too. `map` names columns by
    field, as in `{"loss": "train nll"}`; usual names are known.
    Raises InvalidInput for a file that cannot be read, UnusableData for one that is no curve.

    >>> curves = isoloss.read_curves("curves/*.csv", schedule={"kind": "constant", ...})
    """
    if not isinstance(target, str):
        raise InvalidInput(field="target", reason=f"must be the name of a field, not {type(target).__name__}")
    map, config = checked_map(map), mapping_of(config, "config")
    plans, refused = plan_imports(expand(paths), runs_file, None, schedule)
    if refused:
        raise InvalidInput(field=str(refused[0].path), reason=refused[0].reason)
    runs: dict[str, _Run] = {}
    curves: dict[str, Curve] = {}
    for plan in parents_first(plans):
        try:
            runs[plan.run_id] = run = _read(plan, map, target, config, runs)
            curves[plan.run_id] = run.curve(target)
        except InvalidInput as error:
            if str(error).startswith(str(plan.path)):
                raise
            raise InvalidInput(field=str(plan.path), reason=str(error)) from error
    return [curves[plan.run_id] for plan in plans]


@dataclass(frozen=True)
class _Run:
    """A run as its file has it, its parent's part included: step and losses (n,), masked where blank, and rates."""

    run_id: str
    step: IntArray
    losses: MaskedColumn
    schedule: Schedule
    config: Mapping[str, Any]
    notes: tuple[str, ...]

    def curve(self, target: str) -> Curve:
        return Curve.from_columns(
            self.run_id,
            {"step": self.step, target: self.losses},
            schedule=self.schedule,
            config=self.config,
            target=target,
            notes=self.notes,
        )


def _read(
    plan: ImportPlan,
    map: Mapping[str, str],
    target: str,
    config: Mapping[str, Any],
    runs: Mapping[str, _Run],
) -> _Run:
    specification = plan.specification or {}
    table = read_table(plan.path, map)
    masked, _ = sendable_columns(table)
    if target not in masked:
        raise UnusableData(reason=f"run {plan.run_id!r} has no {target}: {_why_not(table, target)}")
    step = np.asarray(masked["step"], dtype=np.int64)
    losses = masked[target]
    lr = masked["lr"].filled(math.nan) if "lr" in masked else np.full(step.size, math.nan)
    spec = specification.get("schedule")
    declared = None if spec is None else schedule_from_spec(spec)
    said = {**(specification.get("config") or {}), **config}
    parent = specification.get("parent")
    if parent is None:
        schedule, note = learning_rates(plan.run_id, step, lr, declared)
        return _Run(plan.run_id, step, losses, schedule, said, (*_notes(table), *_said(note)))
    trunk, at = _trunk(plan.run_id, parent, runs)
    early, own = trunk.step <= at, step > at
    schedule, note = branch_learning_rates(plan.run_id, trunk.schedule, at, step, lr, declared)
    steps = np.append(trunk.step[early], step[own])
    both: MaskedColumn = np.ma.concatenate([trunk.losses[early], losses[own]])  # type: ignore[no-untyped-call]
    return _Run(plan.run_id, steps, both, schedule, said, (*_notes(table), *_said(note)))


def _why_not(table: CurveTable, target: str) -> str:
    """Say why a target cannot be read: its column is empty, or there is none."""
    header = [*table.field_map.fields, *table.field_map.ignored]
    return "its column is empty" if target in table.columns else lacking(target, header)


def _said(note: str | None) -> tuple[str, ...]:
    return () if note is None else (note,)


def _notes(table: CurveTable) -> tuple[str, ...]:
    """Return notes on columns that look as if they were meant for a fit; logs hold many others."""
    found = [column for column, field in table.field_map.fields.items() if field in WEIGHTS]
    return tuple(f"no law reads its column {column!r}: every point counts the same" for column in found)


def _trunk(run_id: str, parent: Mapping[str, Any], runs: Mapping[str, _Run]) -> tuple[_Run, int]:
    """Return the parent's run and the step that a branch leaves it at."""
    if parent["run_id"] not in runs:
        raise InvalidInput(
            field="parent", reason=f"run {run_id!r} branches off {parent['run_id']!r}: read it too"
        )
    return runs[parent["run_id"]], int(parent["branch_step"])

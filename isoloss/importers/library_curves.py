"""CSV files as the library's curves, without a service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.csv_files import read_table
from isoloss.importers.curves import sendable_columns
from isoloss.importers.plans import ImportPlan, plan_imports
from isoloss.observations import Curve

WILDCARDS = frozenset("*?[")

Paths = str | Path | Iterable[str | Path]


def read_curves(
    paths: Paths,
    schedule: Mapping[str, Any] | None = None,
    map: Mapping[str, str] | None = None,
    *,
    runs_file: str | Path | None = None,
    target: str = "loss",
    config: Mapping[str, Any] | None = None,
) -> list[Curve]:
    """The curves in CSV files, one a file, ready for `isoloss.fit`.

    `paths` is a file, a pattern such as `"curves/*.csv"`, or several of them; a run is called after its file.
    `schedule` and `config` hold for all files; `runs_file`, a JSON list as for `isoloss import csv --runs`,
    says them for each. `map` names columns by field, as in `{"loss": "train nll"}`; usual names are known.
    Raises InvalidInput for a file that cannot be read, UnusableData for one that is no curve.

    >>> curves = isoloss.read_curves("curves/*.csv", schedule={"kind": "constant", ...})
    """
    plans, doubles = plan_imports(expand(paths), runs_file, None, schedule)
    if doubles:
        raise InvalidInput(field=str(doubles[0].path), reason=doubles[0].reason)
    return [_read(plan, map, target, config) for plan in plans]


def expand(paths: Paths) -> list[Path]:
    """The files that paths and patterns name, in order; raises InvalidInput for a pattern that names none."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    return [file for path in several for file in _matches(path)]


def _matches(path: str | Path) -> list[Path]:
    pattern = Path(path).expanduser()
    if pattern.exists() or not WILDCARDS.intersection(str(pattern)):
        return [pattern]
    found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    if not found:
        raise InvalidInput(field=str(path), reason="no file matches this pattern")
    return found


def _read(
    plan: ImportPlan, map: Mapping[str, str] | None, target: str, config: Mapping[str, Any] | None
) -> Curve:
    specification = plan.specification or {}
    masked, _ = sendable_columns(read_table(plan.path, map))
    columns = {name: column if name == "step" else column.filled(math.nan) for name, column in masked.items()}
    try:
        return Curve.from_columns(
            plan.run_id,
            columns,
            schedule=specification.get("schedule"),
            config={**(specification.get("config") or {}), **(config or {})},
            target=target,
        )
    except InvalidInput as error:
        raise InvalidInput(field=str(plan.path), reason=str(error)) from error

"""CSV files of points as the library's tables of readings, without a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.importers.csv_files import read_table
from isoloss.importers.curves import sendable_columns
from isoloss.importers.fields import checked_map
from isoloss.importers.paths import Paths, expand
from isoloss.importers.plans import ImportPlan, plan_imports
from isoloss.observations import RunTable
from isoloss.observations.counts import mapping_of
from isoloss.readings import LoggedRun, reader_of, table_of_readings


def read_points(
    law: str,
    paths: Paths,
    map: Mapping[str, str] | None = None,
    *,
    runs_file: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> RunTable:
    """The readings of a law in the logged points of runs, CSV files one a run, ready for `isoloss.fit`.

    `law` is one of readings in time, `noise_scale` or `rl_compute`; `isoloss.LAWS[law].requires` says which columns
    it needs. `paths`, `map`, `runs_file` and `config` as for `read_curves`: a run is called after its file, and a
    branch begins with the points of its parent, which must be read too. The service makes the same table of the
    same points. Raises InvalidInput for a file that cannot be read, UnusableData for a run without readings.

    >>> readings = isoloss.read_points("noise_scale", "logs/*.csv", config={"batch_tokens": 524_288})
    """
    reader_of(law)
    map, config = checked_map(map), mapping_of(config, "config")
    plans, refused = plan_imports(expand(paths), runs_file, None, None)
    if refused:
        raise InvalidInput(field=str(refused[0].path), reason=refused[0].reason)
    return table_of_readings(law, [_logged(plan, map, config) for plan in plans])


def _logged(plan: ImportPlan, map: Mapping[str, str], config: Mapping[str, Any]) -> LoggedRun:
    said = plan.specification or {}
    parent = said.get("parent")
    columns, _ = sendable_columns(read_table(plan.path, map))
    try:
        return LoggedRun.from_columns(
            plan.run_id,
            {name: np.ma.masked_invalid(column) for name, column in columns.items()},
            config={**(said.get("config") or {}), **config},
            parent=None if parent is None else (parent["run_id"], parent["branch_step"]),
        )
    except InvalidInput as error:
        raise InvalidInput(field=str(plan.path), reason=str(error)) from error

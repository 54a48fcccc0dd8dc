"""The finished runs that a fit asks for, read from the store as the library wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from isoloss.observations import RunTable
from isoloss.observations.tables import SUMMARY_FIELDS
from store import runs
from store.tables import Run

LeftOut = list[dict[str, str]]


def are_table(chosen: Sequence[Run], options: Mapping[str, Any]) -> bool:
    """Whether runs tell what came of them and none has logged it step by step, under the `target` of `options`.

    Where the law is to be chosen, this says of which kind.
    """
    target = options.get("target") or "loss"
    logged = any(target in run.columns or run.parent_id is not None for run in chosen)
    return not logged and any(run.summary.get(SUMMARY_FIELDS[target]) is not None for run in chosen)


def load_table(
    session: Session, project_id: int, select: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[RunTable, LeftOut]:
    """Return the table of the chosen runs, and those that could not be read as rows: none.

    `options` may name the `target` and the `n_params_kind`. Raises InvalidInput where `select` means no run, and
    where runs count their parameters in several kinds.
    """
    return table_of(runs.chosen(session, project_id, select), options), []


def table_of(chosen: Sequence[Run], options: Mapping[str, Any]) -> RunTable:
    """Return the same of runs that have been chosen."""
    return RunTable.from_runs(
        [_specification(run) for run in chosen],
        target=options.get("target") or "loss",
        n_params_kind=options.get("n_params_kind"),
    )


def _specification(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "config": run.config,
        "summary": run.summary,
        "status": run.status,
        "recipe": run.recipe,
        "schedule": run.schedule,
    }

"""Which finished runs enter a fit of a table law, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.datasets import scale_of
from isoloss.fitting.options import FitOptions
from isoloss.fitting.screening import (
    HIGHEST_LOSS,
    LOWEST_LOSS,
    LeftOut,
    held_names,
)
from isoloss.laws import TableLaw
from isoloss.observations import RunTable
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT
from isoloss.observations.tables import SUMMARY_FIELDS


def screen_table(
    table: RunTable, law: TableLaw[Any], unread: Sequence[dict[str, str]] = ()
) -> tuple[RunTable, LeftOut]:
    """Return the rows that have all that the law needs, in the order of their numbers, and the others with why.

    Raises InvalidInput for two rows of one run, UnusableData where none is left.
    """
    for name, times in Counter(table.run_ids).items():
        if times > 1:
            raise InvalidInput(field="select", reason=f"run {name!r} stands in it {times} times")
    reasons = [_lacking(table, law, row) for row in range(table.n_runs)]
    left_out = [
        *unread,
        *(
            {"run_id": name, "reason": reason}
            for name, reason in zip(table.run_ids, reasons, strict=True)
            if reason is not None
        ),
    ]
    columns = (*(table.column(name) for name in law.columns), table.outcome)
    kept = [row for row in np.lexsort(columns[::-1]) if reasons[row] is None]
    if not kept:
        why = ": run '{run_id}': {reason}".format(**left_out[0]) if left_out else ""
        raise UnusableData(reason=f"no run is left to fit{why}")
    return table.only(kept), left_out


def _lacking(table: RunTable, law: TableLaw[Any], row: int) -> str | None:
    """Return what keeps a run out, None where nothing does."""
    for name in law.columns:
        value = table.column(name)[row]
        if np.isnan(value):
            return f"it has no config.{name}"
        if not LOWEST_COUNT <= value <= HIGHEST_COUNT:
            limits = f"must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
            return f"its config.{name} is {value:g}, and {limits}"
    outcome, field = table.outcome[row], SUMMARY_FIELDS[table.target]
    if np.isnan(outcome):
        return f"it has no summary.{field}, or diverged"
    if not LOWEST_LOSS <= outcome <= HIGHEST_LOSS:
        return f"its summary.{field} is {outcome:.3g}: this is no number of nats per token"
    return None


def split_table(
    table: RunTable, law: TableLaw[Any], options: FitOptions, unread: Sequence[dict[str, str]] = ()
) -> tuple[RunTable, RunTable]:
    """Return (rows to fit, rows to predict) of a screened table; a fraction holds out the largest runs."""
    if options.holdout is None:
        return table, table.only([])
    scale = scale_of(table, law)
    held = held_names(table.run_ids, [float(one) for one in scale], options.holdout, unread)
    inside = np.array([name in held for name in table.run_ids])
    return table.only(np.flatnonzero(~inside)), table.only(np.flatnonzero(inside))


def without_twins(held: RunTable, fitted: RunTable) -> tuple[RunTable, LeftOut]:
    """Return the held-out rows but those that are, number by number, fitted ones, and these with the reason."""
    seen = dict(zip(_contents(fitted), fitted.run_ids, strict=True))
    twins = {row: seen[content] for row, content in enumerate(_contents(held)) if content in seen}
    left_out = [
        {
            "run_id": held.run_ids[row],
            "reason": f"held out, not scored: its numbers are those of run {twin!r}",
        }
        for row, twin in twins.items()
    ]
    return held.only([row for row in range(held.n_runs) if row not in twins]), left_out


def _contents(table: RunTable) -> list[bytes]:
    columns = [table.column(name) for name in sorted(table.columns)]
    return [row.tobytes() for row in np.column_stack([*columns, table.outcome])]

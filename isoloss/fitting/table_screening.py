"""Which finished runs enter a fit of a table law, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.datasets import scale_of
from isoloss.fitting.options import FitOptions
from isoloss.fitting.quality import pass_gate
from isoloss.fitting.screening import (
    HIGHEST_LOSS,
    LOWEST_LOSS,
    LeftOut,
    held_names,
)
from isoloss.laws import TableLaw
from isoloss.observations import RunTable
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT
from isoloss.observations.tables import SUMMARY_COLUMNS, SUMMARY_FIELDS, WHY_LEFT_OUT


def screen_table(
    table: RunTable,
    law: TableLaw[Any],
    unread: Sequence[dict[str, str]] = (),
    gate: Mapping[str, bool] | None = None,
) -> tuple[RunTable, LeftOut]:
    """Return the rows that have all that the law needs, in the order of their numbers, and the others with why.

    They have passed the `quality` gate but for the checks that `gate` switches off. Raises InvalidInput for two
    rows of one run, UnusableData where none is left.
    """
    refuse_doubles(table)
    of_columns = lacking_columns(table, law.run_columns)
    of_outcomes = lacking_outcomes(table) if law.needs_outcome else [None] * table.n_runs
    reasons = [one or other for one, other in zip(of_columns, of_outcomes, strict=True)]
    left_out = [
        *unread,
        *(
            {"run_id": name, "reason": reason}
            for name, reason in zip(table.run_ids, reasons, strict=True)
            if reason is not None
        ),
    ]
    columns = (*(table.column(name) for name in law.run_columns), table.outcome)
    kept = [row for row in np.lexsort(columns[::-1]) if reasons[row] is None]
    if not kept:
        why = ": run '{run_id}': {reason}".format(**left_out[0]) if left_out else ""
        raise UnusableData(reason=f"no run is left to fit{why}")
    passed, stopped = pass_gate(table.only(kept), law, gate or {})
    return passed, [*left_out, *stopped]


def refuse_doubles(table: RunTable) -> None:
    """Raise InvalidInput for two rows of one run."""
    for name, times in Counter(table.run_ids).items():
        if times > 1:
            raise InvalidInput(field="select", reason=f"run {name!r} stands in it {times} times")


def lacking_columns(table: RunTable, names: Sequence[str]) -> list[str | None]:
    """Return what keeps each run out for want of a column, None where nothing does."""
    return [next(_lacking(table, names, row), None) for row in range(table.n_runs)]


def _lacking(table: RunTable, names: Sequence[str], row: int) -> Iterator[str]:
    for name in names:
        value = table.column(name)[row]
        where = "summary" if name in SUMMARY_COLUMNS else "config"
        if np.isnan(value):
            yield f"it has no {where}.{name}"
        elif not LOWEST_COUNT <= value <= HIGHEST_COUNT:
            limits = f"must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
            yield f"its {where}.{name} is {value:g}, and {limits}"


def lacking_outcomes(table: RunTable) -> list[str | None]:
    """Return why each run has no outcome that a law is fitted to, None where it has one."""
    field, reasons = SUMMARY_FIELDS[table.target], []
    for outcome, status in zip(table.outcome, table.label("status"), strict=True):
        why = None
        if np.isnan(outcome):
            why = WHY_LEFT_OUT.get(status or "", f"it has no summary.{field}")
        elif not LOWEST_LOSS <= outcome <= HIGHEST_LOSS:
            why = f"its summary.{field} is {outcome:.3g}: this is no number of nats per token"
        reasons.append(why)
    return reasons


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

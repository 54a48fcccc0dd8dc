"""The gate before a fit of finished runs: which of them would spoil it, each check with a reason and a switch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, UnusableData
from isoloss.laws import TableLaw
from isoloss.laws.timescale import of_usual_shape
from isoloss.observations import RunTable
from isoloss.observations.tables import LOGGED_BY, STARTS, SUMMARY_COLUMNS, LeftOut

SETTINGS = (
    "peak_lr", "weight_decay", "batch_tokens", "warmup_steps", "beta1", "beta2", "epsilon", "max_grad_norm",
)  # fmt: skip
"""How a run is set: of runs that are alike but for these, laws of the loss are about the best."""

TELLS_APART = (
    *SETTINGS, "n_params", "n_tokens", "compute_flops", "batch_sequences", "sequence_length", "width", "depth",
    "warmup_share", "final_lr_share", "mean_lr_share", *STARTS.values(), *SUMMARY_COLUMNS,
    "seed",
)  # fmt: skip
"""Columns by which two runs differ: what laws read, how a run is set, and its seed."""

LABELS_APART = (
    "recipe", "curve", LOGGED_BY, "optimizer", "weight_decay_kind", "weight_decay_schedule", "parametrization",
    "dataset", "tokenizer", "schedule_kind", "decay_shape", "n_params_kind",
)  # fmt: skip
"""Fields in words by which two runs differ."""

LOOKS_DIVERGED = 1.3
"""A loss so many times the best one at the same size and data was not on its way to it."""

ANNEALED = 0.35
"""The share of its peak to which the learning rate of a run has fallen at the end that counts as annealed."""

FEWEST_TOKENS = 1e-3
"""Tokens for each parameter below which the tokens are in another unit, or the parameters."""

MOST_STEPS = 3e7
"""Steps that no training takes: its batch is in sequences."""

IN_BILLIONS, IN_SEQUENCES = "they look as if given in billions", "looks as if given in sequences"

Reasons = Mapping[int, str]
"""Rows with what speaks against them."""


def _diverged(table: RunTable, law: TableLaw[Any]) -> Reasons:  # noqa: ARG001
    """Runs that diverged without saying so."""
    found = {}
    for rows in _alike([table.column(name) for name in ("n_params", "n_tokens")], table.n_runs):
        best = float(np.min(table.outcome[rows]))
        for row in rows:
            if table.outcome[row] > LOOKS_DIVERGED * best:
                times = table.outcome[row] / best
                found[row] = f"it looks diverged: its loss is {times:.2g} times the best at its size and data"
    return found


def _tuned(table: RunTable, law: TableLaw[Any]) -> Reasons:
    """Runs that another run beats that differs in its settings alone, which the law does not read."""
    unread = [name for name in SETTINGS if name not in law.columns and not np.isnan(table.column(name)).all()]
    found = {}
    for rows in _alike([table.column(name) for name in law.columns], table.n_runs) if unread else ():
        settings = {row: tuple(_digits(table.column(name)[row]) for name in unread) for row in rows}
        best = min(rows, key=lambda row: float(table.outcome[row]))
        for row in rows:
            if settings[row] != settings[best]:
                named = ", ".join(
                    name
                    for name, one, other in zip(unread, settings[row], settings[best], strict=True)
                    if one != other
                )
                better = f"run {table.run_ids[best]!r}, which differs in {named}, is better"
                found[row] = f"{better}: laws of the loss are of tuned runs"
    return found


def _under_annealed(table: RunTable, law: TableLaw[Any]) -> Reasons:  # noqa: ARG001
    """Runs whose learning rate was still high at the end, among runs that were annealed."""
    share = table.column("final_lr_share")
    high = share > ANNEALED
    if not np.any(share <= ANNEALED):
        return {}
    return {
        int(row): f"its learning rate ended at {share[row]:.0%} of its peak, beside runs that were annealed"
        for row in np.flatnonzero(high)
    }


def _mixed_shapes(table: RunTable, law: TableLaw[Any]) -> Reasons:
    """Runs of another shape of schedule than most, or of none that is known beside several, for laws of one."""
    if law.of_one_shape is None:
        return {}
    share = table.column(law.of_one_shape)
    usual = of_usual_shape(share)
    known = np.isfinite(share)
    if not known.any() or (known & usual).all():
        return {}
    most = f"{np.median(share[usual]):.0%}"
    return {
        int(row): f"its mean learning rate is {share[row]:.0%} of its peak, and that of most runs {most}"
        if known[row]
        else "it states no schedule, and others do: whether it is of their shape is not known"
        for row in np.flatnonzero(~(known & usual))
    }


def _mixed_data(table: RunTable, law: TableLaw[Any]) -> Reasons:  # noqa: ARG001
    """Runs on another data set, or with another tokeniser, than most."""
    found: dict[int, str] = {}
    for name in ("dataset", "tokenizer"):
        said = table.label(name)
        known = Counter(one for one in said if one is not None)
        if len(known) > 1:
            usual = known.most_common(1)[0][0]
            found |= {
                row: f"its {name} is {one!r}, and that of most runs {usual!r}"
                for row, one in enumerate(said)
                if one not in (None, usual)
            }
    return found


def _duplicates(table: RunTable, law: TableLaw[Any]) -> Reasons:
    """Runs that are another one, number by number, under a second name; columns that no law reads do not count."""
    first: dict[tuple[object, ...], int] = {}
    found = {}
    known = {*TELLS_APART, *LABELS_APART, *law.columns, *law.run_columns}
    columns = [values for name, values in table.columns.items() if name in known]
    labels = [said for name, said in table.labels.items() if name in known]
    for row in range(table.n_runs) if columns else ():
        numbers = (table.outcome[row], *(values[row] for values in columns))
        twin = first.setdefault((*map(str, numbers), *(said[row] for said in labels)), row)
        if twin != row:
            but = _unread_differences(table, known, row, twin)
            found[row] = f"it is run {table.run_ids[twin]!r} again, number by number{but}"
    return found


def _unread_differences(table: RunTable, known: Collection[str], row: int, twin: int) -> str:
    """Name the columns that no law reads in which two rows differ; nothing where there are none."""
    read = {*known, "status"}
    columns: dict[str, Any] = {**table.columns, **table.labels}
    differ = [
        name for name, said in columns.items() if name not in read and str(said[row]) != str(said[twin])
    ]
    return f", but for {' and '.join(map(repr, differ))}, which no law reads" if differ else ""


def _units(table: RunTable, law: TableLaw[Any]) -> Reasons:  # noqa: ARG001
    """Runs whose counts cannot be in parameters and tokens; where a batch cannot, it cannot at another size."""
    found: dict[int, str] = {}
    size, data, batch = (table.column(name) for name in ("n_params", "n_tokens", "batch_tokens"))
    for row in map(int, np.flatnonzero(data / size < FEWEST_TOKENS)):
        found[row] = f"n_tokens {data[row]:g} for n_params {size[row]:g}: {IN_BILLIONS}"
    too_small = np.flatnonzero((batch < table.column("sequence_length")) | (data / batch > MOST_STEPS))
    first: dict[float | None, int] = {}
    for row in map(int, too_small):
        first.setdefault(_digits(batch[row]), row)
        found.setdefault(row, f"batch_tokens {batch[row]:g} {IN_SEQUENCES}")
    for other in range(table.n_runs) if first else ():
        if (twin := first.get(_digits(batch[other]))) is not None:
            as_of = f"as that of run {table.run_ids[twin]!r}"
            found.setdefault(other, f"batch_tokens {batch[other]:g} {IN_SEQUENCES}, {as_of}")
    return found


CHECKS: Mapping[str, Callable[[RunTable, TableLaw[Any]], Reasons]] = {
    "units": _units,
    "duplicates": _duplicates,
    "mixed_data": _mixed_data,
    "under_annealed": _under_annealed,
    "mixed_shapes": _mixed_shapes,
    "diverged": _diverged,
    "tuned": _tuned,
}
"""The checks in their order, by the name of their switch."""

OF_LOSS_LAWS = ("diverged", "tuned")
"""Checks for laws of the loss alone: others need the runs that were set badly."""


def check_switches(switches: object) -> Mapping[str, bool]:
    """Return the switches of checks that a caller set; raises InvalidInput for what is none."""
    if not isinstance(switches, Mapping) or not all(isinstance(name, str) for name in switches):
        raise InvalidInput(field="gate", reason="must map checks by their names to true or false")
    for name, on in switches.items():
        if name not in CHECKS:
            raise InvalidInput(field=f"gate.{name}", reason=f"there is no such check ({', '.join(CHECKS)})")
        if not isinstance(on, bool):
            raise InvalidInput(field=f"gate.{name}", reason="must be true or false")
    return switches


def pass_gate(table: RunTable, law: TableLaw[Any], switches: Mapping[str, bool]) -> tuple[RunTable, LeftOut]:
    """Return the runs that no check speaks against, and the others with the reason.

    A switch that is false leaves its check out. Raises UnusableData where a check leaves nothing.
    """
    left_out: LeftOut = []
    for name in _asked(law, switches):
        found = CHECKS[name](table, law)
        left_out += [{"run_id": table.run_ids[row], "reason": why} for row, why in sorted(found.items())]
        if table.n_runs and len(found) == table.n_runs:
            why = f"{next(iter(found.values()))} (all {table.n_runs} runs; the switch is gate.{name})"
            raise UnusableData(reason=why)
        table = table.only([row for row in range(table.n_runs) if row not in found])
    return table, left_out


def _asked(law: TableLaw[Any], switches: Mapping[str, bool]) -> Iterator[str]:
    for name in CHECKS if law.of_runs else ():
        if switches.get(name, True) and (law.predicts_outcomes or name not in OF_LOSS_LAWS):
            yield name


def _alike(columns: Sequence[FloatArray], n_runs: int) -> list[list[int]]:
    """Return the rows in groups that agree in all columns; a row that lacks one is alone."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row in range(n_runs):
        key = tuple(_digits(column[row]) for column in columns)
        groups.setdefault(key if None not in key else (row, "alone"), []).append(row)
    return list(groups.values())


def _digits(value: float) -> float | None:
    """Return a number to six digits, None for NaN."""
    return None if np.isnan(value) else float(f"{value:.6g}")

"""What is wrong with a fit that is asked for, found before it is queued."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting import FitOptions
from isoloss.fitting.staged.recipe_comparison import read_by
from isoloss.fitting.table_screening import screen_table
from isoloss.laws import LAWS, Law, StagedLaw, TableLaw
from isoloss.laws.recipe_comparison import RecipeComparison
from isoloss.observations import RunTable, n_params_of
from store.tables import Run


@contextmanager
def named(part: str) -> Iterator[None]:
    """Fields at fault go by their path in the body, whatever they are called where they are checked."""
    try:
        yield
    except InvalidInput as error:
        field = str(error.fields.get("field"))
        if field.split(".")[0] == part:
            raise
        raise type(error)(**{**error.fields, "field": f"{part}.{field}"}) from None


def check_counts(chosen: Sequence[Run], asked: str | None) -> None:
    """Refuse runs that count their parameters in several kinds, or none in the one that is asked for."""
    counts = [n_params_of(run.config, asked) for run in chosen]
    kinds = {kind for kind, count in counts if count is not None}
    if asked is not None and not kinds:
        reason = f"none of the runs has n_params_{asked}, or n_params of the kind {asked}"
        raise InvalidInput(field="options.n_params_kind", reason=reason)
    if len(kinds) > 1:
        both = " and ".join(sorted(kind or "no kind that is named" for kind in kinds))
        reason = f"the runs count their parameters in {both}; ask for one kind that all have"
        raise InvalidInput(field="options.n_params_kind", reason=reason)


def check_target(law: Law[Any], asked: Mapping[str, Any]) -> None:
    """Refuse a target that is not the law's own."""
    if (
        isinstance(law, StagedLaw)
        and law.target is not None
        and asked.get("target", law.target) != law.target
    ):
        raise InvalidInput(field="target", reason=f"{law.name} is a law of {law.target}")


def rows_beside(logged: Collection[str], law: str, options: FitOptions, table: RunTable) -> set[str]:
    """The rows that have all that a law of readings needs; where no run has logged any, raises as `rows_of`."""
    try:
        return rows_of(law, options, table)
    except UnusableData:
        if not logged:
            raise
        return set()


def rows_of_any(laws: Iterable[str], options: FitOptions, table: RunTable) -> set[str]:
    """The rows that have all that some of these laws of tables needs. Raises UnusableData where none has."""
    usable: set[str] = set()
    lacking = []
    for law in laws:
        try:
            usable |= rows_of(law, options, table)
        except UnusableData as error:
            lacking.append(f"{law}: {error}")
    if not usable:
        raise UnusableData(reason="; ".join(lacking))
    return usable


def rows_of(law: str, options: FitOptions, table: RunTable) -> set[str]:
    """The rows that have all that a law of tables needs. Raises UnusableData where none has."""
    known = LAWS[law]
    assert isinstance(known, TableLaw)
    read = read_by(table) if isinstance(known, RecipeComparison) else known.under(options.convention)
    return set(screen_table(table, read, gate=options.gate)[0].run_ids)

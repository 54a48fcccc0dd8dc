"""Metrics as a training loop names and measures them, turned into points that the service takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from typing import Any

from isoloss.client.captures import PLAIN, Unreadable, read
from isoloss.client.messages import Messages
from isoloss.observations.point_columns import (
    ABOVE_ZERO,
    KNOWN_COLUMNS,
    MAX_FREE_COLUMNS,
    MAX_STEP,
    MAY_BE_NON_FINITE,
    NOT_BELOW_ZERO,
    spelled,
)
from isoloss.schedules import Schedule

Row = dict[str, float | int]


class Readings:
    """Reads what was logged and keeps what the service takes; says once of each metric what it left out.

    The rules are those of the API: one value that it refuses would cost the whole batch.
    """

    def __init__(self, messages: Messages, schedule: Schedule | None = None) -> None:
        self.schedule = schedule
        self.left_out = 0
        self._messages = messages
        self._columns: dict[str, str | None] = {}
        self._free: set[str] = set()

    def step(self, step: Any) -> int | None:
        """The step as a whole number, None where it is none."""
        reason = "is missing: log(metrics, step=...) takes the optimiser's step"
        if step is not None:
            try:
                number = read(step)
            except Unreadable as error:
                reason = f"is {error}"
            else:
                if number is not None and 0 <= number <= MAX_STEP and number == int(number):
                    return int(number)
                reason = f"is {number!r}, not a whole number from 0 on"
        self._messages.warn("step", f"a step {reason}; its metrics are left out, and so whenever it is again")
        return None

    def columns(self, steps: list[int], rows: Sequence[Mapping[Any, Any]]) -> dict[str, list[Any]]:
        """The columns of rows, null where a row has nothing that can be recorded; empty where no row has.

        The same as `row` of each, in a tenth of the time where all are numbers as there are.
        """
        columns: dict[str, list[Any]] = {}
        for name in dict.fromkeys(chain.from_iterable(rows)):
            cells = [row.get(name) for row in rows]
            column = self._columns[name] if name in self._columns else self._column_of(name)
            if column is None:
                self.left_out += sum(name in row for row in rows)
            elif _are_usual(column, cells):
                columns[column] = cells
            else:
                read_cells = [
                    self._number(column, cell, step) for step, cell in zip(steps, cells, strict=True)
                ]
                if any(cell is not None for cell in read_cells):
                    columns[column] = read_cells
        return _without_empty_rows({"step": steps, **columns}) if columns else {}

    def row(self, metrics: Any, step: int) -> Row:
        """The values of a step by their columns, without those that cannot be recorded."""
        if type(metrics) is not dict and not isinstance(metrics, Mapping):
            what = f"log takes a mapping of names to numbers, not {type(metrics).__name__}"
            self._leave_out("metrics", what)
            return {}
        row: Row = {}
        try:
            self._read(metrics, step, row)
        except (
            Exception
        ) as error:  # an object that fails when it is looked at costs its point, not the recording
            self._leave_out("metrics", f"metrics cannot be read ({type(error).__name__}: {error})")
        return row

    def _read(self, metrics: Mapping[Any, Any], step: int, row: Row) -> None:
        known = self._columns
        for name, value in metrics.items():
            column = known[name] if name in known else self._column_of(name)
            if column is None:
                self.left_out += 1
            elif (
                0.0 < value < math.inf
                if type(value) is float
                else type(value) is int and 0 < value < MAX_STEP
            ):
                row[column] = value  # nearly every value there is
            else:
                self._take(row, column, value, step)

    def _take(self, row: Row, column: str, value: Any, step: int) -> None:
        number = self._number(column, value, step)
        if number is not None:
            row[column] = number

    def _number(self, column: str, value: Any, step: int) -> float | int | None:
        """The number to record, None where there is none."""
        if value is None:
            return None
        try:
            number = read(value)
        except Unreadable as error:
            self._leave_out(column, f"{column} is {error}")
            return None
        except Exception as error:  # an object that fails when it is looked at
            self._leave_out("metrics", f"metrics cannot be read ({type(error).__name__}: {error})")
            return None
        reason = None if number is None else self._refusal(column, number, step)
        if reason is None:
            return number
        self._leave_out(column, f"{column} {reason}")
        return None

    def _refusal(self, column: str, number: float, step: int) -> str | None:
        """Why the service would not take a number, None where it does."""
        if not math.isfinite(number):
            return None if column in MAY_BE_NON_FINITE else f"is {number}, which only a loss may be"
        if number < 0 and column in ABOVE_ZERO | NOT_BELOW_ZERO:
            return f"is {number}, below 0"
        if number == 0 and column in ABOVE_ZERO:
            return "is 0; it must be above 0"
        if number == 0 and step > 0 and column == "tokens":
            return "is 0 after the first step"
        if number == 0 and step > 0 and column == "lr" and not self._schedule_is_zero(step):
            return "is 0 where no declared schedule is 0"
        return None

    def _schedule_is_zero(self, step: int) -> bool:
        schedule = self.schedule
        return schedule is not None and step <= schedule.total_steps and float(schedule.lr([step])[0]) == 0.0

    def _column_of(self, name: Any) -> str | None:
        column = self._chosen_column(name)
        if isinstance(name, str):
            self._columns[name] = column
        return column

    def _chosen_column(self, name: Any) -> str | None:
        column = spelled(name) if isinstance(name, str) else None
        if column is None or column == "step":
            why = "step is log's own argument" if column == "step" else "it begins with no letter"
            self._messages.warn(f"name {name!r}", f"metric {str(name)[:60]!r} is left out: {why}")
            return None
        if column != name:
            if column in self._columns.values():
                self._messages.warn(
                    f"name {name!r}", f"metric {name[:60]!r} is left out: {column} is there already"
                )
                return None
            self._messages.warn(f"name {name!r}", f"metric {name[:60]!r} is recorded as {column}")
        if column not in KNOWN_COLUMNS:
            if len(self._free) >= MAX_FREE_COLUMNS and column not in self._free:
                what = f"metric {column!r} is left out, and so every further one"
                self._messages.warn("columns", f"{what}: a run has at most {MAX_FREE_COLUMNS} of its own")
                return None
            self._free.add(column)
        return column

    def _leave_out(self, about: str, text: str) -> None:
        self.left_out += 1
        self._messages.warn(f"value {about}", f"{text}; it is left out, and so whenever it is again")


def _are_usual(column: str, cells: Sequence[Any]) -> bool:
    """Whether all are numbers that need no second look; what is unusual may be right as well."""
    types = set(map(type, cells))
    if not types <= PLAIN or (int in types and max(map(abs, cells)) >= MAX_STEP):
        return False
    if not -math.inf < sum(cells) < math.inf:  # one is not finite
        return False
    return min(cells) > 0 or (column not in ABOVE_ZERO | NOT_BELOW_ZERO)


def _without_empty_rows(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    values = [cells for name, cells in columns.items() if name != "step"]
    if any(None not in cells for cells in values):
        return columns
    filled = [any(cell is not None for cell in row) for row in zip(*values, strict=True)]
    return {name: list(compress(cells, filled)) for name, cells in columns.items()}

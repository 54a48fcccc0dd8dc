"""What trackers log, as numbers: series as they grow, nested names made flat, and counts of what is no number."""

from __future__ import annotations

import importlib
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.errors import UnusableData
from isoloss.importers.logged_runs import Series
from isoloss.notes import counted

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How trackers write in JSON what JSON has no number for."""

INT64 = 2**63


@dataclass(frozen=True)
class _Column:
    step: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))
    time_s: array[float] = field(default_factory=lambda: array("d"))

    def series(self) -> Series:
        time_s = np.array(self.time_s, dtype=np.float64)
        known = len(time_s) > 0 and not np.isnan(time_s).any()
        step, value = np.array(self.step, dtype=np.int64), np.array(self.value, dtype=np.float64)
        return Series(step, value, time_s if known else None)


class Gathered:
    """The metrics of one run while it is read, in the order of writing, and what of them is no number."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._problems: list[str] = []

    def add(self, name: str, step: int, value: float, time_s: float | None = None) -> None:
        """Note a value at a step; a step that no service counts to is left out."""
        if not -INT64 <= step < INT64:
            self.leave_out(name, "its step is too large")
            return
        column = self._columns.setdefault(name, _Column())
        column.step.append(step)
        column.value.append(value)
        column.time_s.append(math.nan if time_s is None else time_s)

    def add_logged(self, name: str, step: int, value: Any, time_s: float | None = None) -> None:
        """Note a value as JSON has it, where it is a number; nothing at all is as if it were not logged."""
        number = number_in(value)
        if number is not None:
            self.add(name, step, number, time_s)
        elif value is not None:
            self.leave_out(name, kind_of(value))

    def leave_out(self, name: str, kind: str) -> None:
        """Count a value of a metric that is not read, by what it is."""
        self._left_out[name, kind] += 1

    def tell(self, problem: str) -> None:
        """Note what could not be read, once."""
        if problem not in self._problems:
            self._problems.append(problem)

    @property
    def n_values(self) -> int:
        """How many values were noted."""
        return sum(len(column.step) for column in self._columns.values())

    def series(self) -> dict[str, Series]:
        """The metrics by name."""
        return {name: column.series() for name, column in self._columns.items()}

    def problems(self) -> tuple[str, ...]:
        """What could not be read, and why."""
        left_out = [
            f"{counted(count, 'value')} of {name!r} left out: {kind}"
            for (name, kind), count in self._left_out.items()
        ]
        return (*self._problems, *left_out)


def number_in(value: Any) -> float | None:
    """The number that a value of JSON is, with NaN and infinities as trackers spell them; None for any other."""
    if isinstance(value, str):
        return NON_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def kind_of(value: Any) -> str:
    """What a value of JSON is that is no number, in a word."""
    if isinstance(value, Mapping):
        said = value.get("_type")
        return said.removeprefix("trackio.") if isinstance(said, str) else "mapping"
    words: dict[type, str] = {bool: "true or false", str: "text", list: "list"}
    return words.get(type(value), type(value).__name__)


def flattened(nested: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested mappings, with dots; one that says its own `_type` is a value."""
    for key, value in nested.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value and "_type" not in value:
            yield from flattened(value, f"{name}.")
        else:
            yield name, value


def whole(value: float) -> float | int:
    """Return a whole number as int: trackers keep counts as floats."""
    return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else value


def required(module: str, what: str) -> Any:
    """Import what reads the files of a tracker; raises UnusableData that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        reason = f"{what} is read with the package {package} ({error}): pip install 'isoloss[importers]'"
        raise UnusableData(reason=reason) from error

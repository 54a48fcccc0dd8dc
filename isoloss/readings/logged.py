"""Runs as they logged themselves: their own points, what they were, and where they branch off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput
from isoloss.observations.counts import mapping_of

Parent = tuple[str, int]
"""The run that another one branches off, and the last step that is its parent's."""


@dataclass(frozen=True)
class LoggedRun:
    """What a run logged itself, without the points of the run that it branches off.

    `step` (n,) whole and increasing, each after the one that it branches at. `columns` maps names of point
    columns, as the API has them, to (n,) values, NaN where nothing was logged. `config` says what the run was.
    """

    run_id: str
    step: IntArray
    columns: Mapping[str, FloatArray]
    config: Mapping[str, Any] = field(default_factory=dict)
    parent: Parent | None = None

    def __post_init__(self) -> None:
        mapping_of(self.config, "config")
        if not isinstance(self.run_id, str) or not self.run_id:
            raise InvalidInput(field="run_id", reason="must be a name")
        if self.parent is not None:
            _check_parent(self.parent)
        if self.step.ndim != 1 or self.step.dtype.kind not in "iu":
            raise InvalidInput(field="step", reason="must be a column of whole numbers")
        if self.step.size and (self.step[0] < 0 or np.any(np.diff(self.step) <= 0)):
            raise InvalidInput(field="step", reason="steps must not be below 0 and increase strictly")
        for name, values in self.columns.items():
            if values.shape != self.step.shape:
                reason = f"has {values.size} values where step has {self.step.size}"
                raise InvalidInput(field=name, reason=reason)

    def __repr__(self) -> str:
        """Return what it is in a line, and not its numbers."""
        off = "" if self.parent is None else f", a branch of {self.parent[0]!r} at step {self.parent[1]}"
        return f"LoggedRun({self.run_id!r}: {self.step.size:,} points of {', '.join(self.columns)}{off})"

    def column(self, name: str) -> FloatArray:
        """Return a column (n,), NaN where nothing was logged."""
        return self.columns.get(name, np.full(self.step.size, np.nan))

    @classmethod
    def from_columns(
        cls,
        run_id: str,
        columns: Mapping[str, npt.ArrayLike] | Any,
        *,
        config: Mapping[str, Any] | None = None,
        parent: Parent | None = None,
    ) -> LoggedRun:
        """Return the run of columns of equal length, `step` among them: a mapping, or a data frame.

        A value that is missing is masked, None or NaN. Of a branch, points at or before the step that it branches
        at are its parent's, and are passed over. Raises InvalidInput for columns that are none.
        """
        if parent is not None:
            _check_parent(parent)
        named = _columns_of(columns)
        if "step" not in named:
            raise InvalidInput(field="step", reason=f"run {run_id!r} has no such column")
        step = _steps(named.pop("step"))
        own = np.ones(step.size, dtype=bool) if parent is None else step > parent[1]
        floats = {name: _floats(name, values, step.size)[own] for name, values in named.items()}
        return cls(run_id, step[own], floats, mapping_of(config, "config"), parent)


class Logs(Protocol):
    """Where the points of runs are read from, one run at a time."""

    def parent(self, run_id: str) -> Parent | None:
        """Return what a run branches off."""

    def columns(self, run_id: str) -> tuple[str, ...]:
        """Return the names of the columns that a run's own points have."""

    def config(self, run_id: str) -> Mapping[str, Any]:
        """Return what a run was."""

    def own(self, run_id: str, names: tuple[str, ...]) -> LoggedRun:
        """Return a run's own points, with those of the columns `names` that it has."""


def _check_parent(parent: object) -> None:
    shape = isinstance(parent, tuple) and len(parent) == 2 and isinstance(parent[0], str)
    if not shape or not isinstance(parent[1], int) or isinstance(parent[1], bool) or parent[1] < 0:  # type: ignore[index]
        reason = "must be the name of a run and the last step that is its own, as in ('trunk', 5000)"
        raise InvalidInput(field="parent", reason=reason)


def _columns_of(columns: Any) -> dict[str, Any]:
    """Return the columns of a mapping or of a frame by their names."""
    try:
        named = {name: columns[name] for name in getattr(columns, "columns", columns)}
    except (TypeError, KeyError, IndexError):
        named = {0: None}
    if not all(isinstance(name, str) for name in named):
        reason = f"must be a mapping or a data frame of named columns, not {type(columns).__name__}"
        raise InvalidInput(field="columns", reason=reason)
    return named


def _steps(values: npt.ArrayLike) -> IntArray:
    step = _floats("step", values, None)
    if step.ndim != 1 or not np.all(np.isfinite(step) & (step == np.floor(step))):
        raise InvalidInput(field="step", reason="must be a column of whole numbers")
    return step.astype(np.int64)


def _floats(name: str, values: npt.ArrayLike, length: int | None) -> FloatArray:
    """Return a column of numbers, NaN where one is masked or None; text and truth values are none."""
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "iufO" or _has_words(found):
            raise TypeError("text, truth values and dates are none")
        floats = found.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(field=name, reason=f"must be a column of numbers ({error})") from error
    if length is not None and floats.shape != (length,):
        raise InvalidInput(field=name, reason=f"has {floats.size} values where step has {length}")
    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.isnan(floats)
    return np.where(masked, np.nan, floats)


def _has_words(found: npt.NDArray[Any]) -> bool:
    return found.dtype == object and any(isinstance(one, str | bool) for one in found.flat)

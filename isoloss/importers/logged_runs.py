"""Runs as a tracker or a file has them, before anything in them is named: what every reader yields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from isoloss.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Series:
    """One metric as a source logged it, in the order in which it was written.

    `step` (n,) may repeat and go back where a training was resumed; `value` (n,) has NaN and infinities as they
    were logged; `time_s` (n,) is unix seconds, where the source has them. `order` (n,), where the source has it,
    says what was written before what across the metrics of the run, better than clocks do.
    """

    step: IntArray
    value: FloatArray
    time_s: FloatArray | None = None
    order: IntArray | None = None


@dataclass(frozen=True)
class LoggedRun:
    """A run as its source has it.

    `place` is the file, folder or address it comes from, for messages. `key` is the source's own id of it, the
    same at every import: it becomes the run's id. `status` is None where the source does not tell. `config` is
    flat, with dots for what was nested. `problems` say what of the run could not be read, and why.
    `specification` is what else is stated of the run, as the API takes it: a schedule, a recipe, a parent, ...
    """

    place: str
    key: str
    name: str
    status: str | None
    config: Mapping[str, Any]
    tags: tuple[str, ...]
    notes: str | None
    series: Mapping[str, Series]
    problems: tuple[str, ...] = ()
    specification: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A file or a run of which nothing could be read."""

    place: str
    reason: str


Source: TypeAlias = Iterator[LoggedRun | Unreadable]
"""A reader yields run by run; what cannot be read is one Unreadable, and the rest goes on."""

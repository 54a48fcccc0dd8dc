"""Points as JSON and as CSV, written in parts, so that a long run does not stand in memory as text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from store.columns import Column, IntArray, Points
from store.thinning import Gaps

PART = 50_000
STEP = "step"


def as_json(points: Points, gaps: Gaps) -> Iterator[bytes]:
    """`{"columns": {"step": [...], "loss": [...]}, "gaps": {...}}`, exact to the bit of each float64."""
    yield b'{"columns":{"step":['
    yield from _joined(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY) for part in _parts(points.step))
    for name, column in points.columns.items():
        yield b"]," + orjson.dumps(name) + b":["
        yield from _joined(_numbers(column.take(part)) for part in _slices(len(points)))
    yield b']},"gaps":' + orjson.dumps(gaps) + b"}"


def as_csv(points: Points) -> Iterator[bytes]:
    """A header, then a line a step; empty where nothing was logged."""
    yield ",".join([STEP, *points.columns]).encode() + b"\n"
    for part in _slices(len(points)):
        cells = [map(str, points.step[part].tolist())]
        cells += [map(_cell, _listed(column.take(part))) for column in points.columns.values()]
        yield "".join(",".join(line) + "\n" for line in zip(*cells, strict=True)).encode()


def _numbers(column: Column) -> bytes:
    if column.non_finite().any():
        return orjson.dumps(_listed(column))
    # orjson writes NaN as null, which is what a missing value is.
    return orjson.dumps(column.with_nan(), option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(column: Column) -> list[float | str | None]:
    cells: list[float | str | None] = column.values.tolist()
    for at in np.flatnonzero(~column.present).tolist():
        cells[at] = None
    for at in np.flatnonzero(column.non_finite()).tolist():
        value = float(column.values[at])
        cells[at] = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return cells


def _cell(value: float | str | None) -> str:
    return "" if value is None else str(value)


def _slices(length: int) -> list[slice]:
    return [slice(at, at + PART) for at in range(0, length, PART)]


def _parts(values: IntArray) -> Iterator[IntArray]:
    return (np.ascontiguousarray(values[part]) for part in _slices(len(values)))


def _joined(lists: Iterator[bytes]) -> Iterator[bytes]:
    """The insides of JSON lists, as the inside of one."""
    for at, text in enumerate(lists):
        yield (b"," if at else b"") + text[1:-1]

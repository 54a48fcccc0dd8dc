"""Points as rows: the form of runs that are being recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from sqlalchemy.orm import Session

from isoloss.observations.point_columns import KNOWN_COLUMNS
from store.arrays import Float8Array, Int8Array, bits, cursor, float8s, int8s
from store.columns import Column, IntArray, Points, join

PAGE = 16_384
MAX_GROWTH = 64
MASK_BITS = 62


_NOTE = """
    WITH noted AS (
        UPDATE public.run SET last_step = %s, columns = %s, updated_at = clock_timestamp(),
        report_every_s = CASE WHEN reported_at IS NOT NULL THEN coalesce(0.9 * report_every_s, 0)
            + CASE WHEN report_every_s IS NULL THEN 1 ELSE 0.1 END
            * extract(epoch FROM clock_timestamp() - reported_at) END,
        reported_at = clock_timestamp(),
        status = CASE WHEN %s THEN 'diverged' ELSE status END WHERE id = %s
    )
"""


def free_names(columns: Sequence[str]) -> list[str]:
    """The names, in their places in `point.free`, of a run whose columns are `columns`."""
    return [name for name in columns if name not in KNOWN_COLUMNS]


def write(
    session: Session, run: int, columns: Sequence[str], points: Points, last_step: int, diverged: bool
) -> None:
    """Insert the points, each whole: what stood at its step before is replaced; and note them on their run.

    One statement does both, because small batches cost what their round trips cost.
    """
    names = tuple(name for name in points.columns if name in KNOWN_COLUMNS)
    free = free_names(columns)
    sent = tuple(free.index(name) + 1 for name in free if name in points.columns)
    ordered = [points[name] for name in (*names, *(free[place - 1] for place in sent))]
    noted = (last_step, list(columns), diverged, run)
    parameters = [*noted, run, Int8Array(points.step), *map(Float8Array, ordered)]
    with cursor(session) as rows:
        rows.execute(_insert(names, sent), parameters)


def read(
    session: Session, run: int, columns: Sequence[str], names: Sequence[str], first: int, last: int
) -> Points:
    """The points of steps first..last that rows hold, with the columns `names`."""
    return join(_pages(session, run, columns, names, first, last))


def read_at(session: Session, run: int, columns: Sequence[str], step: IntArray) -> Points:
    """The rows of exactly these steps, with all their columns."""
    return _select(session, columns, columns, "run = %s AND step = ANY(%s)", (run, Int8Array(step)))


def remove(session: Session, run: int, first: int, last: int) -> int:
    """Delete the rows of steps first..last, and count them."""
    with cursor(session) as rows:
        rows.execute("DELETE FROM public.point WHERE run = %s AND step BETWEEN %s AND %s", (run, first, last))
        return rows.rowcount


def span(session: Session, run: int) -> tuple[int, int] | None:
    """First and last step that rows hold."""
    with cursor(session) as rows:
        found = rows.execute(
            "SELECT min(step), max(step) FROM public.point WHERE run = %s", (run,)
        ).fetchone()
    return None if found is None or found[0] is None else (int(found[0]), int(found[1]))


def _pages(
    session: Session, run: int, columns: Sequence[str], names: Sequence[str], first: int, last: int
) -> Iterator[Points]:
    """By ranges of steps: a LIMIT makes PostgreSQL sort the whole run while it has no statistics of it."""
    width = PAGE
    while first <= last:
        until = min(first + width - 1, last)
        page = _select(session, columns, names, "run = %s AND step BETWEEN %s AND %s", (run, first, until))
        yield page
        first, width = until + 1, _next_width(width, len(page))


def _next_width(width: int, n_found: int) -> int:
    """The range that holds about a page, judged by the last one."""
    wanted = width * PAGE // max(n_found, 1)
    return max(1, min(wanted, width * MAX_GROWTH))


def _select(
    session: Session, columns: Sequence[str], names: Sequence[str], where: str, parameters: Sequence[object]
) -> Points:
    """One row of arrays for all the points: a message for each row costs three times as much to read."""
    names = [name for name in names if name in columns]
    with cursor(session) as rows:
        rows.execute(_aggregate(tuple(names), tuple(free_names(columns)), where), parameters)
        result = rows.pgresult
        assert result is not None
        cells = [result.get_value(0, at) for at in range(result.nfields)]
    step, masks = int8s(cells[0]), [int8s(cell) for cell in cells[1 : 1 + _n_masks(len(names))]]
    found: dict[str, Column] = {}
    for at, (name, cell) in enumerate(zip(names, cells[1 + len(masks) :], strict=True)):
        present = bits(masks[at // MASK_BITS], at % MASK_BITS)
        values = np.zeros(len(step))
        values[present] = float8s(cell)
        found[name] = Column(values, present)
    return Points(step, found)


@lru_cache(maxsize=256)
def _aggregate(names: tuple[str, ...], free: tuple[str, ...], where: str) -> str:
    sources = [name if name in KNOWN_COLUMNS else f"free[{free.index(name) + 1}]" for name in names]
    inner = "".join(f", {source} AS c{at}" for at, source in enumerate(sources))
    masks = [
        " | ".join(f"((c{at} IS NOT NULL)::int::int8 << {at % MASK_BITS})" for at in group)
        for group in _groups(len(names))
    ]
    parts = ["array_agg(step)", *(f"array_agg({mask})" for mask in masks)]
    parts += [f"array_agg(c{at}) FILTER (WHERE c{at} IS NOT NULL)" for at in range(len(names))]
    return (
        f"SELECT {', '.join(parts)} FROM "
        f"(SELECT step{inner} FROM public.point WHERE {where} ORDER BY step) AS ordered"
    )


@lru_cache(maxsize=256)
def _insert(names: tuple[str, ...], free_places: tuple[int, ...]) -> str:
    arrays = ", ".join(["%s"] * (1 + len(names) + len(free_places)))
    outputs = ", ".join(f"c{at}" for at in range(1 + len(names) + len(free_places)))
    values = "".join(f", c{at + 1}" for at in range(len(names)))
    by_place = {place: f"c{1 + len(names) + at}" for at, place in enumerate(free_places)}
    cells = [by_place.get(place, "NULL") for place in range(1, max(free_places, default=0) + 1)]
    free = f"ARRAY[{', '.join(cells)}]::float8[]" if cells else "NULL"
    replaced = ", ".join(f"{name} = excluded.{name}" for name in (*KNOWN_COLUMNS, "free"))
    return (
        f"{_NOTE} INSERT INTO public.point (run, step{''.join(f', {name}' for name in names)}, free) "
        f"SELECT %s::int8, c0{values}, {free} FROM unnest({arrays}) AS sent({outputs}) "
        f"ON CONFLICT (run, step) DO UPDATE SET {replaced}"
    )


def _n_masks(n_columns: int) -> int:
    return -(-n_columns // MASK_BITS)


def _groups(n_columns: int) -> list[range]:
    return [range(at, min(at + MASK_BITS, n_columns)) for at in range(0, n_columns, MASK_BITS)]

"""Compressed column chunks of points: the form of finished runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from sqlalchemy.orm import Session

from store.arrays import Int8Array, cursor
from store.codec import decode, decode_steps, encode, encode_steps
from store.columns import IntArray, Points, join

CHUNK_POINTS = 4000
STEP = "step"

_READ = """
    SELECT first_step, name, data FROM public.point_chunk
    WHERE run = %s AND name = ANY(%s) AND last_step >= %s AND first_step <= %s
    ORDER BY first_step
"""
_READ_AT = """
    SELECT first_step, name, data FROM public.point_chunk c
    WHERE run = %s AND EXISTS (SELECT FROM unnest(%s) s WHERE s BETWEEN c.first_step AND c.last_step)
    ORDER BY first_step
"""
_WRITE = """
    INSERT INTO public.point_chunk (run, name, first_step, last_step, n_points, data)
    VALUES (%s, %s, %s, %s, %s, %s)
"""


def read(session: Session, run: int, names: Sequence[str], first: int, last: int) -> Points:
    """The points of steps first..last that chunks hold, with the columns `names`."""
    with cursor(session) as rows:
        rows.execute(_READ, (run, [STEP, *names], first, last))
        return join(_decoded(rows)).between(first, last)


def read_at(session: Session, run: int, step: IntArray) -> Points:
    """The chunks that could hold one of these steps, whole and with all their columns."""
    with cursor(session) as rows:
        rows.execute(_READ_AT, (run, Int8Array(step)))
        return join(_decoded(rows))


def write(session: Session, run: int, points: Points) -> None:
    """Store the points as chunks of equal length; the caller has removed those they overlap."""
    with cursor(session) as rows:
        for part in _split(points):
            span = (int(part.step[0]), int(part.step[-1]), len(part))
            packed = [(run, STEP, *span, encode_steps(part.step))]
            packed += [
                (run, name, *span, encode(column))
                for name, column in part.columns.items()
                if column.present.any()
            ]
            rows.executemany(_WRITE, packed)


def remove(session: Session, run: int, first: int, last: int) -> None:
    """Delete the chunks that reach into steps first..last, whole."""
    with cursor(session) as rows:
        rows.execute(
            "DELETE FROM public.point_chunk WHERE run = %s AND last_step >= %s AND first_step <= %s",
            (run, first, last),
        )


def span_around(session: Session, run: int, first: int, last: int) -> tuple[int, int] | None:
    """First and last step of the chunks that new points at first..last must be written together with.

    These are the chunks that reach into first..last, and one just before it that is not half full.
    """
    with cursor(session) as rows:
        found = rows.execute(
            """
            SELECT min(first_step), max(last_step) FROM public.point_chunk WHERE run = %s AND name = %s
            AND first_step <= %s AND (last_step >= %s OR n_points < %s AND last_step =
                (SELECT max(last_step) FROM public.point_chunk WHERE run = %s AND last_step < %s))
            """,
            (run, STEP, last, first, CHUNK_POINTS // 2, run, first),
        ).fetchone()
    return None if found is None or found[0] is None else (int(found[0]), int(found[1]))


def last_step(session: Session, run: int) -> int | None:
    """The last step that chunks hold."""
    with cursor(session) as rows:
        found = rows.execute(
            "SELECT max(last_step) FROM public.point_chunk WHERE run = %s AND name = %s", (run, STEP)
        ).fetchone()
    return None if found is None or found[0] is None else int(found[0])


def _decoded(rows: Iterator[tuple[int, str, bytes]]) -> Iterator[Points]:
    first: int | None = None
    chunk: dict[str, bytes] = {}
    for first_step, name, data in rows:
        if first_step != first and chunk:
            yield _points(chunk)
            chunk = {}
        first = first_step
        chunk[name] = data
    if chunk:
        yield _points(chunk)


def _points(chunk: dict[str, bytes]) -> Points:
    step = decode_steps(chunk.pop(STEP))
    return Points(step, {name: decode(data) for name, data in chunk.items()})


def _split(points: Points) -> Iterator[Points]:
    n_chunks = -(-len(points) // CHUNK_POINTS)
    edges = np.linspace(0, len(points), n_chunks + 1).astype(int).tolist()
    for start, stop in pairwise(edges):
        yield points.take(slice(start, stop))

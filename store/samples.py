"""Runs of any length in bounded time and memory: some of their points, spread over all of their steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from sqlalchemy.orm import Session

from store import points
from store.columns import Points, join
from store.tables import Run

MOST_STEPS = 1_000_000
"""Steps of a run that are looked at; of a longer one a stretch of each window."""

WINDOWS = 16


def read(session: Session, run: Run, columns: Sequence[str], *, most: int, inherit: bool = True) -> Points:
    """The run's curve of these columns, thinned to about `most` points that have a value; exact where it is short.

    The first and last point of each of the windows that a long run is read in are among them.
    """
    if (run.last_step or 0) <= most:
        return _told(points.read(session, run, columns, inherit=inherit))
    share = max(most // WINDOWS, 2)
    return join(
        _thinned(_told(points.read(session, run, columns, first, last, inherit=inherit)), share)
        for first, last in windows(run.last_step or 0)
    )


def windows(last_step: int) -> Iterator[tuple[int, int]]:
    """First and last step of each stretch that is read of a run, so that it is read to its end."""
    edges = np.linspace(0, last_step + 1, WINDOWS + 1).astype(int).tolist()
    width = MOST_STEPS // WINDOWS
    for first, after in pairwise(edges):
        if after > first:
            yield max(first, after - width), after - 1


def _told(found: Points) -> Points:
    """The points that have a value in any column."""
    told = np.zeros(len(found), dtype=bool)
    for column in found.columns.values():
        told |= column.present
    return found if told.all() else found.take(told)


def _thinned(found: Points, most: int) -> Points:
    if len(found) <= most:
        return found
    return found.take(np.unique(np.linspace(0, len(found) - 1, most).astype(int)))

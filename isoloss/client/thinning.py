"""Which part of a full spool to thin next: a pure policy."""

from __future__ import annotations

from collections.abc import Sequence

MOST_THINNED = 20
"""Rounds after which a part has nothing left that could go."""


def next_to_thin(levels: Sequence[int]) -> int | None:
    """The index of the part to thin next, of parts in the order of their age that were thinned so often; or None.

    The newest part goes first and the oldest last, and no part twice before all others once: the beginning of a
    curve, where it bends most, is kept the longest.
    """
    least = min(levels, default=MOST_THINNED)
    if least >= MOST_THINNED:
        return None
    return max(index for index, level in enumerate(levels) if level == least)

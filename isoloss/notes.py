"""Words of notes: how many of what, and notes on many runs told once for those that say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

OF_A_RUN = re.compile(r"run (?P<run>[^\s:]+): (?P<note>.+)", re.DOTALL)
NUMBER = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: '1 point', '3 points'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def grouped(reasons: Sequence[str]) -> list[str]:
    """Return reasons in their order; notes on runs that differ in numbers alone become one with their count."""
    said: dict[str, list[str]] = {}
    for reason in reasons:
        found = OF_A_RUN.fullmatch(reason)
        kind = reason if found is None else NUMBER.sub("#", found["note"])
        said.setdefault(kind, []).append(reason)
    return [_with_count(alike) for alike in said.values()]


def _with_count(alike: Sequence[str]) -> str:
    others = len(alike) - 1
    return f"{alike[0]} (and so of {counted(others, 'more run')})" if others else alike[0]

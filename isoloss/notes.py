"""Words of notes: how many of what, and notes on many runs told once for those that say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

OF_A_RUN = re.compile(r"run (?P<run>[^\s:]+): (?P<note>.+)", re.DOTALL)
OF_A_PAIR = re.compile(r"(?P<pair>\S.* vs .*?\S): (?P<note>.+)", re.DOTALL)
NUMBER = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: '1 point', '3 points'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_line(error: BaseException, most: int) -> str:
    """Return the first line of what an error says, at most so many characters; its type where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0][:most] if said else type(error).__name__


def grouped(reasons: Sequence[str]) -> list[str]:
    """Return reasons in their order; those on runs that differ in numbers alone become one with their count.

    So do those on pairs of recipes.
    """
    said: dict[tuple[str, str], list[str]] = {}
    for reason in reasons:
        said.setdefault(_kind(reason), []).append(reason)
    return [_with_count(alike, noun) for (noun, _), alike in said.items()]


def _kind(reason: str) -> tuple[str, str]:
    """Return what a reason is on, and what it says of it."""
    for noun, pattern in (("run", OF_A_RUN), ("pair", OF_A_PAIR)):
        if found := pattern.fullmatch(reason):
            return noun, NUMBER.sub("#", found["note"])
    return "", reason


def _with_count(alike: Sequence[str], noun: str) -> str:
    others = len(alike) - 1
    return f"{alike[0]} (and so of {counted(others, f'more {noun}')})" if others and noun else alike[0]

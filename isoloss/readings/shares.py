"""Which stretches of whose points a curve is made of, where runs branch off each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isoloss.readings.logged import Parent

END = 2**63 - 1
"""No step is later."""

ParentOf = Callable[[str], Parent | None]


@dataclass(frozen=True)
class Stretch:
    """A run's own points after step `after` up to step `last`."""

    run_id: str
    after: int
    last: int


Curves = dict[str, list[Stretch]]
"""By the name of a curve, its stretches in their order; none where all belong to others."""


def whole_curves(run_ids: Sequence[str], parent_of: ParentOf) -> Curves:
    """Return every run's curve: its parent's up to the step that it branches at, then its own."""
    return {name: _line(name, parent_of) for name in run_ids}


def shared_once(run_ids: Sequence[str], parent_of: ParentOf) -> Curves:
    """Return the same with every point in one curve only.

    What several of the runs have in common is a curve called after the run that logged it, which need not be one of
    them; what one alone has is that one's. So it does not hang on names or order which curve a point counts for.
    """
    lines = whole_curves(run_ids, parent_of)
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, line in lines.items():
        for one in line:
            claims[one.run_id].append((one.last, name))
    farthest = {name: sorted(of, reverse=True)[:2] for name, of in claims.items()}
    found: Curves = {}
    for name in [*lines, *(one for one in claims if one not in lines)]:
        line = lines.get(name) or _line(name, parent_of)
        pieces = [piece for one in line for piece in _pieces(one, name, farthest[one.run_id])]
        if pieces or name in lines:
            found[name] = pieces
    return found


def _pieces(stretch: Stretch, curve: str, claims: Sequence[tuple[int, str]]) -> list[Stretch]:
    """Return what a curve has of a stretch; `claims` are last steps, with whose, of the two that go farthest."""
    shared = claims[1][0] if len(claims) > 1 else stretch.after
    pieces = []
    if stretch.run_id == curve and shared > stretch.after:
        pieces.append(Stretch(curve, stretch.after, shared))
    last, owner = claims[0]
    if owner == curve and last > shared:
        pieces.append(Stretch(stretch.run_id, max(shared, stretch.after), last))
    return pieces


def _line(run_id: str, parent_of: ParentOf) -> list[Stretch]:
    line: list[Stretch] = []
    name: str | None = run_id
    last, seen = END, {run_id}
    while name is not None:
        parent = parent_of(name)
        line.append(Stretch(name, -1 if parent is None else parent[1], last))
        name = None if parent is None else parent[0]
        last = last if parent is None else min(last, parent[1])
        if name in seen:
            break
        seen.add(str(name))
    return line[::-1]

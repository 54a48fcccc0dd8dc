"""Points of runs: what was logged at each step, in rows and in compressed chunks, read as one.

A writer holds the lock of the run's row, so that two writers on one run see each other's points. A row holds
all that is known of its step and stands above a chunk's point of that step. Readers take no lock: they read
the rows first, so that a compaction in between shows a point twice, which is harmless, and never not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.observations.point_columns import KNOWN_COLUMNS, MAX_FREE_COLUMNS, MAY_BE_NON_FINITE
from store import alarms, chunks, rows
from store.arrays import cursor
from store.columns import (
    BoolArray,
    Column,
    IntArray,
    Points,
    join,
    locate,
    nothing,
    overlay,
    same,
)
from store.tables import Point, PointChunk, Run

LAST_STEP = 2**63 - 1


_LINEAGE = """
    WITH RECURSIVE line AS (
        SELECT id, columns, last_step, branch_step, parent_id, 0 AS depth FROM public.run WHERE id = %s
        UNION ALL
        SELECT above.id, above.columns, above.last_step, above.branch_step, above.parent_id, depth + 1
        FROM line JOIN public.run above ON above.id = line.parent_id
    )
    SELECT id, columns, last_step, branch_step FROM line ORDER BY depth
"""


@dataclass(frozen=True)
class Accepted:
    """What became of a batch: points that brought something, points that were there, the run's last step."""

    accepted: int
    duplicates: int
    last_step: int


@dataclass(frozen=True)
class Held:
    """A run whose points this transaction alone may write."""

    id: int
    project_id: int
    run_id: str
    last_step: int | None
    branch_step: int | None
    columns: tuple[str, ...]
    status: str


@dataclass(frozen=True)
class Stretch:
    """The part of a run's own points that a curve is made of."""

    run: int
    columns: Sequence[str]
    first: int
    last: int


def hold(session: Session, project_id: int, run_id: str) -> Held:
    """Lock the run for writing until the transaction ends. Raises NotFound."""
    if "\0" in run_id:  # PostgreSQL would not take it to look one up
        raise NotFound(kind="run", name=run_id)
    return _hold(session, run_id, "project_id = %s AND run_id = %s", (project_id, run_id))


def append(session: Session, run: Held, points: Points, replace_values: bool = False) -> Accepted:
    """Store a batch, all or nothing.

    A value that its step has already is a duplicate; a value that its step lacks joins the others. Another
    value raises Conflict unless `replace_values`. Raises InvalidInput for a branch's point at or before the
    step that it branches at, and for too many free columns.
    """
    first, last = int(points.step[0]), int(points.step[-1])
    if run.branch_step is not None and first <= run.branch_step:
        reason = f"step {first} belongs to the parent: the run branches off after step {run.branch_step}"
        raise InvalidInput(field="step", reason=reason)
    columns = _columns_with(run, points)
    changed, news = points, len(points)
    if run.last_step is not None and first <= run.last_step:
        changed, news = _merged(session, run, points, replace_values)
    highest = last if run.last_step is None else max(last, run.last_step)
    if news:
        diverged = any(points[name].non_finite().any() for name in MAY_BE_NON_FINITE)
        rows.write(session, run.id, columns, changed, highest, bool(diverged))
        if diverged and run.status != "diverged":
            now = replace(run, last_step=highest)
            alarms.status_changed(session, now, run.status, "diverged", _where_diverged(points))
    return Accepted(news, len(points) - news, highest)


def read(
    session: Session,
    run: Run,
    columns: Sequence[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    *,
    inherit: bool = True,
) -> Points:
    """The run's curve, exactly: of a branch its parent's up to the branch step, then its own.

    `columns` chooses among the columns, None is all; `inherit=False` leaves the parents out.
    Raises InvalidInput for a column that the run does not have.
    """
    first, last = from_step or 0, LAST_STEP if to_step is None else to_step
    stretches = lineage(session, run.id)[0 if inherit else -1 :]
    held = list(dict.fromkeys(name for stretch in stretches for name in stretch.columns))
    names = _asked(held, columns)
    parts = [_read_stretch(session, stretch, names, first, last) for stretch in stretches]
    found = join(parts)
    return Points(found.step, {name: found[name] for name in names})


def lineage(session: Session, run: int) -> list[Stretch]:
    """The stretches that the run's curve is made of, the oldest ancestor's first, as the database has them now."""
    with cursor(session) as found:
        ancestors = found.execute(_LINEAGE, (run,)).fetchall()
    stretches: list[Stretch] = []
    end = LAST_STEP
    for key, columns, last_step, branch_step in ancestors:
        first = 0 if branch_step is None else branch_step + 1
        last = -1 if last_step is None else last_step
        stretches.append(Stretch(key, columns, first, min(last, end)))
        end = end if branch_step is None else min(end, branch_step)
    return stretches[::-1]


def rewind(session: Session, run: Held, step: int) -> int | None:
    """Forget the run's own points after `step`; returns the last step that is left.

    A diverged run whose last point that is not finite goes with them is running again. Raises Conflict where
    a branch of the run rests on a later step.
    """
    _refuse_to_cut_branches(session, run, step)
    had_diverged = run.status == "diverged" and non_finite(session, run)
    rows.remove(session, run.id, step + 1, LAST_STEP)
    kept = chunks.read_at(session, run.id, np.array([step])).between(None, step)
    if len(kept):
        chunks.remove(session, run.id, step, step)
        chunks.write(session, run.id, kept)
    chunks.remove(session, run.id, step + 1, LAST_STEP)
    last = _last_step(session, run.id)
    _update(session, run.id, last_step=last)
    if had_diverged and not non_finite(session, replace(run, last_step=last)):
        _update(session, run.id, status="running")
        alarms.status_changed(session, replace(run, last_step=last), run.status, "running")
    return last


def compact(session: Session, run_pk: int) -> int:
    """Turn the rows of a run (by its primary key) into chunks, and return how many rows there were.

    Nothing changes before the caller commits. Does nothing for a run that is gone or has no rows.
    """
    try:
        run = _hold(session, str(run_pk), "id = %s", (run_pk,))
    except NotFound:
        return 0
    span = rows.span(session, run.id)
    if span is None:
        return 0
    first, last = _widened(span, chunks.span_around(session, run.id, *span))
    below = chunks.read(session, run.id, run.columns, first, last)
    above = rows.read(session, run.id, run.columns, run.columns, first, last)
    chunks.remove(session, run.id, first, last)
    chunks.write(session, run.id, overlay(below, above))
    return rows.remove(session, run.id, first, last)


def to_compact(session: Session, limit: int = 100) -> list[int]:
    """Primary keys of runs that have ended and still have rows."""
    has_rows = sa.exists().where(Point.run == Run.id)
    ended = sa.select(Run.id).where(Run.status != "running", has_rows).order_by(Run.id).limit(limit)
    return list(session.scalars(ended))


def remove_all(session: Session, chosen: sa.ColumnElement[bool]) -> None:
    """Delete all points of the runs that `chosen` picks; no foreign key does it."""
    runs = sa.select(Run.id).where(chosen)
    for table in (Point, PointChunk):
        session.execute(
            sa.delete(table).where(table.run.in_(runs)), execution_options={"synchronize_session": False}
        )


def first_step(session: Session, run: int) -> int | None:
    """The first step of a run's own points."""
    found = [
        session.execute(sa.select(sa.func.min(column)).where(owner == run)).scalar_one()
        for column, owner in ((Point.step, Point.run), (PointChunk.first_step, PointChunk.run))
    ]
    return min((step for step in found if step is not None), default=None)


def _hold(session: Session, name: str, where: str, parameters: Sequence[object]) -> Held:
    facts = "SELECT id, project_id, run_id, last_step, branch_step, columns, status FROM public.run"
    with cursor(session) as found:
        row = found.execute(f"{facts} WHERE {where} FOR NO KEY UPDATE", parameters).fetchone()
    if row is None:
        raise NotFound(kind="run", name=name)
    return Held(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6])


def non_finite(session: Session, run: Run | Held) -> bool:
    """Whether one of the run's own points is not finite."""
    names = [name for name in MAY_BE_NON_FINITE if name in run.columns]
    if not names:
        return False
    own = _read_stretch(session, Stretch(run.id, run.columns, 0, LAST_STEP), names, 0, run.last_step or 0)
    return any(bool(own[name].non_finite().any()) for name in names)


def _where_diverged(points: Points) -> str:
    """Which of the points is the first that is not finite, in words."""
    odd = {name: points.step[points[name].non_finite()] for name in MAY_BE_NON_FINITE}
    first, name = min((int(steps[0]), name) for name, steps in odd.items() if len(steps))
    return f"its {name} is not finite at step {first}"


def _columns_with(run: Held, points: Points) -> tuple[str, ...]:
    columns = tuple(dict.fromkeys((*run.columns, *points.columns)))
    if len(rows.free_names(columns)) > MAX_FREE_COLUMNS:
        reason = f"a run has at most {MAX_FREE_COLUMNS} columns of its own beside the known ones"
        raise InvalidInput(field="columns", reason=reason)
    return columns


def _update(session: Session, run: int, **values: object) -> None:
    statement = sa.update(Run).where(Run.id == run).values(**values)
    session.execute(statement, execution_options={"synchronize_session": False})


def _merged(session: Session, run: Held, points: Points, replace_values: bool) -> tuple[Points, int]:
    """The points that must be written, merged with what is there, and how many they are."""
    existing = overlay(
        chunks.read_at(session, run.id, points.step),
        rows.read_at(session, run.id, run.columns, points.step),
    )
    at, there = locate(points.step, existing.step)
    if not there.any():
        return points, len(points)
    changed = ~there
    merged: dict[str, Column] = {}
    for name in dict.fromkeys((*points.columns, *existing.columns)):
        new = points[name]
        old = existing[name].take(at)
        old = Column(old.values, old.present & there)
        differs = new.present & old.present & ~same(new.values, old.values)
        if differs.any() and not replace_values:
            raise _conflict(points.step, name, new, old, differs)
        changed |= differs | (new.present & ~old.present)
        merged[name] = Column(np.where(new.present, new.values, old.values), new.present | old.present)
    return Points(points.step, merged).take(changed), int(changed.sum())


def _conflict(step: IntArray, name: str, new: Column, old: Column, differs: BoolArray) -> Conflict:
    at = int(np.flatnonzero(differs)[0])
    reason = (
        f"step {int(step[at])} has {name} {float(old.values[at])!r} already, not {float(new.values[at])!r}"
        f" ({int(differs.sum())} such points); send on_conflict=replace to overwrite"
    )
    return Conflict(reason=reason)


def _asked(held: Sequence[str], columns: Sequence[str] | None) -> Sequence[str]:
    if columns is None:
        return held
    for name in columns:
        if name not in held and name not in KNOWN_COLUMNS:
            raise InvalidInput(field="columns", reason=f"the run has no column {name!r}")
    return list(dict.fromkeys(columns))


def _read_stretch(session: Session, stretch: Stretch, names: Sequence[str], first: int, last: int) -> Points:
    first, last = max(first, stretch.first), min(last, stretch.last)
    if first > last:
        return nothing()
    recent = rows.read(session, stretch.run, stretch.columns, names, first, last)
    return overlay(chunks.read(session, stretch.run, names, first, last), recent)


def _refuse_to_cut_branches(session: Session, run: Held, step: int) -> None:
    branch = sa.select(Run.run_id).where(Run.parent_id == run.id, Run.branch_step > step).limit(1)
    found = session.execute(branch).scalar_one_or_none()
    if found is not None:
        raise Conflict(reason=f"the run {found!r} branches off this one after step {step}")


def _last_step(session: Session, run: int) -> int | None:
    span = rows.span(session, run)
    ends = (chunks.last_step(session, run), None if span is None else span[1])
    return max((end for end in ends if end is not None), default=None)


def _widened(span: tuple[int, int], around: tuple[int, int] | None) -> tuple[int, int]:
    return span if around is None else (min(span[0], around[0]), max(span[1], around[1]))

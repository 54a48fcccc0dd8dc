"""Runs: their specifications, how they branch, and which of them a fit or a list means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.observations.tables import SUMMARY_FIELDS
from isoloss.schedules import schedule_from_spec
from store import alarms, points
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Run
from store.where import Field, condition

FIELDS = {
    "config": Field(Run.config.expression, free=True),
    "summary": Field(Run.summary.expression, free=True),
    "tags": Field(Run.tags.expression, tags=True),
    "run_id": Field(Run.run_id.expression),
    "name": Field(Run.name.expression),
    "status": Field(Run.status.expression),
    "recipe": Field(Run.recipe.expression),
    "last_step": Field(Run.last_step.expression),
    "created_at": Field(sa.extract("epoch", Run.created_at)),
    "updated_at": Field(sa.extract("epoch", Run.updated_at)),
}
BRANCHING_LOCK = 7_461_003


@dataclass(frozen=True)
class Specification:
    """What a client says of a run.

    `status` None keeps what it is, or makes a new run `running`; a final outcome in its summary has it `finished`.
    """

    name: str
    status: str | None = None
    recipe: str | None = None
    tags: Sequence[str] = ()
    notes: str | None = None
    parent: tuple[str, int] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)


def put(session: Session, project_id: int, run_id: str, said: Specification) -> tuple[Run, bool]:
    """Make the run what its specification says; also returns whether it is new.

    Raises InvalidInput for a schedule that contradicts itself, and for a parent that is not there, is the run
    itself or one of its branches, or has ended before the branch step. Raises Conflict for a schedule that
    ends before a step that a branch of the run rests on. While a point is not finite the run stays diverged,
    whether it is said to be running or finished.
    """
    if said.schedule is not None:
        schedule_from_spec(said.schedule)
    made = session.execute(
        insert(Run)
        .values(project_id=project_id, run_id=run_id, name=said.name)
        .on_conflict_do_nothing()
        .returning(Run.id)
    ).scalar_one_or_none()
    run = _get(session, project_id, run_id, lock=True)
    parent = _parent(session, run, said.parent)
    _refuse_to_end_before_branches(session, run, said.schedule)
    run.name, run.recipe, run.notes = said.name, said.recipe, said.notes
    before, run.status = run.status, _status(session, run, said)
    if run.status == "running" and before != "running" and run.reported_at is not None:
        run.reported_at = sa.func.clock_timestamp()  # a silence counts from where it goes on
    run.tags, run.config, run.summary = list(said.tags), dict(said.config), dict(said.summary)
    run.schedule = None if said.schedule is None else dict(said.schedule)
    run.parent_id = None if parent is None else parent.id
    run.branch_step = None if said.parent is None else said.parent[1]
    session.flush()
    session.refresh(run)
    if made is None and run.status != before:
        alarms.status_changed(session, run, before, run.status)
    return run, made is not None


def get(session: Session, project_id: int, run_id: str) -> Run:
    """The run of this name in the project. Raises NotFound."""
    return _get(session, project_id, run_id)


def page(session: Session, project_id: int, asked: Asked) -> Page[tuple[Run, str | None]]:
    """Part of a project's runs, each with its parent's name."""
    found = page_of(session, sa.select(Run).where(Run.project_id == project_id), Run.id, FIELDS, asked)
    names = _names(session, [run.parent_id for run in found.items if run.parent_id is not None])
    items = [(run, names.get(run.parent_id or 0)) for run in found.items]
    return Page(items, found.next_cursor)


def parent_name(session: Session, run: Run) -> str | None:
    """The name of the run's parent."""
    return None if run.parent_id is None else session.get_one(Run, run.parent_id).run_id


def by_key(session: Session, keys: Sequence[int]) -> dict[int, Run]:
    """The runs of these primary keys."""
    return {run.id: run for run in session.scalars(sa.select(Run).where(Run.id.in_(keys)))}


def delete(session: Session, project_id: int, run_id: str) -> None:
    """Delete the run and its points. Raises NotFound; Conflict where another run branches off it."""
    run = _get(session, project_id, run_id, lock=True)
    branches = sa.select(Run.run_id).where(Run.parent_id == run.id).limit(1)
    branch = session.execute(branches).scalar_one_or_none()
    if branch is not None:
        raise Conflict(reason=f"the run {branch!r} branches off this one: delete it first")
    points.remove_all(session, Run.id == run.id)
    session.delete(run)
    session.flush()


def chosen(session: Session, project_id: int, select: Mapping[str, Any]) -> list[Run]:
    """The runs that a fit's `select` means, in the order of their names.

    It has one of `run_ids`, `tags` (the runs that have all of them), `recipe`, `where` and `all`.
    Raises InvalidInput for none or several of these, for a run that is not there, and where no run is meant.
    """
    if len(select) != 1 or not select.keys() <= _CHOICES.keys():
        raise InvalidInput(field="select", reason=f"needs exactly one of {', '.join(_CHOICES)}")
    [(kind, value)] = select.items()
    meant = sa.select(Run).where(Run.project_id == project_id, _CHOICES[kind](value))
    found = list(session.scalars(meant.order_by(Run.run_id)))
    if kind == "run_ids":
        missing = sorted(set(value) - {run.run_id for run in found})
        if missing:
            raise InvalidInput(field="select.run_ids", reason=f"there is no run {missing[0]!r}")
    if not found:
        raise InvalidInput(field="select", reason="means no run of this project")
    return found


_CHOICES: dict[str, Callable[[Any], sa.ColumnElement[bool]]] = {
    "run_ids": lambda run_ids: Run.run_id.in_(list(run_ids)),
    "tags": lambda tags: Run.tags.contains(list(tags)),
    "recipe": lambda recipe: Run.recipe == recipe,
    "where": lambda text: condition(text, FIELDS),
    "all": lambda everything: sa.true() if everything else sa.false(),
}


def _get(session: Session, project_id: int, run_id: str, lock: bool = False) -> Run:
    statement = sa.select(Run).where(Run.project_id == project_id, Run.run_id == run_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    run = None if "\0" in run_id else session.execute(statement).scalar_one_or_none()
    if run is None:
        raise NotFound(kind="run", name=run_id)
    return run


def _names(session: Session, ids: Sequence[int]) -> dict[int, str]:
    if not ids:
        return {}
    found = session.execute(sa.select(Run.id, Run.run_id).where(Run.id.in_(ids)))
    return {key: name for key, name in found}  # noqa: C416  (a row is no pair to a type checker)


def _parent(session: Session, run: Run, said: tuple[str, int] | None) -> Run | None:
    if said is None:
        return None
    # Two runs that take each other as parent at once must not both succeed.
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(BRANCHING_LOCK, run.project_id)))
    name, branch_step = said
    if name == run.run_id:
        raise InvalidInput(field="parent.run_id", reason="a run cannot branch off itself")
    try:
        parent = _get(session, run.project_id, name)
    except NotFound:
        raise InvalidInput(field="parent.run_id", reason=f"there is no run {name!r}") from None
    if run.id in _ancestors(session, parent):
        raise InvalidInput(field="parent.run_id", reason=f"{name!r} branches off this run itself")
    if branch_step < 1:
        reason = "must be at least 1: a branch has a step in common with its parent"
        raise InvalidInput(field="parent.branch_step", reason=reason)
    end = _end(parent, parent.schedule)
    is_new = (run.parent_id, run.branch_step) != (parent.id, branch_step)
    if is_new and end is not None and branch_step > end:
        reason = f"step {branch_step} is past the parent's end at step {end}"
        raise InvalidInput(field="parent.branch_step", reason=reason)
    first = points.first_step(session, run.id)
    if first is not None and first <= branch_step:
        reason = f"the run has a point of its own at step {first}: its own steps come after {branch_step}"
        raise InvalidInput(field="parent.branch_step", reason=reason)
    return parent


def _ancestors(session: Session, run: Run) -> set[int]:
    """Primary keys of the run and of all that it descends from."""
    line = sa.select(Run.id, Run.parent_id).where(Run.id == run.id).cte("line", recursive=True)
    above = aliased(Run)
    line = line.union(sa.select(above.id, above.parent_id).join(line, above.id == line.c.parent_id))
    return set(session.scalars(sa.select(line.c.id)))


def _refuse_to_end_before_branches(session: Session, run: Run, schedule: Mapping[str, Any] | None) -> None:
    if schedule is None or schedule == run.schedule:
        return
    end = _end(run, schedule)
    branch = sa.select(Run.run_id, Run.branch_step).where(Run.parent_id == run.id, Run.branch_step > end)
    found = session.execute(branch.limit(1)).first()
    if found is not None:
        reason = f"the run {found[0]!r} branches off this one at step {found[1]}, after its end at step {end}"
        raise Conflict(reason=reason)


def _status(session: Session, run: Run, said: Specification) -> str:
    if (
        run.status == "diverged"
        and said.status in ("running", "finished")
        and points.non_finite(session, run)
    ):
        return run.status
    if said.status is None and run.status == "running" and {*SUMMARY_FIELDS.values()} & {*said.summary}:
        return "finished"
    return said.status or run.status


def _end(run: Run, schedule: Mapping[str, Any] | None) -> int | None:
    """The last step that the run is known to reach under a schedule; None: nothing is known.

    A run that goes on reaches the end of its schedule; one that does not has ended with its last point.
    """
    if run.status != "running" and run.last_step is not None:
        return run.last_step
    scheduled = None if schedule is None else schedule_from_spec(schedule).total_steps
    return max((end for end in (run.last_step, scheduled) if end is not None), default=None)

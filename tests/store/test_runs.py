from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, InvalidInput, InvalidSchedule
from store import points, runs
from store.tables import Project, Run

SCHEDULE = {"kind": "constant", "total_steps": 100, "peak_lr": 1e-3}


def test_putting_a_run_again_changes_nothing(session: Session, project: Project) -> None:
    """A run that is declared twice is new once; without a status it keeps the one it has."""
    said = runs.Specification(
        name="r", status="finished", tags=["t"], config={"n_params": 5}, schedule=SCHEDULE
    )
    first, new = runs.put(session, project.id, "r", said)
    moment = first.updated_at
    again, still_new = runs.put(session, project.id, "r", said)
    assert (new, still_new, again.updated_at) == (True, False, moment)
    renamed, _ = runs.put(session, project.id, "r", runs.Specification(name="other"))
    assert (renamed.status, renamed.name, renamed.tags, renamed.config) == ("finished", "other", [], {})


@pytest.mark.parametrize(
    ("run_id", "parent", "reason"),
    [
        ("trunk", ("trunk", 1), "itself"),
        ("new", ("gone", 1), "no run 'gone'"),
        ("trunk", ("twig", 1), "branches off this run itself"),
        ("new", ("trunk", 101), "past the parent's end at step 100"),
        ("own", ("trunk", 50), "point of its own at step 7"),
    ],
)
def test_a_parent_that_cannot_be_is_refused(
    run_of: Callable[..., Run],
    send: Callable[..., points.Accepted],
    run_id: str,
    parent: tuple[str, int],
    reason: str,
) -> None:
    """A run branches off another that is there, within its steps, before its own points, and not in a circle."""
    run_of("trunk", schedule=SCHEDULE)
    run_of("branch", parent=("trunk", 100))
    run_of("twig", parent=("branch", 120))
    run_of("own")
    send("own", [7], loss=[3.0])
    with pytest.raises(InvalidInput, match=reason):
        run_of(run_id, parent=parent)


def test_a_parents_end_is_where_its_points_or_its_schedule_end(
    run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """A run that logged beyond its schedule, or has none, ends at its last point."""
    run_of("trunk")
    run_of("early", parent=("trunk", 10**6))  # nothing is known of the trunk yet
    send("trunk", [10, 20], loss=[3.0, 2.0])
    with pytest.raises(InvalidInput, match="past the parent's end at step 20"):
        run_of("late", parent=("trunk", 21))


def test_a_run_with_branches_stays(session: Session, project: Project, run_of: Callable[..., Run]) -> None:
    """Deleting a run that others rest on is a conflict."""
    run_of("trunk")
    run_of("branch", parent=("trunk", 5))
    with pytest.raises(Conflict, match="'branch'"):
        runs.delete(session, project.id, "trunk")
    runs.delete(session, project.id, "branch")
    runs.delete(session, project.id, "trunk")


def test_a_schedule_that_contradicts_itself_is_refused(run_of: Callable[..., Run]) -> None:
    """The library's own check of schedules guards the store."""
    with pytest.raises(InvalidSchedule):
        run_of("r", schedule={"kind": "wsd", "total_steps": 10, "decay_start": 20, "peak_lr": 1e-3})


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"run_ids": ["b", "a"]}, ["a", "b"]),
        ({"tags": ["x", "y"]}, ["b"]),
        ({"tags": ["x"]}, ["a", "b"]),
        ({"recipe": "r"}, ["c"]),
        ({"where": "tags = y or recipe = r"}, ["b", "c"]),
        ({"all": True}, ["a", "b", "c"]),
    ],
)
def test_a_fit_means_runs_by_name_tags_recipe_or_where(
    session: Session,
    project: Project,
    run_of: Callable[..., Run],
    select: dict[str, Any],
    expected: list[str],
) -> None:
    """Each way to choose runs chooses those, in the order of their names."""
    run_of("c", recipe="r")
    run_of("b", tags=["x", "y"])
    run_of("a", tags=["x"])
    assert [run.run_id for run in runs.chosen(session, project.id, select)] == expected


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"all": True, "recipe": "r"},
        {"nope": 1},
        {"run_ids": ["gone"]},
        {"tags": ["gone"]},
        {"all": False},
    ],
)
def test_a_choice_of_no_runs_is_refused(session: Session, project: Project, select: dict[str, Any]) -> None:
    """No choice, two choices, and choices that mean nothing are invalid input."""
    with pytest.raises(InvalidInput, match="select"):
        runs.chosen(session, project.id, select)


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ({"summary": {"final_loss": 2.5}}, "finished"),
        ({"summary": {"final_loss": 2.5}, "status": "running"}, "running"),
        ({"summary": {"target_loss": 2.5}}, "running"),
        ({}, "running"),
    ],
)
def test_a_final_outcome_without_a_status_finishes_a_run(
    session: Session, project: Project, said: dict[str, Any], then: str
) -> None:
    """Whoever says what came of a run need not say that it has finished; a status that is said counts."""
    run, _ = runs.put(session, project.id, "r", runs.Specification(name="r", **said))
    assert run.status == then
    again, _ = runs.put(session, project.id, "d", runs.Specification(name="d", status="diverged"))
    again, _ = runs.put(session, project.id, "d", runs.Specification(name="d", **said))
    assert again.status == said.get("status", "diverged")

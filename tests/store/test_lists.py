from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from store import runs
from store.pages import Asked
from store.tables import Project, Run

X = [None, "s", 1.5, True, "z", 2, "NaN"]


@pytest.fixture
def seven(run_of: Callable[..., Run]) -> None:
    """Seven runs whose `config.x` are of all types."""
    for at, value in enumerate(X):
        config = {"n_params": 10**at, "x": value, "optim": {"lr": 3e-4 * at}}
        run_of(f"r{at}", tags=["a", "b"] if at % 2 else ["a"], config=config)


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("config.n_params >= 1e3", "3456"),
        ("config.n_params = 1000", "3"),
        ("config.x = null", "0"),
        ("config.missing = null", "0123456"),
        ("config.missing != 1", "0123456"),
        ("config.missing < 1", ""),
        ("config.x != null", "123456"),
        ("config.x == 's'", "1"),
        ('config.x != "s"', "023456"),
        ("config.x = true", "3"),
        ("config.x < 2", "2"),
        ("config.x > 'a'", "14"),
        ("config.optim.lr = 0.0012", "4"),
        ("tags = b", "135"),
        ("tags != b and (config.n_params = 1 or config.optim.lr = 0.0012)", "04"),
        ("run_id = r1 or run_id = r2 and status = finished", "1"),
        ("status = running AND run_id > 'r5'", "6"),
        ("summary.final_loss = null and recipe = null", "0123456"),
    ],
)
def test_where_means_what_it_says(session: Session, project: Project, where: str, expected: str) -> None:
    """Comparisons are typed, a missing field equals null alone, and `and` binds before `or`."""
    found = runs.page(session, project.id, Asked(where=where)).items
    assert [run.run_id for run, _ in found] == [f"r{at}" for at in expected]


@pytest.mark.parametrize(
    "where",
    [
        "config.x",
        "config.x =",
        "config = 1",
        "foo = 1",
        "STATUS = running",
        "status.x = 1",
        "(config.x = 1",
        "config.x = 1)",
        "config.x ~ 1",
        "config.x = 'a",
        'config.x = "\\u0000"',
        "config.n = 1e999999999",
        "tags < 3",
        "config.x < true",
        "(" * 50 + "config.x = 1",
        "config.x = 1; DROP TABLE run",
        "config.x = 1 " + "or config.x = 1 " * 200,
    ],
)
def test_a_where_that_cannot_be_read_is_refused(session: Session, project: Project, where: str) -> None:
    """What is no filter is told as such, and none of it reaches the database."""
    with pytest.raises(InvalidInput, match="where"):
        runs.page(session, project.id, Asked(where=where))


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("sort", [None, "config.x", "-config.x", "-run_id", "created_at", "config.missing"])
def test_pages_join_to_the_whole_list(session: Session, project: Project, sort: str | None) -> None:
    """Any sort, over values of any type, can be read in pages: nothing twice, nothing missing."""
    whole = [run.run_id for run, _ in runs.page(session, project.id, Asked(sort=sort)).items]
    assert sorted(whole) == [f"r{at}" for at in range(7)]
    found: list[str] = []
    cursor = None
    for _ in range(4):
        page = runs.page(session, project.id, Asked(limit=2, sort=sort, cursor=cursor))
        found += [run.run_id for run, _ in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert found == whole


@pytest.mark.parametrize(
    "asked", [Asked(cursor="x"), Asked(cursor="W10"), Asked(sort="tags"), Asked(sort="-nope")]
)
def test_cursors_and_sorts_of_nobody_are_refused(session: Session, project: Project, asked: Asked) -> None:
    """A cursor that no list gave out and a sort that does not exist are invalid input."""
    with pytest.raises(InvalidInput):
        runs.page(session, project.id, asked)

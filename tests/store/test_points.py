from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, InvalidInput, NotFound
from store import points, projects, runs
from store.chunks import CHUNK_POINTS
from store.columns import Points, locate
from store.engine import create_engine, create_sessions
from store.tables import Point, PointChunk, Project, Run
from tests.store.conftest import points_of

NAMES = ("loss", "val_loss", "lr", "tokens", "x.a", "x.b")
VALUES = (0.1, -0.0, 1e300, 5e-324, float("nan"), float("inf"), 3.25, 2.0**53)

Model = dict[int, dict[str, float]]


def _cells(found: Points, name: str) -> list[float | None]:
    column = found[name]
    return [
        value if there else None for value, there in zip(column.values.tolist(), column.present, strict=True)
    ]


def _compact(session: Session, run: Run) -> int:
    return points.compact(session, run.id)


def _bits(value: float | None) -> bytes | None:
    # Plus and minus zero are one value: the first that came stays.
    return None if value is None else np.float64(0.0 if value == 0 else value).tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_points_behave_as_a_dictionary_whatever_form_they_have(
    session: Session, project: Project, run_of: Callable[..., Run], seed: int
) -> None:
    """Any order of batches, replacements, rewinds and compactions reads as a plain dictionary would, to the bit."""
    chance = random.Random(seed)
    run, model = run_of("r"), Model()
    for _ in range(60):
        held = points.hold(session, project.id, "r")
        action = chance.random()
        if action < 0.15:
            points.compact(session, run.id)
        elif action < 0.25:
            until = chance.randint(0, 120)
            model = {step: cells for step, cells in model.items() if step <= until}
            assert points.rewind(session, held, until) == max(model, default=None)
        else:
            points.append(session, held, _batch(chance, model), replace_values=True)
        session.refresh(run)
        first, last = sorted(chance.sample(range(125), 2))
        _check(points.read(session, run), model)
        within = {step: cells for step, cells in model.items() if first <= step <= last}
        _check(points.read(session, run, None, first, last), within)


def _batch(chance: random.Random, model: Model) -> Points:
    step = sorted(chance.sample(range(121), chance.randint(1, 30)))
    names = chance.sample(NAMES, chance.randint(1, 4))
    cells = {name: [chance.choice((*VALUES, None)) for _ in step] for name in names}
    for at, number in enumerate(step):
        row = model.setdefault(number, {})
        row.update({name: values[at] for name, values in cells.items() if values[at] is not None})
    return points_of(step, **{name.replace(".", "__"): values for name, values in cells.items()})


def _check(found: Points, model: Model) -> None:
    assert found.step.tolist() == sorted(model)
    for name in NAMES:
        wanted = [_bits(model[step].get(name)) for step in sorted(model)]
        assert [_bits(value) for value in _cells(found, name)] == wanted


@pytest.mark.parametrize("compacted", [False, True])
def test_the_same_batch_twice_is_harmless(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted], compacted: bool
) -> None:
    """A batch that is sent again counts as duplicates and changes nothing, also against chunks."""
    run = run_of("r")
    assert send("r", [1, 2], loss=[3.0, float("nan")], lr=[0.1, None]) == points.Accepted(2, 0, 2)
    if compacted:
        assert _compact(session, run) == 2
    assert send("r", [1, 2], loss=[3.0, float("nan")], lr=[0.1, None]) == points.Accepted(0, 2, 2)
    assert send("r", [2, 3], loss=[float("nan"), 2.0]) == points.Accepted(1, 1, 3)


@pytest.mark.parametrize("compacted", [False, True])
def test_another_value_is_refused_whole_unless_it_shall_replace(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted], compacted: bool
) -> None:
    """A batch with one contradiction stores nothing; with `replace` it overwrites, also against chunks."""
    run = run_of("r")
    send("r", [1, 2], loss=[3.0, 2.5])
    if compacted:
        _compact(session, run)
    with pytest.raises(Conflict, match=r"step 2 has loss 2\.5 already, not 2\.6"):
        send("r", [2, 3], loss=[2.6, 2.4])
    session.refresh(run)
    assert points.read(session, run).step.tolist() == [1, 2]
    assert send("r", [2, 3], replace=True, loss=[2.6, 2.4]) == points.Accepted(2, 0, 3)
    session.refresh(run)
    assert _cells(points.read(session, run), "loss") == [3.0, 2.6, 2.4]


@pytest.mark.parametrize("compacted", [False, True])
def test_columns_that_come_separately_merge(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted], compacted: bool
) -> None:
    """A null or an absent column never conflicts, and never removes what is there."""
    run = run_of("r")
    send("r", [1, 2, 3], loss=[3.0, 2.5, 2.0])
    if compacted:
        _compact(session, run)
    assert send("r", [2, 3, 4], loss=[None, 2.0, None], my__own=[7.0, None, 8.0]).accepted == 2
    session.refresh(run)
    found = points.read(session, run)
    assert _cells(found, "loss") == [3.0, 2.5, 2.0, None]
    assert _cells(found, "my.own") == [None, 7.0, None, 8.0]


def test_two_writers_on_one_run_see_each_other(database_url: str) -> None:
    """Of two transactions that write different values for a step, the second waits and is refused."""
    engine = create_engine(database_url)
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "pilot").id
        runs.put(session, project, "r", runs.Specification(name="r"))
    outcomes: list[str] = []

    def second() -> None:
        try:
            with sessions.begin() as other:
                points.append(other, points.hold(other, project, "r"), points_of([1, 2], loss=[3.0, 9.0]))
            outcomes.append("stored")
        except Conflict:
            outcomes.append("refused")

    with sessions.begin() as session:
        points.append(session, points.hold(session, project, "r"), points_of([1, 2], loss=[3.0, 2.5]))
        writer = threading.Thread(target=second)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()  # it waits for the first to end
    writer.join()
    assert outcomes == ["refused"]
    with sessions() as session:
        run = runs.get(session, project, "r")
        assert _cells(points.read(session, run), "loss") == [3.0, 2.5]
    engine.dispose()


def test_a_killed_compaction_changes_nothing(database_url: str) -> None:
    """Rows stay as they are where the compacting transaction does not end."""
    engine = create_engine(database_url)
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "pilot").id
        run = runs.put(session, project, "r", runs.Specification(name="r", status="finished"))[0]
        points.append(session, points.hold(session, project, "r"), points_of([1, 2], loss=[3.0, 2.5]))
    with sessions() as session:
        points.compact(session, run.id)
        pid = session.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        with sessions.begin() as killer:
            killer.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        session.invalidate()
    with sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Point)) == 2
        assert session.scalar(sa.select(sa.func.count()).select_from(PointChunk)) == 0
        assert points.to_compact(session) == [run.id]
    engine.dispose()


def test_compaction_makes_chunks_of_even_length_and_takes_up_new_rows(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """Chunks hold up to 4,000 points; later rows join those they touch and leave the others alone."""
    run = run_of("r", status="finished")
    n = 2 * CHUNK_POINTS + 500
    send("r", list(range(1, n + 1)), loss=np.linspace(3, 2, n).tolist())
    assert points.to_compact(session) == [run.id]
    assert _compact(session, run) == n
    assert _compact(session, run) == 0
    assert points.to_compact(session) == []
    sizes = sa.select(PointChunk.first_step, PointChunk.n_points).where(PointChunk.name == "loss")
    before = session.execute(sizes.order_by(PointChunk.first_step)).all()
    assert [size for _, size in before] == [2833, 2833, 2834]
    send("r", [n + 1], loss=[1.5])
    assert _compact(session, run) == 1
    after = session.execute(sizes.order_by(PointChunk.first_step)).all()
    assert [tuple(row) for row in after[:3]] == [tuple(row) for row in before]
    assert len(after) == 4
    session.refresh(run)
    assert len(points.read(session, run)) == n + 1


def test_a_long_run_reads_back_exactly_by_ranges(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """Runs longer than a page, with steps far apart, come back whole and in order."""
    run = run_of("r")
    step = np.cumsum(np.random.default_rng(0).integers(1, 5000, 40_000))
    loss = np.random.default_rng(1).normal(3, 0.1, 40_000)
    send("r", step.tolist(), loss=loss.tolist())
    session.refresh(run)
    found = points.read(session, run)
    assert found.step.tolist() == step.tolist()
    assert found["loss"].values.tobytes() == loss.tobytes()
    some = points.read(session, run, ["loss"], int(step[100]), int(step[20_000]))
    assert some.step.tolist() == step[100:20_001].tolist()


def test_a_branch_reads_as_its_parent_up_to_the_branch_step_then_its_own(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """Branches of branches too; a parent's later points, and columns it lacks, do not matter."""
    trunk = run_of("trunk")
    send("trunk", [10, 20, 30, 40], loss=[4.0, 3.0, 2.0, 1.0])
    _compact(session, trunk)
    run_of("branch", parent=("trunk", 25))
    send("branch", [30, 40], loss=[2.2, 2.1], my__own=[1.0, 2.0])
    twig = run_of("twig", parent=("branch", 30))
    send("twig", [31], loss=[2.15])
    session.refresh(twig)
    found = points.read(session, twig)
    assert found.step.tolist() == [10, 20, 30, 31]
    assert _cells(found, "loss") == [4.0, 3.0, 2.2, 2.15]
    assert _cells(found, "my.own") == [None, None, 1.0, None]
    assert points.read(session, twig, from_step=20, to_step=30).step.tolist() == [20, 30]
    assert points.read(session, twig, inherit=False).step.tolist() == [31]


def test_a_branch_keeps_off_its_parents_steps(
    run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """A branch cannot write at or before the step that it branches at."""
    run_of("trunk")
    send("trunk", [10, 20], loss=[4.0, 3.0])
    run_of("branch", parent=("trunk", 20))
    with pytest.raises(InvalidInput, match="step 20 belongs to the parent"):
        send("branch", [20, 30], loss=[2.0, 1.0])


@pytest.mark.parametrize("compacted", [False, True])
def test_rewind_keeps_the_steps_up_to_it(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted], compacted: bool
) -> None:
    """After a rewind the run goes on from there with other values; nothing of the old future is left."""
    run = run_of("r")
    send("r", [1, 2, 3, 4], loss=[4.0, 3.0, 2.0, 1.0])
    if compacted:
        _compact(session, run)
    assert points.rewind(session, points.hold(session, run.project_id, "r"), 2) == 2
    assert send("r", [3], loss=[2.5]).accepted == 1
    session.refresh(run)
    assert _cells(points.read(session, run), "loss") == [4.0, 3.0, 2.5]
    assert points.rewind(session, points.hold(session, run.project_id, "r"), 0) is None
    assert send("r", [1], loss=[9.0]).accepted == 1


def test_rewind_refuses_to_cut_off_a_branch(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """A run cannot go back behind a step that another run rests on."""
    run = run_of("trunk")
    send("trunk", [1, 2, 3], loss=[4.0, 3.0, 2.0])
    run_of("branch", parent=("trunk", 2))
    held = points.hold(session, run.project_id, "trunk")
    with pytest.raises(Conflict, match="'branch' branches off"):
        points.rewind(session, held, 1)
    assert points.rewind(session, held, 2) == 2


def test_a_point_that_is_not_finite_marks_the_run_diverged(
    session: Session, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """A NaN or an infinite loss makes the run's status diverged."""
    run = run_of("r")
    send("r", [1], loss=[3.0])
    session.refresh(run)
    assert run.status == "running"
    send("r", [2], val_loss=[float("-inf")])
    session.refresh(run)
    assert run.status == "diverged"


def test_a_run_has_at_most_64_columns_of_its_own(
    run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """The 65th free column is refused; 64 and all the known ones fit."""
    run_of("r")
    send("r", [1], loss=[3.0], lr=[0.1], **{f"c{at}": [float(at)] for at in range(64)})
    with pytest.raises(InvalidInput, match="at most 64"):
        send("r", [2], c64=[1.0])


def test_unknown_runs_and_columns_are_named(
    session: Session, project: Project, run_of: Callable[..., Run]
) -> None:
    """Asking for what is not there says what is not there."""
    with pytest.raises(NotFound, match="'gone'"):
        points.hold(session, project.id, "gone")
    run = run_of("r")
    assert len(points.read(session, run)) == 0
    assert len(points.read(session, run, ["loss"])) == 0
    with pytest.raises(InvalidInput, match="no column 'nope'"):
        points.read(session, run, ["nope"])
    assert points.compact(session, 10**9) == 0


def test_deleting_a_run_or_a_project_deletes_its_points(
    session: Session, project: Project, run_of: Callable[..., Run], send: Callable[..., points.Accepted]
) -> None:
    """No point outlives its run, in either form."""
    for name in ("a", "b"):
        run = run_of(name)
        send(name, [1, 2], loss=[3.0, 2.0])
        _compact(session, run)
        send(name, [3], loss=[1.0])
    runs.delete(session, project.id, "a")
    assert set(session.scalars(sa.select(Point.run))) == {run.id}
    projects.delete(session, "pilot")
    counted: Any = sa.select(sa.func.count())
    assert session.scalar(counted.select_from(Point)) == 0
    assert session.scalar(counted.select_from(PointChunk)) == 0


def test_locate_finds_steps_among_others() -> None:
    """Where there is nothing to be found in, nothing is found."""
    at, there = locate(np.array([1, 5]), np.array([], dtype=np.int64))
    assert not there.any()
    at, there = locate(np.array([1, 5, 9]), np.array([5, 7]))
    assert there.tolist() == [False, True, False]
    assert at[1] == 0

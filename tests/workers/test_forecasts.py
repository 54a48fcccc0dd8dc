"""Forecasts from the store to the store: what the worker does, without its processes."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import NotFound, NotReady
from store import alarms, forecasts, jobs, points, projects, runs, watch
from store.columns import Column, Points
from store.tables import Alarm, Forecast, Forecaster, Job, Project, Run
from store.watch import Watching
from tests.forecasting.studies import CONFIG, NEXT, losses, put_next, put_study, send
from workers import forecasts as work

OFTEN = Watching(every_s=60)


@pytest.fixture
def project(session: Session) -> Project:
    return projects.create(session, "study")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    """Forecasts are behind as soon as there are new points."""
    monkeypatch.setenv("ISOLOSS_FORECAST_EVERY_S", "1")


def later(session: Session, **ago: float) -> None:
    """Let all forecasts have been made some time ago."""
    moment = sa.func.clock_timestamp() - dt.timedelta(**ago)
    session.execute(sa.update(Forecast).values(updated_at=moment))
    session.expire_all()


def forecast(session: Session, project: Project) -> dict[str, Any]:
    """Do what a worker does with a project's job; what it learned and said."""
    later(session, seconds=90)
    job_id = forecasts.begin(session, project.id, 7)
    assert job_id is not None
    found = work.compute(**work.read(session, job_id), progress=lambda share, message: None)
    jobs.start(session, job_id)
    result = work.write(session, job_id, found)
    jobs.finish(session, job_id, 1, "succeeded")
    session.execute(sa.update(Job).where(Job.id == job_id).values(queue_id=None))
    session.expire_all()
    return {**result, "learned": sum(one.learned is not None for one in found)}


def open_alarms(session: Session, run: Run) -> list[str]:
    return [alarm.kind for alarm in alarms.of_run(session, run.id) if alarm.over_at is None]


def test_a_run_that_trains_is_forecast_from_the_finished_ones(session: Session, project: Project) -> None:
    """The band holds what it ends with; law, runs and the rest of the curve are there."""
    put_study(session, project.id)
    run = put_next(session, project.id, last=200)
    assert forecast(session, project) == {"forecasts": 1, "learned": 1}
    found = forecasts.get(session, run).document
    assert found is not None
    _, whole = losses(NEXT, 99)
    assert found["lower"] <= np.mean(whole[-5:]) <= found["upper"]
    assert found["upper"] - found["lower"] < 0.2
    assert (found["step"], found["last_step"], found["n_runs"]) == (200, 400, 8)
    assert found["expected"]["steps"][-1] == 400


def test_what_was_learned_is_kept_until_the_finished_runs_change(session: Session, project: Project) -> None:
    """New points cost one forecast each; a run that lands has the law learned again."""
    put_study(session, project.id)
    run = put_next(session, project.id)
    assert forecast(session, project) == {"forecasts": 1, "learned": 1}
    assert forecast(session, project) == {"forecasts": 0, "learned": 0}  # no point is new
    send(session, project.id, "next", *losses(NEXT, 99, first=122, last=160))
    assert forecast(session, project) == {"forecasts": 1, "learned": 0}
    runs.put(session, project.id, "done-0", runs.Specification("done-0", "failed", config=CONFIG))
    send(session, project.id, "next", *losses(NEXT, 99, first=162, last=200))
    assert forecast(session, project) == {"forecasts": 1, "learned": 1}
    found = forecasts.get(session, run)
    assert found.document is not None
    assert found.document["n_runs"] == 7
    assert [one["step"] for one in found.trail] == [120, 160, 200]
    assert len(session.scalars(sa.select(Forecaster)).all()) == 1


def test_a_project_whose_runs_tell_nothing_gives_the_reason_and_learns_once(
    session: Session, project: Project
) -> None:
    """Runs of another size or data do not count."""
    put_study(session, project.id, dataset="code")
    run = put_next(session, project.id)
    with pytest.raises(NotFound):
        forecasts.get(session, run)
    assert forecast(session, project) == {"forecasts": 0, "learned": 1}
    with pytest.raises(NotReady, match="finished runs"):
        forecasts.get(session, run)
    send(session, project.id, "next", *losses(NEXT, 99, first=122, last=160))
    assert forecast(session, project) == {"forecasts": 0, "learned": 0}


def test_one_run_that_cannot_be_read_keeps_no_other_waiting(
    session: Session, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a loss below 0 gets its reason, the other its forecast."""
    put_study(session, project.id)
    odd, run = put_next(session, project.id, "odd"), put_next(session, project.id)
    send(session, project.id, "odd", np.array([130]), np.array([-1.0]))
    assert forecast(session, project) == {"forecasts": 1, "learned": 1}
    with pytest.raises(NotReady, match="above 0"):
        forecasts.get(session, odd)
    assert forecasts.get(session, run).document is not None


def test_a_run_is_due_once_a_minute_and_only_with_new_points(session: Session, project: Project) -> None:
    """Neither a run without a schedule nor one that has ended is forecast."""
    put_study(session, project.id)
    assert watch.due(session, OFTEN) == []
    run = put_next(session, project.id)
    runs.put(session, project.id, "blank", runs.Specification("blank"))
    send(session, project.id, "blank", *losses(NEXT, 1))
    assert watch.due(session, OFTEN) == [project.id]
    forecast(session, project)
    later(session, seconds=90)
    assert watch.due(session, OFTEN) == []  # nothing new
    send(session, project.id, "next", *losses(NEXT, 99, first=122, last=160))
    later(session, seconds=40)
    assert watch.due(session, OFTEN) == []  # too soon
    later(session, seconds=58)
    assert watch.due(session, OFTEN) == [project.id]
    runs.put(session, project.id, "next", runs.Specification("next", "finished", schedule=NEXT))
    assert watch.due(session, OFTEN) == []
    assert run.run_id == "next"


def test_a_run_that_leaves_its_band_gives_one_alarm_until_it_is_back(
    session: Session, project: Project
) -> None:
    """Each minute finds it again; nobody is told again."""
    put_study(session, project.id)
    run = put_next(session, project.id, last=200)
    forecast(session, project)
    assert open_alarms(session, run) == []
    for first in (202, 222, 242):
        step, loss = losses(NEXT, 99, first=first, last=first + 18)
        send(session, project.id, "next", step, loss + 0.8)
        forecast(session, project)
    assert open_alarms(session, run) == ["left_band"]
    assert session.scalar(sa.select(sa.func.count()).select_from(Alarm)) == 1
    points.rewind(session, points.hold(session, project.id, "next"), 200)
    forecast(session, project)
    assert open_alarms(session, run) == []
    assert [one["step"] for one in forecasts.get(session, run).trail] == [200, 200]


def test_a_long_run_is_forecast_from_some_of_its_points(session: Session, project: Project) -> None:
    """A hundred thousand points are read as two thousand, spread over all of them and with the last."""
    from store import samples

    run, _ = runs.put(session, project.id, "long", runs.Specification("long"))
    step = np.arange(1, 100_001)
    sparse = Column(np.full(step.size, 3.0), step % 1000 == 0)
    held = points.hold(session, project.id, "long")
    points.append(session, held, Points(step, {"loss": Column.of(3 + 1 / step), "val_loss": sparse}))
    session.refresh(run)
    found = samples.read(session, run, ["loss"], most=2000)
    assert 1500 <= len(found) <= 2000
    assert (found.step[0], found.step[-1]) == (1, 100_000)
    assert np.diff(found.step).max() < 60
    assert samples.read(session, run, ["val_loss"], most=2000).step.tolist() == list(
        range(1000, 100_001, 1000)
    )
    spans = list(samples.windows(50_000_000))
    assert sum(last - first + 1 for first, last in spans) <= samples.MOST_STEPS
    assert spans[-1][1] == 50_000_000


def test_the_jobs_of_forecasts_do_not_pile_up(session: Session, project: Project) -> None:
    """Those that succeeded go when the next one begins; the same is handed out again for the same number."""
    put_study(session, project.id)
    put_next(session, project.id)
    first = forecasts.begin(session, project.id, 1)
    assert forecasts.begin(session, project.id, 1) == first
    assert isinstance(first, uuid.UUID)
    jobs.start(session, first)
    jobs.finish(session, first, 1, "succeeded")
    assert forecasts.begin(session, project.id, 2) != first
    assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 1
    assert forecasts.begin(session, project.id + 1, 3) is None


def test_a_trail_keeps_the_newest_forecasts_and_some_of_the_oldest() -> None:
    trail: list[dict[str, Any]] = []
    for step in range(5000):
        trail = forecasts.thinned([*trail, {"step": step}])
    steps = [one["step"] for one in trail]
    assert len(steps) <= forecasts.MOST_TRAIL
    assert steps == sorted(steps)
    assert steps[-100:] == list(range(4900, 5000))
    assert steps[0] == 0

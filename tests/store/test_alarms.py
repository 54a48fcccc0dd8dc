"""Alarms: one for each cause, whoever finds it and however often."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from store import alarms, points, watch, webhooks
from store.tables import Alarm, Delivery, Project, Run, Watch
from store.watch import Watching

RunOf = Callable[..., Run]
Send = Callable[..., points.Accepted]

WATCHING = Watching(every_s=60, silent_after_s=300)
ALL = list(webhooks.EVENTS)


@pytest.fixture
def told(session: Session, project: Project) -> Callable[[], list[str]]:
    """The events that the project's webhook was queued so far, in order."""
    webhooks.create(session, project.id, "https://hooks.test", ALL)

    def events() -> list[str]:
        return list(session.scalars(sa.select(Delivery.event).order_by(Delivery.id)))

    return events


def given(session: Session, run: Run) -> list[tuple[str, bool]]:
    """The run's alarms, the oldest first, each with whether it is over."""
    return [(alarm.kind, alarm.over_at is not None) for alarm in reversed(alarms.of_run(session, run.id))]


def last_reported(session: Session, run: Run, every_s: float | None = None, **ago: float) -> None:
    """Let the run's points have come last some time ago."""
    moment = sa.func.clock_timestamp() - dt.timedelta(**ago)
    values: dict[str, Any] = {"reported_at": moment, "report_every_s": every_s}
    session.execute(sa.update(Run).where(Run.id == run.id).values(**values))
    session.expire_all()


@pytest.fixture
def watched(session: Session) -> None:
    """Runs were looked after for a day without a break, last a minute ago."""
    now = dt.datetime.now(dt.UTC)
    session.add(Watch(id=1, looked_at=now - dt.timedelta(seconds=60), since=now - dt.timedelta(days=1)))
    session.flush()


def test_a_point_that_is_not_finite_gives_one_alarm(
    session: Session, run_of: RunOf, send: Send, told: Callable[[], list[str]]
) -> None:
    """More of them give no more; going back before it ends the alarm, and the next one is a new cause."""
    run = run_of("r", status="running")
    send("r", [1, 2], loss=[3.0, 2.9])
    for step in (3, 4):
        send("r", [step], loss=[math.nan])
    assert given(session, run) == [("diverged", False)]
    (alarm,) = alarms.of_run(session, run.id)
    assert (alarm.step, alarm.message) == (3, "its loss is not finite at step 3")
    points.rewind(session, points.hold(session, run.project_id, "r"), 2)
    session.expire_all()
    assert given(session, run) == [("diverged", True)]
    send("r", [3], loss=[math.inf])
    session.expire_all()
    assert given(session, run) == [("diverged", True), ("diverged", False)]
    assert told() == ["diverged", "diverged"]


def test_a_run_is_told_when_it_ends_and_not_when_it_is_put_as_ended(
    session: Session, run_of: RunOf, told: Callable[[], list[str]]
) -> None:
    """An import of finished runs tells nobody anything; the same status again neither."""
    for status in ("finished", "diverged", "failed"):
        run_of(f"old-{status}", status=status)
    assert told() == []
    for status in ("running", "finished", "finished"):
        run_of("r", status=status)
    assert told() == ["finished"]
    run_of("q", status="running")
    run_of("q", status="diverged")
    run_of("q", status="failed")
    assert told() == ["finished", "diverged", "failed"]


@pytest.mark.usefixtures("watched")
def test_a_silence_is_longer_than_ten_of_the_usual_intervals(
    session: Session, run_of: RunOf, send: Send, told: Callable[[], list[str]]
) -> None:
    """Five minutes at least; a run that reports every two minutes may be silent for twenty."""
    fast, slow, blank = (run_of(name, status="running") for name in ("fast", "slow", "blank"))
    for name in ("fast", "slow"):
        send(name, [1], loss=[3.0])
    last_reported(session, fast, every_s=2.0, minutes=4)
    last_reported(session, slow, every_s=120.0, minutes=19)
    watch.look(session, WATCHING)
    assert told() == []
    last_reported(session, fast, every_s=2.0, minutes=6)
    last_reported(session, slow, every_s=120.0, minutes=21)
    for _ in range(3):
        watch.look(session, WATCHING)
    assert told() == ["silent", "silent"]
    assert given(session, fast) == given(session, slow) == [("silent", False)]
    assert given(session, blank) == []
    assert alarms.of_run(session, fast.id)[0].message == "no point has come for 6 min; they came every 2 s"


@pytest.mark.usefixtures("watched")
def test_a_run_that_reports_again_ends_its_silence(
    session: Session, run_of: RunOf, send: Send, told: Callable[[], list[str]]
) -> None:
    """`resumed` is told once and is over at once; the next silence is a new one."""
    run = run_of("r", status="running")
    send("r", [1], loss=[3.0])
    last_reported(session, run, minutes=6)
    watch.look(session, WATCHING)
    session.execute(sa.update(Alarm).values(created_at=sa.func.clock_timestamp() - dt.timedelta(minutes=1)))
    send("r", [2], loss=[2.9])
    for _ in range(2):
        watch.look(session, WATCHING)
    session.expire_all()
    assert sorted(given(session, run)) == [("resumed", True), ("silent", True)]
    last_reported(session, run, minutes=6)
    watch.look(session, WATCHING)
    assert told() == ["silent", "resumed", "silent"]


@pytest.mark.usefixtures("watched")
def test_a_run_that_ends_is_not_silent(
    session: Session, run_of: RunOf, send: Send, told: Callable[[], list[str]]
) -> None:
    run = run_of("r", status="running")
    send("r", [1], loss=[3.0])
    last_reported(session, run, minutes=6)
    watch.look(session, WATCHING)
    run_of("r", status="finished")
    session.expire_all()
    assert given(session, run) == [("silent", True)]
    watch.look(session, WATCHING)
    assert told() == ["silent", "finished"]


@pytest.mark.usefixtures("watched")
def test_a_run_that_is_resumed_is_silent_only_from_then_on(
    session: Session, run_of: RunOf, send: Send, told: Callable[[], list[str]]
) -> None:
    """The hours for which it was preempted are no silence."""
    run = run_of("r", status="running")
    send("r", [1], loss=[3.0])
    run_of("r", status="preempted")
    last_reported(session, run, every_s=2.0, hours=3)
    run_of("r", status="running")
    watch.look(session, WATCHING)
    assert told() == ["preempted"]
    assert given(session, run) == []


def test_a_run_that_goes_in_and_out_of_its_band_is_told_of_once(
    session: Session, run_of: RunOf, told: Callable[[], list[str]]
) -> None:
    """Within ten minutes it is the same cause; later it is a new one."""
    run = run_of("r", status="running")
    for _ in range(3):
        alarms.sound(session, run, "left_band", "far above")
        alarms.sound(session, run, "left_band", "far above")
        alarms.end(session, run.id, "left_band")
    assert (given(session, run), told()) == ([("left_band", True)], ["left_band"])
    session.execute(sa.update(Alarm).values(over_at=sa.func.clock_timestamp() - dt.timedelta(minutes=11)))
    alarms.sound(session, run, "left_band", "far above")
    session.expire_all()
    assert sorted(given(session, run)) == [("left_band", False), ("left_band", True)]
    assert told() == ["left_band", "left_band"]


def test_after_a_break_of_the_service_silences_count_from_its_end(
    session: Session, run_of: RunOf, send: Send
) -> None:
    """An hour without a worker is no silence of the runs; a missed tick is no break."""
    run = run_of("r", status="running")
    send("r", [1], loss=[3.0])
    last_reported(session, run, hours=1)
    now = dt.datetime.now(dt.UTC)
    session.add(Watch(id=1, looked_at=now - dt.timedelta(hours=1), since=now - dt.timedelta(days=1)))
    watch.look(session, WATCHING)
    assert given(session, run) == []
    session.execute(
        sa.update(Watch).values(looked_at=now - dt.timedelta(minutes=2), since=now - dt.timedelta(minutes=7))
    )
    watch.look(session, WATCHING)
    assert given(session, run) == [("silent", False)]


def test_the_usual_interval_follows_the_batches(session: Session, run_of: RunOf, send: Send) -> None:
    """The first one tells nothing, later ones count a tenth each."""
    run = run_of("r")
    send("r", [1], loss=[3.0])
    session.refresh(run)
    assert run.reported_at is not None
    assert run.report_every_s is None
    last_reported(session, run, seconds=10)
    send("r", [2], loss=[2.9])
    session.refresh(run)
    assert run.report_every_s == pytest.approx(10, abs=1)
    last_reported(session, run, every_s=10, seconds=60)
    send("r", [3], loss=[2.8])
    session.refresh(run)
    assert run.report_every_s == pytest.approx(15, abs=1)


def test_an_event_goes_to_those_who_asked_for_it_with_what_is_known(
    session: Session, project: Project, run_of: RunOf
) -> None:
    """Others of the project, and other projects, hear nothing of it."""
    from store import projects

    hook = webhooks.create(session, project.id, "https://a.test", ["finished"])
    webhooks.create(session, project.id, "https://b.test", ["diverged"])
    webhooks.create(session, projects.create(session, "other").id, "https://c.test", ["finished"])
    run_of("r", status="running")
    run_of("r", status="finished")
    (delivery,) = session.scalars(sa.select(Delivery)).all()
    body = json.loads(delivery.body)
    assert delivery.webhook_id == hook.id
    assert body.pop("at").endswith("Z")
    assert body == {
        "id": str(delivery.id),
        "event": "finished",
        "project": "pilot",
        "run_id": "r",
        "step": None,
        "message": "the run is finished",
        "forecast": None,
    }


def test_a_delivery_is_tried_six_times_and_then_given_up(session: Session, project: Project) -> None:
    """Each attempt waits longer; what has ended is not begun again."""
    hook = webhooks.create(session, project.id, "https://a.test", ["finished"])
    delivery = webhooks.send_test(session, hook)
    statuses = []
    for attempt in range(1, 7):
        outgoing = webhooks.begin(session, delivery.id)
        assert outgoing is not None
        assert outgoing.attempt == attempt
        statuses.append(webhooks.record(session, delivery.id, webhooks.Answered(500, "it answered 500")))
    assert statuses == ["queued"] * 5 + ["failed"]
    assert webhooks.begin(session, delivery.id) is None
    pauses = session.execute(
        sa.text(
            "SELECT extract(epoch FROM scheduled_at - now())::float FROM jobs.procrastinate_jobs"
            " WHERE task_name = 'deliver' AND scheduled_at IS NOT NULL ORDER BY id"
        )
    ).scalars()
    assert list(pauses) == pytest.approx(list(webhooks.PAUSES_S), abs=5)


def test_old_deliveries_are_forgotten(session: Session, project: Project) -> None:
    hook = webhooks.create(session, project.id, "https://a.test", ["finished"])
    for _ in range(webhooks.KEPT_DELIVERIES + 5):
        delivery = webhooks.send_test(session, hook)
        webhooks.begin(session, delivery.id)
        webhooks.record(session, delivery.id, webhooks.Answered(204, None))
    kept = webhooks.deliveries(session, hook.id, most=1000)
    assert len(kept) == webhooks.KEPT_DELIVERIES
    assert kept[0].id == delivery.id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ISOLOSS_FORECAST_EVERY_S", "0"),
        ("ISOLOSS_SILENT_AFTER_S", "soon"),
        ("ISOLOSS_SILENT_AFTER_S", "nan"),
    ],
)
def test_settings_that_are_no_seconds_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        Watching.from_environment({name: value})
    assert Watching.from_environment({}) == Watching(60, 300)


def test_runs_are_looked_after_every_minute_at_least() -> None:
    assert [Watching(every_s).tick_s for every_s in (1, 7.5, 60, 3600)] == [1, 7, 60, 60]

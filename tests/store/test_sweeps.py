"""Sweeps and trials in the store: who may write, what a pause, a budget and an end do, and what the queue has."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, NotFound
from store import attempts, events, points, runs, sweeps, trainers, trials
from store.attempts import MOST_DEATHS, Begun, TakenOver
from store.pages import Asked
from store.runs import Specification
from store.sweeps import Budget, Planned
from store.tables import Project, Sweep, Trial

CONFIG = {"batch_tokens": 256, "peak_lr": 0.01, "data": "python-stdlib"}
SAID = {
    "config": {"n_params": 1000, "peak_lr": 0.01},
    "schedule": {"kind": "constant", "total_steps": 10, "peak_lr": 0.01},
}
ASKED = {"space": {}, "data": "python-stdlib", "measure": [], "budget": {}, "seed": 0, "tags": ["mine"]}


def create(session: Session, project: Project, n_trials: int = 2, **more: Any) -> Sweep:
    planned = [Planned(CONFIG, 10, more.pop("stop_at", 10)) for _ in range(n_trials)]
    budget = more.pop("budget", Budget())
    strategy, name = more.pop("strategy", "grid"), more.pop("name", "s")
    return sweeps.create(session, project.id, name, strategy, "cpu", {**ASKED, **more}, planned, budget)


def trial_of(session: Session, sweep: Sweep, number: int = 0) -> Trial:
    return trials.of_sweep(session, sweep.id)[number]


def start(session: Session, sweep: Sweep, number: int = 0) -> Begun:
    trial = trial_of(session, sweep, number)
    assert trial.queue_id is not None
    begun = attempts.start(session, trial.id, trial.queue_id, "host:1")
    assert begun is not None
    return begun


def begin(session: Session, begun: Begun, step: int = 0) -> bool:
    return attempts.begin(session, begun.trial_id, begun.attempt, step, "cpu", SAID)


def report(session: Session, begun: Begun, *steps: int, seconds: float = 1.0) -> str:
    columns = {"step": list(steps), "loss": [3.0 - step / 10 for step in steps]}
    return attempts.report(session, begun.trial_id, begun.attempt, max(steps), columns, seconds)


def on_queue(session: Session) -> list[tuple[str, str]]:
    waiting = "SELECT queue_name, status::text FROM jobs.procrastinate_jobs WHERE task_name = 'trial'"
    rows = sa.text(f"{waiting} AND status = 'todo' ORDER BY id")
    return [(name, status) for name, status in session.execute(rows)]


def test_a_sweep_queues_its_trials_for_their_device(session: Session, project: Project) -> None:
    """Each trial has its place on the queue of the device, and a run only once it has begun."""
    sweep = create(session, project)
    assert on_queue(session) == [("trials-cpu", "todo")] * 2
    assert [one.run_id for one in trials.of_sweep(session, sweep.id)] == ["s-000", "s-001"]
    with pytest.raises(NotFound):
        runs.get(session, project.id, "s-000")
    assert begin(session, start(session, sweep))
    run = runs.get(session, project.id, "s-000")
    assert (run.status, run.recipe, run.tags) == ("running", "s", ["sweep:s", "mine"])
    assert run.config["trial"] == 0
    assert sweeps.page(session, project.id, Asked()).items == [sweep]


def test_a_name_that_is_taken_is_refused(session: Session, project: Project) -> None:
    """A sweep's name is its own, and so are the names of its runs."""
    create(session, project)
    with pytest.raises(Conflict, match="sweep 's'"):
        create(session, project)
    runs.put(session, project.id, "t-001", Specification("t"))
    with pytest.raises(Conflict, match="run 't-001'"):
        create(session, project, name="t")
    with pytest.raises(NotFound):
        sweeps.by_name(session, "nobody", project.id)
    with pytest.raises(NotFound):
        sweeps.get(session, uuid.uuid4(), project.id)


def test_only_the_last_attempt_writes(session: Session, project: Project) -> None:
    """A worker that was taken for dead stores neither points nor a checkpoint nor an end."""
    sweep = create(session, project)
    first = start(session, sweep)
    begin(session, first)
    report(session, first, 1, 2, 3)
    attempts.saved(session, first.trial_id, first.attempt, "a.1.pt", 2)
    second = start(session, sweep)  # the queue hands it out again
    assert (second.attempt, second.checkpoint, second.checkpoint_step) == (2, "a.1.pt", 2)
    late: list[Any] = [
        lambda: report(session, first, 4),
        lambda: begin(session, first),
        lambda: attempts.saved(session, first.trial_id, 1, "b", 4),
        lambda: attempts.leave(session, first.trial_id, 1, "finished"),
        lambda: attempts.put_back(session, first.trial_id, 1),
        lambda: attempts.died(session, first.trial_id, 1, "late"),
    ]
    for act in late:
        with pytest.raises(TakenOver):
            act()
    assert begin(session, second, 2)
    trial = trial_of(session, sweep)
    assert (trial.step, trial.repeated_steps, trial.deaths) == (2, 1, 1)
    assert runs.get(session, project.id, "s-000").last_step == 2  # taken back to the checkpoint
    assert report(session, second, 3, 4) == "go_on"
    assert attempts.saved(session, second.trial_id, 2, "a.2.pt", 4) == "a.1.pt"
    assert trial_of(session, sweep).deaths == 0


def test_a_checkpoint_beyond_the_runs_points_is_not_gone_on_from(session: Session, project: Project) -> None:
    """A run that lacks points before the checkpoint would have a hole: the training must begin earlier."""
    sweep = create(session, project)
    first = start(session, sweep)
    begin(session, first)
    report(session, first, 1, 2, 3)
    second = start(session, sweep)
    assert not begin(session, second, 5)
    assert begin(session, second, 0)
    assert runs.get(session, project.id, "s-000").last_step is None


def test_a_worker_that_has_nothing_to_do_is_told_so(session: Session, project: Project) -> None:
    """A trial that has ended, is gone, or stands elsewhere on the queue is not started."""
    sweep = create(session, project)
    trial = trial_of(session, sweep)
    assert trial.queue_id is not None
    assert attempts.start(session, uuid.uuid4(), 1, "host:1") is None
    assert attempts.start(session, trial.id, trial.queue_id + 99, "host:1") is None
    begun = start(session, sweep)
    begin(session, begun)
    attempts.leave(session, begun.trial_id, begun.attempt, "finished")
    assert attempts.start(session, trial.id, trial.queue_id or 0, "host:1") is None


def test_a_trial_whose_process_dies_is_begun_again_but_not_for_ever(
    session: Session, project: Project
) -> None:
    """Each death is noted; after the fourth from one checkpoint the trial has failed, and so has its run."""
    sweep = create(session, project)
    for _ in range(MOST_DEATHS):
        begun = start(session, sweep)
        begin(session, begun)
        attempts.died(session, begun.trial_id, begun.attempt, "signal 9")
        assert trial_of(session, sweep).status == "queued"
    begun = start(session, sweep)
    begin(session, begun)
    attempts.died(session, begun.trial_id, begun.attempt, "signal 9")
    trial = trial_of(session, sweep)
    assert (trial.status, trial.message) == ("failed", "signal 9")
    assert runs.get(session, project.id, "s-000").status == "failed"
    assert trial.notes == ["begun again at step 0: signal 9"]


def test_a_sweep_ends_with_its_last_trial(session: Session, project: Project) -> None:
    """The outcome of a finished trial is read off its points; a diverged one is diverged, its sweep finished."""
    sweep = create(session, project)
    first, second = start(session, sweep, 0), start(session, sweep, 1)
    for begun in (first, second):
        begin(session, begun)
    report(session, first, *range(1, 11))
    attempts.leave(session, first.trial_id, first.attempt, "finished")
    assert runs.get(session, project.id, "s-000").summary == {"final_loss": 2.0}
    assert sweep.status == "running"
    report(session, second, 1)
    attempts.leave(session, second.trial_id, second.attempt, "diverged")
    session.refresh(sweep)
    assert (sweep.status, runs.get(session, project.id, "s-001").status) == ("finished", "diverged")
    assert sweep.finished_at is not None
    with pytest.raises(Conflict, match="is finished"):
        sweeps.pause(session, sweep)


def test_a_pause_takes_what_waits_off_the_queue_and_tells_who_trains(
    session: Session, project: Project
) -> None:
    """What waited is paused at once, what is trained hears of it; resumed, both go on from where they stood."""
    sweep = create(session, project)
    begun = start(session, sweep)
    begin(session, begun)
    sweeps.pause(session, sweep)
    assert [one.status for one in trials.of_sweep(session, sweep.id)] == ["running", "paused"]
    assert on_queue(session) == [("trials-cpu", "todo")]  # that one is held by the worker
    assert report(session, begun, 1, 2) == "paused"
    attempts.leave(session, begun.trial_id, begun.attempt, "paused")
    assert runs.get(session, project.id, "s-000").status == "preempted"
    sweeps.resume(session, sweep)
    assert [one.status for one in trials.of_sweep(session, sweep.id)] == ["queued", "queued"]
    assert begin(session, start(session, sweep), 2)
    assert runs.get(session, project.id, "s-000").status == "running"


def test_a_trial_that_is_paused_for_its_own_reason_leaves_the_others(
    session: Session, project: Project
) -> None:
    """The sweep goes on without it, is paused when nothing else is left, and takes it up when it is resumed."""
    sweep = create(session, project)
    first, second = start(session, sweep, 0), start(session, sweep, 1)
    for begun in (first, second):
        begin(session, begun)
    attempts.leave(session, first.trial_id, first.attempt, "paused", "no space left on device")
    session.refresh(sweep)
    assert sweep.status == "running"
    attempts.leave(session, second.trial_id, second.attempt, "finished")
    session.refresh(sweep)
    assert (sweep.status, sweep.reason) == ("paused", "1 trial paused, each for its own reason")
    sweeps.resume(session, sweep)
    assert (sweep.status, trial_of(session, sweep).status) == ("running", "queued")


def test_a_cancelled_sweep_ends_what_waits_and_keeps_its_points(session: Session, project: Project) -> None:
    """Its runs are preempted, not failed; again it changes nothing."""
    sweep = create(session, project)
    begun = start(session, sweep)
    begin(session, begun)
    report(session, begun, 1, 2)
    sweeps.cancel(session, sweep)
    assert report(session, begun, 3) == "cancelled"
    attempts.leave(session, begun.trial_id, begun.attempt, "cancelled")
    assert [one.status for one in trials.of_sweep(session, sweep.id)] == ["cancelled", "cancelled"]
    run = runs.get(session, project.id, "s-000")
    assert (run.status, run.last_step) == ("preempted", 3)
    sweeps.cancel(session, sweep)
    assert sweep.status == "cancelled"
    assert attempts.start(session, begun.trial_id, 0, "host:1") is None


def test_a_spent_budget_ends_the_sweep_and_says_what_was_not_done(session: Session, project: Project) -> None:
    """Device time is that of the trials themselves; what trains is told at its next report."""
    sweep = create(session, project, 3, budget=Budget(device_seconds=2.5))
    begun = start(session, sweep)
    begin(session, begun)
    assert report(session, begun, 1, seconds=2.0) == "go_on"
    assert report(session, begun, 2, seconds=2.0) == "unfinished"
    attempts.leave(session, begun.trial_id, begun.attempt, "unfinished")
    session.refresh(sweep)
    assert sweep.status == "finished"
    assert sweep.reason == "the budget of device hours is spent: 3 of 3 trials not done"
    assert {one.status for one in trials.of_sweep(session, sweep.id)} == {"unfinished"}
    assert runs.get(session, project.id, "s-000").status == "preempted"


def test_a_deadline_ends_a_sweep_that_nobody_trains(session: Session, project: Project) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    sweep = create(session, project, budget=Budget(deadline=past))
    assert sweeps.tend(session) == 0
    session.refresh(sweep)
    assert sweep.reason == "the deadline has passed: 2 of 2 trials not done"


def test_a_trial_that_the_queue_lost_is_queued_again(session: Session, project: Project) -> None:
    sweep = create(session, project)
    session.execute(sa.text("DELETE FROM jobs.procrastinate_jobs WHERE task_name = 'trial'"))
    assert sweeps.tend(session) == 2
    assert on_queue(session) == [("trials-cpu", "todo")] * 2
    assert sweeps.tend(session) == 0
    assert {one.deaths for one in trials.of_sweep(session, sweep.id)} == {0}


def test_a_run_that_was_deleted_meanwhile_fails_its_trial_alone(session: Session, project: Project) -> None:
    sweep = create(session, project)
    begun = start(session, sweep)
    begin(session, begun)
    runs.delete(session, project.id, "s-000")
    with pytest.raises(NotFound):
        report(session, begun, 1)
    attempts.leave(session, begun.trial_id, begun.attempt, "failed", "There is no run")
    assert trial_of(session, sweep).status == "failed"


def test_checkpoints_that_nobody_goes_on_from_are_known(session: Session, project: Project) -> None:
    """Those of ended trials and of earlier attempts; never the one to go on from, nor those of another service."""
    sweep = create(session, project)
    begun = start(session, sweep)
    begin(session, begun)
    key = begun.trial_id
    attempts.saved(session, key, 1, "x.1.pt", 0)
    start(session, sweep)
    files = {key: [(1, "x.1.pt"), (1, "y.1.pt"), (2, "x.2.pt")], uuid.uuid4(): [(1, "z.1.pt")]}
    assert trials.checkpoints_over(session, files) == ["y.1.pt"]
    attempts.leave(session, key, 2, "finished")
    assert trials.checkpoints_over(session, files) == ["x.1.pt", "y.1.pt", "x.2.pt"]


def test_workers_that_train_are_counted_while_they_are_there(session: Session, project: Project) -> None:
    sweep = create(session, project, 1)
    one, other = uuid.uuid4(), uuid.uuid4()
    for _ in range(2):
        trainers.seen(session, one, "cpu", "host:1")
    trainers.seen(session, other, "cuda", "host:2")
    assert (trainers.count(session, "cpu"), trainers.count(session, "cuda")) == (1, 1)
    assert sweeps.free_workers(session, sweep) == 0  # a trial waits for it
    trainers.left(session, one)
    assert trainers.count(session, "cpu") == 0


def test_sweeps_and_trials_that_change_are_events(session: Session, project: Project) -> None:
    moment = events.now(session)
    sweep = create(session, project, 1)
    begin(session, start(session, sweep))
    changed = {
        one.kind: one.facts for one in events.since(session, project.id, moment - dt.timedelta(minutes=1))
    }
    assert changed["sweep"]["name"] == "s"
    assert changed["trial"] == {
        "sweep_id": str(sweep.id),
        "number": 0,
        "run_id": "s-000",
        "status": "running",
        "step": 0,
        "total_steps": 10,
        "message": None,
    }


def test_points_of_trials_pass_the_same_checks_as_all(session: Session, project: Project) -> None:
    """A batch that contradicts what is there is refused whole."""
    sweep = create(session, project)
    begun = start(session, sweep)
    begin(session, begun)
    report(session, begun, 1, 2)
    columns = {"step": [2, 3], "loss": [9.0, 1.0]}
    with pytest.raises(Conflict, match="has loss"):
        attempts.report(session, begun.trial_id, begun.attempt, 3, columns, 1.0)
    run = runs.get(session, project.id, "s-000")
    assert len(points.read(session, run)) == 2


def test_a_run_that_somebody_made_meanwhile_is_not_written_over(session: Session, project: Project) -> None:
    """A trial whose run's name was taken after the sweep was asked for does not touch that run."""
    sweep = create(session, project, 1)
    runs.put(session, project.id, "s-000", Specification("mine", config={"n_params": 7}))
    begun = start(session, sweep)
    with pytest.raises(Conflict, match="not of this sweep"):
        begin(session, begun)
    assert runs.get(session, project.id, "s-000").config == {"n_params": 7}

"""The rungs of a `halving` sweep in the store: curves are read, ends expected, trials pruned or sent on."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

from store import attempts, jobs, projects, runs, sweeps, trainers, trials
from store.sweeps import Budget, Planned
from store.tables import Sweep
from workers import judging

TOTAL = 300
RUNGS = [1 / 9, 1 / 3]
PEAKS = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128]
PILOTS = (0, 3, 5, 8)
ASKED = {
    "space": {},
    "data": "d",
    "measure": [],
    "budget": {},
    "seed": 0,
    "tags": [],
    "halving": {"eta": 3, "rungs": RUNGS},
}


def curve(peak_lr: float, seed: int) -> list[float]:
    """Losses with their best peak at 0.008, and a little noise."""
    step = np.arange(1, TOTAL + 1)
    level = 2.0 + 0.3 * np.log(peak_lr / 0.008) ** 2
    shape = 1 + 1.5 * (step + 10) ** -0.5 + 0.05 * (1 - step / TOTAL)
    noise = np.random.default_rng(seed).normal(0, 0.005, TOTAL)
    found: list[float] = (level * shape * np.exp(noise)).tolist()
    return found


def said(peak_lr: float) -> dict[str, Any]:
    schedule = {"kind": "linear", "total_steps": TOTAL, "warmup_steps": 15, "peak_lr": peak_lr}
    return {
        "config": {"peak_lr": peak_lr, "weight_decay": 0.1, "batch_tokens": 1024, "n_params": 1000},
        "schedule": schedule,
    }


def planned() -> list[Planned]:
    rung = round(RUNGS[0] * TOTAL) + 1
    return [
        Planned({"batch_tokens": 1024}, TOTAL, TOTAL if at in PILOTS else rung, at in PILOTS)
        for at in range(len(PEAKS))
    ]


@pytest.fixture
def sweep(session: Session) -> Sweep:
    project = projects.create(session, "p")
    return sweeps.create(session, project.id, "h", "halving", "cpu", ASKED, planned(), Budget())


def train(session: Session, sweep: Sweep, number: int) -> None:
    """Trains a trial to where it stops, as a worker does."""
    trial = trials.of_sweep(session, sweep.id)[number]
    begun = attempts.start(session, trial.id, trial.queue_id or 0, "host:1")
    assert begun is not None
    attempts.begin(session, trial.id, begun.attempt, trial.step, "cpu", said(PEAKS[number]))
    first, last = trial.step + 1, trial.stop_at
    columns = {"step": list(range(first, last + 1)), "loss": curve(PEAKS[number], number)[first - 1 : last]}
    attempts.report(session, trial.id, begun.attempt, last, columns, float(last - first + 1))
    attempts.leave(session, trial.id, begun.attempt, "finished" if last == TOTAL else "held")


def judge(session: Session, sweep: Sweep) -> dict[str, Any]:
    """Judges as the job does; what crosses to the child process is only passed on."""
    job_id = sweeps.begin_judging(session, sweep.id, 10**6)
    assert job_id is not None
    keywords = judging.read(session, job_id)
    return judging.write(session, job_id, judging.compute(**keywords, progress=lambda share, message: None))


def statuses(session: Session, sweep: Sweep) -> list[str]:
    return [one.status for one in trials.of_sweep(session, sweep.id)]


def test_the_worst_are_pruned_at_rungs_by_what_is_expected_of_them(session: Session, sweep: Sweep) -> None:
    """Pilots end, the others come to rungs: the clearly worse are pruned with a reason, the best one ends."""
    for _ in range(5):
        trainers.seen(session, uuid.uuid4(), "cpu", "host:1")
    for _ in range(4):
        for number, status in enumerate(statuses(session, sweep)):
            if status == "queued":
                train(session, sweep, number)
        session.refresh(sweep)
        if sweep.status == "running":
            judge(session, sweep)
    found = trials.of_sweep(session, sweep.id)
    assert found[4].status == "finished"  # the best
    for number in (1, 7):
        trial = found[number]
        assert trial.status == "pruned"
        assert trial.step in (34, 100)  # the first rung or the second
        assert "was expected to end at" in str(trial.message)
        assert trial.forecast is not None
        final = np.mean(curve(PEAKS[number], number)[-3:])
        assert trial.forecast["lower"] <= final <= trial.forecast["upper"]
        assert runs.get(session, sweep.project_id, trial.run_id).status == "preempted"
    session.refresh(sweep)
    assert sweep.status == "finished"
    assert set(statuses(session, sweep)) == {"finished", "pruned"}


def test_nothing_is_pruned_before_anything_has_ended(session: Session, sweep: Sweep) -> None:
    """Trials wait at their rung while pilots are on the way, with the reason; where none is, one goes on."""
    for number in (1, 2, 4):
        train(session, sweep, number)
    assert judge(session, sweep) == {"go_on": 0, "pruned": 0}
    waiting = trials.of_sweep(session, sweep.id)[1]
    assert (waiting.status, waiting.forecast) == ("held", None)
    assert "needs 4 trials that have ended, not 0" in str(waiting.message)
    for trial in trials.of_sweep(session, sweep.id):
        if trial.status == "queued":
            trials.leave(session, trial, "failed", "no reason")
    assert judge(session, sweep) == {"go_on": 1, "pruned": 0}


def test_a_sweep_that_is_gone_or_paused_is_not_judged(session: Session, sweep: Sweep) -> None:
    """Decisions that come too late change nothing."""
    train(session, sweep, 1)
    job_id = sweeps.begin_judging(session, sweep.id, 7)
    assert job_id == sweeps.begin_judging(session, sweep.id, 7)  # handed out again
    assert job_id is not None
    keywords = judging.read(session, job_id)
    sweeps.pause(session, sweep)
    found = judging.compute(**keywords, progress=lambda share, message: None)
    assert judging.write(session, job_id, found) == {"go_on": 0, "pruned": 0}
    assert statuses(session, sweep)[1] == "paused"
    assert sweeps.begin_judging(session, sweep.id, 8) is None
    assert sweeps.begin_judging(session, uuid.uuid4(), 9) is None
    sweeps.resume(session, sweep)
    assert statuses(session, sweep)[1] == "held"  # it waits at its rung again
    assert jobs.get(session, job_id).kind == sweeps.JUDGING

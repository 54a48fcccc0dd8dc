"""Runs of one study: eight that are finished under different schedules, and what the next one would log."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from isoloss.observations.curves import FloatArray, IntArray
from isoloss.schedules import schedule_from_spec
from store import points, runs
from store.columns import Column, Points
from store.tables import Run

TOTAL_STEPS = 400
CONFIG = {"n_params": 60_000_000, "batch_tokens": 65_536, "dataset": "web", "tokenizer": "bpe"}


def declared(kind: str, total_steps: int = TOTAL_STEPS, **more: Any) -> dict[str, Any]:
    """A schedule of the study."""
    return {"kind": kind, "total_steps": total_steps, "warmup_steps": 20, "peak_lr": 1e-3, **more}


FINISHED = (
    declared("constant"),
    declared("cosine"),
    declared("linear"),
    declared("cosine", end_lr=1e-4),
    declared("wsd", decay_start=300),
    declared("wsd", decay_start=200, decay_shape="sqrt"),
    declared("two_stage", switch_step=250, second_lr=3e-4),
    declared("cosine", 300),
)
NEXT = declared("linear", end_lr=1e-4)


def losses(
    schedule: dict[str, Any], seed: int, first: int = 2, last: int = TOTAL_STEPS
) -> tuple[IntArray, FloatArray]:
    """Steps and losses of a run, every other step: an annealing law with a little noise."""
    rates = schedule_from_spec(schedule)
    step = np.arange(first, min(last, rates.total_steps) + 1, 2)
    noise = np.random.default_rng(seed).normal(0, 2e-3, TOTAL_STEPS + 1)[step]
    loss = 2.0 + 0.4 * rates.area(step) ** -0.4 - 80 * (1e-3 - rates.lr(step)) * (step > 20)
    return step, loss + noise


def put_study(session: Session, project_id: int, n_runs: int = len(FINISHED), **config: Any) -> None:
    """Store the finished runs of the study."""
    for number, schedule in enumerate(FINISHED[:n_runs]):
        name = f"done-{number}"
        said = runs.Specification(name, config={**CONFIG, **config}, schedule=schedule)
        runs.put(session, project_id, name, said)
        send(session, project_id, name, *losses(schedule, number))
        finished = runs.Specification(name, "finished", config={**CONFIG, **config}, schedule=schedule)
        runs.put(session, project_id, name, finished)


def put_next(session: Session, project_id: int, name: str = "next", last: int = 120, **config: Any) -> Run:
    """Store a run that trains, with its points so far."""
    said = runs.Specification(name, "running", config={**CONFIG, **config}, schedule=NEXT)
    run, _ = runs.put(session, project_id, name, said)
    send(session, project_id, name, *losses(NEXT, 99, last=last))
    session.refresh(run)
    return run


def send(session: Session, project_id: int, name: str, step: IntArray, loss: FloatArray) -> None:
    """Append points to a run."""
    held = points.hold(session, project_id, name)
    points.append(session, held, Points(step, {"loss": Column.of(loss)}))

"""A fit from the store to the store: what the worker does, without its processes."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy.orm import Session

from isoloss.errors import UnusableData
from isoloss.schedules import schedule_from_spec
from store import curves, fits, jobs, points, projects, runs
from store.columns import Column, Points
from workers import fits as fit_work
from workers.compact import compact_all

L0, A, ALPHA, C, DECAY = 2.5, 0.6, 0.45, 0.4, 0.998
SCHEDULES = {
    "cosine": {"kind": "cosine", "end_lr": 3e-5},
    "constant": {"kind": "constant"},
    "wsd": {"kind": "wsd", "decay_start": 1500, "decay_shape": "linear"},
}


def truth(spec: dict[str, object], step: np.ndarray) -> np.ndarray:
    """The law written out as its sums, apart from the code under test."""
    rates = np.asarray(schedule_from_spec(spec).lr(np.arange(1, 2001)))
    m, area, second, first = 0.0, 0.0, [], []
    for s, rate in enumerate(rates, start=1):
        area += rate
        m = DECAY * m + (rates[s - 2] - rate if s > 101 else 0.0)
        first.append(area)
        second.append(m + (second[-1] if second else 0.0))
    return (L0 + A * np.array(first) ** -ALPHA - C * 1e3 * np.array(second))[step - 1]


def record(session: Session, project_id: int, name: str, spec: dict[str, object]) -> None:
    spec = {"warmup_steps": 100, "total_steps": 2000, "peak_lr": 1e-3, **spec}
    said = runs.Specification(name=name, status="finished", schedule=spec, config={"n_params": 10**7})
    runs.put(session, project_id, name, said)
    step = np.arange(110, 2001, 10)
    held = points.hold(session, project_id, name)
    points.append(session, held, Points(step, {"loss": Column.of(truth(spec, step))}))


def ask(session: Session, project_id: int, select: dict[str, object]) -> fits.Fit:
    fit = fits.create(session, project_id, "lr_annealing", select, {"bootstrap": 20})
    assert jobs.start(session, fit.job_id) == 1
    return fit


def test_a_fit_reads_computes_and_stores(session: Session) -> None:
    """The parameters that made the points come back from the store, also after compaction."""
    project = projects.create(session, "p")
    for name, spec in SCHEDULES.items():
        record(session, project.id, name, spec)
    fit = ask(session, project.id, {"all": True})
    heard: list[float] = []
    inputs = fit_work.read(session, fit.job_id)
    documents = fit_work.compute(**inputs, progress=lambda fraction, message: heard.append(fraction))
    jobs.finish(session, fit.job_id, 1, "succeeded")
    fit_work.write(session, fit.job_id, documents)
    session.refresh(fit)
    assert fit.result is not None
    values = {one["name"]: one["value"] for one in fit.result["parameters"]}
    assert values["L0"] == pytest.approx(L0, rel=1e-3)
    assert values["alpha"] == pytest.approx(ALPHA, rel=1e-2)
    assert fits.state(session, fit.id)["law"] == "lr_annealing"
    assert heard == sorted(heard)
    for run in points.to_compact(session):
        points.compact(session, run)
    again = fit_work.read(session, fit.job_id)
    assert all(
        (a.loss_nats == b.loss_nats).all()
        for a, b in zip(inputs["observations"], again["observations"], strict=True)
    )


def test_losses_that_were_logged_as_nan_are_told_and_those_not_logged_are_not(session: Session) -> None:
    """The store keeps the two apart, and so do the notes of a curve."""
    project = projects.create(session, "p")
    for name in ("silent", "diverged"):
        said = runs.Specification(name=name, schedule={"kind": "constant", "total_steps": 9, "peak_lr": 0.1})
        runs.put(session, project.id, name, said)
        logged = [True, name == "diverged", name == "diverged"]
        column = Column.of([3.0, np.nan, np.nan], logged)
        step = np.array([1, 2, 3])
        held = points.hold(session, project.id, name)
        points.append(session, held, Points(step, {"loss": column, "wall_time_s": Column.of(step)}))
    read, left_out = curves.load_curves(session, project.id, {"all": True}, {})
    assert left_out == []
    assert {curve.run_id: curve.notes for curve in read} == {
        "silent": (),
        "diverged": (
            "2 of its points left out: loss not finite",
            "the loss is NaN from step 2 on: diverged?",
        ),
    }


def test_a_fit_of_nothing_says_so(session: Session) -> None:
    """Runs without points end in one sentence."""
    project = projects.create(session, "p")
    runs.put(session, project.id, "empty", runs.Specification(name="empty"))
    fit = ask(session, project.id, {"all": True})
    inputs = fit_work.read(session, fit.job_id)
    with pytest.raises(UnusableData):
        fit_work.compute(**inputs, progress=lambda fraction, message: None)


def test_non_finite_numbers_are_stored_as_the_contract_writes_them() -> None:
    """NaN and the infinities become strings at any depth; JSON has none."""
    document = {"a": [1.5, float("inf")], "b": {"c": (float("nan"), -float("inf"))}, "d": True}
    assert fit_work.storable(document) == {
        "a": [1.5, "Infinity"],
        "b": {"c": ["NaN", "-Infinity"]},
        "d": True,
    }


def test_runs_that_ended_are_compacted(database_url: str) -> None:
    """The periodic task turns every row of a finished run into chunks."""
    from store.engine import create_engine, create_sessions

    engine = create_engine(database_url)
    sessions = create_sessions(engine)
    with sessions.begin() as session:
        project = projects.create(session, "p")
        record(session, project.id, "cosine", SCHEDULES["cosine"])
    assert compact_all(sessions) == 190
    assert compact_all(sessions) == 0
    with sessions() as session:
        found = points.read(session, runs.get(session, project.id, "cosine"))
    assert len(found) == 190
    engine.dispose()


def test_a_fit_whose_metrics_are_not_finite_is_stored(session: Session) -> None:
    """What a fit found is kept, with the contract's names for what no JSON number is."""
    project = projects.create(session, "p")
    record(session, project.id, "cosine", SCHEDULES["cosine"])
    fit = ask(session, project.id, {"all": True})
    found = {"objective": float("inf"), "metrics": {"mean": {"mae": float("nan"), "r2": -float("inf")}}}
    assert jobs.finish(session, fit.job_id, 1, "succeeded")
    fit_work.write(session, fit.job_id, (found, {**found, "law": "lr_annealing"}))
    session.refresh(fit)
    assert fit.result == {"objective": "Infinity", "metrics": {"mean": {"mae": "NaN", "r2": "-Infinity"}}}
    assert fits.state(session, fit.id)["objective"] == float("inf")

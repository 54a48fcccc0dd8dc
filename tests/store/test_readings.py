"""Readings in time from the store: points of runs and of those that they branch off, and runs that are readings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

import isoloss
from isoloss.errors import InvalidInput, UnusableData
from isoloss.readings import LoggedRun, table_of_readings
from store import points
from store.columns import Column, Points
from store.readings import load_readings, readable
from store.tables import Project, Run

RunOf = Callable[..., Run]
PER_STEP = {"batch_tokens": 1000}


def log(session: Session, project: Project, run_id: str, step: Any, **columns: Any) -> None:
    held = points.hold(session, project.id, run_id)
    cells = {
        name: Column.of(np.nan_to_num(values), ~np.isnan(np.asarray(values, dtype=np.float64)))
        for name, values in columns.items()
    }
    points.append(session, held, Points(np.asarray(step), cells))


def noise_at(step: Any) -> Any:
    return 300.0 * np.sqrt(np.asarray(step)) * (1 + 0.1 * np.sin(np.asarray(step)))


def load(session: Session, project: Project, law: str = "noise_scale", **options: Any) -> Any:
    return load_readings(session, project.id, law, {"all": True}, options)


@pytest.fixture
def family(session: Session, project: Project, run_of: RunOf) -> Project:
    """A trunk of 400 steps and a branch of it that goes on from step 300 to 700, at half the batch."""
    step = np.arange(1, 401)
    run_of("trunk", config=PER_STEP, status="finished")
    log(session, project, "trunk", step, grad_noise_scale=noise_at(step), loss=4 / step)
    own = np.arange(301, 701)
    run_of("branch", config={"batch_tokens": 500}, parent=("trunk", 300), status="finished")
    log(session, project, "branch", own, grad_noise_scale=noise_at(own))
    return project


def test_a_trunk_and_its_branch_are_the_librarys_readings(session: Session, family: Project) -> None:
    """The same table as of runs at hand, also once their points have been packed."""
    step, own = np.arange(1, 401), np.arange(301, 701)
    runs = [
        LoggedRun("trunk", step, {"grad_noise_scale": noise_at(step)}, PER_STEP),
        LoggedRun("branch", own, {"grad_noise_scale": noise_at(own)}, {"batch_tokens": 500}, ("trunk", 300)),
    ]
    expected = table_of_readings("noise_scale", runs)
    for _ in range(2):
        table, left_out = load(session, family)
        assert left_out == []
        assert sorted(table.run_ids) == sorted(expected.run_ids)
        order = [table.run_ids.index(name) for name in expected.run_ids]
        for name in expected.columns:
            np.testing.assert_array_equal(table.column(name)[order], expected.column(name))
        for run in points.to_compact(session):
            assert points.compact(session, run)
    assert table.column("n_tokens").max() == 300 * 1000 + 400 * 500


def test_a_branch_alone_brings_its_parents_readings(session: Session, family: Project) -> None:
    """The parent is not selected, and is read up to the branch step all the same."""
    table, left_out = load_readings(session, family.id, "noise_scale", {"run_ids": ["branch"]}, {})
    assert (table.n_runs, left_out) == (700, [])
    assert set(table.label("curve")) == {"branch"}


def test_points_in_which_nothing_was_measured_are_passed_over(
    session: Session, project: Project, run_of: RunOf
) -> None:
    """A run that logs its loss at every step and its gradients at every tenth has a reading at every tenth."""
    run_of("run", config={**PER_STEP, "batch_small_tokens": 100})
    step = np.arange(1, 501)
    every = np.where(step % 10 == 0, 1.0, np.nan)
    log(
        session, project, "run", step, loss=4 / step, batch_big_tokens=1000 * every,
        grad_norm_small=2 * every, grad_norm_big=1.5 * every,
    )  # fmt: skip
    table, left_out = load(session, project)
    assert left_out == []
    np.testing.assert_array_equal(table.column("step"), np.arange(10, 501, 10))
    assert table.column("gradient_noise") == pytest.approx((4 - 2.25) / (1 / 100 - 1 / 1000))


def test_runs_that_are_readings_themselves_stand_beside_those_with_points(
    session: Session, family: Project, run_of: RunOf
) -> None:
    """Points where they have what the law needs, else the run's own fields, else it is left out by name."""
    for number in range(3):
        run_of(f"row-{number}", config={"n_tokens": 1e6 + number, "grad_noise_scale": 5e3}, status="finished")
    run_of("both", config={**PER_STEP, "n_tokens": 9.0, "grad_noise_scale": 9.0})
    log(session, family, "both", [1, 2], grad_noise_scale=[7.0, 8.0])
    run_of("half", config={"n_tokens": 2e6, "grad_noise_scale": 4e3})
    log(session, family, "half", [1, 2], grad_noise_scale=[7.0, 8.0])
    run_of("silent")
    table, left_out = load(session, family)
    rows = {
        name for name, curve in zip(table.run_ids, table.label("logged_by"), strict=True) if curve is None
    }
    assert rows == {"row-0", "row-1", "row-2", "half"}
    assert {"both@1", "both@2"} <= set(table.run_ids)
    [left] = left_out
    assert left["run_id"] == "silent"
    assert "no grad_noise_scale" in left["reason"]
    found = isoloss.fit("noise_scale", table, left_out=left_out)
    assert "silent" in {one["run_id"] for one in found.left_out}


def test_rewards_are_read_whatever_target_is_not_asked_for(
    session: Session, project: Project, run_of: RunOf
) -> None:
    """The law's own target is meant; a run without compute is left out, and no size makes up for it."""
    step = np.arange(0, 40)
    for name in ("full", "no-compute"):
        run_of(name, config={"n_params": 1e9, "n_tokens": 1e9}, summary={"reward": 0.5}, status="finished")
        compute = {"compute_flops": 1e15 * step} if name == "full" else {}
        log(session, project, name, step, reward=step / 100, **compute)
    table, left_out = load(session, project, "rl_compute")
    assert (table.target, table.n_runs) == ("reward", 40)
    [left] = left_out
    assert left["run_id"] == "no-compute"
    assert "does not follow from size and tokens" in left["reason"]


def test_a_broken_run_does_not_hinder_the_others(session: Session, family: Project, run_of: RunOf) -> None:
    """A counter that falls, and a batch that is none: left out with the reason."""
    run_of("falls")
    log(session, family, "falls", [1, 2], tokens=[9, 5], grad_noise_scale=[1, 1])
    run_of("odd", config={"batch_tokens": -1})
    log(session, family, "odd", [1, 2], grad_noise_scale=[1, 1])
    table, left_out = load(session, family)
    assert {one["run_id"] for one in left_out} == {"falls", "odd"}
    assert set(table.label("curve")) == {"trunk", "branch"}


def test_no_readings_at_all_are_told_before_and_after(
    session: Session, project: Project, run_of: RunOf
) -> None:
    """What a request is refused with, and what a job of runs that have changed since ends with."""
    run_of("empty", config=PER_STEP)
    with pytest.raises(UnusableData, match="run 'empty': its points have no grad_noise_scale"):
        readable(session, "noise_scale", [run_of("empty", config=PER_STEP)], {})
    table, left_out = load(session, project)
    with pytest.raises(UnusableData, match="run 'empty': its points have no grad_noise_scale"):
        isoloss.fit("noise_scale", table, left_out=left_out)
    with pytest.raises(InvalidInput, match="no run"):
        load_readings(session, project.id, "noise_scale", {"tags": ["none"]}, {})

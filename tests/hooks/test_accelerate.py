"""Accelerate's own Accelerator with the tracker, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoloss.hooks.accelerate import IsolossTracker
from tests.hooks.trainings import TWO_RANKS, assert_declared, config_of_a_table, ended, the_run

TRAINER = Path(__file__).with_name("accelerate_trainer.py")
STEPS = 60

pytestmark = pytest.mark.faults


def truth_of(folder):
    """What the loop wrote, by step; what came after a checkpoint that was returned to is not in it."""
    truth = {}
    for line in (folder / "truth-0").read_text().splitlines():
        row = json.loads(line)
        truth = {step: values for step, values in truth.items() if step < row["step"]}
        truth[row["step"]] = row
    return truth


def assert_recorded(client, project, folder):
    run, truth = the_run(client, project), truth_of(folder)
    points = client.points.read(project, run["run_id"])
    for name in ("step", "loss", "lr"):
        assert points[name].tolist() == [row[name] for row in truth.values()], name
    assert list(truth) == list(range(1, STEPS + 1))
    assert_declared(run, truth)
    assert run["status"] == "finished"
    return run


def test_accelerate_records_every_point_its_schedule_and_what_a_law_needs(client, project, train, tmp_path):
    assert ended(train()) == ""
    assert assert_recorded(client, project, tmp_path)["config"] == {"seed": 0, **config_of_a_table(STEPS)}


def test_two_processes_of_accelerate_record_once_and_share_the_batch(client, project, train, tmp_path):
    assert ended(train(launcher=TWO_RANKS)) == ""
    run = assert_recorded(client, project, tmp_path)
    assert run["config"]["batch_tokens"] == 2 * 128
    assert (tmp_path / "truth-1").exists()


def test_a_tracker_that_watches_nothing_keeps_what_says_its_step_and_asks_for_the_rest(
    client, project, place, said
):
    tracker = IsolossTracker(run_id="unwatched")
    for step in range(1, 4):
        tracker.log({"loss": float(step)}, step=step)
        tracker.log({"stray": float(step)})
    tracker.finish()
    points = client.points.read(project, "unwatched")
    assert (points["step"].tolist(), "stray" in points) == ([1, 2, 3], False)
    assert ["a step is missing" in text for text in said()] == [True]

"""Accelerate's own Accelerator with the tracker, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import isoloss
from isoloss.hooks.accelerate import IsolossTracker
from tests.hooks.trainings import TWO_RANKS, ended

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
    [run] = list(client.runs.list(project))
    run, truth = client.runs.get(project, run["run_id"]), truth_of(folder)
    points = client.points.read(project, run["run_id"])
    for name in ("step", "loss", "lr"):
        assert points[name].tolist() == [row[name] for row in truth.values()], name
    assert list(truth) == list(range(1, STEPS + 1))
    rates = isoloss.schedule_from_spec(run["schedule"]).lr(range(1, STEPS + 1))
    np.testing.assert_allclose(rates, [row["lr"] for row in truth.values()], rtol=1e-9)
    assert run["status"] == "finished"
    return run


def test_accelerate_records_every_point_its_schedule_and_what_a_law_needs(client, project, train, tmp_path):
    assert ended(train()) == ""
    inside = 16 * 64 + 64
    assert assert_recorded(client, project, tmp_path)["config"] == {
        "dataset": "noise",
        "seed": 0,
        "optimizer": "adamw",
        "peak_lr": 3e-3,
        "weight_decay": 0.1,
        "weight_decay_kind": "lr_scaled",
        "n_params": inside,
        "n_params_kind": "non_embedding",
        "n_params_total": inside + 64 * 16,
        "n_params_non_embedding": inside,
        "n_params_active": inside + 64 * 16,
        "precision": "float32",
        "sequence_length": 16,
        "batch_tokens": 2 * 4 * 16,
        "n_tokens": 2 * 4 * 16 * STEPS,
    }


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

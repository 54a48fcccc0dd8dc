"""Lightning's own Trainer with logger and callback, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.hooks.trainings import TWO_RANKS, assert_declared, config_of_a_table, ended, the_run

TRAINER = Path(__file__).with_name("lightning_trainer.py")
STEPS = 60

pytestmark = pytest.mark.faults


def truth_of(folder):
    """What the module wrote, by step; what came after a checkpoint that was returned to is not in it."""
    truth = {}
    for line in (folder / "truth-0").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        if "loss" in row:
            truth = {known: values for known, values in truth.items() if known < step}
        truth.setdefault(step, {}).update(row)
    return truth


def assert_recorded(client, project, folder):
    run, truth = the_run(client, project), truth_of(folder)
    points = client.points.read(project, run["run_id"])
    assert points["step"].tolist() == list(truth) == list(range(1, STEPS + 1))
    for name in ("loss", "lr"):
        assert points[name].tolist() == [row[name] for row in truth.values()], name
    evaluated = {
        step: value
        for step, value in zip(truth, points["val_loss"].tolist(), strict=True)
        if value is not None and not np.isnan(value)
    }
    assert evaluated == {step: row["val_loss"] for step, row in truth.items() if "val_loss" in row}
    assert evaluated
    assert_declared(run, truth)
    return run


def test_lightning_records_every_point_its_schedule_and_what_a_law_needs(client, project, train, tmp_path):
    assert ended(train()) == ""
    run = assert_recorded(client, project, tmp_path)
    assert run["status"] == "finished"
    assert run["config"] == config_of_a_table(STEPS)
    assert not (tmp_path / "runs").exists()


def test_two_ranks_of_lightning_record_once_and_share_the_batch(client, project, train, tmp_path):
    assert ended(train("interval=epoch", launcher=TWO_RANKS)) == ""
    run = assert_recorded(client, project, tmp_path)
    assert (run["status"], run["config"]["batch_tokens"]) == ("finished", 2 * 128)
    assert (tmp_path / "truth-1").exists()


def test_a_lightning_training_that_raises_is_failed_and_a_name_that_is_none_is_refused(
    client, project, train
):
    said = ended(train("raise_at=7", "misnamed=a/b"), code=1)
    assert "refused" in said
    assert "run_id" in said
    assert the_run(client, project)["status"] == "failed"

"""Lightning's own Trainer with logger and callback, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import isoloss
from tests.hooks.trainings import TWO_RANKS, ended

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


def the_run(client, project):
    [run] = list(client.runs.list(project))
    return client.runs.get(project, run["run_id"])


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
    rates = isoloss.schedule_from_spec(run["schedule"]).lr(range(1, STEPS + 1))
    np.testing.assert_allclose(rates, [row["lr"] for row in truth.values()], rtol=1e-9)
    return run


def test_lightning_records_every_point_its_schedule_and_what_a_law_needs(client, project, train, tmp_path):
    assert ended(train()) == ""
    run = assert_recorded(client, project, tmp_path)
    assert run["status"] == "finished"
    inside = 16 * 64 + 64
    assert run["config"] == {
        "dataset": "noise",
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

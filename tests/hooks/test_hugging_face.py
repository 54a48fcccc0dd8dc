"""Hugging Face's own Trainer with the callback, against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoloss.client import Client
from isoloss.errors import InvalidInput
from tests.hooks.trainings import TWO_RANKS, assert_declared, ended, the_run

TRAINER = Path(__file__).with_name("hugging_face_trainer.py")
STEPS = 60

pytestmark = pytest.mark.faults


def truth_of(folder: Path) -> dict[int, dict[str, float]]:
    """What the witness wrote, by step; what came after a checkpoint that was returned to is not in it."""
    truth: dict[int, dict[str, float]] = {}
    for line in (folder / "truth-0").read_text().splitlines():
        row = json.loads(line)
        step = row["step"]
        if "loss" in row:
            truth = {known: values for known, values in truth.items() if known < step}
            truth[step] = {"loss": row["loss"], "lr": row["used_lr"], "grad_norm": row["grad_norm"]}
        elif "eval_loss" in row:
            truth[step]["val_loss"] = row["eval_loss"]
    return truth


def assert_recorded(client: Client, project: str, folder: Path, steps: int = STEPS) -> dict:
    """Every point is there with every value, once, and the schedule is the one that was used."""
    run, truth = the_run(client, project), truth_of(folder)
    points = client.points.read(project, run["run_id"])
    assert points["step"].tolist() == list(truth) == list(range(1, steps + 1))
    for name in ("loss", "lr", "grad_norm"):
        assert points[name].tolist() == [row[name] for row in truth.values()], name
    evaluated = {
        step: value
        for step, value in zip(points["step"].tolist(), points["val_loss"].tolist(), strict=True)
        if value is not None and not np.isnan(value)
    }
    assert evaluated == {step: row["val_loss"] for step, row in truth.items() if "val_loss" in row}
    assert_declared(run, truth)
    return run


def test_a_trainer_records_every_point_its_schedule_and_what_a_law_needs(client, project, train, tmp_path):
    said = ended(train("scheduler=cosine", "evaluate", "bf16"))
    assert said == ""
    run = assert_recorded(client, project, tmp_path)
    assert run["status"] == "finished"
    total, table = json.loads((tmp_path / "counts").read_text())
    assert run["config"] == {
        "dataset": "noise",
        "seed": 42,
        "model_type": "llama",
        "width": 16,
        "depth": 2,
        "optimizer": "adamw",
        "peak_lr": 3e-3,
        "weight_decay": 0.1,
        "weight_decay_kind": "lr_scaled",
        "n_params": total - table,
        "n_params_kind": "non_embedding",
        "n_params_total": total,
        "n_params_non_embedding": total - table,
        "n_params_active": total,
        "precision": "mixed_bfloat16",
        "sequence_length": 16,
        "batch_tokens": 2 * 2 * 16,
        "n_tokens": 2 * 2 * 16 * STEPS,
    }
    assert not (tmp_path / "runs").exists()


def test_a_training_that_raises_is_failed(client, project, train, tmp_path):
    ended(train("raise_at=7"), code=1)
    assert the_run(client, project)["status"] == "failed"


def test_two_ranks_record_once_and_share_the_batch(client, project, train, tmp_path):
    assert ended(train("steps=20", launcher=TWO_RANKS)) == ""
    run = assert_recorded(client, project, tmp_path, steps=20)
    assert run["config"]["batch_tokens"] == 2 * 64
    assert (tmp_path / "truth-1").exists()


@pytest.mark.parametrize("option", ["resume_step", "nonsense"])
def test_an_option_that_there_is_not_is_refused_before_the_training(option):
    from isoloss.hooks.hugging_face import IsolossCallback

    with pytest.raises(InvalidInput, match=option):
        IsolossCallback("p", **{option: 3})

"""Trainings as processes of their own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import isoloss
from isoloss.client import Client

TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def ended(trainer: subprocess.Popen[str], code: int = 0) -> str:
    """What the recorder said in a training that ends with this code."""
    said, _ = trainer.communicate(timeout=120)
    assert trainer.returncode == code, said
    return "\n".join(line for line in said.splitlines() if line.startswith("run "))


def the_run(client: Client, project: str) -> dict[str, Any]:
    """The only run of the project."""
    [run] = list(client.runs.list(project))
    return client.runs.get(project, run["run_id"])


def assert_declared(run: Mapping[str, Any], truth: Mapping[int, Mapping[str, float]]) -> None:
    """The declared schedule gives the rate of every step that was used, by step from 1 on."""
    rates = isoloss.schedule_from_spec(run["schedule"]).lr(range(1, len(truth) + 1))
    np.testing.assert_allclose(rates, [row["lr"] for row in truth.values()], rtol=1e-9)


def config_of_a_table(steps: int) -> dict[str, Any]:
    """What a law needs of the model that Lightning and Accelerate train: a table, and a layer above it."""
    inside, table, batch_tokens = 16 * 64 + 64, 64 * 16, 2 * 4 * 16
    return {
        "dataset": "noise",
        "optimizer": "adamw",
        "peak_lr": 3e-3,
        "weight_decay": 0.1,
        "weight_decay_kind": "lr_scaled",
        "n_params": inside,
        "n_params_kind": "non_embedding",
        "n_params_total": inside + table,
        "n_params_non_embedding": inside,
        "n_params_active": inside + table,
        "precision": "float32",
        "sequence_length": 16,
        "batch_tokens": batch_tokens,
        "n_tokens": batch_tokens * steps,
    }


def hold(folder: Path, options: Mapping[str, str], step: int) -> None:
    """Inside of a training: wait after a step of `holds=STEP,...` until the file `go-STEP` is there."""
    if str(step) in options.get("holds", "").split(","):
        (folder / f"held-{step}").touch()
        while not (folder / f"go-{step}").exists():
            time.sleep(0.05)

"""Trainings as processes of their own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def ended(trainer: subprocess.Popen[str], code: int = 0) -> str:
    """What the recorder said in a training that ends with this code."""
    said, _ = trainer.communicate(timeout=120)
    assert trainer.returncode == code, said
    return "\n".join(line for line in said.splitlines() if line.startswith("run "))


def hold(folder: Path, options: Mapping[str, str], step: int) -> None:
    """Inside of a training: wait after a step of `holds=STEP,...` until the file `go-STEP` is there."""
    if str(step) in options.get("holds", "").split(","):
        (folder / f"held-{step}").touch()
        while not (folder / f"go-{step}").exists():
            time.sleep(0.05)

"""Trainings as processes of their own."""

from __future__ import annotations

import subprocess


def ended(trainer: subprocess.Popen[str], code: int = 0) -> str:
    """What the recorder said in a training that ends with this code."""
    said, _ = trainer.communicate(timeout=120)
    assert trainer.returncode == code, said
    return "\n".join(line for line in said.splitlines() if line.startswith("run "))

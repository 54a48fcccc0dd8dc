"""Places for the runs of the hooks' tests, each in a project of its own at the running service."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(live, project, tmp_path, monkeypatch):
    """The environment of a recorded training, set for this process too."""
    for name in [name for name in os.environ if name.startswith("ISOLOSS_")] + ["RANK", "WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)
    found = {
        "ISOLOSS_URL": live.url,
        "ISOLOSS_API_KEY": live.api_key,
        "ISOLOSS_PROJECT": project,
        "ISOLOSS_DIR": str(tmp_path / "runs"),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def said(caplog):
    """The warnings of the test so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def train(request, place, tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts trainings, by the script of the test's module and in its project if no other; leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *options: str,
        launcher: tuple[str, ...] = (),
        trainer: Path | None = None,
        folder: Path = tmp_path,
        **environment: str,
    ) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, str(trainer or request.module.TRAINER), str(folder), *options]
        fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        settings = {**os.environ, **place, **fixed, **environment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=settings, **streams))
        return started[-1]

    yield start
    for trainer in started:
        if trainer.poll() is None:
            trainer.kill()
        trainer.communicate(timeout=30)

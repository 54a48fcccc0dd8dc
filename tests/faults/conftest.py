"""Services of the fault tests, none of which outlives its test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.service import Up


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder for one service."""
    path = Path(tempfile.mkdtemp(prefix="il-"))
    yield path / "data"
    shutil.rmtree(path)


@pytest.fixture
def up(data_dir: Path) -> Iterator[Callable[..., Up]]:
    """Starts services, and leaves no process of theirs."""
    started: list[Up] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Up:
        started.append(Up(data_dir, *flags, env=env))
        return started[-1]

    yield start
    for service in started:
        service.close()

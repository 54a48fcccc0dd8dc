"""A project and runs in it, for tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

from store import points, projects, runs
from store.columns import Column, Points
from store.tables import Project, Run


@pytest.fixture
def project(session: Session) -> Project:
    """A project without runs."""
    return projects.create(session, "pilot")


@pytest.fixture
def run_of(session: Session, project: Project) -> Callable[..., Run]:
    """Declares a run of the project: `run_of("wsd", config={...})`."""

    def declare(run_id: str, **said: Any) -> Run:
        specification = runs.Specification(**{"name": run_id, **said})
        return runs.put(session, project.id, run_id, specification)[0]

    return declare


@pytest.fixture
def send(session: Session, project: Project) -> Callable[..., points.Accepted]:
    """Appends points to a run: `send("wsd", [1, 2], loss=[3.5, None])`."""

    def append(
        run_id: str, step: list[int], *, replace: bool = False, **columns: list[Any]
    ) -> points.Accepted:
        held = points.hold(session, project.id, run_id)
        return points.append(session, held, points_of(step, **columns), replace)

    return append


def points_of(step: list[int], **columns: list[Any]) -> Points:
    """Points from lists, with None where there is no value."""
    made = {
        name.replace("__", "."): Column.of(
            [0.0 if cell is None else cell for cell in cells], [cell is not None for cell in cells]
        )
        for name, cells in columns.items()
    }
    return Points(np.array(step, dtype=np.int64), made)

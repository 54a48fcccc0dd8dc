"""CSV files of points as tables of readings: files and runs files, branches, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput, UnusableData

CONFIG = {"batch_tokens": 10}


def write(folder: Path, name: str, steps: range, header: str = "step,grad_noise_scale") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *(f"{step},{5 * step}" for step in steps)]))
    return path


def test_a_file_is_a_run_called_after_it(tmp_path: Path) -> None:
    """A pattern, a configuration for all, a column by the map, and blanks that are passed over."""
    write(tmp_path, "b.csv", range(1, 4), "iter,B simple")
    (tmp_path / "a.csv").write_text("iter,B simple\n1,7\n2,\n3,nan\n")
    table = isoloss.read_points(
        "noise_scale", str(tmp_path / "*.csv"), {"grad_noise_scale": "B simple"}, config=CONFIG
    )
    assert table.run_ids == ("a@1", "b@1", "b@2", "b@3")
    np.testing.assert_array_equal(table.column("n_tokens"), [10, 10, 20, 30])
    assert set(table.label("curve")) == {"a", "b"}


def test_a_runs_file_says_configurations_and_parents(tmp_path: Path) -> None:
    """A branch goes on from its parent's tokens, whichever of the two comes first; what both have counts once."""
    write(tmp_path, "trunk.csv", range(1, 6))
    write(tmp_path, "branch.csv", range(3, 8))
    entries: list[dict[str, Any]] = [
        {
            "file": "branch.csv",
            "config": {"batch_tokens": 100},
            "parent": {"run_id": "trunk", "branch_step": 4},
        },
        {"file": "trunk.csv", "config": CONFIG},
    ]
    (tmp_path / "runs.json").write_text(json.dumps(entries))
    table = isoloss.read_points("noise_scale", [], runs_file=tmp_path / "runs.json")
    assert sorted(table.run_ids) == sorted(
        [*(f"trunk@{one}" for one in range(1, 6)), "branch@5", "branch@6", "branch@7"]
    )
    assert sorted(table.column("n_tokens")) == [10, 20, 30, 40, 50, 140, 240, 340]


def test_what_makes_no_readings_is_refused(tmp_path: Path) -> None:
    """A law of finished runs, a file that is not there, a run that lacks something, a parent that was not read."""
    path = write(tmp_path, "a.csv", range(1, 4))
    with pytest.raises(InvalidInput, match="takes no readings in time"):
        isoloss.read_points("chinchilla", path)
    with pytest.raises(InvalidInput, match="no such file"):
        isoloss.read_points("noise_scale", tmp_path / "b.csv")
    with pytest.raises(UnusableData, match="run 'a': its points have no tokens"):
        isoloss.read_points("noise_scale", path)
    with pytest.raises(UnusableData, match="run 'a': its points have no reward"):
        isoloss.read_points("rl_compute", path)
    entry = {"file": "a.csv", "config": CONFIG, "parent": {"run_id": "gone", "branch_step": 1}}
    (tmp_path / "runs.json").write_text(json.dumps([entry]))
    with pytest.raises(InvalidInput, match="'gone': read it too"):
        isoloss.read_points("noise_scale", [], runs_file=tmp_path / "runs.json")

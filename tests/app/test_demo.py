"""The demo as `make demo` starts it: real processes, recorded curves, a figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_predicts_schedules_that_the_fit_has_not_seen(tmp_path: Path) -> None:
    """Every held-out schedule of both models is predicted to 2 percent at worst, most points in their interval."""
    figure = tmp_path / "figure.html"
    command = [sys.executable, "-m", "isoloss", "demo", "--exit", "--json"]
    folders = ["--data-dir", str(tmp_path / "data"), "--figure", str(figure)]
    done = subprocess.run(
        [*command, *folders], capture_output=True, text=True, timeout=150, cwd=tmp_path, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len({row["model"] for row in rows}) == 2
    assert len(rows) == 8
    assert all(row["mae"] < 0.03 for row in rows)
    assert sum(row["coverage"] for row in rows) / len(rows) > 0.75
    assert "plotly" in figure.read_text(encoding="utf-8").lower()

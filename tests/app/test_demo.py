"""The demo as `make demo` starts it: real processes, recorded curves, a figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.engine import create_engine


def test_the_demo_predicts_schedules_that_the_fit_has_not_seen(tmp_path: Path) -> None:
    """Every held-out schedule of both models is predicted to 2 percent at worst, most points in their interval."""
    figure = tmp_path / "figure.html"
    command = [sys.executable, "-m", "isoloss", "demo", "--exit", "--json"]
    folders = ["--data-dir", str(tmp_path / "data"), "--figure", str(figure)]
    done = subprocess.run(
        [*command, *folders], capture_output=True, text=True, timeout=150, cwd=tmp_path, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"figure", "rows"}
    rows = document["rows"]
    assert len({row["model"] for row in rows}) == 2
    assert len(rows) == 8
    assert all(row["mae"] < 0.03 for row in rows)
    assert sum(row["coverage"] for row in rows) / len(rows) > 0.75
    assert "plotly" in figure.read_text(encoding="utf-8").lower()


def test_a_figure_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    """It is one sentence, and no data directory is made."""
    done = _run("demo", "--data-dir", str(tmp_path / "data"), "--figure", str(tmp_path / "no" / "f.html"))
    assert (done.returncode, done.stderr) == (1, f"Error: --figure: there is no folder {tmp_path}/no\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--data-dir", "/dev/null/x"], "Choose another one with --data-dir"),
        (["--host", "192.0.2.1"], "choose another with --host"),
        (["--database-url", "postgresql://127.0.0.1:1/x"], "set ISOLOSS_DATABASE_URL to a server that runs"),
    ],
    ids=["data directory", "host", "database"],
)
def test_a_service_that_cannot_start_says_why_and_what_to_do_in_one_line(
    tmp_path: Path, arguments: list[str], remedy: str
) -> None:
    """No traceback, no questions of libpq."""
    done = _run("up", "--data-dir", str(tmp_path / "data"), "--port", "0", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert remedy in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_service_older_than_its_database_says_so_in_one_line(database_url: str, tmp_path: Path) -> None:
    """No traceback of the migrations."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE public.alembic_version SET version_num = '9999'"))
    engine.dispose()
    done = _run("up", "--data-dir", str(tmp_path / "data"), "--port", "0", "--database-url", database_url)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The database is of a newer Isoloss: its schema is 9999")
    assert done.stderr.count("\n") == 1


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isoloss", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)

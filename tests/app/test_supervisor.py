"""How long a process that dies waits to be started again, and what its log keeps."""

from __future__ import annotations

from pathlib import Path

from app.supervisor import LARGEST_LOG_BYTES, Child, open_log_dir, wait_before_restart


def test_the_wait_doubles_up_to_half_a_minute() -> None:
    """The first restart is almost at once, and a hopeless process costs little."""
    waits = [wait_before_restart(n) for n in (1, 2, 3, 8, 1000)]
    assert waits == [0.25, 0.5, 1.0, 30.0, 30.0]


def test_a_child_that_ends_at_once_is_started_ever_more_rarely(tmp_path: Path) -> None:
    """Deaths are counted, the log says why, and stopping what is not running does no harm."""
    child = Child("nothing", "no_such_module", tmp_path / "nothing.log")
    child.start()
    assert child.process is not None
    child.process.wait()
    child.tend()
    assert (child.process, child.n_deaths) == (None, 1)
    child.tend()
    assert child.process is None  # not yet
    assert "No module named no_such_module" in child.log_tail()
    child.stop()


def test_logs_that_have_grown_large_are_moved_aside(tmp_path: Path) -> None:
    """A start begins a new log where the old one is large, and keeps the one before."""
    folder = open_log_dir(tmp_path / "data")
    (folder / "api.log").write_bytes(b"x" * (LARGEST_LOG_BYTES + 1))
    (folder / "worker-1.log").write_text("short")
    open_log_dir(tmp_path / "data")
    assert sorted(path.name for path in folder.iterdir()) == ["api.log.1", "worker-1.log"]
    assert folder.stat().st_mode & 0o777 == 0o700

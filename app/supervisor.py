"""Processes that are kept running: started, started again when they die, and stopped.

Every child dies with this process, however it ends, and none hears the Ctrl-C that is meant for it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
SETTLED_AFTER_S = 60.0
LARGEST_LOG_BYTES = 20 * 2**20

log = logging.getLogger(__name__)


def wait_before_restart(n_deaths: int) -> float:
    """Seconds to wait before a process that has died `n_deaths` times in a row is started again."""
    return float(min(SHORTEST_WAIT_S * 2 ** min(n_deaths - 1, 30), LONGEST_WAIT_S))


@dataclass
class Child:
    """A Python module run as a process, with its log.

    The module is told `--parent PID` and must ask the kernel to die with it. `env` is added to ours: secrets
    go there, never on the command line.
    """

    name: str
    module: str
    log_path: Path
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    pass_fds: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    n_deaths: int = 0
    _started_at: float = 0.0
    _start_again_at: float = 0.0

    def start(self) -> None:
        """Starts the process."""
        # -P: a folder named like one of our packages where the user happens to be must not stand in for it.
        command = [sys.executable, "-P", "-m", self.module, "--parent", str(os.getpid()), *self.arguments]
        with self.log_path.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.env},
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        log.info("%s is process %d", self.name, self.process.pid)
        self._started_at = time.monotonic()

    def tend(self) -> None:
        """Notices that the process died and starts it again, the later the more often it did."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_again_at:
                self.start()
        elif self.process.poll() is not None:
            settled = now - self._started_at > SETTLED_AFTER_S
            self.n_deaths = 1 if settled else self.n_deaths + 1
            wait_s = wait_before_restart(self.n_deaths)
            log.warning("%s ended (code %d); again in %g s", self.name, self.process.returncode, wait_s)
            self._start_again_at = now + wait_s
            self.process = None

    def ask_to_stop(self) -> None:
        """Asks without waiting."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, patience_s: float = 10.0) -> None:
        """Asks, waits, and after `patience_s` insists."""
        if self.process is None:
            return
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def log_tail(self, n_lines: int = 8) -> str:
        """The last lines that the process wrote."""
        with suppress(OSError), self.log_path.open("rb") as output:
            output.seek(max(0, self.log_path.stat().st_size - 8192))
            return "\n".join(output.read().decode(errors="replace").splitlines()[-n_lines:])
        return ""


def open_log_dir(data_dir: Path) -> Path:
    """The folder of the logs, with those that have grown large moved aside."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = data_dir / "logs"
    for private in (data_dir, folder):
        private.mkdir(mode=0o700, exist_ok=True)
    for path in folder.glob("*.log"):
        if path.stat().st_size > LARGEST_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    return folder

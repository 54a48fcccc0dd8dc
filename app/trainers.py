"""The workers that train trials on one machine: one a core, or one a CUDA device."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.supervisor import Child, open_log_dir
from app.up import TICK_S, signals_raise
from isoloss.errors import DataDirectoryRefused, InvalidInput, ServiceFailed
from isoloss.notes import counted
from store.engine import normalise_url

HOPELESS_DEATHS = 3
COUNT_DEVICES = "import torch; print(torch.cuda.device_count())"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Wanted:
    """What to start: `device` is auto, cpu or cuda, `processes` None one a core or device."""

    data_dir: Path
    device: str = "auto"
    processes: int | None = None
    database_url: str | None = None


class Trainers:
    """The processes, and what keeps them up."""

    def __init__(self, children: list[Child], device: str) -> None:
        self._children = children
        self.device = device

    @property
    def in_words(self) -> str:
        number = len(self._children)
        return f"{counted(number, 'process') if number == 1 else f'{number} processes'} for trials on {self.device}"

    def keep_up(self) -> None:
        """Restarts whatever dies, until an exception comes. Raises ServiceFailed where nothing ever lives."""
        while True:
            for child in self._children:
                child.tend()
            if all(child.n_deaths >= HOPELESS_DEATHS for child in self._children):
                child = self._children[0]
                raise ServiceFailed(
                    reason=f"the workers end at once. {child.log_path} says:\n{child.log_tail()}"
                )
            time.sleep(TICK_S)

    def start(self) -> None:
        for child in self._children:
            child.start()

    def stop(self) -> None:
        """Asks all, and waits: what they train goes back to the queue."""
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            child.stop()


@contextmanager
def training(wanted: Wanted) -> Iterator[Trainers]:
    """The workers while the block runs; afterwards none is left. Call it in the main thread."""
    url = wanted.database_url
    if not url:
        reason = "is not set: it is the PostgreSQL that the service uses"
        raise InvalidInput(field="ISOLOSS_DATABASE_URL", reason=reason)
    normalise_url(url)
    if importlib.util.find_spec("torch") is None:
        raise ServiceFailed(reason="torch is not installed here: pip install 'isoloss[proxy]'")
    device, n_devices = _chosen(wanted.device)
    children = [
        _child(wanted.data_dir, url, device, number, n_devices)
        for number in range(wanted.processes or _fitting(device, n_devices))
    ]
    trainers = Trainers(children, device)
    with signals_raise(), ExitStack() as stack:
        stack.callback(trainers.stop)
        trainers.start()
        yield trainers


def _chosen(device: str) -> tuple[str, int]:
    """The kind of device and how many there are; on a machine without a card nobody is asked for one."""
    n_devices = 0 if device == "cpu" else _n_cuda_devices()
    if device == "cuda" and not n_devices:
        raise InvalidInput(field="device", reason="cuda is asked for, and torch finds no CUDA device here")
    return ("cuda", n_devices) if n_devices else ("cpu", 0)


def _n_cuda_devices() -> int:
    """As torch counts them, in a process of its own: it holds what it touches."""
    done = subprocess.run([sys.executable, "-P", "-c", COUNT_DEVICES], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdecimal() else 0


def _fitting(device: str, n_devices: int) -> int:
    return n_devices if device == "cuda" else len(os.sched_getaffinity(0))


def _child(data_dir: Path, url: str, device: str, number: int, n_devices: int) -> Child:
    env = {"ISOLOSS_DATABASE_URL": url, "ISOLOSS_DATA_DIR": str(data_dir)}
    if device == "cuda":
        named = [one for one in os.environ.get(VISIBLE, "").split(",") if one] or list(
            map(str, range(n_devices))
        )
        env[VISIBLE] = named[number % n_devices]
    else:
        env[VISIBLE] = ""  # no worker of a CPU holds memory of a card
    log_path = _log_dir(data_dir) / f"trainer-{number + 1}.log"
    return Child(f"trainer-{number + 1}", "workers", log_path, ["--trials-alone", "--device", device], env)


def _log_dir(data_dir: Path) -> Path:
    try:
        return open_log_dir(data_dir)
    except OSError as error:
        raise DataDirectoryRefused(
            path=str(data_dir),
            reason=f"it cannot be written ({error.strerror})",
            remedy="Choose another one with --data-dir",
        ) from error

"""What the isolation tests ask a child process to do."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from isoloss.errors import UnusableData

Progress = Callable[[float, str], None]


async def go_on(fraction: float, message: str) -> bool:
    """A beat that never stops the work."""
    return True


def double(n: int, progress: Progress) -> int:
    progress(0.5, "half way")
    return 2 * n


def who(progress: Progress) -> tuple[int, int]:
    return os.getpid(), os.nice(0)


def sleep(seconds: float, progress: Progress) -> str:
    """Sleeps, telling how far it is ten times a second."""
    n_steps = round(seconds * 10)
    for step in range(n_steps):
        progress(step / n_steps, f"step {step}")
        time.sleep(0.1)
    return "slept"


def hold(path: str, progress: Progress) -> str:
    """Works until there is such a file, telling that it does ten times a second."""
    progress(0.5, "begun")
    while not Path(path).exists():
        time.sleep(0.1)
        progress(0.5, "held")
    return "let go"


def hang_in_native_code(progress: Progress) -> None:
    """Blocks in C, with the interpreter's lock held, as a BLAS call might."""
    progress(0.5, "begun")
    ctypes.PyDLL(None).sleep(60)


def eat(n_bytes: int, progress: Progress) -> int:
    return int(np.ones(n_bytes, dtype=np.uint8).sum())


def refuse(progress: Progress) -> None:
    raise UnusableData(reason="the curve has no learning rate")


def stumble(progress: Progress) -> None:
    raise KeyError("surprise")


def mumble(progress: Progress) -> None:
    raise RuntimeError


def overflow(progress: Progress) -> float:
    return float("inf")


def die(signum: int, progress: Progress) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(10)


def leave(progress: Progress) -> None:
    os._exit(3)


def chatter(progress: Progress) -> str:
    print("this would break the protocol on standard output", flush=True)
    os.write(1, b"and so would this\n")
    return "said"


def echo(blob: bytes, progress: Progress) -> bytes:
    return blob


SEGFAULT = signal.SIGSEGV

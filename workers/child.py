"""The child's side of `workers/isolation.py`: does what its worker asks, one thing at a time.

Messages are pickles behind their length. From the worker comes `(function, keywords)`; back go any number of
`("progress", fraction, message)` and then one `("result", value)` or `("error", error)`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pickle
import resource
import signal
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from isoloss.errors import IsolossError, JobFailed
from store.processes import die_with_parent

LENGTH = struct.Struct("!Q")
LONGEST_TEXT = 500
log = logging.getLogger(__name__)


def encode(message: object) -> bytes:
    """The message as it goes through the pipe."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def unexpected(error: Exception) -> str:
    """A surprise in words for the job's message; the log has the rest."""
    said = " ".join(str(error).replace("\0", " ").split())
    what = f"{type(error).__name__}: {said[:LONGEST_TEXT]}" if said else type(error).__name__
    return f"an unexpected error, {what} (more in the worker's log)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--preload", action="append", default=[])
    asked = parser.parse_args()
    die_with_parent(signal.SIGKILL, asked.parent)
    os.nice(asked.nice)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    inbox, outbox = _take_pipes()
    for module in asked.preload:
        importlib.import_module(module)
    _limit_memory(asked.memory_bytes)
    _serve(inbox, outbox, asked.memory_bytes)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output become ours alone; what a library prints goes to the log."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return inbox, outbox


def _limit_memory(n_bytes: int) -> None:
    # What the process writes to, without the libraries and files that it maps: RLIMIT_AS counts those too.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _serve(inbox: BinaryIO, outbox: BinaryIO, memory_bytes: int) -> None:
    def send(*message: object) -> None:
        outbox.write(encode(message))
        outbox.flush()

    while header := inbox.read(LENGTH.size):
        function, keywords = pickle.loads(inbox.read(LENGTH.unpack(header)[0]))
        send(
            *_do(
                function,
                keywords,
                lambda fraction, message: send("progress", fraction, message),
                memory_bytes,
            )
        )


def _do(
    function: Callable[..., Any],
    keywords: dict[str, Any],
    progress: Callable[[float, str], None],
    memory_bytes: int,
) -> tuple[str, object]:
    try:
        return "result", function(**keywords, progress=progress)
    except IsolossError as error:
        return "error", error
    except MemoryError:
        return "error", JobFailed(reason=f"it needs more than {memory_bytes / 2**30:.3g} GiB of memory")
    except Exception as error:
        log.exception("a job failed unexpectedly")
        return "error", JobFailed(reason=unexpected(error))


if __name__ == "__main__":
    main()

"""How a training process may end, and what becomes of its recordings: exit, uncaught error, SIGTERM, fork."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol


class Recorded(Protocol):
    """What is to hear of the process's end."""

    def process_ends(self, crashed: bool) -> None: ...
    def process_is_terminated(self) -> None: ...
    def process_was_forked(self) -> None: ...


class Exits:
    """Watches this process while something is recorded in it, and tells what is recorded how it ends.

    Whatever handler and hook were there before are called after ours.
    """

    def __init__(self) -> None:
        self._recorded: list[Recorded] = []
        self._crashed = False
        self._previous_handler: Callable[[int, FrameType | None], Any] | int | None = None
        self._has_handler = False
        self._is_watching = False

    def add(self, recorded: Recorded) -> None:
        self._recorded.append(recorded)
        if not self._is_watching:
            self._is_watching = True
            atexit.register(self._exit)
            os.register_at_fork(after_in_child=self._forked)
            self._watch_errors()
        self._watch_sigterm()

    def remove(self, recorded: Recorded) -> None:
        self._recorded = [each for each in self._recorded if each is not recorded]
        if not self._recorded:
            self._unwatch_sigterm()

    def _exit(self) -> None:
        for recorded in list(self._recorded):
            recorded.process_ends(self._crashed)

    def _forked(self) -> None:
        recorded, self._recorded = self._recorded, []
        for each in recorded:
            each.process_was_forked()
        self._unwatch_sigterm()

    def _watch_errors(self) -> None:
        previous = sys.excepthook

        def note(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            self._crashed = True
            previous(kind, error, traceback)

        sys.excepthook = note

    def _watch_sigterm(self) -> None:
        if self._has_handler or threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        # One that was ignored stays ignored, and one that Python did not set cannot be called afterwards.
        if previous is signal.SIG_DFL or callable(previous):
            self._previous_handler = previous
            self._has_handler = True
            signal.signal(signal.SIGTERM, self._terminate)

    def _unwatch_sigterm(self) -> None:
        is_ours = signal.getsignal(signal.SIGTERM) == self._terminate
        if is_ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._has_handler = False

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous_handler
        for recorded in list(self._recorded):
            recorded.process_is_terminated()
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


EXITS = Exits()

"""`isoloss.init`: a run that a training loop records while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from isoloss.client.captures import capture, captured
from isoloss.client.documents import Forecast, Parent
from isoloss.client.exits import EXITS
from isoloss.client.init_arguments import (
    check_numbers,
    check_switch,
    chosen_identity,
    chosen_mode,
    chosen_root,
    connection,
    is_named,
)
from isoloss.client.intake import Change
from isoloss.client.messages import Messages
from isoloss.client.operations import Operation
from isoloss.client.outlook import Outlook
from isoloss.client.ranks import find_rank
from isoloss.client.recording import Plan, Recording
from isoloss.client.specifications import specification
from isoloss.client.spool import Identity
from isoloss.errors import IsolossError
from isoloss.schedules import Schedule, schedule_from_spec

Mode = Literal["online", "offline", "disabled"]
EndStatus = Literal["finished", "failed", "preempted"]

END_STATUSES = ("finished", "failed", "preempted", "diverged")
FINISH_WITHIN_S = 30.0
TERMINATE_WITHIN_S = 5.0
MOST_IN_QUEUE = 200_000
POLL_S = 0.005


def init(
    project: str | None = None,
    *,
    run_id: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    parent: Parent | None = None,
    resume_step: int | None = None,
    mode: Mode | None = None,
    dir: str | Path | None = None,
    url: str | None = None,
    api_key: str | None = None,
    rank: int | None = None,
    spool_bytes: int = 256 << 20,
    show_forecast: bool = False,
) -> Recorder:
    """Begin to record a run: two threads in the background keep what `log` gets on disk and send it.

    Arguments win over the environment: `project` over ISOLOSS_PROJECT, `run_id` over ISOLOSS_RUN_ID, `mode` over
    ISOLOSS_MODE (online, offline: on disk alone, disabled), `dir` over ISOLOSS_DIR, `url` and `api_key` over
    ISOLOSS_URL and ISOLOSS_API_KEY. Without a run id each call begins a new run. A run id that is there already
    goes on: what it had after the first step that is logged, or after `resume_step`, is forgotten.

    Only rank zero of a distributed training records; `rank=0` makes this process record all the same.
    `spool_bytes` bounds the folder in `dir` while the service is away. `show_forecast` prints how the run is
    expected to end, at most once a minute, where the project's finished runs tell.

    Raises InvalidInput for an argument that makes no sense, the same on every rank. Nothing after that raises:
    not a service that is away, not a wrong key, not a full disk.

    >>> with isoloss.init("pilot", config={"n_params": 60_000_000}, schedule=schedule) as run:
    ...     for step in range(1, 5001):
    ...         run.log({"loss": train_step()}, step=step)
    """
    chosen = chosen_mode(mode)
    identity = chosen_identity(project, run_id, chosen)
    texts = {"name": name, "recipe": recipe, "notes": notes}
    said = specification(config=config, schedule=schedule, parent=parent, tags=tags, texts=texts)
    declared = None if schedule is None else schedule_from_spec(dict(schedule))
    check_numbers(resume_step, rank, spool_bytes)
    check_switch("show_forecast", show_forecast)
    root = chosen_root(dir)
    if chosen == "disabled" or (find_rank() if rank is None else rank) != 0:
        return Recorder(identity, None, Messages(f"run {identity.run_id}"))
    messages = Messages(f"run {identity.run_id}")
    connect = connection(url, api_key) if chosen == "online" else None
    may_exist = is_named(run_id) and resume_step is None
    plan = Plan(identity, root, connect, declared, may_exist, spool_bytes)
    outlook = Outlook(identity, connect) if show_forecast is True and connect is not None else None
    recorder = Recorder(identity, Recording(plan, messages), messages, outlook)
    recorder.begin(said, resume_step)
    return recorder


class Recorder:
    """A run that is being recorded; `isoloss.init` makes it. Its methods never raise, whatever goes wrong.

    In a `with`, an exception marks the run failed. Without one call `finish`; a process that ends without it
    finishes its runs itself, as failed after an uncaught exception.
    """

    def __init__(
        self,
        identity: Identity,
        recording: Recording | None,
        messages: Messages,
        outlook: Outlook | None = None,
    ) -> None:
        self.project = identity.project
        self.run_id = identity.run_id
        self._recording = recording
        self._queue = None if recording is None else recording.queue
        self._messages = messages
        self._outlook = outlook
        self._stated: dict[str, Any] = {}
        self._marks = 0
        self._is_preempted = False
        self._is_finished = False

    @property
    def is_recording(self) -> bool:
        """Whether this process records: not on other ranks, when disabled, in a forked child, and once finished."""
        recording = self._recording
        return recording is not None and recording.accepts and not self._is_finished

    @property
    def stated(self) -> Mapping[str, Any]:
        """What this process has said of the run so far, by field."""
        return self._stated

    @property
    def forecast(self) -> Forecast | None:
        """How the run is expected to end, as far as `show_forecast` has heard; None before."""
        return None if self._outlook is None else self._outlook.latest

    def begin(self, said: dict[str, Any], resume_step: int | None) -> None:
        """Start the threads and declare the run; `init` does it."""
        assert self._recording is not None
        self._state(said)
        operations = [Operation("run", {**said, "status": "running"})]
        if resume_step is not None:
            operations.append(Operation("rewind", resume_step))
        self._recording.queue.append((None, Change(tuple(operations))))
        try:
            self._recording.start()
            if self._outlook is not None:
                self._outlook.start()
        except RuntimeError as error:  # a limit of threads
            self._messages.warn("threads", f"nothing is recorded: {error}")
            self._recording = self._queue = None
        else:
            EXITS.add(self)

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record the numbers of a step, by their names; takes microseconds and waits for nothing.

        `step` counts the optimiser's steps. Several calls for a step make one point, the last value of a name
        counts. A value may be a number, an array of one, or a tensor of one on any device, which is read in
        the background: do not change it in place, and log a clone of what a CUDA graph computes. A name whose
        step goes back says that the training was restarted there: what came after is forgotten. What is no
        number is left out, and said once.
        """
        queue = self._queue
        if queue is None:
            if self._is_finished:
                self._messages.warn("finished", "it is finished; what is logged now is left out")
            return
        if len(queue) >= MOST_IN_QUEUE:
            self._skip()
            return
        try:
            kept = captured(metrics)
        except Exception:  # no mapping; what it is, is said in the background
            queue.append((step, metrics))
            return
        queue.append((step if type(step) is int else capture(step), kept))

    def _skip(self) -> None:
        recording = self._recording
        if recording is not None and recording.accepts:
            recording.skipped += 1
            self._messages.warn(
                "queue", "metrics come faster than they are written; what comes now is left out"
            )

    def update(
        self,
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Say more of the run: `config` and `summary` are added to, the others replaced."""
        try:
            texts = {"name": name, "recipe": recipe, "notes": notes}
            said = specification(config=config, schedule=schedule, summary=summary, tags=tags, texts=texts)
            declared = None if schedule is None else schedule_from_spec(dict(schedule))
        except IsolossError as error:
            self._messages.warn(f"update {error}", f"an update is left out: {error}")
            return
        if said:
            self._state(said)
            self._change((Operation("run", said),), declared)

    def _state(self, said: Mapping[str, Any]) -> None:
        together = {
            name: {**self._stated.get(name, {}), **said[name]}
            for name in ("config", "summary")
            if name in said
        }
        self._stated = {**self._stated, **said, **together}

    def flush(self, timeout: float = FINISH_WITHIN_S, *, on_disk: bool = False) -> bool:
        """Wait until all that was logged is at the service, or on disk while that is away; whether it is in time.

        `on_disk` waits for the disk alone, which takes milliseconds: do it before each checkpoint, so that a run
        that is killed and resumed has no hole in front of the checkpoint.
        """
        recording = self._recording
        if recording is None or self._queue is None or self._is_finished:
            return True
        mark = self._change(())

        def is_done() -> bool:
            recording.hurry = True
            is_written = recording.reached >= mark
            return not recording.accepts or (is_written and (on_disk or recording.is_at_rest))

        return _within(timeout, is_done)

    def finish(
        self,
        status: EndStatus | None = None,
        summary: Mapping[str, Any] | None = None,
        timeout: float = FINISH_WITHIN_S,
    ) -> None:
        """End the run and wait, at most `timeout` seconds, until it is sent; what is left stays on disk.

        `status` is finished unless it is given, or the process was told to end (SIGTERM): then preempted.
        """
        recording = self._recording
        if recording is None or self._queue is None or self._is_finished:
            return
        if status is not None and status not in END_STATUSES:
            self._messages.warn(
                "status", f"there is no status {status!r}: {', '.join(END_STATUSES)}; it is finished"
            )
            status = None
        if summary is not None:
            self.update(summary=summary)
        self._change((Operation("run", {"status": status or self._usual_status()}),))
        self._is_finished = True
        EXITS.remove(self)
        if self._outlook is not None:
            self._outlook.stop()
        recording.closing = True
        self._queue = None
        recording.wake()
        if not _within(timeout, lambda: recording.ended):
            left = f"not all was sent within {timeout:g} s; `isoloss sync {recording.plan.root}` sends what is left"
            self._messages.warn("left", left)

    def _usual_status(self) -> EndStatus:
        return "preempted" if self._is_preempted else "finished"

    def _change(self, operations: tuple[Operation, ...], schedule: Schedule | None = None) -> int:
        """Put a change in the queue; returns its mark."""
        recording, queue = self._recording, self._queue
        if recording is None or queue is None:
            return 0
        self._marks += 1
        queue.append((None, Change(operations, schedule, self._marks)))
        recording.wake()
        return self._marks

    def process_ends(self, crashed: bool) -> None:
        """The interpreter exits."""
        self.finish("failed" if crashed and not self._is_preempted else None)

    def process_is_terminated(self) -> None:
        """SIGTERM: the run is preempted from now on, and what it has is sent or at least written."""
        self._is_preempted = True
        self._change((Operation("run", {"status": "preempted"}),))
        self.flush(TERMINATE_WITHIN_S)

    def process_was_forked(self) -> None:
        """In a forked child, which has none of the threads: it records nothing."""
        if self._recording is not None:
            self._recording.let_go()
        self._recording = self._queue = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_clean = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
        self.finish(None if is_clean or self._is_preempted else "failed")

    def __repr__(self) -> str:
        return f"Recorder({self.project!r}, {self.run_id!r})"


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    # Looking again and again, because a lock that is waited for is no thing for a signal's handler.
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True

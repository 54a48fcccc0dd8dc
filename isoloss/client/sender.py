"""Sends a recording's operations to the service, and knows what each refusal means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from isoloss import __version__
from isoloss.client.batches import DEFAULT_BATCH, split_columns
from isoloss.client.documents import Accepted
from isoloss.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    NoCredentials,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
)
from isoloss.client.messages import Messages
from isoloss.client.operations import Columns, Operation, points, rows_of, text_of
from isoloss.client.points import MaskedColumns
from isoloss.client.session import Client
from isoloss.client.spool import Identity
from isoloss.errors import IsolossError, Unavailable

MERGED_FIELDS = ("config", "summary")
SPECIFICATION = ("name", "status", "recipe", "tags", "notes", "parent", "config", "schedule", "summary")
ATTEMPTS_AT_A_BATCH = 200
NEVER = frozenset({501, 505})
REFUSALS = frozenset({400, 409, 413, 422})

Verdict = Literal["again", "stop", "missing", "refused"]


def verdict_on(error: IsolossError) -> Verdict:
    """What an error asks for: to try later, to stop, to declare the run again, or to send less."""
    if isinstance(error, NoCredentials | Unauthorized | Forbidden):
        return "stop"
    if isinstance(error, ServerError) and error.status in NEVER:
        return "stop"
    if isinstance(error, Unavailable | ServerError | RateLimited):
        return "again"
    if isinstance(error, NotFound):
        return "missing"
    if isinstance(error, ApiError):
        return "refused" if error.status in REFUSALS else "stop"
    return "stop"  # the settings themselves make no sense


class Stopped(Exception):
    """Why this service will take nothing from this process."""


@dataclass
class Sender:
    """Does operations at the service. Doing one again, or all of them in their order, changes nothing."""

    client: Client
    identity: Identity
    messages: Messages
    sent: int = 0
    duplicates: int = 0
    refused: int = 0
    last_step: int | None = None
    """The run's last step at the service, as far as is known."""
    _declared: dict[str, Any] = field(default_factory=dict)

    def send(self, operation: Operation) -> None:
        """Do one operation. Raises IsolossError where it may be tried again later, and Stopped."""
        try:
            self._do(operation)
        except IsolossError as error:
            if verdict_on(error) != "missing":
                raise _stopping(error) from error
            self._send_to_missing(operation)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = (
                f"the service at {self.client.url} answers in another form than version {__version__} knows"
            )
            raise Stopped(f"{what} ({type(error).__name__}: {error})") from error

    def is_running(self) -> bool:
        """Whether the service takes the run for running. Raises IsolossError."""
        return self.client.runs.get(self.identity.project, self.identity.run_id)["status"] == "running"

    def last_step_there(self) -> int | None:
        """The run's last step at the service, None where it has no point. Raises as `send` does."""
        try:
            there: int | None = self.client.runs.get(self.identity.project, self.identity.run_id)["last_step"]
        except NotFound:
            return None
        except IsolossError as error:
            raise _stopping(error) from error
        return there

    def has(self, columns: Columns) -> bool:
        """Whether the service has exactly these points. Raises as `send` does."""
        there = self._read(columns)
        known = {
            name: dict(zip(there["step"].data.tolist(), there[name].tolist(), strict=True)) for name in there
        }
        return all(
            _is_same(cell, known.get(name, {}).get(step))
            for step, row in rows_of(columns)
            for name, cell in row.items()
        )

    def fill(self, columns: Columns) -> None:
        """Send of points what the run does not have; what it has stays. Raises like `send`."""
        there = self._read(columns)
        known = {name: set(_steps_with(there, name)) for name in there if name != "step"}
        rows = [
            (step, {name: cell for name, cell in row.items() if step not in known.get(name, ())})
            for step, row in rows_of(columns)
        ]
        if missing := [(step, row) for step, row in rows if row]:
            self.send(points(missing))

    def _read(self, columns: Columns) -> MaskedColumns:
        """What the service has from the first to the last of some steps."""
        project, run_id = self.identity.project, self.identity.run_id
        first, last = min(columns["step"]), max(columns["step"])
        try:
            return self.client.points.read(project, run_id, from_step=first, to_step=last)
        except IsolossError as error:
            raise _stopping(error) from error

    def _do(self, operation: Operation) -> None:
        if operation.kind == "run":
            self._declare(operation.content)
        elif operation.kind == "rewind":
            self._rewind(operation.content)
        else:
            self._send_points(operation)

    def _send_to_missing(self, operation: Operation) -> None:
        """The run, or its project, is not there, or it is no longer: make it and try once more."""
        try:
            self._declare(self._declared)
            self._do(operation)
        except NotFound as error:
            what = f"the service at {self.client.url} does not have what version {__version__} of isoloss asks for"
            raise Stopped(f"{what} ({error})") from error
        except IsolossError as error:
            raise _stopping(error) from error

    def _declare(self, changes: Mapping[str, Any]) -> None:
        """Change fields of the run's specification; what is not among them stays as the service has it."""
        document = {"name": self.identity.run_id, **_changed(self._there(), changes)}
        while True:
            try:
                self.client.runs.put_document(self.identity.project, self.identity.run_id, document)
            except IsolossError as error:
                if verdict_on(error) != "refused" or not self._take_out(document, error):
                    raise
            else:
                self._declared = _changed(self._declared, changes)
                return

    def _there(self) -> dict[str, Any]:
        try:
            run = self.client.runs.get(self.identity.project, self.identity.run_id)
        except NotFound:
            self._make_project()
            return {}
        self.last_step = run.get("last_step")
        # Not the status: a run that goes on is running, whatever became of it before.
        kept = {name: run.get(name) for name in SPECIFICATION if name != "status"}
        return {name: value for name, value in kept.items() if value is not None}

    def _make_project(self) -> None:
        # A key for one project makes none; whether this one is there, the next request tells.
        with suppress(Conflict, Forbidden):
            self.client.projects.create(self.identity.project)

    def _take_out(self, document: dict[str, Any], error: IsolossError) -> bool:
        """Leave out of the specification what the service refuses; whether there was something to leave out."""
        place = next(iter(_fields_of(error)), "")
        top, _, inner = place.partition(".")
        held = document.get(top)
        if top in MERGED_FIELDS and isinstance(held, dict) and inner.partition(".")[0] in held:
            del held[inner.partition(".")[0]]
        elif top in document and top != "name":
            del document[top]
        elif set(document) - {"name", "status"}:
            for name in set(document) - {"name", "status"}:
                del document[name]
        else:
            return False
        self.messages.warn(
            f"specification {place}", f"the service refuses {place or 'what is said'} of the run: {error}"
        )
        return True

    def _rewind(self, step: int) -> None:
        before = self.last_step
        try:
            answer = self.client.points.rewind(self.identity.project, self.identity.run_id, step)
        except IsolossError as error:
            if verdict_on(error) != "refused":
                raise
            self.messages.warn("rewind", f"its points after step {step} stay: {error}")
            return
        self.last_step = answer["last_step"]
        if before is not None and before > step and not self.sent + self.duplicates:
            had = f"the service had steps up to {before}"
            self.messages.warn(
                "resumed", f"{had}; it goes on from step {step}, and what came after it is removed"
            )

    def _send_points(self, operation: Operation) -> None:
        if operation.cells is not None and operation.n_points <= DEFAULT_BATCH and self._is_taken(operation):
            return
        attempts = _Attempts(ATTEMPTS_AT_A_BATCH)
        for batch in split_columns(operation.content):
            self._send_batch({name: list(cells) for name, cells in batch.items()}, attempts)

    def _is_taken(self, operation: Operation) -> bool:
        """Send points as the text that they are; whether the service takes all of them."""
        project, run_id = self.identity.project, self.identity.run_id
        try:
            answer = self.client.points.append_text(project, run_id, text_of(operation))
        except IsolossError as error:
            if verdict_on(error) != "refused":
                raise
            return False
        self._note(answer)
        return True

    def _note(self, answer: Accepted) -> None:
        self.sent += answer["accepted"]
        self.duplicates += answer["duplicates"]
        self.last_step = answer["last_step"]

    def _send_batch(self, columns: Columns, attempts: _Attempts) -> None:
        """Send a batch, and where the service refuses it, all of it but the values that it refuses."""
        n_points = len(columns["step"])
        if not attempts.left:
            self.refused += n_points
            return
        attempts.left -= 1
        try:
            answer = self.client.points.append(
                self.identity.project, self.identity.run_id, columns, on_conflict="replace"
            )
        except IsolossError as error:
            if verdict_on(error) != "refused":
                raise
            parts = list(_smaller(columns, error))
            if not parts:
                self.refused += 1
                where = f"step {columns['step'][0]}"
                self.messages.warn(
                    "refused", f"the service refuses a point ({where}): {error}; how many is said at the end"
                )
            for part in parts:
                self._send_batch(part, attempts)
        else:
            self._note(answer)


def _changed(specification: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A specification with changes: of a configuration and a summary the fields, of the rest the whole."""
    merged = {
        name: {**(specification.get(name) or {}), **(changes.get(name) or {})}
        for name in MERGED_FIELDS
        if name in specification or name in changes
    }
    return {**specification, **changes, **merged}


@dataclass
class _Attempts:
    """How many requests one batch may still take."""

    left: int


def _smaller(columns: Columns, error: IsolossError) -> Iterator[Columns]:
    """A refused batch in two: the column at fault apart from the others, else its halves; one value is none."""
    named = [name for name in _fields_of(error) if name in columns and name != "step"]
    n_points = len(columns["step"])
    if named and len(columns) > 2:
        yield {name: cells for name, cells in columns.items() if name != named[0]}
        yield _without_gaps({"step": columns["step"], named[0]: columns[named[0]]})
    elif n_points > 1:
        for half in (slice(None, n_points // 2), slice(n_points // 2, None)):
            yield {name: cells[half] for name, cells in columns.items()}


def _without_gaps(columns: Columns) -> Columns:
    [name] = columns.keys() - {"step"}
    rows = [
        (step, cell) for step, cell in zip(columns["step"], columns[name], strict=True) if cell is not None
    ]
    return {"step": [step for step, _ in rows], name: [cell for _, cell in rows]}


def _fields_of(error: IsolossError) -> list[str]:
    """The places that a refusal names."""
    entries = getattr(error, "errors", ())
    return [str(entry["field"]) for entry in entries if isinstance(entry, Mapping) and entry.get("field")]


def _is_same(written: float | str, there: float | None) -> bool:
    """Whether a cell of a spool, in which NaN and infinities are names, is what the service has."""
    return there is not None and (
        float(written) == there or (math.isnan(float(written)) and math.isnan(there))
    )


def _steps_with(columns: Mapping[str, Any], name: str) -> list[int]:
    """The steps at which a column has a value."""
    steps: list[int] = columns["step"].data[~np.ma.getmaskarray(columns[name])].tolist()
    return steps


def _stopping(error: IsolossError) -> Exception:
    if verdict_on(error) == "again":
        return error
    said = str(error).rstrip(".")
    if isinstance(error, Unauthorized | Forbidden):
        return Stopped(f"the key of ISOLOSS_API_KEY, or of api_key=, is not accepted: {said}")
    return Stopped(f"the service refuses: {said}" if isinstance(error, ApiError) else said)

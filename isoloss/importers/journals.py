"""What an import is about to do, written down before it does it, so that it can be undone.

A journal is a file of JSON lines in `<folder>/<id>.jsonl`: a first line that says what was imported from where, a
line for each run before anything of it is sent, and a last one when the import, or its undoing, is done. Each line
is one write that is forced to the disk; a line that a crash has torn is passed over. A journal that has nothing to
undo is never written.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput, NotFound

FORMAT = 1
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class RunEntry:
    """What an import is about to do to one run.

    `before` is its specification, None for a run that is new; `after` what it shall be, None where it stays. Its
    points end at `points_before` (None: there are none), and with those that are sent at `points_after` (None: none
    are sent). Of the values sent, `filled` lie among points that were there and `replaced` are others than these.
    """

    run_id: str
    created: bool = False
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    points_before: int | None = None
    points_after: int | None = None
    filled: int = 0
    replaced: int = 0


@dataclass(frozen=True)
class Header:
    """Which import a journal is of."""

    import_id: str
    at: str
    source: str
    project: str
    url: str | None


@dataclass
class Journal:
    """The journal of an import that is going on; its file is begun with the first entry."""

    folder: Path
    header: Header
    entries: int = 0

    @classmethod
    def begin(cls, folder: Path, source: str, project: str, url: str | None = None) -> Journal:
        """A journal with a new id, in a folder that need not be there."""
        now = time.gmtime()
        import_id = f"{time.strftime('%Y%m%d-%H%M%S', now)}-{secrets.token_hex(3)}"
        return cls(folder, Header(import_id, time.strftime("%Y-%m-%dT%H:%M:%SZ", now), source, project, url))

    @property
    def import_id(self) -> str | None:
        """The id to undo it by; None where there is nothing to undo."""
        return self.header.import_id if self.entries else None

    def record(self, *entries: RunEntry) -> None:
        """Write down what is about to happen to runs. Raises InvalidInput where that cannot be written."""
        if not entries:
            return
        lines = [{"run": _told(entry)} for entry in entries]
        header = [] if self.entries else [{"isoloss_import": FORMAT, **asdict(self.header)}]
        self._write([*header, *lines])
        self.entries += len(entries)

    def finish(self) -> None:
        """Note that the import came to its end."""
        if self.entries:
            self._write([{"finished": True}])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        path = self.folder / f"{self.header.import_id}{SUFFIX}"
        append(path, lines)


def append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add lines to a journal and force them to the disk. Raises InvalidInput."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                content = b"\n" + content  # a line was torn here
            while content:
                content = content[os.write(file, content) :]
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        reason = f"the import's journal cannot be written ({error.strerror}); nothing more is sent"
        raise InvalidInput(field=str(path), reason=reason) from error


def _told(entry: RunEntry) -> dict[str, Any]:
    blank = asdict(RunEntry(""))
    return {name: value for name, value in asdict(entry).items() if value != blank[name]}


@dataclass(frozen=True)
class PastImport:
    """A journal that was read again."""

    path: Path
    header: Header
    runs: tuple[RunEntry, ...] = ()
    finished: bool = False
    undone: bool = False
    torn: int = 0

    @property
    def state(self) -> str:
        if self.undone:
            return "undone"
        return "done" if self.finished else "broken off"


def read_journal(path: Path) -> PastImport | None:
    """A journal from its file; None for a file that is none."""
    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    read = [_object(line) for line in lines]
    if not read or read[0] is None or read[0].get("isoloss_import") != FORMAT:
        return None
    try:
        header = Header(**{name.name: read[0][name.name] for name in fields(Header)})
        runs = tuple(RunEntry(**line["run"]) for line in read[1:] if line and "run" in line)
    except (KeyError, TypeError):
        return None
    said = {name for line in read[1:] if line for name in line}
    torn = sum(line is None for line in read)
    return PastImport(path, header, runs, "finished" in said, "undone" in said, torn)


def _object(line: str) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def past_imports(folder: Path) -> Iterator[PastImport]:
    """The imports that can be undone or were, the newest first."""
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        found = read_journal(path)
        if found is not None:
            yield found


def find_import(folder: Path, import_id: str) -> PastImport:
    """The import of an id, which may be shortened where it stays unique. Raises NotFound and InvalidInput."""
    found = [
        past for past in past_imports(folder) if import_id and past.header.import_id.startswith(import_id)
    ]
    exact = [past for past in found if past.header.import_id == import_id]
    if len(exact or found) > 1:
        raise InvalidInput(field="id", reason=f"{len(found)} imports begin with {import_id!r}")
    if not found:
        raise NotFound(kind="import", name=import_id)
    return (exact or found)[0]

"""A run's spool on disk: append-only files of lines, and the place up to which the service has them.

`<dir>/<project>/<run_id>/` holds `00000001.jsonl`, ... (a first line that says which run this is, then operations),
`sent.json` with the place up to which all is sent and the run's last step at the service then, and `lock`, held by
the process that writes or sends. A file is deleted when all of it is sent. Lines go to the operating system at
once, which keeps them when the process is killed; they are not forced to the disk, so that a machine that loses
power may lose the last seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from isoloss.client.operations import Operation, line_of, operation_of, thinned

FORMAT = 1
SEGMENTS = "[0-9]" * 8 + ".jsonl"
SENT = "sent.json"
LOCK = "lock"
SEGMENT_BYTES = 1 << 20


@dataclass(frozen=True, order=True)
class Place:
    """A place in a spool: a file by its number, and a byte in it."""

    segment: int = 0
    offset: int = 0


@dataclass
class Segment:
    """One file; `thinned` says how often it was halved."""

    number: int
    path: Path
    size: int
    thinned: int = 0


@dataclass(frozen=True)
class Identity:
    """Which run a spool holds."""

    project: str
    run_id: str

    def folder_in(self, root: Path) -> Path:
        """Where its spool lies; a name of dots is a name like any other."""
        return root / _as_folder(self.project) / _as_folder(self.run_id)


@dataclass
class Spool:
    """The files of one run. Every method that writes may raise OSError, and then has changed nothing."""

    folder: Path
    identity: Identity
    segment_bytes: int = SEGMENT_BYTES
    segments: list[Segment] = field(default_factory=list)
    sent: Place = field(default_factory=Place)
    last_step: int | None = None
    damaged: set[Place] = field(default_factory=set)
    was_deleted: bool = False
    _file: int | None = None

    def open(self) -> Spool:
        """Find what is there; a new file is begun with the first line written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.segments = [_segment(path) for path in sorted(self.folder.glob(SEGMENTS))]
        self.sent, self.last_step = self._read_sent()
        return self

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(segment.size for segment in self.segments)

    @property
    def end(self) -> Place:
        """The place after the last line."""
        return Place(self.segments[-1].number, self.segments[-1].size) if self.segments else self.sent

    def append(self, lines: bytes) -> None:
        """Write whole lines behind the others."""
        if self._file is not None and os.fstat(self._file).st_nlink == 0:
            self.was_deleted = True
            self.segments = [segment for segment in self.segments if segment.path.exists()]
            self.close()
        if self._file is None or self.segments[-1].size >= self.segment_bytes:
            self._begin_segment()
        self._write(lines)

    def _begin_segment(self) -> None:
        self.close()
        number = self.end.segment + 1
        path = self.folder / f"{number:08d}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.segments.append(Segment(number, path, 0))
        try:
            self._write(_header(self.identity, 0))
        except OSError:
            self.close()
            self.segments.pop()
            path.unlink(missing_ok=True)
            raise

    def _write(self, lines: bytes) -> None:
        assert self._file is not None
        segment, view = self.segments[-1], memoryview(lines)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, segment.size)
            raise
        segment.size += len(lines)

    def read(self, after: Place) -> Iterator[tuple[Operation, Place]]:
        """The operations after a place, each with the place behind it; damaged lines are passed over and noted."""
        for segment in self.segments:
            if segment.number < after.segment or (segment.number, segment.size) <= (
                after.segment,
                after.offset,
            ):
                continue
            yield from self._read_segment(segment, after.offset if segment.number == after.segment else 0)

    def _read_segment(self, segment: Segment, offset: int) -> Iterator[tuple[Operation, Place]]:
        try:
            file = segment.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            for line in file:
                is_header = offset == 0
                offset += len(line)
                operation = operation_of(line)
                if operation is not None:
                    yield operation, Place(segment.number, offset)
                elif not is_header:
                    self.damaged.add(Place(segment.number, offset))

    def acknowledge(self, place: Place, last_step: int | None) -> None:
        """Note that all before a place is sent, and the run's last step now; delete the files that are sent."""
        self.sent, self.last_step = place, last_step
        for segment in [each for each in self.segments if Place(each.number, each.size) <= place]:
            if segment is self.segments[-1]:
                if self._file is None or segment.size < self.segment_bytes:
                    break  # it will grow further, or is the memory of how far the numbers went
                self.close()
            segment.path.unlink(missing_ok=True)
            self.segments.remove(segment)
        document = {"segment": place.segment, "offset": place.offset, "last_step": last_step}
        _replace(self.folder / SENT, json.dumps(document).encode())

    def thin(self, segment: Segment) -> int:
        """Leave out every other point of a file that is complete; how many points went."""
        before = [operation for operation, _ in self._read_segment(segment, 0)]
        after = thinned(before)
        content = _header(self.identity, segment.thinned + 1) + b"".join(map(line_of, after))
        _replace(segment.path, content)
        segment.size, segment.thinned = len(content), segment.thinned + 1
        return sum(each.n_points for each in before) - sum(each.n_points for each in after)

    def close(self) -> None:
        """Close the file that is written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Delete the files; the folder goes with its lock."""
        self.close()
        for segment in self.segments:
            segment.path.unlink(missing_ok=True)
        self.segments = []
        (self.folder / SENT).unlink(missing_ok=True)

    def _read_sent(self) -> tuple[Place, int | None]:
        try:
            document = json.loads((self.folder / SENT).read_bytes())
            place = Place(int(document["segment"]), max(int(document["offset"]), 0))
            last_step = document["last_step"]
        except (OSError, ValueError, KeyError, TypeError):
            return Place(), None  # sending again what was sent is harmless
        return place, last_step if type(last_step) is int else None


class OtherFormat(Exception):
    """Why a folder's spool cannot be read."""


def identity_of(folder: Path) -> Identity | None:
    """Which run the spool in a folder holds, None where there is none. Raises OtherFormat."""
    for path in sorted(folder.glob(SEGMENTS)):
        header = _read_header(path)
        if header is None:
            continue
        if header["isoloss_spool"] != FORMAT:
            raise OtherFormat(f"it is of format {header['isoloss_spool']!r}, and this version reads {FORMAT}")
        return Identity(str(header.get("project")), str(header.get("run_id")))
    return None


def _segment(path: Path) -> Segment:
    header = _read_header(path) or {}
    level = header.get("thinned", 0)
    return Segment(int(path.stem), path, path.stat().st_size, level if type(level) is int else 0)


def _header(identity: Identity, level: int) -> bytes:
    document = {
        "isoloss_spool": FORMAT,
        "project": identity.project,
        "run_id": identity.run_id,
        "thinned": level,
    }
    return json.dumps(document).encode() + b"\n"


def _read_header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            document = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "isoloss_spool" in document else None


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _as_folder(name: str) -> str:
    return f"%2E{name[1:]}" if name.startswith(".") else name


def lock(folder: Path) -> IO[str] | None:
    """Take a spool for this process, None where another one has it. The lock ends with the file returned.

    Raises OSError where the folder cannot be made; a file system that knows no locks is trusted.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    while True:
        file = (folder / LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            return file
        if _is_still(folder / LOCK, file):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            return file
        file.close()  # its holder deleted it in between


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def unlock(folder: Path, file: IO[str], root: Path | None = None) -> None:
    """Give a spool back; where nothing else is left in it, its folders go too, up to `root`."""
    left = {path.name for path in folder.iterdir()} - {LOCK} if folder.exists() else {LOCK}
    if not left:
        (folder / LOCK).unlink(missing_ok=True)
        for empty in (folder, folder.parent, *([root] if root else [])):
            try:
                empty.rmdir()
            except OSError:
                break
    file.close()

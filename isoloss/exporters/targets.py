"""Files and folders that are there whole or not at all: written beside their place, and then put there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isoloss.errors import InvalidInput
from isoloss.importers.exported_files import MANIFEST


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A place to write a file to, which is put at `path` when all went well, and else is gone.

    Raises InvalidInput for a path that is taken, unless `force` replaces a file, and where nothing can be written.
    """
    _check_parent(path)
    if path.is_dir():
        raise InvalidInput(field=str(path), reason="this is a folder; name a file")
    if not force:
        _refuse_taken(path)
    part = _beside(path)
    with _told(path):
        try:
            yield part
            _flush(part)
            if not force:
                _refuse_taken(path)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """The same for a folder; with `force` an earlier export is replaced, and nothing else ever."""
    _check_parent(path)
    _check_folder(path, force=force)
    part = _beside(path)
    with _told(path):
        part.mkdir()
        try:
            yield part
            _put(part, path, force=force)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def check_file(path: Path, *, force: bool) -> None:
    """Refuse a path that `new_file` would refuse, before there is work to lose."""
    _check_parent(path)
    if path.is_dir():
        raise InvalidInput(field=str(path), reason="this is a folder; name a file")
    if not force:
        _refuse_taken(path)


def _put(part: Path, path: Path, *, force: bool) -> None:
    _check_folder(path, force=force)
    old = _beside(path)
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_folder(path: Path, *, force: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or path.is_symlink():
        raise InvalidInput(field=str(path), reason="there is a file of this name; name a folder")
    if not any(path.iterdir()):
        return
    if not (path / MANIFEST).is_file():
        reason = "this folder has something else in it, which an export does not replace; name another"
        raise InvalidInput(field=str(path), reason=reason)
    if not force:
        _refuse_taken(path)


def _refuse_taken(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InvalidInput(field=str(path), reason="it is there already; --force (force=True) replaces it")


def _check_parent(path: Path) -> None:
    above = path.absolute().parent
    if not above.is_dir():
        raise InvalidInput(field=str(path), reason=f"there is no folder {above}")


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, that says what it is a part of if the process is killed."""
    return path.absolute().parent / f".{path.name[:80]}.{secrets.token_hex(4)}.part"


def _flush(path: Path) -> None:
    """Force a file to the disk: a rename must not come before what it names."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        # Libraries that write a file themselves put words of their own around the system's.
        reason = os.strerror(error.errno) if error.errno else str(error)
        told = f"cannot be written ({reason}{'; nothing was left behind' if full else ''})"
        raise InvalidInput(field=str(path), reason=told) from error

"""Paths as callers give them: one place that says what is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from isoloss.errors import InvalidInput

WILDCARDS = frozenset("*?[")

Paths = str | Path | Iterable[str | Path]


def checked_path(path: object, field: str) -> Path:
    """Return what names a file as a path; raises InvalidInput for what cannot name one."""
    if not isinstance(path, str | Path) or "\0" in str(path):
        shown = repr(path)[:40] if isinstance(path, str) else type(path).__name__
        raise InvalidInput(field=field, reason=f"must be the path of a file, not {shown}")
    return Path(path)


def expand(paths: Paths) -> list[Path]:
    """The files that paths and patterns name, in order; raises InvalidInput for a pattern that names none."""
    if isinstance(paths, str | Path):
        return _matches(paths)
    if not isinstance(paths, Iterable) or isinstance(paths, bytes | Mapping):
        reason = f"must be the path of a file, a pattern or a list of them, not {type(paths).__name__}"
        raise InvalidInput(field="paths", reason=reason)
    return [file for path in paths for file in _matches(path)]


def _matches(path: str | Path) -> list[Path]:
    given = checked_path(path, "paths")
    try:
        found = _found(given.expanduser())
    except OSError as error:  # a name that is too long
        raise InvalidInput(field=str(path), reason=error.strerror or str(error)) from error
    except (RuntimeError, ValueError) as error:  # an unknown home, a pattern that is none
        raise InvalidInput(field=str(path), reason=str(error)) from error
    if not found:
        raise InvalidInput(field=str(path), reason="no file matches this pattern")
    return found


def _found(pattern: Path) -> list[Path]:
    if pattern.exists() or not WILDCARDS.intersection(str(pattern)):
        return [pattern]
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))

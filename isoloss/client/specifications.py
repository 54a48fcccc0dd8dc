"""What is said of a run, as JSON can hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoloss.errors import InvalidInput

MAX_DEPTH = 12


def specification(
    *,
    config: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    parent: Mapping[str, Any] | None = None,
    texts: Mapping[str, str | None],
) -> dict[str, Any]:
    """The fields that are given, as a copy of JSON types alone. Raises InvalidInput for one of a wrong kind.

    What a configuration holds beside numbers, texts, lists and mappings is written as its text.
    """
    said: dict[str, Any] = {}
    mappings = {"config": config, "schedule": schedule, "summary": summary, "parent": parent}
    for name, value in mappings.items():
        if value is not None:
            said[name] = _mapping(name, value)
    for name, text in texts.items():
        if text is not None:
            said[name] = _text(name, text)
    if tags is not None:
        if isinstance(tags, str) or not isinstance(tags, Sequence):
            raise InvalidInput(field="tags", reason="must be a list of texts")
        said["tags"] = [_text("tags", tag) for tag in tags]
    return said


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput(field=name, reason=f"must be a text, not {type(value).__name__}")
    return value


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(
            field=name, reason=f"must be a mapping of names to values, not {type(value).__name__}"
        )
    return {str(key): _plain(entry, MAX_DEPTH) for key, entry in value.items()}


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry, depth - 1) for entry in value]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return str(value)

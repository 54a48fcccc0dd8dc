"""What an import says of a run, over what is known of it, and whether that is news."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SPECIFICATION = ("name", "status", "recipe", "tags", "notes", "parent", "config", "schedule", "summary")


def specification_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a run, of all that the service shows of it."""
    return {name: value for name in SPECIFICATION if (value := run.get(name)) is not None}


def merged(said: Mapping[str, Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    """The specification as it shall be: what is said, over what is known; tags and fields add up."""
    before = specification_of(known or {})
    return {
        **before,
        **said,
        "tags": list(dict.fromkeys([*before.get("tags", ()), *said.get("tags", ())])),
        "config": {**before.get("config", {}), **said.get("config", {})},
        "summary": {**before.get("summary", {}), **said.get("summary", {})},
    }


def is_there(document: Mapping[str, Any], known: Mapping[str, Any] | None) -> bool:
    """Whether the service has a run just so."""
    return known is not None and all(same(value, known.get(name)) for name, value in document.items())


def same(said: Any, known: Any) -> bool:
    """Whether the service keeps what is said; it writes a large float as a whole number with the same digits."""
    if isinstance(said, Mapping) and isinstance(known, Mapping):
        return said.keys() == known.keys() and all(same(value, known[name]) for name, value in said.items())
    if isinstance(said, list | tuple) and isinstance(known, list | tuple):
        return len(said) == len(known) and all(same(*pair) for pair in zip(said, known, strict=True))
    if isinstance(said, float) and isinstance(known, int) and not isinstance(known, bool):
        return said == float(known)
    return bool(_written(said) == _written(known))


def _written(value: Any) -> Any:
    """The value as JSON writes it: floats that are none by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

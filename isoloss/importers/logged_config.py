"""The hyper-parameters of a logged run as a configuration that the service takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isoloss.importers.logged_fields import Named, name_config
from isoloss.observations.counts import N_PARAMS_KINDS
from isoloss.observations.curves import HIGHEST_WEIGHT_DECAY

LARGEST_EXACT = 2**53
LONGEST_TEXT = 10_000
LONGEST_LABEL = 200
MAX_DEPTH = 8

COUNTS = frozenset(
    {
        "n_params", "n_params_total", "n_params_non_embedding", "n_params_active", "n_tokens", "batch_tokens",
        "sequence_length", "width", "depth",
    }
)  # fmt: skip
LABELS = frozenset({"optimizer", "dataset", "tokenizer"})
CHOICES = {
    "n_params_kind": N_PARAMS_KINDS,
    "weight_decay_kind": ("lr_scaled", "independent", "l2"),
    "weight_decay_schedule": ("lr", "constant"),
    "parametrization": ("standard", "mup"),
}
BETWEEN: dict[str, Callable[[float], bool]] = {
    **dict.fromkeys(COUNTS, lambda value: value > 0),
    "peak_lr": lambda value: value > 0,
    "weight_decay": lambda value: 0 <= value <= HIGHEST_WEIGHT_DECAY,
    "mean_lr_share": lambda value: 0 < value <= 1,
    "seed": lambda value: value == int(value),
}
"""Fields that are numbers to the service, and which numbers."""


@dataclass(frozen=True)
class LoggedConfig:
    """A configuration, the fields that its keys became, and notes on values that no such field can have."""

    config: Mapping[str, Any]
    named: Named
    notes: tuple[str, ...]


def read_config(logged: Mapping[str, Any], chosen: Mapping[str, str]) -> LoggedConfig:
    """The configuration that logged hyper-parameters say."""
    plain = {str(key): _plain(value, MAX_DEPTH) for key, value in logged.items()}
    said = {_clean(key): value for key, value in plain.items() if value is not None and value != {} and key}
    named = name_config(list(said), chosen)
    config: dict[str, Any] = {}
    notes = []
    for key, name in named.fields.items():
        value = _as_field(name, said[key])
        if value is None:
            notes.append(f"config {key} left out: {str(said[key])[:40]!r} is no {name}")
        else:
            config[name] = value
    if "precision" not in config:
        config |= _precision(said)
    return LoggedConfig(config, named, tuple(notes))


def _precision(said: Mapping[str, Any]) -> dict[str, str]:
    """The precision where it is said by a flag, as by `bf16: true`."""
    found = [name for name in ("bf16", "fp16") if said.get(name) is True]
    return {"precision": found[0]} if len(found) == 1 else {}


def _as_field(name: str, value: Any) -> Any:
    """The value as one of a field that the service knows, None where it is none."""
    if name in BETWEEN:
        number = _number(value)
        return number if number is not None and BETWEEN[name](number) else None
    if name in CHOICES:
        return value if value in CHOICES[name] else None
    if name in LABELS:
        text = str(value).strip()[:LONGEST_LABEL]
        return text or None
    return value


def _number(value: Any) -> int | float | None:
    """The number that a value is or spells; whole ones as such."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(str(value).replace("_", ""))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number == int(number) and abs(number) < LARGEST_EXACT else number


def _plain(value: Any, depth: int) -> Any:
    """The value as JSON types, None for what says nothing: numbers that are none, and empty things."""
    if hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "size", 0) == 1:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < LARGEST_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return _clean(str(value))
    if isinstance(value, Mapping):
        return {_clean(str(key)): _plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry, depth - 1) for entry in value]
    text = _clean(str(value))
    # The service writes these three for floats.
    return None if text in ("NaN", "Infinity", "-Infinity") else text


def _clean(text: str) -> str:
    """A text that JSON and the database can hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:LONGEST_TEXT]

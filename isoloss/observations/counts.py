"""Parameter counts, of which a run may state three kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

N_PARAMS_KINDS = ("total", "non_embedding", "active")

LOWEST_COUNT, HIGHEST_COUNT = 1e-30, 1e30
"""Counts of parameters or tokens outside of this, in whatever unit, count nothing."""


def n_params_of(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, float | None]:
    """Return (kind, count) of the parameter count that a run's configuration means, or of the kind asked for."""
    kind, count = stated_n_params(config, asked)
    return kind, None if count is None else float(count)


def stated_n_params(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, Any]:
    """Return the same with the count as it stands there, which may be anything."""
    own = config.get("n_params_kind")
    kind = asked or own
    count = config.get(f"n_params_{kind}") if kind else None
    if count is None and (asked is None or asked == own):
        count = config.get("n_params")
    return kind, count

"""Parameter counts, of which a run may state three kinds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

from isoloss.errors import InvalidInput

N_PARAMS_KINDS = ("total", "non_embedding", "active")

LOWEST_COUNT, HIGHEST_COUNT = 1e-30, 1e30
"""Counts of parameters or tokens outside of this, in whatever unit, count nothing."""


def check_kind(kind: object, field: str = "n_params_kind") -> None:
    """Raise InvalidInput for what is no kind of parameter count; None says nothing."""
    if kind is not None and not (isinstance(kind, str) and kind in N_PARAMS_KINDS):
        raise InvalidInput(field=field, reason=f"{kind!r} is not one of {', '.join(N_PARAMS_KINDS)}")


def fits_float(value: object) -> bool:
    """Return whether a value is a number, NaN and infinity included, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return not (isinstance(value, int) and abs(value) > sys.float_info.max)


def number_of(value: Any, field: str) -> float | None:
    """Return a number as a float, None where there is none; raises InvalidInput for anything else."""
    if value is not None and not fits_float(value):
        raise InvalidInput(field=field, reason=f"{str(value)[:40]!r} is no number")
    return None if value is None else float(value)


def mapping_of(value: object, field: str) -> Mapping[str, Any]:
    """Return a mapping by names, empty for None; raises InvalidInput for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidInput(field=field, reason=f"must be a mapping by names, not {type(value).__name__}")
    return value


def n_params_of(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, float | None]:
    """Return (kind, count) of the parameter count that a run's configuration means, or of the kind asked for.

    Raises InvalidInput for a kind that there is not, and for a count that is no number.
    """
    kind, count = stated_n_params(config, asked)
    return kind, number_of(count, "n_params")


def stated_n_params(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, Any]:
    """Return the same with the count as it stands there, which may be anything."""
    own = mapping_of(config, "config").get("n_params_kind")
    for one in (asked, own):
        check_kind(one)
    kind = asked or own
    count = config.get(f"n_params_{kind}") if kind else None
    if count is None and (asked is None or asked == own):
        count = config.get("n_params")
    return kind, count

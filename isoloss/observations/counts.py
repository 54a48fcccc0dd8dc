"""Parameter counts, of which a run may state three kinds."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from isoloss.errors import InvalidInput

N_PARAMS_KINDS = ("total", "non_embedding", "active")

LOWEST_COUNT, HIGHEST_COUNT = 1e-30, 1e30
"""Counts of parameters or tokens outside of this, in whatever unit, count nothing."""


def check_kind(kind: object, field: str = "n_params_kind") -> None:
    """Raise InvalidInput for what is no kind of parameter count; None says nothing."""
    if kind is not None and kind not in N_PARAMS_KINDS:
        raise InvalidInput(field=field, reason=f"{kind!r} is not one of {', '.join(N_PARAMS_KINDS)}")


def n_params_of(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, float | None]:
    """Return (kind, count) of the parameter count that a run's configuration means, or of the kind asked for.

    Raises InvalidInput for a kind that there is not, and for a count that is no number.
    """
    kind, count = stated_n_params(config, asked)
    if count is not None and (isinstance(count, bool) or not isinstance(count, Real)):
        raise InvalidInput(field="n_params", reason=f"{str(count)[:40]!r} is no number")
    return kind, None if count is None else float(count)


def stated_n_params(config: Mapping[str, Any], asked: str | None = None) -> tuple[str | None, Any]:
    """Return the same with the count as it stands there, which may be anything."""
    own = config.get("n_params_kind")
    for one in (asked, own):
        check_kind(one)
    kind = asked or own
    count = config.get(f"n_params_{kind}") if kind else None
    if count is None and (asked is None or asked == own):
        count = config.get("n_params")
    return kind, count

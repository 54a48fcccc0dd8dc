"""A fit in a few lines, as a notebook or an interpreter shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isoloss.notes import grouped

if TYPE_CHECKING:
    from isoloss.fitting.result import Fit, ParameterEstimate

MOST_REASONS = 10
"""Reasons of a verdict that are shown: a fit of many runs may have a note on each."""

MOST_LEFT_OUT, MOST_NAMED = 3, 3
"""Of left-out runs: the reasons that are shown, and the runs that are named under each."""


def summary(fit: Fit) -> str:
    """Return verdict, parameters, reasons, the error on runs that were not fitted, and what was left out."""
    lines = [
        f"Fit({fit.law_name}, {fit.verdict})",
        *(f"  {_parameter(one)}" for one in fit.parameters.values()),
        *(f"  {line}" for line in _reasons(fit.reasons)),
        *(f"  {line}" for line in _held_out(fit.holdout, fit.law.unit)),
        *(f"  {line}" for line in _left_out(fit.left_out)),
    ]
    return "\n".join(lines)


def _parameter(one: ParameterEstimate) -> str:
    if one.value is None:
        return f"{one.name}: not determined"
    interval = "" if one.interval is None else f" [{one.interval[0]:.6g}, {one.interval[1]:.6g}]"
    unit = "" if one.unit == "1" else f" {one.unit}"
    return f"{one.name} = {one.value:.6g}{interval}{unit}"


def _reasons(reasons: Sequence[str]) -> Iterator[str]:
    told = grouped(reasons)
    yield from (f"- {reason}" for reason in told[:MOST_REASONS])
    if len(told) > MOST_REASONS:
        yield f"- ... and {len(told) - MOST_REASONS} more in fit.reasons"


def _held_out(holdout: Mapping[str, Any] | None, unit: str) -> Iterator[str]:
    """Say which runs were predicted, how far off they are in the mean over runs, and how far the worst point is."""
    if not holdout or not holdout.get("runs"):
        return
    mean = holdout["mean"]["mae"]
    far = [run["max_relative_error"] for run in holdout["runs"].values()]
    if mean is None or None in far:  # what a document has for a number that is not finite
        yield f"predicted {holdout['predicted']}: the error is not finite"
    else:
        error = f"mean absolute error {mean:.3g} {unit}, at most {max(far):.2%}"
        yield f"predicted {holdout['predicted']}: {error}"


def _left_out(left_out: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Say how many runs were left out, and which for the first few reasons."""
    if not left_out:
        return
    yield f"left out: {len(left_out)} run{'s' if len(left_out) > 1 else ''}"
    named: dict[str, list[str]] = {}
    for one in left_out:
        named.setdefault(one["reason"], []).append(one["run_id"])
    for reason, runs in list(named.items())[:MOST_LEFT_OUT]:
        more = f" and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
        yield f"  {', '.join(runs[:MOST_NAMED])}{more}: {reason}"
    if len(named) > MOST_LEFT_OUT:
        yield "  ... and more in fit.left_out"

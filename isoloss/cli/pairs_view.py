"""How pairs of recipes are shown: those that can be told apart first, the others as a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoloss.cli.output import Output, number, with_interval
from isoloss.notes import counted

VERSUS = " vs "
MOST_UNSURE = 20
"""Pairs without an interval that are shown, where there are no more."""

COMPUTE_UNIT = "FLOP"

Pair = Mapping[str, Mapping[str, Any]]
"""What was derived for two recipes, by its name."""


def are_pairs(derived: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows are of pairs of recipes."""
    return bool(derived) and all(VERSUS in one["name"] for one in derived)


def show_pairs(output: Output, derived: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each pair that has a gap or a crossing, and how many have none."""
    pairs = _by_pair(derived)
    known = [name for name, one in pairs.items() if _is_determined(one)]
    unsure = [name for name, one in pairs.items() if name not in known and _value(one, "gap") is not None]
    shown = known + (unsure if len(unsure) <= MOST_UNSURE else [])
    output.line()
    if shown:
        unit = next((one["unit"] for one in pairs[shown[0]].values() if one["unit"] != "1"), "")
        at = "compute" if unit == COMPUTE_UNIT else unit
        columns = [
            "first vs second",
            f"at {at}",
            "gap, nats/token",
            "first leads",
            "they cross at",
            "times saved",
        ]
        output.table(columns, [_row(name, pairs[name]) for name in shown], right=[columns[1]])
    if rest := len(pairs) - len(shown):
        output.line(f"Of {counted(rest, 'more pair')} the runs do not tell; --json has all.", style="dim")


def _by_pair(derived: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    pairs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in derived:
        pair, _, what = one["name"].rpartition(".")
        pairs.setdefault(pair, {})[what] = one
    return pairs


def _is_determined(pair: Pair) -> bool:
    has_gap = bool(pair.get("gap", {}).get("interval"))
    return has_gap or _value(pair, "crossing") is not None


def _value(pair: Pair, what: str) -> float | None:
    return pair.get(what, {}).get("value")


def _row(name: str, pair: Pair) -> list[str]:
    leads = _value(pair, "first_leads")
    return [
        name,
        number(_value(pair, "largest_common")),
        _with_ends(pair, "gap"),
        "-" if leads is None else f"{100 * leads:.0f}%",
        _with_ends(pair, "crossing"),
        _with_ends(pair, "compute_saved"),
    ]


def _with_ends(pair: Pair, what: str) -> str:
    one = pair.get(what, {})
    return "-" if one.get("value") is None else with_interval(one["value"], one.get("interval"))

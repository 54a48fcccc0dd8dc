"""How advice is shown: settings with what being wrong costs, what they rest on, and what is lacking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from isoloss.cli.fit_view import of_runs, show_options
from isoloss.cli.output import Output, interval, number
from isoloss.cli.predictions import show_reach, shown_rows

if TYPE_CHECKING:
    from isoloss.client.documents import (
        Advice,
        Basis,
        Choice,
        ParetoFront,
        Quantity,
        Recommendation,
        Shape,
        SuggestedSchedule,
    )

DIGITS, LOSS_DIGITS = 3, 4
WHOLE_PERCENT = 99.5
SEVERAL = 2.0
"""From so many times the run's own on, a cost is told as a multiple and not as a percentage."""
SETTINGS = {
    "peak_lr": "peak learning rate",
    "weight_decay": "weight decay",
    "batch_tokens": "batch, tokens",
    "critical_batch_tokens": "critical batch, tokens",
    "timescale": "timescale, share of the run",
    "predicted_loss": "expected loss, nats/token",
}
COSTS = {"compute_flops": "operations", "hours": "hours", "device_hours": "device-hours", "money": "in price"}
CHOICE_COSTS = ("hours", "device_hours", "money")


def show_recommendation(output: Output, told: Recommendation) -> None:
    """Print a recommendation in whatever state it is."""
    target = [f" for {number(told['n_params'])} parameters"] if "n_params" in told else []
    target += [f" and {number(told['n_tokens'])} tokens"] if "n_tokens" in told else []
    output.line(f"Recommendation {told['id']}{''.join(target)}")
    if not _show_question(output, told):
        return
    known = cast("Mapping[str, Quantity]", {name: told.get(name) for name in SETTINGS if told.get(name)})
    _show_settings(output, known, told.get("level"))
    _show_priors(output, known)
    _show_readings(output, known)
    _show_schedule(output, told.get("schedule"))
    _show_shape(output, told.get("shape"))
    _show_cost(output, told.get("cost") or {})
    _show_basis(output, (one for quantity in known.values() for one in quantity["basis"]))
    _show_missing(output, told, known)
    _show_wanted(output, told)
    _show_warnings(output, told)


def show_front(output: Output, front: ParetoFront) -> None:
    """Print a Pareto front in whatever state it is."""
    target = f" to a loss of {number(front['target_loss'])}" if "target_loss" in front else ""
    output.line(f"Pareto front {front['id']}{target}")
    if not _show_question(output, front):
        return
    _show_choices(output, front.get("choices") or [], front.get("level"))
    _show_basis(output, front.get("basis") or [])
    show_reach(output, front.get("extrapolation") or {})
    _show_warnings(output, front)


def _show_question(output: Output, told: Advice) -> bool:
    """Print what was asked; whether there is an answer."""
    if told["status"] != "succeeded":
        why = f": {told['error']}" if told.get("error") else ""
        output.line(f"{told['status'].capitalize()}{why} (job {told['job_id']})")
        return False
    options = told.get("options") or {}
    output.line(f"From the {of_runs(options.get('target', 'loss'), told.get('select') or {})}")
    for name, limit in (told.get("constraints") or {}).items():
        output.line(f"  {name.replace('_', ' ')}: {limit:g}")
    show_options(output, options)
    output.line()
    return True


def _show_settings(output: Output, known: Mapping[str, Quantity], level: float | None) -> None:
    rows = []
    for name, one in known.items():
        if one["value"] is None:
            continue
        digits = LOSS_DIGITS if name == "predicted_loss" else DIGITS
        shown = number(one["value"], digits)
        laws = ", ".join(basis["law"] for basis in one["basis"])
        ends = interval(one["interval"], digits, like=shown)
        rows.append([SETTINGS[name], shown, ends, _percent(one["regret_factor_two"]), laws])
    columns = ["setting", "value", _interval_name(level), "a factor of two costs", "rests on"]
    output.table(columns, rows, right=["value", "a factor of two costs"], whole=columns[:2])


def _show_priors(output: Output, known: Mapping[str, Quantity]) -> None:
    """What published laws say alone, and how much of each setting is theirs."""
    rows = []
    for name, one in known.items():
        prior = one.get("prior")
        if prior is not None:
            alone = number(prior["value"], DIGITS)
            ends = interval(prior["interval"], DIGITS, like=alone)
            rows.append([SETTINGS[name], prior["name"], _percent(prior["share"]), alone, ends])
    if rows:
        output.line()
        columns = ["setting", "published law", "its share", "alone it says", "interval"]
        output.table(columns, rows, right=["its share", "alone it says"], whole=columns[:2])


def _show_readings(output: Output, known: Mapping[str, Quantity]) -> None:
    """What other laws say of settings, and the run that each holds for."""
    readings = [(name, one) for name, quantity in known.items() for one in quantity.get("readings") or []]
    if readings:
        output.line()
    for name, one in readings:
        setting = SETTINGS[name].partition(",")[0]
        if one["value"] is None:
            output.line(f"{one['law']} on the {setting}: {one['reason']}", style="dim")
            continue
        shown = number(one["value"], DIGITS)
        ends = interval(one["interval"], DIGITS, like=shown)
        beside = "" if one["beside"] is None else f" (the main law there: {number(one['beside'], DIGITS)})"
        at = ", ".join(f"{key.replace('_', ' ')} {number(value, DIGITS)}" for key, value in one["at"].items())
        minded = f"; {one['reason']}" if one["reason"] else ""
        output.line(f"{one['law']} reads a {setting} of {shown} {ends}{beside}{at and ' for ' + at}{minded}")


def _show_shape(output: Output, shape: Shape | None) -> None:
    if shape is None:
        return
    sides = [f"{name} {number(shape[name])}" for name in ("width", "depth") if shape[name] is not None]
    output.line()
    output.line(f"Shape: {', '.join([*sides, *([shape['reason']] if shape['reason'] else [])])}")


def _interval_name(level: float | None) -> str:
    return "interval" if level is None else f"{100 * level:g}% interval"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    # Two digits of a percentage count; a whole one is written out.
    return f"{100 * share:.2g}%" if 100 * share < WHOLE_PERCENT else f"{100 * share:,.0f}%"


def _show_schedule(output: Output, suggested: SuggestedSchedule | None) -> None:
    schedule = None if suggested is None else suggested["value"]
    if schedule is not None:
        numbers = [
            f"{name.replace('_', ' ')} {number(one, DIGITS)}"
            for name, one in schedule.items()
            if name != "kind"
        ]
        output.line()
        output.line(f"Schedule: {', '.join([schedule['kind'], *numbers])}")


def _show_cost(output: Output, cost: Mapping[str, Any]) -> None:
    said = [
        f"{number(cost[name], DIGITS)} {what}" for name, what in COSTS.items() if cost.get(name) is not None
    ]
    if said:
        output.line()
        output.line(f"It takes {', '.join(said)}.")


def _show_basis(output: Output, basis: Iterable[Basis]) -> None:
    """The fits behind all settings, each once."""
    fits = {one["fit_id"]: one for one in basis}
    if not fits:
        return
    reaches = any(one.get("extrapolation_factor") is not None for one in fits.values())
    rows = [
        [
            one["law"],
            one["verdict"],
            *([number(one.get("extrapolation_factor"), DIGITS)] if reaches else []),
            one["fit_id"],
        ]
        for one in fits.values()
    ]
    beyond = ["times beyond its runs"] if reaches else []
    output.line()
    output.table(["law", "verdict", *beyond, "fit"], rows, right=beyond, whole=["fit"])


def _show_missing(output: Output, told: Recommendation, known: Mapping[str, Quantity]) -> None:
    """Why there is no value, for what has none."""
    missing = {SETTINGS[name]: one["reason"] for name, one in known.items() if one["value"] is None}
    schedule = told.get("schedule")
    if schedule is not None and schedule["value"] is None:
        missing["schedule"] = schedule["reason"]
    if missing:
        output.line()
    for name, reason in missing.items():
        output.line(f"No {name.partition(',')[0]}: {reason}", style="yellow")


def _show_wanted(output: Output, told: Recommendation) -> None:
    """What to train for each law that is not determined: how many runs, and how much they take."""
    cost = told.get("cost")
    for one in told.get("wanted") or []:
        if not one["runs"]:
            continue
        flops = one["compute_flops"]
        share = f", {_times(flops / cost['compute_flops'])} the run's own" if cost else ""
        runs = f"{len(one['runs'])} runs of {number(flops, DIGITS)} operations in all{share}"
        output.line(f"To determine {one['law']}: {runs}; --json lists them")


def _times(share: float) -> str:
    return f"{_percent(share)} of" if share < SEVERAL else f"{number(share, 2)} times"


def _show_warnings(output: Output, told: Advice) -> None:
    warnings = told.get("warnings") or []
    if warnings:
        output.line()
    for warning in warnings:
        output.line(f"  - {warning}", style="yellow")


def _show_choices(output: Output, choices: Sequence[Choice], level: float | None) -> None:
    """The choices, of many some evenly spaced."""
    if not choices:
        return
    costs = [name for name in CHOICE_COSTS if any(one.get(name) is not None for one in choices)]
    rows = [_choice_row(choices[row], costs) for row in shown_rows(len(choices))]
    numbers = ["parameters", "tokens", "batch, tokens", "steps", "operations"]
    shown = [COSTS[name] for name in costs]
    output.table([*numbers, _interval_name(level), *shown], rows, right=[*numbers, *shown])
    if len(choices) > len(rows):
        output.line(f"{len(rows)} of {len(choices):,} choices; --json writes them all.", style="dim")


def _choice_row(one: Choice, costs: Sequence[str]) -> list[str]:
    sizes = [one["n_params"], one["n_tokens"], one["batch_tokens"], one["steps"], one["compute_flops"]]
    taken = [number(cost, DIGITS) for cost in map(one.get, costs)]
    return [*(number(size, DIGITS) for size in sizes), interval(one["compute_interval"], DIGITS), *taken]

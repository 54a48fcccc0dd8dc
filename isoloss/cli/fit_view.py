"""How a fit is shown: what was fitted, a loud verdict, parameters, errors and what was left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from isoloss.cli.output import Output, digits_of, interval, moment, number, with_interval
from isoloss.cli.pairs_view import are_pairs, show_pairs
from isoloss.notes import counted, grouped

if TYPE_CHECKING:
    from isoloss.client.documents import Fit, LeftOut, Parameter

WIDE = 120
SHOWN_RUNS, MANY_RUNS = 3, 12
MANY_GROUPS = 20
NEAR_ONE = 0.05
OPTION_NAMES = {"fix": "fixed", "expr": "tied", "holdout": "held out"}
MEASURES = {"mae": "MAE", "rmse": "RMSE", "r2": "R2"}
VERDICTS = {
    "sound": ("SOUND: the data determine this law.", "bold green"),
    "weak": ("WEAK: use these numbers with care.", "bold yellow"),
    "unidentified": ("UNIDENTIFIED: the data do not determine this law, so it predicts nothing.", "bold red"),
}


def show_fits(output: Output, fits: Sequence[Fit]) -> None:
    """Print a line a fit, and what it was fitted to beside it, or beneath it where the terminal is narrow."""
    columns = ["fit", "created", "law", "result"]
    rows = [
        [fit["id"], moment(fit.get("created_at")), fit["law"], fit.get("verdict") or fit["status"]]
        for fit in fits
    ]
    fitted = [_fitted(fit) for fit in fits]
    if output.console.width >= WIDE:
        rows = [[*row, what] for row, what in zip(rows, fitted, strict=True)]
        output.table([*columns, "fitted"], rows, whole=columns)
        return
    for row, what in zip(rows, fitted, strict=True):
        output.line("  ".join(row))
        output.line(f"  {what}", style="dim")


def _fitted(fit: Fit, shown: int = SHOWN_RUNS) -> str:
    """The column and the runs of a fit, without those held out, as in: val_loss of a, b and 3 more."""
    chosen = dict(fit.get("select") or {})
    if "run_ids" in chosen:
        held = _held_out(fit)
        chosen["run_ids"] = [run_id for run_id in chosen["run_ids"] if run_id not in held]
    return of_runs((fit.get("options") or {}).get("target", "loss"), chosen, shown)


def of_runs(target: str, chosen: Mapping[str, Any], shown: int = SHOWN_RUNS) -> str:
    """A target of the runs that a selection means, in words."""
    if runs := chosen.get("run_ids"):
        more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
        return f"{target} of {', '.join(runs[:shown])}{more}"
    if chosen.get("all"):
        return f"{target} of all runs"
    words = [
        f"{said}" if name == "where" else f"{name} {', '.join(said) if isinstance(said, list) else said}"
        for name, said in chosen.items()
        if said
    ]
    return f"{target} of the runs with {'; '.join(words)}" if words else target


def _held_out(fit: Fit) -> list[str]:
    return ((fit.get("options") or {}).get("holdout") or {}).get("run_ids") or []


def show_fit(output: Output, fit: Fit) -> None:
    """Print a fit in whatever state it is."""
    output.line(f"Fit {fit['id']}" + (f" of {fit['law']}" if fit.get("law") else ""))
    if fit["status"] != "succeeded":
        why = f": {fit['error']}" if fit.get("error") else ""
        output.line(f"{fit['status'].capitalize()}{why} (job {fit['job_id']})")
        _show_following(output, fit)
        return
    output.line(f"Fitted {_fitted(fit, shown=MANY_RUNS)}")
    show_options(output, fit.get("options") or {})
    _show_following(output, fit)
    _show_verdict(output, fit)
    _show_parameters(output, fit.get("parameters") or [], _level(fit))
    show_groups(output, fit.get("groups") or [])
    _show_derived(output, fit.get("derived") or [])
    _show_training_error(output, fit)
    _show_holdout(output, fit.get("holdout") or {})
    _show_left_out(output, fit.get("left_out") or [])


def _show_following(output: Output, fit: Fit) -> None:
    """Which result this is of a fit that follows its runs, and what became of the last refit."""
    revision = fit.get("revision") or 0
    if fit.get("follow"):
        which = f"revision {revision} of {moment(fit.get('updated_at'))}" if revision else "no result yet"
        output.line(f"  follows its runs: {which}")
    elif revision > 1:
        output.line(f"  revision {revision} of {moment(fit.get('updated_at'))}")
    if fit.get("refit_error"):
        output.line(f"  its last refit failed: {fit['refit_error']}", style="yellow")


def _show_left_out(output: Output, left_out: Sequence[LeftOut]) -> None:
    """The runs that were not used; of many with one reason the number."""
    reasons: dict[str, list[str]] = {}
    for one in left_out:
        reasons.setdefault(one["reason"], []).append(one["run_id"])
    for reason, runs in reasons.items():
        named = ", ".join(runs[:SHOWN_RUNS])
        more = f" and {len(runs) - SHOWN_RUNS} more" if len(runs) > SHOWN_RUNS else ""
        output.line(f"Left out {named}{more}: {reason}", style="yellow")


def show_options(output: Output, options: Mapping[str, Any]) -> None:
    """What was asked for otherwise than by default; the target has been told."""
    asked = {name: said for name, said in options.items() if name != "target"}
    if not asked:
        return
    from isoloss.fitting.options import FitOptions  # numbers are slow to load

    usual = asdict(FitOptions())
    for name, said in asked.items():
        if said == usual.get(name):
            continue
        told = said.get("run_ids", said) if name == "holdout" and isinstance(said, dict) else said
        output.line(f"  {OPTION_NAMES.get(name, name.replace('_', ' '))}: {_option(told)}")


def _option(said: object) -> str:
    if said is None or isinstance(said, bool):
        return {None: "none", True: "yes", False: "no"}[said]
    if isinstance(said, dict):
        return ", ".join(f"{name} {_option(value)}" for name, value in said.items())
    if isinstance(said, list):
        return ", ".join("open" if value is None else f"{value}" for value in said)
    return f"{said}"


def _show_training_error(output: Output, fit: Fit) -> None:
    metrics = fit.get("metrics") or {}
    mean, runs = metrics.get("mean"), metrics.get("runs") or {}
    if not mean:
        return
    worst = max((run.get("max_relative_error") or 0.0 for run in runs.values()), default=None)
    parts = [f"{name} {number(mean[key], 3)}" for key, name in MEASURES.items() if mean.get(key) is not None]
    n_points = (fit.get("diagnostics") or {}).get("n_points")
    several = n_points if n_points != len(runs) else None  # of finished runs each is one point
    parts += [] if worst is None else [f"worst {'point' if several else 'run'} {100 * worst:.2f}%"]
    what = "sweep" if "n_sweeps" in (fit.get("diagnostics") or {}) else "run"
    over = counted(len(runs), f"fitted {what}") + (f", {counted(several, 'point')}" if several else "")
    output.line()
    output.line(f"Error on the {over}: {', '.join(parts)}")


def _show_verdict(output: Output, fit: Fit) -> None:
    text, style = VERDICTS.get(fit.get("verdict") or "", ("", ""))
    if text:
        output.line(text, style=style)
    for reason in grouped(fit.get("reasons") or []):
        output.line(f"  {reason}")
    output.line()


def _show_parameters(output: Output, parameters: list[Parameter], level: str) -> None:
    profiled = any(parameter.get("profile") for parameter in parameters)
    rows = [_parameter_row(parameter, profiled) for parameter in parameters]
    columns = ["parameter", "value", level, *(["by profile"] if profiled else []), "std. error", "unit", ""]
    output.table(columns, rows, right=["value", "std. error"])


def _parameter_row(parameter: Parameter, profiled: bool) -> list[str]:
    value = parameter["value"]
    note = "at its bound" if parameter.get("at_bound") else ""
    unit = parameter.get("unit") or ""
    if value is None:
        blank = ["-"] * (3 if profiled else 2)
        return [parameter["name"], "not determined", *blank, unit, note]
    digits = meaningful_digits(value, parameter.get("std_error"))
    shown = number(value, digits)
    profile = [_profile(parameter.get("profile"), digits, shown)] if profiled else []
    resampled = interval(parameter.get("interval"), digits, like=shown)
    return [
        parameter["name"], shown, resampled, *profile, number(parameter.get("std_error"), 2), unit, note
    ]  # fmt: skip


def _profile(ends: Sequence[float | None] | None, digits: int, like: str) -> str:
    """A profile interval, in which a side without limit is open."""
    if not ends:
        return "-"
    low, high = (None if end is None else interval([end], digits, like)[1:-1] for end in ends)
    return f"[{low or 'open'}, {high or 'open'}]"


def meaningful_digits(value: float, spread: float | None) -> int:
    """How many digits of a value its standard error leaves with a meaning: 3 to 8, 4 where none is known."""
    if not spread or not value or not math.isfinite(spread) or not math.isfinite(value):
        return max(4, _digits_below_one(value))
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(spread)) + 2
    return max(min(max(digits, 3), 8), _digits_below_one(value))


def _digits_below_one(value: float) -> int:
    """The digits that a value just below one needs: of a decay such as 0.998102 its distance from one counts."""
    rest = 1 - value
    return min(3 - math.floor(math.log10(rest)), 10) if 0 < rest < NEAR_ONE else 0


def _level(fit: Fit) -> str:
    options: dict[str, Any] = (fit.get("provenance") or {}).get("options") or {}
    level = options.get("level")
    return f"{100 * level:g}% interval" if isinstance(level, int | float) else "interval"


def _show_derived(output: Output, rows: list[dict[str, Any]]) -> None:
    if are_pairs(rows):
        show_pairs(output, rows)
    elif rows:
        output.line()
        columns = ["derived", "value", "interval", "unit"]
        output.table(columns, [_derived_row(row) for row in rows], right=["value"])


def _derived_row(row: Mapping[str, Any]) -> list[str]:
    name = row["name"] if "." in row["name"] else row["name"].replace("_", " ")
    value, ends = row.get("value"), row.get("interval")
    digits = digits_of(value, ends) if value is not None else 4
    shown = "not determined" if value is None else number(value, digits)
    return [name, shown, interval(ends, digits, like=shown), row.get("unit") or ""]


def show_groups(output: Output, groups: Sequence[dict[str, Any]]) -> None:
    """Print what was found for each group of runs that has something, a line a group."""
    found = [group for group in groups if group.get("parameters")]
    if not found:
        return
    by = list(found[0]["by"])
    names = [one["name"] for one in found[0]["parameters"]]
    rows = [
        [*(_label(group["by"].get(name)) for name in by), *(_of_group(group, name) for name in names)]
        for group in found[:MANY_GROUPS]
    ]
    output.line()
    output.table([*by, *names], rows, right=by)
    if len(found) > MANY_GROUPS:
        output.line(f"and {len(found) - MANY_GROUPS} more groups (--json has all)")


def _label(value: object) -> str:
    return number(value, 4) if isinstance(value, int | float) else str(value)


def _of_group(group: dict[str, Any], name: str) -> str:
    one = next((one for one in group["parameters"] if one["name"] == name), None)
    if one is None or one.get("value") is None:
        return "not determined"
    return with_interval(one["value"], one.get("interval"))


def _show_holdout(output: Output, holdout: dict[str, Any]) -> None:
    """How well runs were predicted that were not fitted: those asked for, else some from the others."""
    runs = holdout.get("runs") or {}
    scores = {**(runs if len(runs) <= MANY_RUNS else {}), **_means(holdout)}
    if not scores:
        return
    measures = {**MEASURES, "max_relative_error": "worst"}
    if any(score.get("coverage") is not None for score in scores.values()):
        level = holdout.get("level")
        measures["coverage"] = "in interval" if level is None else f"in {100 * level:g}% interval"
    told = {
        key: name
        for key, name in measures.items()
        if any(score.get(key) is not None for score in scores.values())
    }
    rows = [[run_id, *(_score(measure, score) for measure in told)] for run_id, score in scores.items()]
    columns = ["predicted, not fitted", *told.values()]
    output.line()
    if holdout.get("predicted"):
        output.line(f"Predicted from the other runs: {holdout['predicted']}")
    output.table(columns, rows, right=columns[1:])


def _means(holdout: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The mean over the runs, and over those of each other time that runs were predicted from others."""
    means = {"mean": holdout["mean"]} if holdout.get("mean") else {}
    count = len(holdout.get("runs") or {})
    if means and count > MANY_RUNS:
        means = {f"mean of {count:,} runs": holdout["mean"]}
    others = [one for one in holdout.get("others") or [] if one.get("mean")]
    return means | {one["predicted"]: one["mean"] for one in others[:SHOWN_RUNS]}


def _score(measure: str, score: dict[str, Any]) -> str:
    value = score.get(measure)
    if measure == "max_relative_error" and isinstance(value, int | float):
        return f"{100 * value:.2f}%"
    if measure == "coverage" and isinstance(value, int | float):
        return f"{100 * value:.0f}%"
    return number(value, 3)

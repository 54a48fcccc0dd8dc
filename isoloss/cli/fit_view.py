"""How a fit is shown: what was fitted, a loud verdict, parameters, errors and what was left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from isoloss.cli.output import Output, interval, moment, number

if TYPE_CHECKING:
    from isoloss.client.documents import Fit, Parameter

WIDE = 120
SHOWN_RUNS, MANY_RUNS = 3, 12
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
    target = (fit.get("options") or {}).get("target", "loss")
    chosen = fit.get("select") or {}
    held = _held_out(fit)
    runs = [run_id for run_id in chosen.get("run_ids") or [] if run_id not in held]
    if runs:
        more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
        return f"{target} of {', '.join(runs[:shown])}{more}"
    if chosen.get("all"):
        return f"{target} of all runs"
    words = [f"{name} {', '.join(said) if isinstance(said, list) else said}" for name, said in chosen.items()]
    return f"{target} of the runs with {'; '.join(words)}" if words else target


def _held_out(fit: Fit) -> list[str]:
    return ((fit.get("options") or {}).get("holdout") or {}).get("run_ids") or []


def show_fit(output: Output, fit: Fit) -> None:
    """Print a fit in whatever state it is."""
    output.line(f"Fit {fit['id']}" + (f" of {fit['law']}" if fit.get("law") else ""))
    if fit["status"] != "succeeded":
        why = f": {fit['error']}" if fit.get("error") else ""
        output.line(f"{fit['status'].capitalize()}{why} (job {fit['job_id']})")
        return
    output.line(f"Fitted {_fitted(fit, shown=MANY_RUNS)}")
    _show_options(output, fit.get("options") or {})
    _show_verdict(output, fit)
    _show_parameters(output, fit.get("parameters") or [], _level(fit))
    _show_rows(output, "Derived", fit.get("derived") or [])
    _show_training_error(output, fit)
    _show_holdout(output, fit.get("holdout") or {})
    for left_out in fit.get("left_out") or []:
        output.line(f"Left out {left_out['run_id']}: {left_out['reason']}", style="yellow")


def _show_options(output: Output, options: dict[str, Any]) -> None:
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
    parts = [f"{name} {number(mean.get(key), 3)}" for key, name in MEASURES.items()]
    parts += [] if worst is None else [f"worst point {100 * worst:.2f}%"]
    n_points = (fit.get("diagnostics") or {}).get("n_points")
    over = f"{len(runs)} fitted runs" + (f", {n_points:,} points" if isinstance(n_points, int) else "")
    output.line()
    output.line(f"Error on the {over}: {', '.join(parts)}")


def _show_verdict(output: Output, fit: Fit) -> None:
    text, style = VERDICTS.get(fit.get("verdict") or "", ("", ""))
    if text:
        output.line(text, style=style)
    for reason in fit.get("reasons") or []:
        output.line(f"  {reason}")
    output.line()


def _show_parameters(output: Output, parameters: list[Parameter], level: str) -> None:
    rows = [_parameter_row(parameter) for parameter in parameters]
    columns = ["parameter", "value", level, "std. error", "unit", ""]
    output.table(columns, rows, right=["value", "std. error"])


def _parameter_row(parameter: Parameter) -> list[str]:
    value = parameter["value"]
    note = "at its bound" if parameter.get("at_bound") else ""
    if value is None:
        return [parameter["name"], "not determined", "-", "-", parameter.get("unit") or "", note]
    digits = meaningful_digits(value, parameter.get("std_error"))
    shown = number(value, digits)
    return [
        parameter["name"],
        shown,
        interval(parameter.get("interval"), digits, like=shown),
        number(parameter.get("std_error"), 2),
        parameter.get("unit") or "",
        note,
    ]


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


def _show_rows(output: Output, title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        output.line()
        cells = [
            [
                row["name"].replace("_", " "),
                _determined(row.get("value")),
                interval(row.get("interval"), like=_determined(row.get("value"))),
                row.get("unit") or "",
            ]
            for row in rows
        ]
        output.table([title.lower(), "value", "interval", "unit"], cells, right=["value"])


def _determined(value: float | None) -> str:
    return "not determined" if value is None else number(value)


def _show_holdout(output: Output, holdout: dict[str, Any]) -> None:
    scores = {**(holdout.get("runs") or {}), **({"mean": holdout["mean"]} if holdout.get("mean") else {})}
    if not scores:
        return
    measures = {**MEASURES, "max_relative_error": "worst"}
    if any(score.get("coverage") is not None for score in scores.values()):
        level = holdout.get("level")
        measures["coverage"] = "in interval" if level is None else f"in {100 * level:g}% interval"
    rows = [[run_id, *(_score(measure, score) for measure in measures)] for run_id, score in scores.items()]
    columns = ["held out", *measures.values()]
    output.line()
    output.table(columns, rows, right=columns[1:])


def _score(measure: str, score: dict[str, Any]) -> str:
    value = score.get(measure)
    if measure == "max_relative_error" and isinstance(value, int | float):
        return f"{100 * value:.2f}%"
    if measure == "coverage" and isinstance(value, int | float):
        return f"{100 * value:.0f}%"
    return number(value, 3)

"""How a fit is shown: its verdict first and loud, then parameters, held-out errors and what was left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from isoloss.cli.output import Output, interval, number

if TYPE_CHECKING:
    from isoloss.client.documents import Fit, Parameter

VERDICTS = {
    "sound": ("SOUND: the data determine this law.", "bold green"),
    "weak": ("WEAK: use these numbers with care.", "bold yellow"),
    "unidentified": ("UNIDENTIFIED: the data do not determine this law, so it predicts nothing.", "bold red"),
}


def show_fit(output: Output, fit: Fit) -> None:
    """Print a fit in whatever state it is."""
    output.line(f"Fit {fit['id']}" + (f" of {fit['law']}" if fit.get("law") else ""))
    if fit["status"] != "succeeded":
        why = f": {fit['error']}" if fit.get("error") else ""
        output.line(f"{fit['status'].capitalize()}{why} (job {fit['job_id']})")
        return
    _show_verdict(output, fit)
    _show_parameters(output, fit.get("parameters") or [], _level(fit))
    _show_rows(output, "Derived", fit.get("derived") or [])
    _show_holdout(output, fit.get("holdout") or {})
    for left_out in fit.get("left_out") or []:
        output.line(f"Left out {left_out['run_id']}: {left_out['reason']}", style="yellow")


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
    return [
        parameter["name"],
        number(value, digits),
        interval(parameter.get("interval"), digits),
        number(parameter.get("std_error"), 2),
        parameter.get("unit") or "",
        note,
    ]


def meaningful_digits(value: float, spread: float | None) -> int:
    """How many digits of a value its standard error leaves with a meaning: 3 to 8, 4 where none is known."""
    if not spread or not value or not math.isfinite(spread) or not math.isfinite(value):
        return 4
    return min(max(math.floor(math.log10(abs(value))) - math.floor(math.log10(spread)) + 2, 3), 8)


def _level(fit: Fit) -> str:
    options: dict[str, Any] = (fit.get("provenance") or {}).get("options") or {}
    level = options.get("level")
    return f"{100 * level:g}% interval" if isinstance(level, int | float) else "interval"


def _show_rows(output: Output, title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        output.line()
        cells = [
            [row["name"], _determined(row.get("value")), interval(row.get("interval")), row.get("unit") or ""]
            for row in rows
        ]
        output.table([title.lower(), "value", "interval", "unit"], cells, right=["value"])


def _determined(value: float | None) -> str:
    return "not determined" if value is None else number(value)


def _show_holdout(output: Output, holdout: dict[str, Any]) -> None:
    scores = {**(holdout.get("runs") or {}), **({"mean": holdout["mean"]} if holdout.get("mean") else {})}
    if not scores:
        return
    measures = ["mae", "rmse", "r2", "max_relative_error"]
    rows = [[run_id, *(_score(measure, score) for measure in measures)] for run_id, score in scores.items()]
    columns = ["held out", "MAE", "RMSE", "R2", "worst"]
    output.line()
    output.table(columns, rows, right=columns[1:])


def _score(measure: str, score: dict[str, Any]) -> str:
    value = score.get(measure)
    if measure == "max_relative_error" and isinstance(value, int | float):
        return f"{100 * value:.2f}%"
    return number(value, 3)

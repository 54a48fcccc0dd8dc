"""`isoloss predict`"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.arguments import MissingArgument, given_fit, json_object, pairs, scalar
from isoloss.cli.arguments import steps as read_steps
from isoloss.cli.output import Output, interval, number
from isoloss.cli.session import Project, Session, command
from isoloss.errors import InvalidInput

if TYPE_CHECKING:
    from isoloss.client.documents import Prediction

SHOWN_ROWS = 25
DIGITS = 5
FACTORS = {
    "area_factor": "the sum of learning rates",
    "steps_factor": "the steps",
    "n_params_factor": "the model size",
    "n_tokens_factor": "the training tokens",
    "batch_tokens_factor": "the tokens of a batch",
    "compute_flops_factor": "the compute",
    "peak_lr_factor": "away from the fitted peak learning rates",
    "scale_factor": "the scale of the runs",
}


class IntervalKind(StrEnum):
    MEAN = "mean"
    NEW_RUN = "new_run"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "predict")(predict)


def predict(
    session: Session,
    fit_id: Annotated[str, typer.Argument(help="The fit's id.", callback=given_fit)],
    project: Project,
    schedule: Annotated[str | None, typer.Option(help="The schedule to predict: JSON or @file.")] = None,
    steps: Annotated[str | None, typer.Option(help="100,200 or start:stop:count")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="A field of the run, as in n_params=7e9; repeat it.")
    ] = None,
    level: Annotated[
        float | None, typer.Option(help="Level of the interval.", show_default="the fit's")
    ] = None,
    interval: Annotated[
        IntervalKind | None, typer.Option(help="For the law's own curve, or for one more run.")
    ] = None,
) -> None:
    """Predict what a fitted law has not seen: a curve under a schedule, or the outcome of a configuration."""
    asked = pairs("--config", config, scalar)
    try:
        prediction = session.client.fits.predict(
            project,
            fit_id,
            schedule=json_object("--schedule", schedule) if schedule else None,
            config=asked or None,
            steps=read_steps(steps) if steps else None,
            level=level,
            interval=interval.value if interval else None,
        )
    except InvalidInput as error:
        missing = _missing(error, {"schedule": schedule, **asked})
        if missing is None:
            raise
        raise missing from error
    not_read = (prediction.get("extrapolation") or {}).get("not_read") or []
    read = {name: value for name, value in asked.items() if name not in not_read}
    session.output.show(prediction, lambda: _show(session.output, prediction, read))


def _missing(error: InvalidInput, given: Mapping[str, Any]) -> MissingArgument | None:
    """What the service asks for in the words of the command line, None where it was given or is none of ours."""
    field, _, reason = str(error).partition(": ")
    name = field.removeprefix("config.")
    if field not in ("schedule", f"config.{name}") or given.get(name) is not None:
        return None
    option = "--schedule" if field == "schedule" else f"--config {name}=..."
    return MissingArgument(field=option, reason=reason)


def _show(output: Output, prediction: Prediction, asked: Mapping[str, Any]) -> None:
    rows = [
        [
            *_place(prediction, row, asked),
            number(float(prediction["value"][row]), DIGITS),
            interval([float(prediction[end][row]) for end in ("lower", "upper")], DIGITS),
        ]
        for row in shown_rows(len(prediction["value"]))
    ]
    unit = f" ({prediction['unit']})" if prediction.get("unit") else ""
    about = ["step"] if prediction["steps"] is not None else [name.replace("_", " ") for name in asked]
    columns = [*about, f"{prediction['quantity']}{unit}", _interval_name(prediction)]
    output.table(columns, rows, right=about)
    if len(prediction["value"]) > len(rows):
        count = len(prediction["value"])
        output.line(f"{len(rows)} of {count:,} steps; --json writes them all.", style="dim")
    show_reach(output, prediction.get("extrapolation") or {})


def shown_rows(count: int) -> list[int]:
    """Which rows of a long prediction are shown: evenly spaced, the first and the last among them."""
    if not count:
        return []
    return sorted({(count - 1) * index // max(SHOWN_ROWS - 1, 1) for index in range(SHOWN_ROWS)})


def _place(prediction: Prediction, row: int, asked: Mapping[str, Any]) -> list[str]:
    """What a row is about: its step, or for a law of finished runs the configuration that was asked for."""
    if prediction["steps"] is not None:
        return [number(int(prediction["steps"][row]))]
    return [number(value) for value in asked.values()]


def show_reach(output: Output, reach: Mapping[str, Any]) -> None:
    """How far the prediction lies beyond what was fitted, and what to mind about it."""
    factors = [f"{number(value, 3)} times {FACTORS.get(name, name)}" for name, value in _beyond(reach)]
    early = ["before the first fitted point"] if reach.get("before_first_point") else []
    warnings = [str(warning) for warning in reach.get("warnings") or []]
    if factors or early or warnings:
        output.line()
    if factors or early:
        output.line(f"Beyond what was fitted: {', '.join([*factors, *early])}", style="yellow")
    for warning in warnings:
        output.line(f"  - {warning}")


def _beyond(reach: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in reach.items():
        # A factor of almost one is a matter of rounding.
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value - 1) > 1e-3:
            yield name, float(value)


def _interval_name(prediction: Prediction) -> str:
    of = {"mean": " of the law", "new_run": " of one more run"}.get(prediction.get("interval", ""), "")
    level = prediction.get("level")
    return f"interval{of}" if level is None else f"{100 * level:g}% interval{of}"

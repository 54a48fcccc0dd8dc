"""The demo: real curves through the API into Postgres, a law fitted by a worker, unseen schedules predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.errors import NotFound
from isoloss.importers import import_curves
from isoloss.plots import Forecast, forecast_figure, write_page

if TYPE_CHECKING:
    from isoloss.client import Client

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "data"
PROJECT = "demo"
LAW = "lr_annealing"
TARGET = "val_loss"
FITTED = ("constant", "cosine", "wsd_linear")
"""The schedules that the law is fitted to; it predicts the others."""

Tell = Callable[[str], None]
Tick = Callable[[], None]


@dataclass(frozen=True)
class Example:
    """A recorded run: its id, the name of its schedule, its model, and its schedule's declaration."""

    run_id: str
    recipe: str
    model: str
    schedule: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def is_fitted(self) -> bool:
        return self.recipe in FITTED


@dataclass(frozen=True)
class Outcome:
    """What the demo found: a fit a model, and a forecast for each run that no fit has seen."""

    fits: dict[str, Mapping[str, Any]]
    forecasts: dict[str, list[Forecast]]


def run_demo(client: Client, tell: Tell, tick: Tick) -> Outcome:
    """Import the recorded runs, fit the law to three schedules of each model, predict the others.

    `tell` is given a line for each step, `tick` is called while a worker fits.
    """
    examples = read_examples()
    report = import_curves(client, PROJECT, sorted(EXAMPLES.glob("*.csv")), EXAMPLES / "runs.json")
    new, known = (sum(getattr(run, count) for run in report.runs) for count in ("accepted", "duplicates"))
    tell(
        f"Imported {len(report.runs)} runs over HTTP into Postgres: "
        f"{new:,} points new, {known:,} already there."
    )
    fits: dict[str, Mapping[str, Any]] = {}
    forecasts: dict[str, list[Forecast]] = {}
    for model in sorted({example.model for example in examples}):
        runs = [example for example in examples if example.model == model]
        fits[model] = _fit(client, [run.run_id for run in runs if run.is_fitted], tick)
        tell(f"A worker fitted {LAW} to {', '.join(FITTED)} of the {model} model: {_in_words(fits[model])}.")
        unseen = [run for run in runs if not run.is_fitted]
        forecasts[model] = [_forecast(client, fits[model]["id"], run) for run in unseen]
    return Outcome(fits, forecasts)


def read_examples() -> list[Example]:
    """Return the recorded runs that come with the repository. Raises NotFound where they are missing."""
    path = EXAMPLES / "runs.json"
    if not path.is_file():
        raise NotFound(kind="file of recorded runs", name=str(path))
    return [
        Example(
            run["run_id"],
            run["recipe"],
            run["run_id"].removesuffix(f"_{run['recipe']}"),
            run["schedule"],
            run["config"],
        )
        for run in json.loads(path.read_text(encoding="utf-8"))
    ]


def draw(outcome: Outcome, path: Path) -> None:
    """Write the forecasts as one self-contained HTML page, a column a model."""
    columns = list(outcome.forecasts.values())
    panels = [forecast for row in zip(*columns, strict=True) for forecast in row]
    figure = forecast_figure(
        panels,
        "Loss under schedules that the law has not seen",
        f"{LAW} fitted to the {', '.join(FITTED).replace('_', ' ')} runs of each model; the points were held out",
        columns=len(columns),
    )
    write_page(figure, path)


def rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield one row of scores for every forecast."""
    for model, forecasts in outcome.forecasts.items():
        for forecast in forecasts:
            yield {
                "model": model,
                "schedule": forecast.heading.split(", ")[1],
                "mae": forecast.mae,
                "worst": forecast.worst,
                "coverage": forecast.coverage,
            }


def _fit(client: Client, run_ids: Sequence[str], tick: Tick) -> Mapping[str, Any]:
    options = {"target": TARGET, "bootstrap": 200}
    fit = client.fits.create(PROJECT, LAW, run_ids=run_ids, options=options)
    return client.fits.wait(PROJECT, fit["id"], timeout=300, on_progress=lambda _: tick())


def _in_words(fit: Mapping[str, Any]) -> str:
    values = ", ".join(f"{one['name']} {one['value']:.3g}" for one in fit["parameters"])
    return f"{fit['verdict']}, {values}"


def _forecast(client: Client, fit_id: str, run: Example) -> Forecast:
    columns = client.points.read(PROJECT, run.run_id, columns=[TARGET])
    observed = np.ma.filled(columns[TARGET].astype(np.float64), np.nan)
    steps = np.asarray(columns["step"], dtype=np.int64)
    kept = np.isfinite(observed) & (steps > int(run.schedule.get("warmup_steps", 0)))
    predicted = client.fits.predict(
        PROJECT, fit_id, schedule=run.schedule, config=run.config, steps=steps[kept], interval="new_run"
    )
    forecast = Forecast(
        f"{run.model}, {run.recipe.replace('_', ' ')}",
        "",
        steps[kept],
        observed[kept],
        predicted["value"],
        predicted["lower"],
        predicted["upper"],
    )
    note = f"MAE {forecast.mae:.4f} nats, worst {forecast.worst:.2%}, {forecast.coverage:.0%} inside the band"
    return Forecast(**{**vars(forecast), "note": note})

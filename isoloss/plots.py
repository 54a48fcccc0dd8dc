"""Plotly figures, the same for notebooks, pages and exports: compute what to draw, then draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput, IsolossError, UnusableData
from isoloss.laws import TableLaw
from isoloss.observations import Curve, RunTable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from isoloss.fitting import Fit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

INK = "#1f2933"
LINE = "#d1495b"
BAND = "rgba(209, 73, 91, 0.18)"
DOTS = "#2e6f95"
GRID = "#e4e7eb"
MOST_PANELS, MOST_DRAWN = 12, 400
"""Curves of a fit that are drawn, and points of each."""

LEVEL = 0.9
HEAD_PX, PANEL_PX, PANEL_GAP_PX = 170, 300, 85


@dataclass(frozen=True)
class Forecast:
    """A predicted curve beside the observed one; all arrays (n,) at the same steps, losses in nats per token.

    `heading` names the panel, `note` is its second line.
    """

    heading: str
    note: str
    steps: IntArray
    observed: FloatArray
    value: FloatArray
    lower: FloatArray
    upper: FloatArray

    @property
    def mae(self) -> float:
        """Mean absolute error in nats per token."""
        return float(np.mean(np.abs(self.value - self.observed)))

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return float(np.max(np.abs(self.value - self.observed) / self.observed))

    @property
    def coverage(self) -> float:
        """Share of the observed points inside the interval."""
        return float(np.mean((self.lower <= self.observed) & (self.observed <= self.upper)))


def forecast_figure(
    forecasts: Sequence[Forecast],
    title: str,
    subtitle: str,
    columns: int = 2,
    observed: str = "observed, not seen by the fit",
) -> Figure:
    """Return a figure with one panel a forecast: observed points, predicted line, interval as a band."""
    from plotly.subplots import make_subplots

    rows = -(-len(forecasts) // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[f"<b>{one.heading}</b><br><span>{one.note}</span>" for one in forecasts],
        vertical_spacing=PANEL_GAP_PX / (rows * PANEL_PX),
        horizontal_spacing=0.09,
    )
    for index, forecast in enumerate(forecasts):
        row, column = index // columns + 1, index % columns + 1
        for trace in _traces(forecast, observed, in_legend=index == 0):
            figure.add_trace(trace, row, column)
        low, high = _shown(forecast)
        figure.update_yaxes(range=[low, high], row=row, col=column)
    _style(figure, title, subtitle, rows)
    return figure


def fitted_figure(fit: Fit, observations: Sequence[Curve] | RunTable) -> Figure:
    """Return a figure of a fit over what it was made of: a panel a curve, or predicted against observed outcomes.

    Raises Unidentified where the fit predicts nothing, UnusableData where there is nothing to lay it over.
    """
    title = f"{fit.law_name}, {fit.verdict}"
    if isinstance(observations, RunTable):
        return _outcome_figure(fitted_outcomes(fit, observations), title)
    panels = fitted_curves(fit, observations)
    share = (
        f"{len(panels)} of {len(observations)} curves" if len(panels) < len(observations) else "all curves"
    )
    return forecast_figure(panels, title, share, observed="observed")


def fitted_curves(fit: Fit, curves: Sequence[Curve]) -> list[Forecast]:
    """Return a fit's own curves beside those that it was made of, of the first ones that it predicts."""
    panels: list[Forecast] = []
    refused: IsolossError | None = None
    for curve in curves:
        if len(panels) == MOST_PANELS:
            break
        try:
            panels.append(_fitted_curve(fit, curve))
        except InvalidInput as error:  # all of its points are in the warm-up, or its size is unknown
            refused = error
    if not panels:
        raise UnusableData(reason=f"no curve can be laid beside the fit ({refused or 'there is none'})")
    return panels


def _fitted_curve(fit: Fit, curve: Curve) -> Forecast:
    skipped = fit.provenance["options"].get("skip_steps")
    behind = np.flatnonzero(curve.step > (curve.schedule.warmup_steps if skipped is None else skipped))
    if not behind.size:
        raise InvalidInput(field="steps", reason=f"run {curve.run_id!r} has no point behind its warm-up")
    at = behind[np.unique(np.linspace(0, behind.size - 1, MOST_DRAWN).astype(np.int64))]
    config = {
        "n_params": curve.n_params,
        "batch_tokens": curve.batch_tokens,
        "weight_decay": curve.weight_decay,
    }
    told = {name: value for name, value in config.items() if value is not None}
    found = fit.predict(
        schedule=curve.schedule, steps=curve.step[at], config=told, level=LEVEL, interval="new_run"
    )
    shown = (curve.loss_nats[at], found.value, found.lower, found.upper)
    return Forecast(curve.run_id, f"{curve.n_points:,} points", curve.step[at], *shown)


@dataclass(frozen=True)
class Outcomes:
    """What came of runs, and what the law says of each; all arrays (n,)."""

    run_ids: tuple[str, ...]
    unit: str
    observed: FloatArray
    value: FloatArray
    lower: FloatArray
    upper: FloatArray


def fitted_outcomes(fit: Fit, table: RunTable) -> Outcomes:
    """Return the outcomes of runs beside those that the law says. Raises UnusableData for a law of none."""
    law = fit.law
    if not isinstance(law, TableLaw) or not law.predicts_outcomes:
        raise UnusableData(reason=f"{fit.law_name} is no law of one outcome for each run")
    columns = {name: table.column(name) for name in law.columns}
    usable = np.isfinite(table.outcome) & np.all([np.isfinite(one) for one in columns.values()], axis=0)
    if not usable.any():
        raise UnusableData(reason="no run has all that the law reads")
    asked = {name: values[usable] for name, values in columns.items()}
    found = fit.predict(config=asked, level=LEVEL, interval="new_run")
    names = tuple(name for name, one in zip(table.run_ids, usable, strict=True) if one)
    return Outcomes(names, found.unit, table.outcome[usable], found.value, found.lower, found.upper)


def _outcome_figure(outcomes: Outcomes, title: str) -> Figure:
    from plotly.graph_objects import Figure, Scatter

    ends = [float(min(outcomes.observed.min(), outcomes.value.min())),
            float(max(outcomes.observed.max(), outcomes.value.max()))]  # fmt: skip
    figure = Figure()
    figure.add_trace(Scatter(x=ends, y=ends, mode="lines", line={"color": GRID}, name="the same"))
    bars = {
        "type": "data",
        "array": outcomes.upper - outcomes.value,
        "arrayminus": outcomes.value - outcomes.lower,
        "color": BAND,
    }
    figure.add_trace(
        Scatter(
            x=outcomes.observed,
            y=outcomes.value,
            error_y=bars,
            text=outcomes.run_ids,
            mode="markers",
            marker={"color": DOTS},
            name="runs, with the 90 % interval of a new one",
        )
    )
    figure.update_layout(title=title, plot_bgcolor="white", font={"color": INK})
    figure.update_xaxes(title=f"observed ({outcomes.unit})", gridcolor=GRID)
    figure.update_yaxes(title=f"by the law ({outcomes.unit})", gridcolor=GRID)
    return figure


def write_page(figure: Figure, path: Path) -> None:
    """Write a figure as one HTML file that needs nothing else."""
    page = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    path.write_text(page, encoding="utf-8")


def _shown(forecast: Forecast) -> tuple[float, float]:
    """Return the losses to show: the steep start of a curve would flatten everything behind it."""
    highest = float(np.quantile(forecast.observed, 0.9))
    lowest = float(min(forecast.observed.min(), forecast.lower.min()))
    room = 0.08 * (highest - lowest)
    return lowest - room, highest + 2 * room


def _traces(forecast: Forecast, observed: str, *, in_legend: bool) -> list[object]:
    from plotly.graph_objects import Scatter

    around = np.concatenate([forecast.steps, forecast.steps[::-1]])
    edge = np.concatenate([forecast.upper, forecast.lower[::-1]])
    plain = {"showlegend": in_legend}
    return [
        Scatter(
            x=around,
            y=edge,
            fill="toself",
            fillcolor=BAND,
            line={"width": 0},
            hoverinfo="skip",
            name="90 % interval of a new run",
            legendgroup="band",
            **plain,
        ),
        Scatter(
            x=forecast.steps,
            y=forecast.observed,
            mode="markers",
            marker={"size": 4, "color": DOTS},
            name=observed,
            legendgroup="observed",
            **plain,
        ),
        Scatter(
            x=forecast.steps,
            y=forecast.value,
            mode="lines",
            line={"color": LINE, "width": 2},
            name="predicted",
            legendgroup="predicted",
            **plain,
        ),
    ]


def _style(figure: Figure, title: str, subtitle: str, rows: int) -> None:
    figure.update_layout(
        title={
            "text": f"<b>{title}</b><br><span style='font-size:14px'>{subtitle}</span>",
            "x": 0.01,
            "y": 1 - 30 / (HEAD_PX + rows * PANEL_PX),
            "yanchor": "top",
        },
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        plot_bgcolor="white",
        paper_bgcolor="white",
        height=HEAD_PX + rows * PANEL_PX + 60,
        margin={"t": HEAD_PX, "l": 70, "r": 30, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1 + 50 / (rows * PANEL_PX), "x": 0},
        hovermode="x unified",
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title="step", row=rows)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="loss (nats/token)", col=1)
    figure.update_annotations(font_size=13)

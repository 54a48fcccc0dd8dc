"""Plotly figures, the same for notebooks, pages and exports: compute what to draw, then draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

INK = "#1f2933"
LINE = "#d1495b"
BAND = "rgba(209, 73, 91, 0.18)"
DOTS = "#2e6f95"
GRID = "#e4e7eb"
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


def forecast_figure(forecasts: Sequence[Forecast], title: str, subtitle: str, columns: int = 2) -> Figure:
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
        for trace in _traces(forecast, in_legend=index == 0):
            figure.add_trace(trace, row, column)
        low, high = _shown(forecast)
        figure.update_yaxes(range=[low, high], row=row, col=column)
    _style(figure, title, subtitle, rows)
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


def _traces(forecast: Forecast, in_legend: bool) -> list[object]:
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
            name="observed, not seen by the fit",
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

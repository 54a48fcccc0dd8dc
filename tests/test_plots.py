"""Figures: what is computed for them, and what is drawn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from isoloss.plots import Forecast, forecast_figure, write_page


def forecast(heading: str = "small, linear") -> Forecast:
    steps = np.arange(100, 1100, 100)
    value = 3 + 10 / steps
    observed = value + np.where(steps == 500, 0.03, 0.0)
    return Forecast(heading, "note", steps, observed, value, value - 0.01, value + 0.01)


def test_scores_of_a_forecast() -> None:
    """Mean absolute error, worst relative error and coverage are those of the arrays."""
    one = forecast()
    assert one.mae == pytest.approx(0.003)
    assert one.worst == pytest.approx(0.03 / one.observed[4])
    assert one.coverage == 0.9


def test_a_panel_for_each_forecast_and_one_legend() -> None:
    """Points, line and band in every panel; the legend names each once."""
    figure = forecast_figure([forecast("a"), forecast("b"), forecast("c")], "title", "subtitle")
    assert len(figure.data) == 9
    assert sum(bool(trace.showlegend) for trace in figure.data) == 3
    headings = " ".join(note.text for note in figure.layout.annotations)
    assert all(f"<b>{name}</b>" in headings for name in "abc")
    np.testing.assert_array_equal(figure.data[1].y, forecast().observed)


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    """The HTML file loads no script, style or font from elsewhere."""
    page = tmp_path / "figure.html"
    write_page(forecast_figure([forecast()], "title", "subtitle"), page)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "small, linear" in text

"""How groups of a fit are shown."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from isoloss.cli.fit_view import MANY_GROUPS, show_groups
from isoloss.cli.output import Output
from isoloss.cli.pairs_view import show_pairs


def shown(groups: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> str:
    show_groups(Output(), groups)
    return capsys.readouterr().out


def group(size: float, value: float | None) -> dict[str, Any]:
    ends = None if value is None else [0.9 * value, 1.1 * value]
    return {"by": {"n_params": size}, "parameters": [{"name": "peak_lr", "value": value, "interval": ends}]}


def test_each_group_has_a_line_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """What it is of, and what was found; what was not determined says so."""
    out = shown([group(1e8, 1e-3), group(2e8, None)], capsys)
    assert "n_params" in out
    assert "0.001000 [0.000900, 0.001100]" in out
    assert "not determined" in out


def test_many_groups_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal shows the first ones, and how many more there are."""
    out = shown([group(1e8 + one, 1e-3) for one in range(MANY_GROUPS + 3)], capsys)
    assert "and 3 more groups" in out


def test_groups_without_findings_are_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Sweeps that were left out are among the left-out runs."""
    assert shown([{"by": {"n_params": 1e8}, "parameters": []}], capsys) == ""


def test_recipes_are_compared_over_all_runs_unless_some_are_named(invoke: Any) -> None:
    """The fit that is asked for is a comparison of recipes."""
    queued = {"id": "f1", "job_id": "j1", "law": "recipe_comparison", "status": "queued"}
    routes = {"POST /v1/projects/p/fits": httpx.Response(202, json=queued)}
    requests: list[httpx.Request] = []
    asked = ("compare", "-p", "p", "--no-wait", "--bootstrap", "50", "--json")
    assert invoke(*asked, routes=routes, requests=requests).exit_code == 0
    assert json.loads(requests[0].content) == {
        "law": "recipe_comparison",
        "select": {"all": True},
        "options": {"bootstrap": 50},
    }
    assert invoke(*asked, "--tag", "pilot", routes=routes, requests=requests).exit_code == 0
    assert json.loads(requests[1].content)["select"] == {"tags": ["pilot"]}


def derived_of_pair(name: str, gap: float | None, ends: list[float] | None) -> list[dict[str, Any]]:
    told = {
        "largest_common": ("FLOP", 1901592576000000000, None),
        "gap": ("nats/token", gap, ends),
        "first_leads": ("1", 0.98 if ends else None, None),
        "crossing": ("FLOP", None, None),
        "compute_saved": ("1", None, None),
    }
    return [
        {"name": f"{name}.{what}", "unit": unit, "value": value, "interval": interval}
        for what, (unit, value, interval) in told.items()
    ]


def test_pairs_that_can_be_told_apart_come_first_and_the_others_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line for each that has a gap with an interval, of its own width; one line for all without."""
    many = [f"{one} vs {other}" for one in "abcdefgh" for other in "stuvwxyz"]
    rows = [row for name in many for row in derived_of_pair(name, -0.003, None)]
    rows += derived_of_pair("new v1.2 vs old", -0.00312, [-0.00315, -0.00309])
    show_pairs(Output(), rows)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 3
    for part in ("new v1.2 vs old", "1.902e+18", "-0.003120 [-0.003150, -0.003090]", "98%"):
        assert part in lines[1]
    assert lines[2].startswith("Of 64 more pairs the runs do not tell")


def test_few_pairs_without_an_interval_are_shown_with_their_gap(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there are few, a gap whose chance is not known is better than none."""
    show_pairs(Output(), derived_of_pair("a vs b", -0.003, None))
    out = capsys.readouterr().out
    assert "-0.003000" in out
    assert "more pair" not in out


def test_a_value_has_the_digits_that_show_how_wide_its_interval_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An interval is never shown as one number twice."""
    loss = {"name": "loss", "value": 3.2771, "interval": [3.2768, 3.2774]}
    assert "3.27710 [3.27680, 3.27740]" in shown([{"by": {"recipe": "a"}, "parameters": [loss]}], capsys)

"""How groups of a fit are shown."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from isoloss.cli.fit_view import MANY_GROUPS, show_groups
from isoloss.cli.output import Output


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

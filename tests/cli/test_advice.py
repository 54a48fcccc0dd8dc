"""`isoloss recommend` and `isoloss pareto` against a scripted service."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

QUEUED = {"id": "r1", "job_id": "j1", "status": "queued"}
BASIS = [{"fit_id": "f1", "law": "optimal_lr", "verdict": "weak", "extrapolation_factor": 12.5}]
FOUND = {
    "unit": "1",
    "interval": [0.0014, 0.0017],
    "regret_factor_two": 0.0056,
    "basis": BASIS,
    "reason": None,
}
MISSING: dict[str, Any] = {
    "value": None,
    "unit": None,
    "interval": None,
    "regret_factor_two": None,
    "basis": [],
    "reason": "timescale: the weight decay was not swept",
}
TOLD = {
    **QUEUED,
    "status": "succeeded",
    "n_params": 7e9,
    "n_tokens": 1.4e11,
    "level": 0.8,
    "select": {"tags": ["a"]},
    "constraints": {"devices": 64.0},
    "options": {"bootstrap": 50},
    "peak_lr": {"value": 0.0015788, **FOUND},
    "timescale": MISSING,
    "schedule": {"value": {"kind": "linear", "total_steps": 85158, "peak_lr": 0.0015788}, "reason": None},
    "cost": {"compute_flops": 6e21, "hours": 15.5, "device_hours": 996.0, "money": None},
    "wanted": [
        {"law": "timescale", "why": "sweep it", "runs": [{"n_params": 1e8}] * 20, "compute_flops": 6e19}
    ],
    "warnings": ["optimal_lr is asked 12.5 times beyond its runs"],
}
CHOICE = {
    "n_params": 1e8,
    "n_tokens": 1e10,
    "batch_tokens": 1e5,
    "critical_batch_tokens": 1e5,
    "steps": 1e5,
    "compute_flops": 6e18,
    "compute_interval": [5e18, 7e18],
    "hours": 2.5,
}
FRONT = {
    **QUEUED,
    "status": "succeeded",
    "target_loss": 2.1,
    "level": 0.9,
    "select": {"all": True},
    "choices": [CHOICE] * 40,
    "extrapolation": {"n_params_factor": 3.0, "n_tokens_factor": 1.0},
    "basis": [{"fit_id": "f2", "law": "chinchilla", "verdict": "sound"}],
    "warnings": [],
}
ROUTES = {
    "POST /v1/projects/p/recommendations": httpx.Response(202, json=QUEUED),
    "GET /v1/projects/p/recommendations/r1": TOLD,
    "POST /v1/projects/p/pareto": httpx.Response(202, json=QUEUED),
    "GET /v1/projects/p/pareto/r1": FRONT,
    "GET /v1/jobs/j1": {"id": "j1", "status": "succeeded", "progress": 1.0},
}
ASK = ("recommend", "-p", "p", "--n-params", "7e9", "--n-tokens", "1.4e11")


def test_a_recommendation_sends_what_was_asked_for(invoke):
    """Limits by name, the runs that are meant, and the options of the fits."""
    requests: list[httpx.Request] = []
    limits = ("--constraint", "devices=64", "--constraint", "deadline_hours=24")
    options = "--tag a --tag b --bootstrap 50 --level 0.8 --seed 3 --target val_loss --no-wait --json"
    result = invoke(*ASK, *limits, *options.split(), routes=ROUTES, requests=requests)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == QUEUED
    assert json.loads(requests[0].content) == {
        "n_params": 7e9,
        "n_tokens": 1.4e11,
        "constraints": {"devices": 64.0, "deadline_hours": 24.0},
        "select": {"tags": ["a", "b"]},
        "options": {"target": "val_loss", "bootstrap": 50, "level": 0.8, "seed": 3},
    }


def test_a_recommendation_rests_on_all_runs_unless_some_are_named(invoke):
    """No run has to be named; `--all` says the same."""
    for more in ([], ["--all"]):
        requests: list[httpx.Request] = []
        assert invoke(*ASK, *more, "--no-wait", routes=ROUTES, requests=requests).exit_code == 0
        assert json.loads(requests[0].content)["select"] == {"all": True}


def test_a_recommendation_shows_settings_what_they_rest_on_and_what_is_lacking(invoke):
    """Each with its interval and what being wrong costs; reasons, wanted runs, cost and warnings."""
    result = invoke(*ASK, routes=ROUTES)
    assert result.exit_code == 0, result.output
    for part in (
        "for 7e+09 parameters and 1.4e+11 tokens",
        "From the loss of the runs with tags a",
        "devices: 64",
        "bootstrap: 50",
        "80% interval",
        "0.00158",
        "[0.00140, 0.00170]",
        "0.56%",
        "optimal_lr  weak",
        "12.5",
        "f1",
        "Schedule: linear, total steps 85,158, peak lr 0.00158",
        "It takes 6e+21 operations, 15.5 hours, 996 device-hours.",
        "No timescale: timescale: the weight decay was not swept",
        "To determine timescale: 20 runs of 6e+19 operations in all, 1% of the run's own",
        "- optimal_lr is asked 12.5 times beyond its runs",
    ):
        assert part in result.stdout, result.stdout


def test_a_recommendation_shows_published_laws_other_readings_and_the_shape(invoke):
    """How much of a setting is of a published law, what other laws read, and the depth that a width leaves."""
    prior = {
        "name": "step_law.optimal_lr",
        "source": "Li",
        "value": 0.002,
        "interval": [4e-4, 0.01],
        "share": 0.25,
    }
    reading = {
        "law": "effective_lr",
        "value": 0.0014,
        "unit": "1",
        "interval": [0.0012, 0.0017],
        "at": {"n_params": 1e8, "schedule": "linear"},
        "beside": 0.0016,
        "basis": BASIS,
        "reason": None,
    }
    rule = {**reading, "law": "width_rule", "value": None, "reason": "it holds at fixed data and batch"}
    shape = {
        "width": 4096.0,
        "depth": 32.0,
        "params_per_depth_width2": 12.0,
        "aspect_ratios": None,
        "reason": None,
    }
    told = {
        **TOLD,
        "peak_lr": {**TOLD["peak_lr"], "prior": prior, "readings": [reading, rule]},
        "shape": shape,
    }
    requests: list[httpx.Request] = []
    asked = (*ASK, "--prior", "step_law.optimal_lr", "--constraint", "width=4096")
    result = invoke(
        *asked, routes={**ROUTES, "GET /v1/projects/p/recommendations/r1": told}, requests=requests
    )
    assert result.exit_code == 0, result.output
    sent = json.loads(requests[0].content)
    assert (sent["priors"], sent["constraints"]) == (["step_law.optimal_lr"], {"width": 4096.0})
    for part in (
        "step_law.optimal_lr",
        "25%",
        "effective_lr reads a peak learning rate of 0.00140 [0.00120, 0.00170] (the main law there: 0.00160)",
        "schedule linear",
        "width_rule on the peak learning rate: it holds at fixed data and batch",
        "Shape: width 4,096, depth 32.0",
    ):
        assert part in result.stdout, result.stdout


def test_large_shares_are_whole_percentages_and_large_costs_multiples(invoke):
    """Of a law all of the answer is 100%; runs that cost many times the run's own say how many."""
    prior = {"name": "power_lines.timescale", "value": 0.14, "interval": [0.06, 0.33], "share": 1.0}
    wanted = [{"law": "timescale", "why": "sweep it", "runs": [{"n_params": 1e8}], "compute_flops": 1.08e23}]
    told = {**TOLD, "peak_lr": {**TOLD["peak_lr"], "prior": prior}, "wanted": wanted}
    result = invoke(*ASK, routes={**ROUTES, "GET /v1/projects/p/recommendations/r1": told})
    assert result.exit_code == 0, result.output
    assert "100%" in result.stdout
    assert "18 times the run's own" in result.stdout
    assert "e+" not in "".join(line for line in result.stdout.splitlines() if "%" in line)


def test_a_front_shows_its_choices_and_how_far_they_reach(invoke):
    """Of many choices some, evenly spaced; its fits, and the factor beyond them."""
    result = invoke("pareto", "-p", "p", "--target-loss", "2.1", routes=ROUTES)
    assert result.exit_code == 0, result.output
    for part in (
        "to a loss of 2.1",
        "[5e+18, 7e+18]",
        "25 of 40 choices",
        "chinchilla  sound",
        "3.00 times the model size",
    ):
        assert part in result.stdout, result.stdout


def test_a_front_without_an_upper_end_says_so_and_shows_what_it_costs(invoke):
    """An infinite end is open; device-hours and money stand beside the hours where they follow."""
    open_ended = {
        **CHOICE, "compute_interval": [5e18, "Infinity"], "device_hours": 20.0, "money": 41.5
    }  # fmt: skip
    routes = {**ROUTES, "GET /v1/projects/p/pareto/r1": {**FRONT, "choices": [open_ended]}}
    result = invoke("pareto", "-p", "p", "--target-loss", "2.1", routes=routes)
    assert result.exit_code == 0, result.output
    for part in ("[5e+18, open]", "device-hours", "in price", "41.5"):
        assert part in result.stdout, result.stdout


@pytest.mark.parametrize("name", ["recommend", "pareto"])
def test_earlier_advice_is_shown_by_its_id(invoke, name):
    """Nothing is asked anew; what waits or failed says so."""
    noun = {"recommend": "recommendations", "pareto": "pareto"}[name]
    requests: list[httpx.Request] = []
    failed = {**QUEUED, "status": "failed", "error": "no run can be used"}
    routes = {f"GET /v1/projects/p/{noun}/r1": failed}
    result = invoke(name, "-p", "p", "--show", "r1", routes=routes, requests=requests)
    assert result.exit_code == 0, result.output
    assert "Failed: no run can be used (job j1)" in result.stdout
    assert [request.method for request in requests] == ["GET"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("recommend -p p --n-params 7e9", "--n-tokens is needed"),
        ("recommend -p p --n-tokens 7e9", "--n-params is needed"),
        ("pareto -p p", "--target-loss is needed"),
        ("pareto -p p --target-loss low", "--target-loss"),
        ("pareto -p p --target-loss 2 --constraint devices", "'devices' is not name=value"),
        ("pareto -p p --target-loss 2 --constraint devices=many", "'devices=many'"),
        ("pareto -p p --target-loss 2 --run a --tag b", "exactly one of"),
        ("pareto -p p --target-loss 2 --run a --all", "exactly one of"),
        ("recommend --n-params 1 --n-tokens 1", "--project"),
    ],
)
def test_arguments_that_make_no_sense_end_with_code_2(invoke, arguments, message):
    """What is missing or cannot be read is told in the words of the command line."""
    result = invoke(*arguments.split())
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_leaving_a_wait_says_how_to_come_back(invoke, monkeypatch):
    """The job goes on, and the command that shows its answer is told."""

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("isoloss.client.advice.Advice.wait", interrupted)
    result = invoke(*ASK, routes=ROUTES)
    assert result.exit_code == 130
    assert "isoloss recommend --show r1 --project p" in result.stderr

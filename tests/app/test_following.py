"""Fits that follow their runs, over HTTP with a real worker: bursts, unchanged data, failures, and letting go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count, product
from typing import Any

import pytest

from isoloss.client import Client, errors
from tests.fitting.synthetic import CONSTANT, COSINE, WSD, curve

PATIENCE_S = 40.0
_names = count(1)


@pytest.fixture
def client(live: Any) -> Iterator[Client]:
    with Client(live.url, live.api_key) as client:
        yield client


@pytest.fixture
def project(client: Client) -> str:
    """A project with twelve finished runs of a known law."""
    name = f"following-{next(_names)}"
    client.projects.create(name)
    for number, (n_params, n_tokens) in enumerate(product((1e7, 3e7, 1e8, 3e8), (2e8, 1e9, 5e9))):
        put(client, name, f"r{number:02d}", n_params, n_tokens)
    return name


def put(client: Client, project: str, name: str, n_params: float, n_tokens: float, **said: Any) -> None:
    loss = 1.8 + 480 * n_params**-0.35 + 2100 * n_tokens**-0.37
    config = {"n_params": n_params, "n_tokens": n_tokens}
    specification = {"status": "finished", "config": config, "summary": {"final_loss": loss}, **said}
    client.runs.put(project, name, **specification)


def follow(client: Client, project: str) -> dict[str, Any]:
    options = {"bootstrap": 20, "profile": False}
    made = client.fits.create(
        project, "chinchilla", all=True, options=options, follow=True, wait=True, timeout=PATIENCE_S
    )
    return dict(made)


def wait_until(
    client: Client, project: str, fit: dict[str, Any], holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        shown = dict(client.fits.get(project, fit["id"]))
        if holds(shown):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_a_burst_of_runs_makes_a_revision_and_the_old_one_is_there_until_then(
    client: Client, project: str
) -> None:
    """Ten runs that end together: every answer on the way is a whole result, the last has them all."""
    fit = follow(client, project)
    assert (fit["follow"], fit["revision"], fit["diagnostics"]["n_runs"]) == (True, 1, 12)
    asked = {"n_params": 1e9, "n_tokens": 2e10}
    for number in range(10):
        put(client, project, f"new-{number}", 1e9, 1e10 + number)
    seen = []

    def has_all(shown: dict[str, Any]) -> bool:
        assert shown["status"] == "succeeded"
        assert client.fits.predict(project, fit["id"], config=asked)["value"].size == 1
        seen.append((shown["revision"], shown["diagnostics"]["n_runs"]))
        return bool(shown["diagnostics"]["n_runs"] == 22)

    shown = wait_until(client, project, fit, has_all)
    assert seen[0][0] == 1
    assert shown["revision"] <= 3  # ten runs, and not ten refits
    assert shown["updated_at"] > fit["updated_at"]
    assert shown["job_id"] == fit["job_id"]
    job = client.jobs.get(shown["refit_job_id"])
    assert (job["kind"], job["status"]) == ("refit", "succeeded")


def test_runs_that_bring_nothing_new_are_counted_and_change_nothing(client: Client, project: str) -> None:
    """The same run put again, and one that has no outcome, leave the revision and its time as they are.

    What is left out is told as it is now.
    """
    fit = follow(client, project)
    put(client, project, "r00", 1e7, 2e8)
    shown = wait_until(client, project, fit, lambda shown: shown["refits_skipped"] == 1)
    client.runs.put(project, "blank", status="finished")
    shown = wait_until(client, project, fit, lambda shown: shown["refits_skipped"] == 2)
    assert (shown["revision"], shown["updated_at"]) == (1, fit["updated_at"])
    assert client.jobs.get(shown["refit_job_id"])["result"] == {"outcome": "unchanged"}
    assert [one["run_id"] for one in fit["left_out"]] == []
    assert [one["run_id"] for one in shown["left_out"]] == ["blank"]


def test_a_run_that_is_deleted_or_diverges_leaves_the_fit(client: Client, project: str) -> None:
    """Both make a revision without it."""
    fit = follow(client, project)
    client.runs.delete(project, "r00")
    wait_until(client, project, fit, lambda shown: shown["diagnostics"]["n_runs"] == 11)
    put(client, project, "r01", 1e7, 1e9, status="diverged")
    shown = wait_until(client, project, fit, lambda shown: shown["diagnostics"]["n_runs"] == 10)
    assert shown["left_out"] == [{"run_id": "r01", "reason": "it diverged"}]


def test_a_refit_that_fails_says_so_and_leaves_the_last_good_result(client: Client, project: str) -> None:
    """Runs that count their parameters in two kinds cannot be fitted together; mended, they can again."""
    fit = follow(client, project)
    mixed = {"n_params": 1e9, "n_tokens": 2e10, "n_params_kind": "active"}
    put(client, project, "mixed", 1e9, 2e10, config=mixed)
    shown = wait_until(client, project, fit, lambda shown: shown["refit_error"] is not None)
    assert "count their parameters" in shown["refit_error"]
    assert (shown["status"], shown["revision"], shown["parameters"]) == ("succeeded", 1, fit["parameters"])
    put(client, project, "mixed", 1e9, 2e10)
    shown = wait_until(client, project, fit, lambda shown: shown["revision"] == 2)
    assert shown["refit_error"] is None


def test_a_fit_that_is_let_go_stays_as_it_is(client: Client, project: str) -> None:
    """Runs that land afterwards change nothing, and letting go again changes nothing either."""
    fit = follow(client, project)
    for _ in range(2):
        assert client.fits.unfollow(project, fit["id"])["follow"] is False
    put(client, project, "late", 1e9, 2e10)
    other = follow(client, project)  # a fit after it on the queue: a refit would have come before
    time.sleep(2.5)
    assert other["diagnostics"]["n_runs"] == 13
    shown = client.fits.get(project, fit["id"])
    assert (shown["revision"], shown["refits_skipped"], shown["refit_job_id"]) == (1, 0, None)
    with pytest.raises(errors.NotFound):
        client.fits.unfollow(project, "nonsense")


def test_a_refit_of_a_deleted_project_is_none(client: Client, project: str) -> None:
    """The worker passes over what waits for it, and goes on with others."""
    follow(client, project)
    put(client, project, "late", 1e9, 2e10)
    client.projects.delete(project)
    time.sleep(2.5)
    client.projects.create(project)
    for number in range(12):
        put(client, project, f"again-{number}", 1e7 * (1 + number), 1e9 * (1 + number % 5))
    assert follow(client, project)["diagnostics"]["n_runs"] == 12


def test_a_fit_of_curves_follows_their_points(client: Client) -> None:
    """Points of a run that goes on change nothing; its end, and points that come after it, make revisions."""
    project = f"following-{next(_names)}"
    client.projects.create(project)
    whole = {
        name: curve(name, spec, seed=seed)
        for seed, (name, spec) in enumerate({"constant": CONSTANT, "cosine": COSINE, "wsd": WSD}.items())
    }
    specs = {"constant": CONSTANT, "cosine": COSINE, "wsd": WSD}
    for name in ("constant", "cosine"):
        one = whole[name]
        client.runs.put(project, name, status="finished", schedule=specs[name])
        client.points.append(project, name, {"step": one.step, "loss": one.loss_nats})
    fit = dict(
        client.fits.create(
            project,
            "lr_annealing",
            all=True,
            options={"bootstrap": 0, "profile": False},
            follow=True,
            wait=True,
            timeout=PATIENCE_S,
        )
    )
    wsd, half = whole["wsd"], whole["wsd"].step <= 5_000
    client.runs.put(project, "wsd", status="running", schedule=WSD)
    client.points.append(project, "wsd", {"step": wsd.step[half], "loss": wsd.loss_nats[half]})
    time.sleep(2.5)
    shown = client.fits.get(project, fit["id"])
    assert (shown["revision"], shown["refits_skipped"]) == (1, 0)
    client.runs.put(project, "wsd", status="finished", schedule=WSD)
    shown = wait_until(client, project, fit, lambda shown: shown["diagnostics"]["n_runs"] == 3)
    n_points = shown["diagnostics"]["n_points"]
    client.points.append(project, "wsd", {"step": wsd.step[~half], "loss": wsd.loss_nats[~half]})
    wait_until(client, project, fit, lambda shown: shown["diagnostics"]["n_points"] > n_points)

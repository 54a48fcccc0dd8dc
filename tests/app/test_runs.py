from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.conftest import fields, problem

FULL = {
    "name": "WSD, 124M",
    "status": "finished",
    "recipe": "adamw",
    "tags": ["pilot", "a b"],
    "notes": "größer\n",
    "parent": None,
    "config": {
        "n_params": 124000000,
        "n_params_kind": "non_embedding",
        "n_tokens": 2.5e9,
        "batch_tokens": 524288,
        "peak_lr": 0.0006,
        "weight_decay": 0,
        "weight_decay_kind": "lr_scaled",
        "parametrization": "mup",
        "seed": -1,
        "mine": {"deep": [1, "NaN", None, True]},
    },
    "schedule": {
        "kind": "wsd",
        "total_steps": 5000,
        "decay_start": 4000,
        "peak_lr": 0.0006,
        "warmup_steps": 100,
    },
    "summary": {"final_loss": "NaN", "steps_to_target": 400, "target_loss": 3.28, "mine": 1},
}


def test_a_run_comes_back_as_it_was_declared(client: httpx.Client, project: str) -> None:
    """201 for a new run, 200 for the same again, and the same document each time, numbers as they were written."""
    first = client.put(f"{project}/runs/r", json=FULL)
    again = client.put(f"{project}/runs/r", json=FULL)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == client.get(f"{project}/runs/r").json()
    assert {name: first.json()[name] for name in FULL} == FULL
    assert type(first.json()["config"]["n_params"]) is int
    assert first.json()["created_at"].endswith("Z")


def test_a_name_is_all_that_a_run_needs(client: httpx.Client, project: str) -> None:
    """Every other field is optional, and replaced by nothing where it is left out."""
    client.put(f"{project}/runs/r", json=FULL)
    document = client.put(f"{project}/runs/r", json={"name": "r"}).json()
    assert document["status"] == "finished"  # the one field that stays
    empty = {
        "recipe": None,
        "tags": [],
        "notes": None,
        "parent": None,
        "config": {},
        "schedule": None,
        "summary": {},
    }
    assert {name: document[name] for name in empty} == empty


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"nope": 1}, "nope"),
        ({"status": "done"}, "status"),
        ({"tags": "a"}, "tags"),
        ({"tags": [1]}, "tags.0"),
        ({"config": []}, "config"),
        ({"config": {"n_params": "6e7"}}, "config.n_params"),
        ({"config": {"n_params": True}}, "config.n_params"),
        ({"config": {"n_params": 0}}, "config.n_params"),
        ({"config": {"n_params": "NaN"}}, "config.n_params"),
        ({"config": {"n_tokens": -1}}, "config.n_tokens"),
        ({"config": {"peak_lr": 0}}, "config.peak_lr"),
        ({"config": {"n_params_kind": "some"}}, "config.n_params_kind"),
        ({"config": {"weight_decay": -0.1}}, "config.weight_decay"),
        ({"config": {"weight_decay": 10.5}}, "config.weight_decay"),
        ({"config": {"seed": 1.5}}, "config.seed"),
        ({"summary": {"final_loss": "low"}}, "summary.final_loss"),
        ({"summary": {"target_loss": 0}}, "summary.target_loss"),
        ({"schedule": 5}, "schedule"),
        ({"schedule": {"kind": "zigzag"}}, "schedule.kind"),
        ({"schedule": {"kind": "constant", "total_steps": 0, "peak_lr": 1e-3}}, "schedule.total_steps"),
        ({"schedule": {"kind": "constant", "total_steps": 10, "peak_lr": 0}}, "schedule.peak_lr"),
        (
            {"schedule": {"kind": "wsd", "total_steps": 10, "decay_start": 20, "peak_lr": 1e-3}},
            "schedule.decay_start",
        ),
        (
            {"schedule": {"kind": "cosine", "total_steps": 10, "warmup_steps": 11, "peak_lr": 1}},
            "schedule.warmup_steps",
        ),
        ({"parent": {"run_id": "r", "branch_step": 1}}, "parent.run_id"),
        ({"parent": {"run_id": "gone", "branch_step": 1}}, "parent.run_id"),
        ({"parent": {"run_id": "trunk", "branch_step": 101}}, "parent.branch_step"),
        ({"parent": {"run_id": "trunk", "branch_step": -1}}, "parent.branch_step"),
        ({"parent": {"run_id": "trunk", "branch_step": 0}}, "parent.branch_step"),
        ({"parent": {"run_id": "trunk", "branch_step": True}}, "parent.branch_step"),
        ({"parent": {"run_id": "trunk"}}, "parent.branch_step"),
    ],
)
def test_a_bad_field_is_named_and_the_run_stays_as_it_was(
    client: httpx.Client, project: str, change: dict[str, Any], field: str
) -> None:
    """422 tells the field by its path, and neither makes nor changes a run."""
    trunk = {"kind": "constant", "total_steps": 100, "peak_lr": 1e-3}
    client.put(f"{project}/runs/trunk", json={"name": "trunk", "schedule": trunk})
    assert fields(client.put(f"{project}/runs/r", json={"name": "r", **change})) == [field]
    problem(client.get(f"{project}/runs/r"), 404)
    before = client.put(f"{project}/runs/r", json=FULL).json()
    assert fields(client.put(f"{project}/runs/r", json={**FULL, **change})) == [field]
    assert client.get(f"{project}/runs/r").json() == before


@pytest.mark.parametrize("run_id", ["a b", "ä", "x" * 101, "a%00", "a:b", "%2E", "%2E%2E"])
def test_a_name_that_is_none_is_refused(client: httpx.Client, project: str, run_id: str) -> None:
    """Names are letters, digits, dot, underscore and dash, at most a hundred of them, and no step in a path."""
    assert fields(client.put(f"{project}/runs/{run_id}", json={"name": "r"})) == ["run_id"]
    problem(client.get(f"{project}/runs/{run_id}"), 404)
    problem(client.post(f"{project}/runs/{run_id}/points", json={"step": [1], "loss": [3.0]}), 404)


@pytest.mark.parametrize("name", [".", "..", "a b", "", "x" * 101])
def test_a_project_name_that_is_none_is_refused(client: httpx.Client, name: str) -> None:
    """Projects are named as runs are; dots are fine in a name, and alone from three on."""
    assert fields(client.post("/v1/projects", json={"name": name})) == ["name"]
    problem(client.get("/v1/projects/%00"), 404)


@pytest.mark.parametrize("run_id", ["...", "..a", ".hidden", "a..", "-", "x" * 100])
def test_names_with_dots(client: httpx.Client, project: str, run_id: str) -> None:
    """What is not `.` or `..` is a name."""
    assert client.put(f"{project}/runs/{run_id}", json={"name": "r"}).status_code == 201
    assert client.get(f"{project}/runs/{run_id}").json()["run_id"] == run_id


def test_text_that_no_database_can_hold_is_refused(client: httpx.Client, project: str) -> None:
    """A NUL character, wherever it is, is 422 and not a failure."""
    for said in ({"name": "a\0"}, {"name": "r", "config": {"x": ["\0"]}}, {"name": "r", "config": {"\0": 1}}):
        problem(client.put(f"{project}/runs/r", json=said), 422)
    problem(client.get(f"{project}/runs", params={"cursor": "WyJcdTAwMDAiLDFd"}), 422)


def test_runs_are_listed_by_where_sort_and_pages(client: httpx.Client, project: str) -> None:
    """A list can be filtered, sorted and read in parts."""
    for at in range(5):
        client.put(
            f"{project}/runs/r{at}",
            json={"name": "r", "config": {"n_params": 10**at}, "tags": ["odd"] * (at % 2)},
        )
    page = client.get(f"{project}/runs", params={"sort": "-config.n_params", "limit": 3}).json()
    assert [run["run_id"] for run in page["items"]] == ["r4", "r3", "r2"]
    rest = client.get(
        f"{project}/runs", params={"sort": "-config.n_params", "limit": 3, "cursor": page["next_cursor"]}
    ).json()
    assert [run["run_id"] for run in rest["items"]] == ["r1", "r0"]
    assert rest["next_cursor"] is None
    odd = client.get(f"{project}/runs", params={"where": "tags = odd and config.n_params > 10"}).json()
    assert [run["run_id"] for run in odd["items"]] == ["r3"]
    for bad in ({"where": "nope = 1"}, {"sort": "nope"}, {"cursor": "x"}, {"limit": 0}, {"limit": 100000}):
        assert fields(client.get(f"{project}/runs", params=bad)) == list(bad)


def test_runs_are_deleted_but_not_from_under_a_branch(client: httpx.Client, project: str, run: str) -> None:
    """204, then 404; 409 while another run branches off."""
    client.post(f"{run}/points", json={"step": [1], "loss": [3.0]})
    branch = {"name": "b", "parent": {"run_id": "r", "branch_step": 1}}
    assert client.put(f"{project}/runs/b", json=branch).json()["parent"] == branch["parent"]
    problem(client.delete(run), 409)
    assert client.delete(f"{project}/runs/b").status_code == 204
    assert client.delete(run).status_code == 204
    problem(client.delete(run), 404)


def test_a_run_that_has_ended_is_branched_off_within_its_points(
    client: httpx.Client, project: str, run: str
) -> None:
    """A finished parent ends at its last point, whatever its schedule promised; a running one goes on."""
    client.post(f"{run}/points", json={"step": [10, 50], "loss": [3.0, 2.5]})
    branch = {"name": "b", "parent": {"run_id": "r", "branch_step": 90}}
    assert client.put(f"{project}/runs/early", json=branch).status_code == 201
    said = {name: client.get(run).json()[name] for name in ("name", "schedule")}
    assert client.put(run, json={**said, "status": "finished"}).status_code == 200
    assert fields(client.put(f"{project}/runs/late", json=branch)) == ["parent.branch_step"]
    assert client.put(f"{project}/runs/early", json=branch).status_code == 200  # the same again
    branch["parent"] = {"run_id": "r", "branch_step": 50}
    assert client.put(f"{project}/runs/late", json=branch).status_code == 201


def test_a_parent_does_not_end_before_its_branches(client: httpx.Client, project: str, run: str) -> None:
    """A schedule that is cut short under a branch is 409 and changes nothing; one that is not is taken."""
    client.put(f"{project}/runs/b", json={"name": "b", "parent": {"run_id": "r", "branch_step": 60}})
    before = client.get(run).json()
    for total, status in ((59, 409), (60, 200)):
        schedule = {"kind": "constant", "total_steps": total, "peak_lr": 1e-3}
        answer = client.put(run, json={"name": "r", "schedule": schedule})
        assert answer.status_code == status, answer.text
        if status == 409:
            assert "'b'" in problem(answer, 409)["detail"]
            assert client.get(run).json() == before


def test_a_diverged_run_stays_so_while_it_has_such_points(client: httpx.Client, run: str) -> None:
    """Saying `running` or `finished` does not hide a NaN; a rewind before the first of them does away with it."""
    client.post(
        f"{run}/points", json={"step": [1, 2, 3], "loss": [3.0, "NaN", 2.9], "val_loss": [3, 3, "Infinity"]}
    )
    for status in ("running", "finished"):
        assert client.put(run, json={"name": "r", "status": status}).json()["status"] == "diverged"
    assert client.put(run, json={"name": "r"}).json()["status"] == "diverged"
    for step, status in ((3, "diverged"), (2, "diverged"), (1, "running")):
        assert client.post(f"{run}/rewind", json={"step": step}).status_code == 200
        assert client.get(run).json()["status"] == status
    assert client.put(run, json={"name": "r", "status": "finished"}).json()["status"] == "finished"
    client.put(run, json={"name": "r", "status": "diverged"})  # what the user says without such points
    client.post(f"{run}/rewind", json={"step": 0})
    assert client.get(run).json()["status"] == "diverged"


def test_an_unknown_field_and_a_number_in_quotes_are_told_in_words(
    client: httpx.Client, project: str
) -> None:
    """The field that was probably meant, at its place in the body; that a number is wanted, whatever it may be."""
    run = {"name": "r", "shedule": {}, "summary": {"final_loss": "2.2"}, "parent": {"run": "x", "zz": 1}}
    errors = problem(client.put(f"{project}/runs/r", json=run), 422)["errors"]
    told = {error["field"]: error["reason"] for error in errors}
    assert told["shedule"] == "unknown; did you mean schedule?"
    assert told["parent.run"] == "unknown; did you mean run_id?"
    assert told["parent.zz"] == "unknown"
    assert told["summary.final_loss"] == "must be a number"
    fit = {"select": {"all": True}, "options": {"bootstap": 5}}
    (error,) = problem(client.post(f"{project}/fits", json=fit), 422)["errors"]
    assert error == {"field": "options.bootstap", "reason": "unknown; did you mean bootstrap?"}

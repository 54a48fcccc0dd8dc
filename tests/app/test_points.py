from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from isoloss.observations.point_columns import KNOWN_COLUMNS, MAY_BE_NON_FINITE
from store import points, runs
from tests.app.conftest import Api, fields, problem

NON_FINITE = ["NaN", "Infinity", "-Infinity"]
ELSEWHERE = [*(name for name in KNOWN_COLUMNS if name not in MAY_BE_NON_FINITE), "mine"]


def _read(client: httpx.Client, run: str, **params: Any) -> dict[str, Any]:
    response = client.get(f"{run}/points", params=params)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def test_points_come_back_as_they_were_sent(client: httpx.Client, run: str) -> None:
    """Every float64 to the bit, null where nothing was logged, names for what is not finite."""
    loss = [0.1, 1e300, 5e-324, 2.0**53 + 2, 1 / 3, None, "NaN", "Infinity", "-Infinity"]
    batch = {"step": list(range(9)), "loss": loss, "a.b/c_1": [-0.0, None, -1e-7, 1, 2, 3, 4, 5, 6.5]}
    answer = client.post(f"{run}/points", json=batch)
    assert answer.json() == {"accepted": 9, "duplicates": 0, "last_step": 8}
    found = _read(client, run)
    assert found["columns"] == batch
    assert found["gaps"] == {}
    assert str(found["columns"]["a.b/c_1"][0]) == "-0.0"
    assert client.post(f"{run}/points", json=batch).json() == {"accepted": 0, "duplicates": 9, "last_step": 8}
    document = client.get(run).json()
    assert (document["status"], document["last_step"]) == ("diverged", 8)


def test_a_long_run_is_exact_in_json_and_csv(client: httpx.Client, run: str) -> None:
    """A run of several parts reads back exactly in both formats."""
    n = 120_000
    random = np.random.default_rng(0)
    loss = random.normal(3, 0.1, n)
    for at in range(0, n, 4000):
        part = {"step": list(range(at, at + 4000)), "loss": loss[at : at + 4000].tolist()}
        assert client.post(f"{run}/points", content=json.dumps(part)).json()["accepted"] == 4000
    columns = _read(client, run)["columns"]
    assert columns["step"] == list(range(n))
    assert np.array(columns["loss"]).tobytes() == loss.tobytes()
    csv = client.get(f"{run}/points", headers={"Accept": "text/csv"}, params={"to_step": 60_000})
    assert csv.headers["content-type"].startswith("text/csv")
    lines = csv.text.splitlines()
    assert lines[0] == "step,loss"
    assert np.array([float(line.split(",")[1]) for line in lines[1:]]).tobytes() == loss[:60_001].tobytes()


def test_csv_leaves_empty_what_is_missing(client: httpx.Client, run: str) -> None:
    """CSV has names for what is not finite and nothing for null."""
    client.post(f"{run}/points", json={"step": [1, 2], "loss": [None, "NaN"], "lr": [1e-3, None]})
    csv = client.get(f"{run}/points", headers={"Accept": "text/csv"})
    assert csv.text == "step,loss,lr\n1,,0.001\n2,NaN,\n"


def test_reading_a_part_and_a_picture(client: httpx.Client, run: str) -> None:
    """Columns, a range of steps, and few points that say where the gaps are."""
    n = 5000
    loss: list[Any] = [5 - step / 2000 for step in range(n)]
    loss[100:103] = ["NaN"] * 3
    client.post(f"{run}/points", json={"step": list(range(n)), "loss": loss, "reward": [1.5] * n})
    part = _read(client, run, columns="loss,step", from_step=99, to_step=101)["columns"]
    assert part == {"step": [99, 100, 101], "loss": [loss[99], "NaN", "NaN"]}
    picture = _read(client, run, columns="loss", max_points=200, x_scale="log")
    assert picture["gaps"] == {"loss": [[100, 102]]}
    assert 100 < len(picture["columns"]["step"]) <= 200
    assert fields(client.get(f"{run}/points", params={"columns": "nope"})) == ["columns"]
    assert fields(client.get(f"{run}/points", params={"x_scale": "cubic"})) == ["x_scale"]
    assert fields(client.get(f"{run}/points", params={"max_points": 1})) == ["max_points"]


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ({"step": []}, "step"),
        ({"loss": [3.0]}, "step"),
        ({"step": [1, 1], "loss": [3.0, 2.0]}, "step"),
        ({"step": [2, 1], "loss": [3.0, 2.0]}, "step"),
        ({"step": [-1], "loss": [3.0]}, "step"),
        ({"step": [1.0], "loss": [3.0]}, "step"),
        ({"step": [True], "loss": [3.0]}, "step"),
        ({"step": ["1"], "loss": [3.0]}, "step"),
        ({"step": [None], "loss": [3.0]}, "step"),
        ({"step": [2**53 + 1], "loss": [3.0]}, "step"),
        ({"step": [10**30], "loss": [3.0]}, "step"),
        ({"step": [1, 2], "loss": [3.0]}, "loss"),
        ({"step": [1], "loss": [3.0, 2.0]}, "loss"),
        ({"step": [1], "loss": 3.0}, "loss"),
        ({"step": [1], "loss": ["3.0"]}, "loss"),
        ({"step": [1], "loss": ["nan"]}, "loss"),
        ({"step": [1], "loss": [True]}, "loss"),
        ({"step": [1], "loss": [[3.0]]}, "loss"),
        ({"step": [1], "loss": [0]}, "loss"),
        ({"step": [1], "loss": [-0.5]}, "loss"),
        ({"step": [1], "val_loss": [0.0]}, "val_loss"),
        ({"step": [1], "lr": [0.0]}, "lr"),
        ({"step": [1], "lr": [-1e-3]}, "lr"),
        ({"step": [1], "tokens": [0]}, "tokens"),
        ({"step": [1], "tokens": [-5]}, "tokens"),
        ({"step": [0], "tokens": [-5]}, "tokens"),
        ({"step": [1], "grad_norm": [-1.0]}, "grad_norm"),
        ({"step": [1], "Loss": [3.0]}, "Loss"),
        ({"step": [1], "": [3.0]}, ""),
        ([1], "body"),
        (5, "body"),
    ],
)
def test_a_bad_batch_is_refused_by_the_name_of_its_column(
    client: httpx.Client, run: str, batch: object, field: str
) -> None:
    """422 names the column at fault, and nothing of the batch is stored."""
    assert fields(client.post(f"{run}/points", json=batch)) == [field]
    assert _read(client, run)["columns"] == {"step": []}


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("value", NON_FINITE)
def test_only_losses_may_be_non_finite(client: httpx.Client, run: str, name: str, value: str) -> None:
    """NaN and the infinities are refused in every column but the losses."""
    assert fields(client.post(f"{run}/points", json={"step": [1], name: [value]})) == [name]


@pytest.mark.parametrize("cell", ["NaN", "Infinity", "-Infinity", "1e999", "01", "1,", ""])
def test_what_is_no_json_is_malformed(client: httpx.Client, run: str, cell: str) -> None:
    """Bare NaN and infinities are no JSON: 400, and nothing is stored."""
    body = f'{{"step": [1], "loss": [{cell}]}}' if cell else '{"step"'
    problem(client.post(f"{run}/points", content=body), 400)
    assert _read(client, run)["columns"] == {"step": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"step":[1],"loss":[1],"loss":[2]}', "loss"),
        ('{"step":[1],"step" :\n[2],"loss":[1]}', "step"),
        ('{"step":[1],"loss":[1],"lo\\u0073s":[1]}', "loss"),
        ('{"step":[1],"loss":["NaN"],"loss":["NaN"]}', "loss"),
        ('{"step":[1],"loss":[{"a":1,"a":2}]}', "a"),
        ('{"step":[1],"loss":[{"a":1}]}', "loss"),
        ('{"step":[1],"loss":["a:b"]}', "loss"),
    ],
)
def test_a_column_that_stands_twice_is_refused(client: httpx.Client, run: str, body: str, field: str) -> None:
    """JSON keeps the last of two equal names and loses the first value: 422, and nothing is stored."""
    assert fields(client.post(f"{run}/points", content=body)) == [field]
    assert _read(client, run)["columns"] == {"step": []}


def test_a_rate_of_zero_belongs_to_a_schedule_that_is_zero_there(client: httpx.Client, project: str) -> None:
    """A decay to zero may log its last rate; elsewhere a rate of zero is a mistake. No token has come at step 0."""
    schedule = {"kind": "linear", "total_steps": 10, "peak_lr": 1e-3, "end_lr": 0.0}
    client.put(f"{project}/runs/r", json={"name": "r", "schedule": schedule})
    path = f"{project}/runs/r/points"
    batch = {"step": [0, 5, 10], "lr": [0.0, 5e-4, 0.0], "tokens": [0, 5, 10]}
    assert client.post(path, json=batch).status_code == 200
    assert fields(client.post(path, json={"step": [6], "lr": [0.0]})) == ["lr"]
    assert fields(client.post(path, json={"step": [11], "lr": [0.0]})) == ["lr"]


def test_a_contradiction_is_a_conflict_and_changes_nothing(client: httpx.Client, run: str) -> None:
    """409 tells the step and both values; `on_conflict=replace` overwrites; a null never conflicts."""
    client.post(f"{run}/points", json={"step": [1, 2], "loss": [3.0, 2.5]})
    clash = {"step": [2, 3], "loss": [2.6, 2.4]}
    detail = problem(client.post(f"{run}/points", json=clash), 409)["detail"]
    assert "step 2 has loss 2.5 already, not 2.6" in detail
    assert _read(client, run)["columns"]["step"] == [1, 2]
    assert client.post(f"{run}/points", json={"step": [2], "loss": [None], "reward": [1]}).status_code == 200
    assert client.post(f"{run}/points?on_conflict=replace", json=clash).json()["accepted"] == 2
    assert _read(client, run)["columns"] == {
        "step": [1, 2, 3],
        "loss": [3.0, 2.6, 2.4],
        "reward": [None, 1.0, None],
    }
    assert fields(client.post(f"{run}/points?on_conflict=ignore", json=clash)) == ["on_conflict"]


def test_two_writers_of_one_run_lose_nothing(api: Api, run: str) -> None:
    """Interleaved batches of two connections all arrive; where they contradict, one of the two is told."""
    outcomes: list[list[int]] = [[], []]

    def write(number: int) -> None:
        with api.client(api.key) as client:
            for at in range(20):
                own = {"step": [2 * at + number + 1000], "loss": [3.0]}
                same = {"step": [at], "loss": [1.0 + number]}
                assert client.post(f"{run}/points", json=own).status_code == 200
                outcomes[number].append(client.post(f"{run}/points", json=same).status_code)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [sorted(pair) for pair in zip(*outcomes, strict=True)] == [[200, 409]] * 20
    with api.client(api.key) as client:
        columns = _read(client, run)["columns"]
    assert columns["step"] == [*range(20), *range(1000, 1040)]
    winners = [1.0 if first == 200 else 2.0 for first in outcomes[0]]
    assert columns["loss"][:20] == winners


def test_compacted_runs_behave_the_same(api: Api, client: httpx.Client, run: str) -> None:
    """After compaction the same reads, conflicts, merges and rewinds."""
    client.post(f"{run}/points", json={"step": [1, 2, 3], "loss": [3.0, 2.5, 2.0]})
    before = _read(client, run)
    with api.sessions.begin() as session:
        named = run.split("/")[3]
        from store import projects

        key = runs.get(session, projects.get(session, named).id, "r").id
        assert points.compact(session, key) == 3
    assert _read(client, run) == before
    assert client.post(f"{run}/points", json={"step": [2], "loss": [2.5]}).json()["duplicates"] == 1
    problem(client.post(f"{run}/points", json={"step": [2], "loss": [2.6]}), 409)
    assert client.post(f"{run}/points", json={"step": [2, 4], "reward": [1, 2]}).json()["accepted"] == 2
    assert client.post(f"{run}/rewind", json={"step": 2}).json() == {"last_step": 2}
    assert _read(client, run)["columns"] == {"step": [1, 2], "loss": [3.0, 2.5], "reward": [None, 1.0]}


def test_rewinding_and_its_bad_input(client: httpx.Client, run: str) -> None:
    """A rewind keeps steps up to the one named, and needs a step."""
    client.post(f"{run}/points", json={"step": [1, 2, 3], "loss": [3.0, 2.5, 2.0]})
    assert client.post(f"{run}/rewind", json={"step": 1}).json() == {"last_step": 1}
    assert client.get(run).json()["last_step"] == 1
    assert client.post(f"{run}/rewind", json={"step": 0}).json() == {"last_step": None}
    for body in ({"step": -1}, {"step": "1"}, {"step": True}, {"step": 1.0}):
        assert fields(client.post(f"{run}/rewind", json=body)) == ["step"]
    assert fields(client.post(f"{run}/rewind", json={})) == ["step"]


def test_a_branch_shows_its_parents_curve_first(client: httpx.Client, project: str, run: str) -> None:
    """A branch's points are its parent's up to the branch step, then its own, and it cannot write the former."""
    client.post(f"{run}/points", json={"step": [10, 20, 30], "loss": [4.0, 3.0, 2.0]})
    branch = f"{project}/runs/b"
    said = {"name": "b", "parent": {"run_id": "r", "branch_step": 20}}
    assert client.put(branch, json=said).status_code == 201
    assert fields(client.post(f"{branch}/points", json={"step": [20], "loss": [3.0]})) == ["step"]
    client.post(f"{branch}/points", json={"step": [30], "loss": [2.5]})
    assert _read(client, branch)["columns"] == {"step": [10, 20, 30], "loss": [4.0, 3.0, 2.5]}
    problem(client.post(f"{run}/rewind", json={"step": 10}), 409)


def test_points_of_unknown_runs(client: httpx.Client, project: str) -> None:
    """Reading, writing and rewinding what is not there is 404."""
    path = f"{project}/runs/gone"
    problem(client.get(f"{path}/points"), 404)
    problem(client.post(f"{path}/points", json={"step": [1], "loss": [3.0]}), 404)
    problem(client.post(f"{path}/rewind", json={"step": 1}), 404)
    problem(client.get("/v1/projects/gone/runs/r/points"), 404)

"""Recorders against the real service; what kills processes is in tests/faults/test_recorder.py."""

from __future__ import annotations

import http.server
import itertools
import json
import logging
import math
import os
import random
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

import isoloss
from isoloss.client import Client
from isoloss.client import recorder as recorders
from isoloss.client.sync import sync
from isoloss.errors import InvalidInput

SCHEDULE = {"kind": "linear", "total_steps": 1000, "peak_lr": 1e-3, "warmup_steps": 10}
_numbers = itertools.count(1)


@pytest.fixture
def client(live):
    with Client(live.url, live.api_key) as client:
        yield client


@pytest.fixture
def project():
    return f"recorded-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(autouse=True)
def settings(live, monkeypatch, tmp_path):
    for name in ("ISOLOSS_PROJECT", "ISOLOSS_MODE", "ISOLOSS_RUN_ID", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ISOLOSS_URL", live.url)
    monkeypatch.setenv("ISOLOSS_API_KEY", live.api_key)
    monkeypatch.setenv("ISOLOSS_DIR", str(tmp_path / "runs"))


@pytest.fixture
def said(caplog):
    """The warnings of the test so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def loss(step):
    return 2 + step**-0.5


def log_steps(run, first, last):
    for step in range(first, last + 1):
        run.log({"loss": loss(step)}, step=step)


def steps_of(client, project, run_id):
    points = client.points.read(project, run_id)
    steps = points["step"].tolist()
    assert points["loss"].tolist() == [loss(step) for step in steps]
    return steps


def test_every_point_arrives_as_it_was_logged_and_nothing_is_left_on_disk(client, project, tmp_path, said):
    numbers = random.Random(0)
    truth = {step: {"loss": numbers.uniform(2, 9), "lr": numbers.random()} for step in range(1, 10_001)}
    for step in range(100, 10_001, 100):
        truth[step]["val/acc"] = numbers.random()
    with isoloss.init(project, run_id="r", config={"n_params": 1000}, schedule=SCHEDULE, tags=["a"]) as run:
        assert run.is_recording
        for step, row in truth.items():
            run.log(row, step=step)
    points = client.points.read(project, "r")
    assert points["step"].tolist() == list(truth)
    for name in ("loss", "lr", "val/acc"):
        expected = [row.get(name) for row in truth.values()]
        assert points[name].mask.tolist() == [value is None for value in expected]
        assert points[name].compressed().tolist() == [value for value in expected if value is not None]
    there = client.runs.get(project, "r")
    assert (there["status"], there["tags"], there["config"]) == ("finished", ["a"], {"n_params": 1000})
    assert there["schedule"] == SCHEDULE
    assert not (tmp_path / "runs").exists()
    assert said() == []


def test_points_are_at_the_service_while_the_run_goes_on(client, project):
    run = isoloss.init(project, run_id="r")
    log_steps(run, 1, 5)
    deadline = time.monotonic() + 20
    while True:
        if project in [each["name"] for each in client.projects.list()]:
            [there] = client.runs.list(project) if list(client.runs.list(project)) else [None]
            if there is not None and there["last_step"] == 5:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert there["status"] == "running"
    run.finish()


def test_a_run_without_an_id_is_new_each_time(client, project):
    ids = []
    for _ in range(2):
        with isoloss.init(project) as run:
            log_steps(run, 1, 3)
            ids.append(run.run_id)
    assert len(set(ids)) == 2
    assert [steps_of(client, project, each) for each in ids] == [[1, 2, 3], [1, 2, 3]]


def test_the_environment_says_what_the_call_does_not(client, project, monkeypatch):
    monkeypatch.setenv("ISOLOSS_PROJECT", project)
    monkeypatch.setenv("ISOLOSS_RUN_ID", "named")
    with isoloss.init() as run:
        log_steps(run, 1, 3)
    assert steps_of(client, project, "named") == [1, 2, 3]


def test_a_run_that_is_resumed_has_neither_holes_nor_doubles(client, project, said):
    with isoloss.init(project, run_id="r", config={"n_params": 10, "seed": 1}) as run:
        log_steps(run, 1, 50)
    with isoloss.init(project, run_id="r", config={"seed": 2}) as run:
        log_steps(run, 41, 45)
        assert run.flush()
        assert steps_of(client, project, "r") == list(range(1, 46))
        assert client.runs.get(project, "r")["status"] == "running"
        log_steps(run, 46, 80)
    assert steps_of(client, project, "r") == list(range(1, 81))
    assert client.runs.get(project, "r")["config"] == {"n_params": 10, "seed": 2}
    [warning] = said()
    assert "the service had steps up to 50; it goes on from step 41" in warning


def test_a_checkpoint_may_be_named_where_the_run_goes_on(client, project):
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 50)
    with isoloss.init(project, run_id="r", resume_step=20) as run:
        log_steps(run, 25, 30)
    assert steps_of(client, project, "r") == [*range(1, 21), *range(25, 31)]


def test_a_loop_that_goes_back_forgets_what_came_after(client, project, said):
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 50)
        log_steps(run, 31, 40)
    assert steps_of(client, project, "r") == list(range(1, 41))
    assert len(said()) == 1


def test_an_evaluation_that_ends_late_joins_its_step(client, project, said):
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 50)
        run.log({"val_loss": 2.5}, step=40)
        run.log({"val_loss": 2.4}, step=50)
    points = client.points.read(project, "r")
    assert points["step"].tolist() == list(range(1, 51))
    assert points["val_loss"].compressed().tolist() == [2.5, 2.4]
    assert said() == []


def test_bad_metrics_cost_themselves_alone_and_a_word_each(client, project, said):
    with isoloss.init(project, run_id="r") as run:
        for step in range(1, 101):
            odd = {"text": "x", "z": 1j, "grad_norm": math.nan, "lr": 0.0, "many": np.ones(2)}
            run.log({"loss": loss(step), **odd}, step=step)
        run.log({"loss": 1.0})
        run.log({"loss": 1.0}, step="seven")
        run.log(None, step=101)
        run.log(3, step=101)
    assert steps_of(client, project, "r") == list(range(1, 101))
    assert client.runs.get(project, "r")["status"] == "finished"
    assert len(said()) == 7


def test_a_loss_that_is_not_a_number_marks_the_run_diverged(client, project):
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 10)
        run.log({"loss": math.nan}, step=11)
    assert client.runs.get(project, "r")["status"] == "diverged"
    assert math.isnan(client.points.read(project, "r")["loss"][-1])


def test_what_only_the_service_can_refuse_costs_itself_alone(client, project, said):
    """A branch has no points at its parent's steps; a rate of 0 is for the schedule that the service knows."""
    client.projects.create(project)
    client.runs.put(project, "parent", schedule=SCHEDULE)
    client.points.append(
        project, "parent", {"step": list(range(1, 11)), "loss": [loss(s) for s in range(1, 11)]}
    )
    with isoloss.init(project, run_id="r", parent={"run_id": "parent", "branch_step": 10}) as run:
        log_steps(run, 9, 40)
    assert steps_of(client, project, "r") == list(range(1, 41))
    assert any("refuses a point" in each for each in said())
    assert any("2 points refused by the service" in each for each in said())


def test_a_specification_that_the_service_refuses_costs_its_field_alone(client, project, said):
    config = {"n_params": 10, "weight_decay": -1.0, "free": "kept"}
    with isoloss.init(
        project, run_id="r", config=config, parent={"run_id": "no-such", "branch_step": 3}
    ) as run:
        log_steps(run, 1, 10)
    assert steps_of(client, project, "r") == list(range(1, 11))
    there = client.runs.get(project, "r")
    assert (there["config"], there["parent"]) == ({"n_params": 10, "free": "kept"}, None)
    assert len(said()) == 2


def test_more_may_be_said_while_the_run_goes_on(client, project):
    with isoloss.init(project, run_id="r", config={"n_params": 10}) as run:
        log_steps(run, 1, 10)
        run.update(config={"dtype": np.float32, "layers": [1, 2]}, schedule=SCHEDULE, notes="restarted")
        run.update(schedule={"kind": "staircase"}, tags="one")
        run.finish(summary={"final_loss": 2.5})
    there = client.runs.get(project, "r")
    assert there["config"] == {"n_params": 10, "dtype": "<class 'numpy.float32'>", "layers": [1, 2]}
    assert (there["notes"], there["summary"]) == ("restarted", {"final_loss": 2.5})
    assert there["schedule"] == SCHEDULE


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (ValueError, "failed"),
        (KeyboardInterrupt, "failed"),
        (SystemExit(0), "finished"),
        (SystemExit(3), "failed"),
    ],
)
def test_how_the_block_ends_is_the_status(client, project, raised, status):
    def train():
        with isoloss.init(project, run_id="r") as run:
            log_steps(run, 1, 3)
            raise raised

    with pytest.raises(BaseException):  # noqa: B017, PT011
        train()
    assert client.runs.get(project, "r")["status"] == status


def test_a_status_may_be_said(client, project, said):
    isoloss.init(project, run_id="a").finish("preempted")
    isoloss.init(project, run_id="b").finish("wonderful")
    assert [run["status"] for run in client.runs.list(project)] == ["preempted", "finished"]
    assert len(said()) == 1


def test_what_comes_after_the_end_is_left_out_and_said_once(client, project, said):
    run = isoloss.init(project, run_id="r")
    log_steps(run, 1, 3)
    run.finish()
    run.finish("failed")
    log_steps(run, 4, 9)
    assert not run.is_recording
    assert run.flush()
    assert steps_of(client, project, "r") == [1, 2, 3]
    assert client.runs.get(project, "r")["status"] == "finished"
    assert len(said()) == 1


def test_a_wrong_key_is_said_once_and_everything_waits_on_disk(client, project, live, tmp_path, said):
    run = isoloss.init(project, run_id="r", api_key="isl_wrong")
    log_steps(run, 1, 500)
    assert run.flush()
    log_steps(run, 501, 1000)
    assert len(said()) == 1
    assert "is not accepted" in said()[0]
    run.finish()
    assert "not sent yet: 1,000 points" in said()[1]
    report = sync(client, tmp_path / "runs")
    assert [(each.run_id, each.accepted) for each in report.runs] == [("r", 1000)]
    assert steps_of(client, project, "r") == list(range(1, 1001))
    assert client.runs.get(project, "r")["status"] == "finished"
    assert sync(client, tmp_path / "runs" / "..").runs == ()


def test_a_key_of_one_project_records_into_it_and_no_other(client, project, live, said):
    client.projects.create(project)
    key = client.keys.create("trainer", ["read", "write"], project=project)["key"]
    with isoloss.init(project, run_id="r", api_key=key) as run:
        log_steps(run, 1, 10)
    assert steps_of(client, project, "r") == list(range(1, 11))
    assert said() == []
    with isoloss.init("another", run_id="r", api_key=key) as run:
        log_steps(run, 1, 10)
    assert len(said()) == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"<html>no such page</html>", "does not have what version"),
        (404, b'{"title": "Not Found", "status": 404}', "does not have what version"),
        (200, b'{"hello": "world"}', "answers in another form than version"),
        (200, b"<html>sign in first</html>", "its answer is not JSON"),
        (405, b"", "refuses"),
        (501, b"", "refuses"),
        (500, b"", "cannot take it now"),
    ],
)
def test_a_server_of_another_kind_or_version_is_one_word_and_everything_waits_on_disk(
    client, project, tmp_path, said, status, body, reason
):
    with foreign_server(status, body) as url:
        run = isoloss.init(project, run_id="r", url=url, api_key="any")
        log_steps(run, 1, 300)
        assert run.flush()
        assert len(said()) == 1
        assert reason in said()[0]
        run.finish()
    assert "not sent yet: 300 points" in said()[1]
    assert len(said()) == 2
    assert sync(client, tmp_path / "runs").runs[0].accepted == 300


@contextmanager
def foreign_server(status, body):
    """Another service: it gives every request the same answer."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def server_that_dies_answering(behind, batch):
    """A way to a service that passes on so many batches of points, and dies before it answers the last of them."""
    left = batch

    class Pass(http.server.BaseHTTPRequestHandler):
        def answer(self):
            nonlocal left
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if left == 0:
                return
            sent = {
                name: value for name, value in self.headers.items() if name not in ("Host", "Accept-Encoding")
            }
            answer = httpx.request(self.command, behind + self.path, content=body, headers=sent)
            left -= self.path.partition("?")[0].endswith("/points")
            if left == 0:
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_PUT = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pass) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_run_that_is_deleted_while_it_is_recorded_is_declared_again(client, project):
    run = isoloss.init(project, run_id="r", config={"n_params": 10})
    log_steps(run, 1, 10)
    assert run.flush()
    run.update(config={"seed": 3})
    assert run.flush()
    client.runs.delete(project, "r")
    log_steps(run, 11, 20)
    assert run.flush()
    client.projects.delete(project)
    log_steps(run, 21, 30)
    run.finish()
    assert steps_of(client, project, "r") == list(range(21, 31))
    there = client.runs.get(project, "r")
    assert (there["config"], there["status"]) == ({"n_params": 10, "seed": 3}, "finished")


def test_a_run_may_be_recorded_from_another_thread_than_the_main_one(client, project):
    def train():
        with isoloss.init(project, run_id="r") as run:
            log_steps(run, 1, 100)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert steps_of(client, project, "r") == list(range(1, 101))


def test_offline_keeps_everything_on_disk_and_asks_no_service(client, project, monkeypatch, tmp_path):
    monkeypatch.setenv("ISOLOSS_MODE", "offline")
    monkeypatch.setenv("ISOLOSS_URL", "http://127.0.0.1:9")
    with isoloss.init(project, run_id="r", config={"n_params": 10}) as run:
        log_steps(run, 1, 100)
        run.log({"loss": loss(50)}, step=50)
    assert sync(client, tmp_path / "runs").runs[0].accepted == 100
    assert steps_of(client, project, "r") == list(range(1, 51))
    assert client.runs.get(project, "r")["config"] == {"n_params": 10}
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("how", [{"mode": "disabled"}, {"rank": 1}])
def test_a_recorder_that_records_nothing_takes_everything(project, tmp_path, how):
    before = threading.active_count()
    with isoloss.init(project, **how) as run:
        log_steps(run, 1, 3)
        run.update(config={"a": 1})
        assert run.flush()
        assert not run.is_recording
    assert threading.active_count() == before
    assert not (tmp_path / "runs").exists()


def test_disabled_needs_no_project():
    isoloss.init(mode="disabled").log({"loss": 1.0}, step=1)


def test_only_rank_zero_records(client, project, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not isoloss.init(project).is_recording
    monkeypatch.setenv("RANK", "0")
    run = isoloss.init(project)
    assert run.is_recording
    run.finish()


def test_a_second_recorder_of_a_run_records_nothing_and_says_so(client, project, monkeypatch, said):
    monkeypatch.setattr("isoloss.client.recording.LOCK_WITHIN_S", 0.2)
    first = isoloss.init(project, run_id="r")
    log_steps(first, 1, 10)
    assert first.flush()
    second = isoloss.init(project, run_id="r")
    log_steps(second, 5, 7)
    second.flush()
    assert not second.is_recording
    log_steps(second, 8, 9)
    second.finish("failed")
    first.finish()
    assert steps_of(client, project, "r") == list(range(1, 11))
    assert client.runs.get(project, "r")["status"] == "finished"
    assert [each for each in said() if "another process is recording this run" in each] == said()


def test_a_folder_that_cannot_be_made_loses_nothing_while_the_service_is_up(client, project, tmp_path, said):
    (tmp_path / "file").write_text("")
    with isoloss.init(project, run_id="r", dir=tmp_path / "file" / "runs") as run:
        log_steps(run, 1, 1000)
    assert steps_of(client, project, "r") == list(range(1, 1001))
    assert len(said()) == 1
    assert "is kept in memory until it is sent" in said()[0]


def test_without_folder_and_service_what_is_lost_is_counted(project, tmp_path, said):
    (tmp_path / "file").write_text("")
    with isoloss.init(project, run_id="r", dir=tmp_path / "file", url="http://127.0.0.1:9") as run:
        log_steps(run, 1, 1000)
    assert any("1,000 points lost" in each for each in said())


def test_a_run_that_went_on_elsewhere_is_filled_and_not_overwritten(client, project, tmp_path):
    """A machine leaves points unsent; another one goes on from a checkpoint; then the first one's points come."""
    with isoloss.init(project, run_id="r", mode="offline", dir=tmp_path / "first") as run:
        log_steps(run, 1, 100)
    with isoloss.init(project, run_id="r", dir=tmp_path / "second") as run:
        for step in range(61, 91):
            run.log({"loss": loss(step), "mark": 2.0}, step=step)
    report = sync(client, tmp_path / "first")
    assert report.runs[0].accepted == 70
    assert "went on elsewhere" in report.runs[0].notes[-1]
    assert steps_of(client, project, "r") == list(range(1, 101))
    points = client.points.read(project, "r", from_step=61, to_step=90)
    assert points["mark"].tolist() == [2.0] * 30


@pytest.mark.parametrize("goes_back", [False, True])
def test_points_whose_answer_was_lost_are_no_sign_that_the_run_went_on_elsewhere(
    client, project, live, tmp_path, goes_back
):
    """The service takes points and is gone before it says so; what came then is sent later, by another process."""
    with server_that_dies_answering(live.url, batch=2) as url:
        run = isoloss.init(project, run_id="r", url=url, api_key=live.api_key)
        log_steps(run, 1, 100)
        run.flush()
        log_steps(run, 101, 200)
        run.flush()
        for step in range(151, 181 if goes_back else 151):
            run.log({"loss": 3.0}, step=step)
        run.finish(summary={"final_loss": 3.0})
    assert client.runs.get(project, "r")["last_step"] == 200
    report = sync(client, tmp_path / "runs")
    assert report.runs[0].notes == ()
    ended = client.runs.get(project, "r")
    assert (ended["status"], ended["summary"]) == ("finished", {"final_loss": 3.0})
    points = client.points.read(project, "r")
    assert points["step"].tolist() == list(range(1, 181 if goes_back else 201))
    if goes_back:
        assert points["loss"][150:].tolist() == [3.0] * 30


def test_a_spool_is_left_alone_while_it_is_recorded_into(client, project, tmp_path):
    run = isoloss.init(project, run_id="r", mode="offline")
    log_steps(run, 1, 10)
    assert run.flush()
    report = sync(client, tmp_path / "runs")
    assert report.runs == ()
    assert "still recording" in report.skipped[0].reason
    run.finish()


def test_log_and_the_clock_have_nothing_to_do_with_each_other(client, project, monkeypatch):
    run = isoloss.init(project, run_id="r")
    for step, now in enumerate([1e9, 5e9, 0.0, -3.0], start=1):
        monkeypatch.setattr("time.time", lambda now=now: now)
        log_steps(run, step, step)
    assert run.flush()
    run.finish()
    assert steps_of(client, project, "r") == [1, 2, 3, 4]


def test_a_trainings_log_is_not_filled_with_requests(client, project, caplog):
    caplog.set_level(logging.INFO)
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 3)
    assert [record for record in caplog.records if record.threadName == "isoloss-send"] == []
    assert steps_of(client, project, "r") == [1, 2, 3]
    assert [record for record in caplog.records if record.name == "httpx"] != []


def test_several_threads_may_log(client, project):
    run = isoloss.init(project, run_id="r")

    def log_every_fourth(first):
        for step in range(first, 4001, 4):
            run.log({f"part_{first}": float(step)}, step=step)

    threads = [threading.Thread(target=log_every_fourth, args=(first,)) for first in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    points = client.points.read(project, "r")
    assert points["step"].tolist() == list(range(1, 4001))
    assert all(points[f"part_{first}"].count() == 1000 for first in (1, 2, 3, 4))


def test_a_queue_that_nobody_empties_is_bounded_and_its_losses_are_counted(project, monkeypatch, said):
    monkeypatch.setattr(recorders, "MOST_IN_QUEUE", 100)
    monkeypatch.setattr("isoloss.client.recording.WRITE_EVERY_S", 30.0)
    run = isoloss.init(project, run_id="r")
    assert run.flush()
    log_steps(run, 1, 150)
    run.finish()
    assert any("faster than they are written" in each for each in said())
    assert any("records left out" in each for each in said())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("project", {"project": None}), ("project", {"project": "a/b"}), ("project", {"project": ".."}),
        ("run_id", {"run_id": "x" * 101}), ("run_id", {"run_id": 3}), ("mode", {"mode": "sometimes"}),
        ("config", {"config": [1]}), ("tags", {"tags": "one"}), ("tags", {"tags": [1]}), ("name", {"name": 3}),
        ("resume_step", {"resume_step": -1}), ("resume_step", {"resume_step": 1.5}), ("rank", {"rank": True}),
        ("dir", {"dir": 5}), ("spool_bytes", {"spool_bytes": 0}), ("kind", {"schedule": {"kind": "staircase"}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rank", ["0", "1"])
def test_init_refuses_what_makes_no_sense_by_its_name_and_on_every_rank(monkeypatch, rank, field, arguments):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(InvalidInput) as refused:
        isoloss.init(**{"project": "pilot", **arguments})
    assert refused.value.fields["field"] == field


def test_a_service_that_comes_back_at_another_address_is_found_there(
    client, project, live, monkeypatch, tmp_path, said
):
    monkeypatch.delenv("ISOLOSS_URL")
    monkeypatch.delenv("ISOLOSS_API_KEY")
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path))
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"url": "http://127.0.0.1:9", "api_key": live.api_key}))
    with isoloss.init(project, run_id="r") as run:
        log_steps(run, 1, 10)
        run.flush()
        assert "cannot be reached" in said()[0]
        credentials.write_text(json.dumps({"url": live.url, "api_key": live.api_key}))
        log_steps(run, 11, 20)
    assert steps_of(client, project, "r") == list(range(1, 21))
    assert len(said()) == 1

"""Recorders in a hostile world: trainers and services that are killed, forks, ranks, disks that are full."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isoloss.client import Client
from isoloss.client.recorder import TERMINATE_WITHIN_S
from isoloss.client.sync import sync
from tests.faults.service import Service, wait_until
from tests.faults.trainer import loss

TRAINER = Path(__file__).with_name("trainer.py")

pytestmark = pytest.mark.faults


@pytest.fixture
def train(live, tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts trainers in the project of the test, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, service: object = live, **environment: str) -> subprocess.Popen[str]:
        place = {
            "ISOLOSS_URL": service.url,
            "ISOLOSS_API_KEY": service.api_key,
            "ISOLOSS_PROJECT": tmp_path.name,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ISOLOSS_")}
        command = [sys.executable, str(TRAINER), str(tmp_path), *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env={**kept, **place, **environment}, **streams))
        return started[-1]

    yield start
    for trainer in started:
        if trainer.poll() is None:
            trainer.kill()
        trainer.communicate(timeout=30)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One for the tests that kill it, which leave it running."""
    folder = Path(tempfile.mkdtemp(prefix="il-"))
    service = Service(folder / "data", workers=0)
    yield service
    service.running.close()
    shutil.rmtree(folder)


def logged(folder: Path) -> int:
    """The last step that a trainer has logged."""
    path = folder / "logged-0"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split()[0]) if lines else 0


def assert_holds(client: Client, project: str, steps: range) -> None:
    points = client.points.read(project, "r")
    assert points["step"].tolist() == list(steps)
    assert points["loss"].tolist() == [loss(step) for step in steps]


def test_a_service_that_is_killed_and_comes_back_misses_nothing(service, train, tmp_path):
    trainer = train(1, 1_000_000, service=service)
    wait_until(lambda: logged(tmp_path) > 800, 30)
    service.kill()
    wait_until(lambda: logged(tmp_path) > 1500, 30)
    service.start()
    (tmp_path / "stop").touch()
    out, said = trainer.communicate(timeout=90)
    assert (trainer.returncode, out) == (0, "trained False\n")
    assert said.count("\n") == said.count("what is logged is kept in") == 1
    with service.client() as client:
        assert_holds(client, tmp_path.name, range(1, logged(tmp_path) + 1))
        assert client.runs.get(tmp_path.name, "r")["status"] == "finished"
    assert not (tmp_path / "runs").exists()


def test_a_trainer_killed_and_resumed_in_an_outage_is_sent_by_sync_without_holes(service, train, tmp_path):
    first = train(1, 1_000_000, service=service)
    wait_until(lambda: logged(tmp_path) > 800, 30)
    service.kill()
    wait_until(lambda: logged(tmp_path) > 1350, 30)
    first.kill()
    first.communicate()
    second = train("resume", 2000, service=service)
    _, said = second.communicate(timeout=90)
    assert second.returncode == 0
    assert "`isoloss sync" in said
    service.start()
    with service.client() as client:
        report = sync(client, tmp_path / "runs")
        assert report.runs[0].notes == ()
        assert_holds(client, tmp_path.name, range(1, 2001))
        assert client.runs.get(tmp_path.name, "r")["status"] == "finished"


def test_kill_nine_loses_at_most_two_seconds_and_the_resumed_run_is_whole(client, train, tmp_path):
    trainer = train(1, 100_000)
    wait_until(lambda: logged(tmp_path) > 2050, 30)
    trainer.kill()
    killed_at = time.time()
    trainer.communicate()
    report = sync(client, tmp_path / "runs")
    assert "ended without a word" in report.runs[0].notes[-1]
    assert client.runs.get(tmp_path.name, "r")["status"] == "failed"
    there = client.points.read(tmp_path.name, "r")["step"].tolist()
    assert there == list(range(1, len(there) + 1))
    times = dict(map(str.split, (tmp_path / "logged-0").read_text().splitlines()))
    assert killed_at - float(times[str(len(there))]) < 2.0

    again = train("resume", 3000)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 0
    assert said.count("\n") <= 1
    assert_holds(client, tmp_path.name, range(1, 3001))
    assert client.runs.get(tmp_path.name, "r")["status"] == "finished"


def test_sigterm_marks_the_run_preempted_with_all_it_has(client, train, tmp_path):
    trainer = train(1, 100_000)
    wait_until(lambda: logged(tmp_path) > 1000, 30)
    asked_at = time.monotonic()
    trainer.terminate()
    trainer.communicate(timeout=20)
    assert time.monotonic() - asked_at < 6
    assert trainer.returncode == -signal.SIGTERM
    assert_holds(client, tmp_path.name, range(1, logged(tmp_path) + 1))
    assert client.runs.get(tmp_path.name, "r")["status"] == "preempted"


def test_sigterm_while_the_service_hangs_ends_within_its_bound_and_keeps_all_on_disk(
    service, train, tmp_path
):
    trainer = train(1, 1_000_000, service=service)
    wait_until(lambda: logged(tmp_path) > 500, 30)
    processes = service.running.relatives()
    for process in processes:
        process.suspend()
    hanging = logged(tmp_path)
    wait_until(lambda: logged(tmp_path) > hanging + 500, 30)
    asked_at = time.monotonic()
    trainer.terminate()
    trainer.communicate(timeout=60)
    took = time.monotonic() - asked_at
    for process in processes:
        process.resume()
    assert took < TERMINATE_WITHIN_S + 3
    with service.client() as client:
        sync(client, tmp_path / "runs")
        assert_holds(client, tmp_path.name, range(1, logged(tmp_path) + 1))
        assert client.runs.get(tmp_path.name, "r")["status"] == "preempted"


def test_the_handler_that_was_there_before_goes_on_with_the_training(client, train, tmp_path):
    trainer = train(1, 100_000, "own_handler=1")
    wait_until(lambda: logged(tmp_path) > 500, 30)
    trainer.terminate()
    out, _ = trainer.communicate(timeout=20)
    assert (trainer.returncode, out) == (0, "trained False\n")
    assert_holds(client, tmp_path.name, range(1, logged(tmp_path) + 1))
    assert client.runs.get(tmp_path.name, "r")["status"] == "preempted"


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [(("raise_at=50",), "failed", 1), (("no_finish=1",), "finished", 0)],
)
def test_a_process_that_ends_without_finish_says_how(client, train, tmp_path, options, status, code):
    trainer = train(1, 200, *options)
    trainer.communicate(timeout=30)
    assert trainer.returncode == code
    assert client.runs.get(tmp_path.name, "r")["status"] == status
    assert_holds(client, tmp_path.name, range(1, logged(tmp_path) + 1))


def test_forked_children_record_nothing_and_hold_nothing_back(client, train, tmp_path):
    trainer = train(1, 1500, "fork_at=700")
    assert trainer.wait(60) == 0
    assert (tmp_path / "exits").read_text() == f"[0, {-signal.SIGTERM}]"
    assert_holds(client, tmp_path.name, range(1, 1501))
    assert client.runs.get(tmp_path.name, "r")["status"] == "finished"
    # One child is still alive, and does not hold the lock.
    again = train(1501, 1600)
    assert again.wait(30) == 0
    assert_holds(client, tmp_path.name, range(1, 1601))


def test_of_two_ranks_the_first_records(client, train, tmp_path):
    ranks = [train(1, 1000, RANK=rank, WORLD_SIZE="2") for rank in ("0", "1")]
    for rank in ranks:
        _, said = rank.communicate(timeout=60)
        assert (rank.returncode, said) == (0, "")
    assert_holds(client, tmp_path.name, range(1, 1001))
    assert (tmp_path / "logged-1").exists()


def test_a_disk_that_is_full_loses_nothing_while_the_service_is_up(client, train, tmp_path):
    trainer = train(1, 3000, "small_disk=5000")
    _, said = trainer.communicate(timeout=60)
    assert trainer.returncode == 0
    assert said.count("cannot be written") == said.count("\n") == 1
    assert_holds(client, tmp_path.name, range(1, 3001))


def test_a_disk_that_is_full_while_the_service_is_away_loses_what_is_counted(client, train, tmp_path):
    trainer = train(1, 3000, "small_disk=5000", ISOLOSS_URL="http://127.0.0.1:9")
    _, said = trainer.communicate(timeout=60)
    assert trainer.returncode == 0
    [lost] = re.findall(r"([0-9,]+) points lost", said)
    report = sync(client, tmp_path / "runs")
    assert report.runs[0].accepted + int(lost.replace(",", "")) == 3000
    assert report.runs[0].accepted > 20
    assert_holds(client, tmp_path.name, range(1, report.runs[0].accepted + 1))

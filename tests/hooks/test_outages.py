"""Trainings of every library under which the service is killed, and then they are themselves."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from isoloss.client.recording import WRITE_EVERY_S
from tests.faults.service import Service, wait_until
from tests.hooks import test_accelerate, test_hugging_face, test_lightning
from tests.hooks.trainings import ended

LIBRARIES = {"accelerate": test_accelerate, "hugging-face": test_hugging_face, "lightning": test_lightning}
STARTS_WITHIN_S = 90

pytestmark = pytest.mark.faults


@pytest.fixture
def service():
    folder = Path(tempfile.mkdtemp(prefix="il-"))
    service = Service(folder / "data", workers=0)
    yield service
    service.running.close()
    shutil.rmtree(folder)


@pytest.fixture
def start(train, service, tmp_path):
    """Starts the training of a library in a folder and a project of its name."""

    def started(name, *options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        place = {"ISOLOSS_URL": service.url, "ISOLOSS_API_KEY": service.api_key, "ISOLOSS_PROJECT": name}
        place["ISOLOSS_DIR"] = str(folder / "runs")
        return train(*options, trainer=LIBRARIES[name].TRAINER, folder=folder, **place)

    return started


def wait_until_held(folder, step):
    for name in LIBRARIES:
        wait_until((folder / name / f"held-{step}").exists, STARTS_WITHIN_S)
    time.sleep(2 * WRITE_EVERY_S)  # what was just logged is on disk then


def let_go(folder, step):
    for name in LIBRARIES:
        (folder / name / f"go-{step}").touch()


def wait_until_sent(client, step):
    for name in LIBRARIES:
        [run] = list(client.runs.list(name))
        wait_until(lambda name=name, run=run: client.runs.get(name, run["run_id"])["last_step"] >= step, 40)


def test_trainings_miss_nothing_when_the_service_and_then_they_are_killed_and_come_back(
    service, start, tmp_path
):
    """All three at once. They hold after step 10, where the service dies, 20 steps later and where they die."""
    trainers = [start(name, "holds=10,30,45") for name in LIBRARIES]
    wait_until_held(tmp_path, 10)
    with service.client() as client:
        wait_until_sent(client, 9)
    service.kill()
    let_go(tmp_path, 10)
    wait_until_held(tmp_path, 30)
    service.start()
    let_go(tmp_path, 30)
    wait_until_held(tmp_path, 45)
    with service.client() as client:
        wait_until_sent(client, 44)
        for trainer in trainers:
            trainer.kill()
            trainer.communicate()
        for trainer in [start(name, "resume") for name in LIBRARIES]:
            ended(trainer)
        for name, library in LIBRARIES.items():
            run = library.assert_recorded(client, name, tmp_path / name)
            tokens = {"hugging-face": 64}.get(name, 128)
            assert (run["status"], run["config"]["batch_tokens"]) == ("finished", tokens)

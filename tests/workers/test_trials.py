"""Trials on real workers: killed, frozen, stopped, paused, and equal in the end to one that nobody touched."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from isoloss.proxies.configuration import ProxyConfig
from store import points, projects, runs, sweeps, trials
from store.columns import Points
from store.engine import create_engine
from store.sweeps import Budget, Planned
from store.tables import Project, Run, Sweep, Trial

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., psutil.Popen]

pytestmark = pytest.mark.faults

LENGTH = {"n_tokens": 256 * 500}
SMALL = {
    "width": 32,
    "depth": 1,
    "head_width": 16,
    "peak_lr": 0.01,
    "batch_tokens": 256,
    "sequence_length": 32,
    "val_tokens": 2048,
    "data": "texts",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of data sets, with one of a few files of this repository."""
    root = tmp_path_factory.mktemp("data")
    (root / "texts").mkdir()
    for path in sorted((ROOT / "store").glob("*.py")):
        (root / "texts" / path.name).write_text(path.read_text())
    return root


@pytest.fixture(scope="module")
def undisturbed(texts: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The curve of the small configuration, trained in one go."""
    from isoloss.proxies.data import load_data
    from isoloss.proxies.training import Training

    training = Training.start(config(), load_data(texts / "texts"))
    columns = training.advance()
    return {name: np.array(cells, dtype=float) for name, cells in columns.items()}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections to this test's own database."""
    engine = create_engine(database_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def start_worker(database_url: str, texts: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts workers of trials, and leaves none."""
    started: list[psutil.Popen] = []

    def start(*flags: str) -> psutil.Popen:
        env = {
            **os.environ,
            "ISOLOSS_DATABASE_URL": database_url,
            "ISOLOSS_CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
            "ISOLOSS_CHECKPOINT_EVERY_S": "0.5",
            "ISOLOSS_PROXY_DATA": str(texts),
        }
        command = [sys.executable, "-m", "tests.workers.trial_worker", *flags]
        started.append(psutil.Popen(command, cwd=ROOT, env=env))
        return started[-1]

    yield start
    for worker in started:
        if worker.poll() is None:
            worker.terminate()
    for worker in started:
        assert worker.wait(15) is not None


def config(**more: Any) -> ProxyConfig:
    return ProxyConfig.of({**SMALL, **LENGTH, **more})


def ask(engine: Engine, *configs: ProxyConfig, **more: Any) -> Sweep:
    """Asks for a sweep as the API does."""
    asked = {"space": {}, "data": "texts", "measure": [], "budget": {}, "seed": 0, "tags": []}
    planned = [Planned(one.document(), one.total_steps, one.total_steps) for one in configs]
    with Session(engine, expire_on_commit=False) as session, session.begin():
        project = session.query(Project).one_or_none() or projects.create(session, "p")
        return sweeps.create(
            session,
            project.id,
            more.get("name", "s"),
            "grid",
            more.get("device", "cpu"),
            asked,
            planned,
            more.get("budget", Budget()),
        )


def see(engine: Engine, sweep: Sweep, number: int = 0) -> Trial:
    with Session(engine) as session:
        return trials.of_sweep(session, sweep.id)[number]


def run_of(engine: Engine, trial: Trial) -> tuple[Run, Points]:
    with Session(engine) as session:
        run = runs.get(session, trial.project_id, trial.run_id)
        return run, points.read(session, run)


def move(engine: Engine, act: Callable[[Session, Sweep], None], sweep: Sweep) -> None:
    with Session(engine) as session, session.begin():
        act(session, session.get_one(Sweep, sweep.id))


def wait_until(
    engine: Engine, sweep: Sweep, holds: Callable[[Trial], bool], patience_s: float = 120, number: int = 0
) -> Trial:
    deadline = time.monotonic() + patience_s
    while True:
        trial = see(engine, sweep, number)
        if holds(trial):
            return trial
        told = (trial.status, trial.step, trial.attempts, trial.message, trial.notes)
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def trainer_of(worker: psutil.Popen) -> psutil.Process:
    """The child that trains: the one that has torch."""
    return max(worker.children(), key=lambda child: child.memory_info().rss)


def assert_equal(found: Points, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    """No hole, no overlap, and every number the same, bit for bit."""
    np.testing.assert_array_equal(found.step, wanted["step"])
    for name in ("loss", "val_loss", "lr", "grad_norm", "tokens"):
        np.testing.assert_array_equal(found[name].with_nan(), wanted[name], err_msg=name)


def test_a_trial_that_is_killed_again_and_again_ends_as_if_nobody_had(
    engine: Engine, start_worker: Start, undisturbed: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    """Its child killed, its worker killed, its worker stopped: the curve is bit for bit the undisturbed one."""
    sweep = ask(engine, config())
    first = start_worker()
    wait_until(engine, sweep, lambda trial: (trial.checkpoint_step or 0) > 0)
    trainer_of(first).kill()
    wait_until(engine, sweep, lambda trial: trial.attempts == 2 and (trial.checkpoint_step or 0) > 60)
    second = start_worker()
    first.kill()
    first.wait()
    resumed = wait_until(engine, sweep, lambda trial: trial.attempts == 3 and trial.step > 200)
    assert resumed.repeated_steps < 200
    second.send_signal(signal.SIGTERM)
    assert second.wait(15) == 0
    waiting = see(engine, sweep)
    assert (waiting.status, waiting.deaths) == ("queued", 0)
    assert run_of(engine, waiting)[0].status == "running"
    start_worker()
    trial = wait_until(engine, sweep, lambda trial: trial.status == "finished")
    assert trial.attempts == 4
    assert trial.repeated_steps == resumed.repeated_steps  # who is asked to stop repeats nothing
    assert any("begun again" in note and "signal 9" in note for note in trial.notes)
    run, found = run_of(engine, trial)
    assert_equal(found, undisturbed)
    assert (run.status, run.recipe, run.tags) == ("finished", "s", ["sweep:s"])
    assert run.summary["final_loss"] == pytest.approx(np.mean(undisturbed["loss"][-5:]))
    assert run.summary["final_val_loss"] == undisturbed["val_loss"][-1]
    with Session(engine) as session:
        assert session.get_one(Sweep, sweep.id).status == "finished"
    deadline = time.monotonic() + 5
    while list((tmp_path / "checkpoints").iterdir()):  # nobody goes on from them any more
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_that_froze_does_not_write_over_the_one_that_took_its_trial(
    engine: Engine, start_worker: Start, undisturbed: dict[str, np.ndarray[Any, Any]]
) -> None:
    """A worker taken for dead that thaws stores neither points nor the end of a trial that another trains."""
    sweep = ask(engine, config())
    frozen = start_worker()
    wait_until(engine, sweep, lambda trial: (trial.checkpoint_step or 0) > 20)
    frozen.suspend()
    start_worker()
    wait_until(engine, sweep, lambda trial: trial.attempts == 2 and trial.step > 0)
    frozen.resume()
    trial = wait_until(engine, sweep, lambda trial: trial.status == "finished")
    assert (trial.attempts, trial.deaths) == (2, 0)
    assert_equal(run_of(engine, trial)[1], undisturbed)


def test_a_sweep_is_paused_resumed_and_cancelled_with_its_points_kept(
    engine: Engine, start_worker: Start, undisturbed: dict[str, np.ndarray[Any, Any]]
) -> None:
    """A full disk pauses a trial and loses nothing; so does a pause; a cancelled one keeps its points."""
    sweep = ask(engine, config(), config(seed=1, n_tokens=256 * 100_000))
    worker = start_worker()
    wait_until(engine, sweep, lambda trial: (trial.checkpoint_step or 0) > 0)
    child = trainer_of(worker)
    unlimited = child.rlimit(psutil.RLIMIT_FSIZE)
    child.rlimit(psutil.RLIMIT_FSIZE, (1000, unlimited[1]))  # no checkpoint is so small
    full = wait_until(engine, sweep, lambda trial: trial.status == "paused")
    assert "no checkpoint could be written" in str(full.message)
    assert "File too large" in str(full.message)
    child.rlimit(psutil.RLIMIT_FSIZE, unlimited)
    other = wait_until(engine, sweep, lambda trial: trial.step > 0, number=1)  # the sweep goes on meanwhile
    move(engine, sweeps.pause, sweep)
    wait_until(engine, sweep, lambda trial: trial.status == "paused", number=1)
    assert run_of(engine, other)[0].status == "preempted"
    move(engine, sweeps.resume, sweep)
    trial = wait_until(engine, sweep, lambda trial: trial.status == "finished")
    assert_equal(run_of(engine, trial)[1], undisturbed)
    wait_until(engine, sweep, lambda trial: trial.status == "running" and trial.attempts == 2, number=1)
    move(engine, sweeps.cancel, sweep)
    ended = wait_until(engine, sweep, lambda trial: trial.status == "cancelled", 20, number=1)
    run, found = run_of(engine, ended)
    assert (run.status, run.last_step, len(found)) == ("preempted", ended.step, ended.step)


def test_a_trial_without_its_checkpoint_or_its_data_says_so_and_loses_nothing(
    engine: Engine,
    start_worker: Start,
    undisturbed: dict[str, np.ndarray[Any, Any]],
    texts: Path,
    tmp_path: Path,
) -> None:
    """Without data it is paused with the reason; a checkpoint that is gone costs the work, never the run."""
    (texts / "texts").rename(texts / "elsewhere")
    try:
        sweep = ask(engine, config())
        worker = start_worker()
        missing = wait_until(engine, sweep, lambda trial: trial.status == "paused")
    finally:
        (texts / "elsewhere").rename(texts / "texts")
    assert "there is no 'texts'" in str(missing.message)
    move(engine, sweeps.resume, sweep)
    wait_until(engine, sweep, lambda trial: (trial.checkpoint_step or 0) > 20)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    start_worker()
    trial = wait_until(engine, sweep, lambda trial: trial.status == "finished")
    assert any("begun again from its beginning: there is no" in note for note in trial.notes)
    assert trial.repeated_steps > 20
    assert_equal(run_of(engine, trial)[1], undisturbed)


def test_a_trial_on_cuda_is_resumed_like_one_on_a_cpu(engine: Engine, start_worker: Start) -> None:
    """Where there is a CUDA device: killed and resumed, its run has neither a hole nor a point twice."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    sweep = ask(engine, config(), device="cuda")
    first = start_worker("--device", "cuda")
    wait_until(engine, sweep, lambda trial: (trial.checkpoint_step or 0) > 0, 300)
    trainer_of(first).kill()
    trial = wait_until(engine, sweep, lambda trial: trial.status == "finished", 300)
    assert trial.device is not None
    assert "cpu" not in trial.device
    np.testing.assert_array_equal(run_of(engine, trial)[1].step, np.arange(1, trial.total_steps + 1))

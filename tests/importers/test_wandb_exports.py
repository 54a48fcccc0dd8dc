"""Runs that W&B itself recorded offline, compared with what was logged; no account and no network."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wandb

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers.logged_runs import LoggedRun, Unreadable
from isoloss.importers.wandb_exports import read_wandb

SETTINGS = {
    "mode": "offline",
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
}


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """W&B asks nobody anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield
    wandb.teardown()


def begin(folder: Path, **options) -> wandb.Run:
    folder.mkdir(exist_ok=True)
    return wandb.init(project="pilots", dir=str(folder), settings=wandb.Settings(**SETTINGS), **options)


def file_of(run: wandb.Run) -> Path:
    return next(Path(run.dir).parent.glob("*.wandb"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, wandb.Run]:
    """One run with everything: where it is, and what W&B made of it."""
    folder = tmp_path_factory.mktemp("wandb")
    config = {"lr": 0.1, "model": {"width": 64, "heads": [4, 8]}, "none": None}
    run = begin(folder, name="pilot", config=config, tags=["a", "b"], notes="the first", group="sweep")
    run.define_metric("train/*", step_metric="global_step")
    run.define_metric("val/loss", step_metric="epoch")
    losses = [9.0, 1 / 3, math.nan, math.inf, -math.inf]
    for number, loss in enumerate(losses):
        run.log({"train/loss": loss, "global_step": number * 10, "plain": 2 * number, "epoch": number / 2})
    run.log({"val/loss": 3.5, "epoch": 2.5, "word": "text", "yes": True, "deep": {"down": 1.5}}, step=7)
    run.log({"weights": wandb.Histogram([1.0, 2.0])}, step=8)
    run.config.update({"lr": 0.2, "late": 1}, allow_val_change=True)
    run.summary["best"] = 0.25
    run.finish()
    return folder, run


@pytest.fixture(scope="module")
def pilot(recorded) -> LoggedRun:
    (run,) = read_wandb(recorded[0])
    return run


def test_a_run_says_what_it_was_called_and_how_it_ended(recorded, pilot):
    _, run = recorded
    assert (pilot.key, pilot.name, pilot.status) == (run.id, "pilot", "finished")
    assert (pilot.tags, pilot.notes) == (("a", "b"), "the first")
    assert pilot.place == str(file_of(run))


def test_the_configuration_is_flat_and_as_it_was_last(pilot):
    assert pilot.config == {
        "lr": 0.2,
        "model.width": 64,
        "model.heads": [4, 8],
        "none": None,
        "late": 1,
        "group": "sweep",
        "summary.best": 0.25,
    }


def test_every_point_comes_as_it_was_logged_at_its_own_step(pilot):
    train = pilot.series["train/loss"]
    assert train.step.tolist() == [0, 10, 20, 30, 40]
    np.testing.assert_array_equal(train.value, [9.0, 1 / 3, math.nan, math.inf, -math.inf])
    assert pilot.series["plain"].step.tolist() == [0, 1, 2, 3, 4]
    assert pilot.series["plain"].value.tolist() == [0, 2, 4, 6, 8]
    assert pilot.series["deep.down"].value.tolist() == [1.5]
    assert (np.diff(train.time_s) > 0).all()
    assert "global_step" not in pilot.series


def test_a_step_metric_that_counts_epochs_leaves_its_metrics_at_the_steps_of_wandb(pilot):
    assert pilot.series["val/loss"].step.tolist() == [7]
    assert any("'epoch' counts no steps" in problem for problem in pilot.problems)


def test_texts_flags_and_histograms_are_left_out_and_told(pilot):
    assert not {"word", "yes", "weights", "weights.bins"} & pilot.series.keys()
    assert "1 value of 'word' left out: text" in pilot.problems
    assert "1 value of 'yes' left out: true or false" in pilot.problems
    assert "1 value of 'weights' left out: histogram" in pilot.problems


def test_the_folder_of_the_run_and_its_file_are_the_same_run(recorded, pilot):
    file = file_of(recorded[1])
    for place in (file, file.parent, str(file)):
        (run,) = read_wandb(place)
        assert run.key == pilot.key
        assert run.series.keys() == pilot.series.keys()


def test_a_run_that_failed_and_one_that_was_preempted_say_so(tmp_path):
    failed = begin(tmp_path)
    failed.log({"loss": 1.0})
    failed.finish(exit_code=3)
    preempted = begin(tmp_path)
    preempted.log({"loss": 1.0})
    preempted.mark_preempting()
    preempted.finish(exit_code=1)
    statuses = {run.key: run.status for run in read_wandb(tmp_path)}
    assert statuses == {failed.id: "failed", preempted.id: "preempted"}


def test_a_resumed_run_is_one_run_with_the_points_of_both_in_order_of_time(tmp_path):
    first = begin(tmp_path, id="twice", config={"lr": 0.1})
    for step in range(1, 6):
        first.log({"loss": 10.0 - step}, step=step)
    first.finish(exit_code=1)
    moment = Path(first.dir).parent.name.split("-")[2]
    earlier = Path(first.dir).parent.rename(tmp_path / "wandb" / "offline-run-20200101_000000-twice")
    second = begin(tmp_path, id="twice", resume="allow")
    for step in range(4, 8):
        second.log({"loss": 20.0 - step}, step=step)
    second.finish()
    assert moment > "20200101_000000"
    assert earlier.is_dir()
    (run,) = read_wandb(tmp_path)
    assert run.series["loss"].step.tolist() == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert run.series["loss"].value.tolist() == [9, 8, 7, 6, 5, 16, 15, 14, 13]
    assert (run.key, run.status, run.config) == ("twice", "finished", {"lr": 0.1})


def test_a_file_that_is_cut_off_keeps_what_stands_before_and_says_so(recorded, tmp_path):
    data = file_of(recorded[1]).read_bytes()
    (tmp_path / "run-cut.wandb").write_bytes(data[: len(data) // 2])
    (run,) = read_wandb(tmp_path)
    assert 0 < len(run.series["plain"].step) <= 5
    assert run.status is None
    assert any("incomplete" in problem for problem in run.problems)


def test_a_file_damaged_in_the_middle_keeps_what_can_be_read_and_the_others_are_read(recorded, tmp_path):
    source = file_of(recorded[1])
    long = begin(tmp_path)
    for step in range(3000):
        long.log({"loss": float(step)})
    long.finish()
    file = file_of(long)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    (tmp_path / source.name).write_bytes(source.read_bytes())
    runs = {run.key: run for run in read_wandb(tmp_path)}
    steps = runs[long.id].series["loss"].step.tolist()
    assert 1000 < len(steps) < 3000
    assert steps[0] == 0
    assert steps[-1] == 2999
    assert any("corrupt" in problem for problem in runs[long.id].problems)
    assert runs[recorded[1].id].problems == tuple(
        p for p in runs[recorded[1].id].problems if "corrupt" not in p
    )


def test_a_file_of_another_kind_is_told(tmp_path):
    (tmp_path / "run-other.wandb").write_text("step,loss\n1,2\n")
    (tmp_path / "run-void.wandb").touch()
    found = list(read_wandb(tmp_path))
    assert all(isinstance(one, Unreadable) and one.reason for one in found)
    assert [Path(one.place).name for one in found] == ["run-other.wandb", "run-void.wandb"]
    (tmp_path / "points.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(InvalidInput, match="no file of W&B"):
        read_wandb(tmp_path / "points.csv")


def test_a_folder_that_is_not_there_or_has_no_run_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="no such file or folder"):
        read_wandb(tmp_path / "none")
    with pytest.raises(InvalidInput, match="no run of W&B"):
        read_wandb(tmp_path)


def test_without_the_package_the_reason_says_what_to_install(recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UnusableData, match=r"isoloss\[importers\]"):
        read_wandb(recorded[0])

"""TensorBoard's event files as torch and tensorboardX write them, compared with what was logged."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import tensorboardX
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, create_summary_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch.utils.tensorboard import SummaryWriter

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Unreadable
from isoloss.importers.tensorboard_logs import read_tensorboard

LOSSES = [9.0, 1 / 3, math.nan, math.inf, -math.inf, 0.1]


def runs_in(folder: Path) -> dict[str, LoggedRun]:
    found = list(read_tensorboard(folder))
    assert not [one for one in found if isinstance(one, Unreadable)]
    return {run.key: run for run in found}


def write(folder: Path, losses=LOSSES, first=1, writer=SummaryWriter, **options) -> Path:
    """The one event file of a new writer."""
    before = set(folder.glob("*tfevents*"))
    with writer(str(folder), **options) as log:
        for step, loss in enumerate(losses, start=first):
            log.add_scalar("train/loss", loss, step)
    (file,) = set(folder.glob("*tfevents*")) - before
    return file


def same(series, steps, values):
    assert series.step.tolist() == list(steps)
    assert series.step.dtype == np.int64
    np.testing.assert_array_equal(series.value, np.asarray(values, np.float32).astype(float))


@pytest.mark.parametrize("writer", [SummaryWriter, tensorboardX.SummaryWriter])
def test_every_scalar_comes_as_it_was_logged(tmp_path, writer):
    began = time.time()
    write(tmp_path / "pilot", writer=writer)
    (run,) = read_tensorboard(tmp_path)
    assert (run.key, run.name, run.status, run.place) == ("pilot", "pilot", None, str(tmp_path / "pilot"))
    same(run.series["train/loss"], range(1, 7), LOSSES)
    assert (
        (run.series["train/loss"].time_s >= began - 1) & (run.series["train/loss"].time_s <= time.time())
    ).all()
    assert run.problems == ()


def test_the_tensors_of_the_new_form_are_read_at_their_own_precision(tmp_path):
    with SummaryWriter(str(tmp_path)) as log:
        for step in range(3):
            log.add_scalar("single", 0.1 * step, step, new_style=True)
            log.add_scalar("double", 0.1 * step, step, new_style=True, double_precision=True)
    (run,) = read_tensorboard(tmp_path)
    same(run.series["single"], range(3), [0.0, 0.1, 0.2])
    assert run.series["double"].value.tolist() == [0.0, 0.1, 0.2]


def test_only_the_first_tensor_of_a_tag_has_to_say_that_it_is_a_scalar(tmp_path):
    from tensorboard.plugins.scalar import metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    log = EventFileWriter(str(tmp_path))
    for step in range(3):
        value = Summary.Value(tag="loss", tensor=make_tensor_proto(np.float64(step + 0.1)))
        if step == 0:
            value.metadata.CopyFrom(metadata.create_summary_metadata("loss", ""))
        log.add_event(Event(wall_time=1.5 + step, step=step, summary=Summary(value=[value])))
    log.close()
    (run,) = read_tensorboard(tmp_path)
    assert run.series["loss"].value.tolist() == [0.1, 1.1, 2.1]
    assert run.series["loss"].time_s.tolist() == [1.5, 2.5, 3.5]


def test_a_folder_below_is_a_run_of_its_own_and_the_folder_itself_one_called_after_it(tmp_path):
    root = tmp_path / "logs"
    for folder in (root, root / "a", root / "a" / "deep", root / "b"):
        write(folder, [1.0])
    assert sorted(runs_in(root)) == ["a", "a/deep", "b", "logs"]


def test_a_resumed_run_keeps_the_points_that_were_written_twice_in_order_of_time(tmp_path):
    late = write(tmp_path, [5.0, 4.0, 3.0], first=3)
    early = write(tmp_path, [9.0, 8.0, 7.0, 6.0], first=1)
    # Names sort one way, times the other.
    late.rename(tmp_path / "a.tfevents.1")
    early.rename(tmp_path / "b.tfevents.0")
    redate(tmp_path / "a.tfevents.1", 2000.0)
    redate(tmp_path / "b.tfevents.0", 1000.0)
    (run,) = read_tensorboard(tmp_path)
    same(run.series["train/loss"], [1, 2, 3, 4, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3])


def redate(file: Path, wall_time: float) -> None:
    """Write the events of a file again, as if at another time."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.summary.writer.record_writer import RecordWriter

    events = list(LegacyEventFileLoader(str(file)).Load())
    with file.open("wb") as out:
        for number, event in enumerate(events):
            event.wall_time = wall_time + number
            RecordWriter(out).write(event.SerializeToString())


@pytest.mark.parametrize("writer", [SummaryWriter, tensorboardX.SummaryWriter])
def test_hyperparameters_join_the_run_above_the_folder_that_add_hparams_makes(tmp_path, writer):
    with writer(str(tmp_path / "pilot")) as log:
        for step in range(3):
            log.add_scalar("loss", 3.0 - step, step)
        log.add_hparams({"lr": 0.1, "width": 64, "optimizer": "adamw", "tied": True}, {"hparam/loss": 1.0})
    (run,) = runs_in(tmp_path).values()
    assert run.key == "pilot"
    assert run.config == {"lr": 0.1, "width": 64, "optimizer": "adamw", "tied": True}
    assert isinstance(run.config["width"], int)
    assert sorted(run.series) == ["loss"]
    assert "1 value beside the hyperparameters" in run.problems[0]


def test_hyperparameters_in_the_folder_of_the_run_are_its_own_and_a_failure_is_told(tmp_path):
    with SummaryWriter(str(tmp_path)) as log:
        log.add_scalar("loss", 3.0, 1)
        # As Lightning writes them: beside the scalars.
        from torch.utils.tensorboard.summary import hparams

        for part in hparams({"lr": 0.2}, {}):
            log.file_writer.add_summary(part)
        ended = HParamsPluginData(session_end_info=SessionEndInfo(status="STATUS_FAILURE"))
        value = Summary.Value(tag=SESSION_END_INFO_TAG, metadata=create_summary_metadata(ended))
        log.file_writer.add_summary(Summary(value=[value]))
    (run,) = read_tensorboard(tmp_path)
    assert run.config == {"lr": 0.2}
    assert run.status == "failed"


def test_texts_that_are_json_are_settings_and_other_texts_are_told(tmp_path):
    with SummaryWriter(str(tmp_path)) as log:
        log.add_text("args", json.dumps({"learning_rate": 0.1, "optim": {"betas": [0.9, 0.95]}}))
        log.add_text("model_config", json.dumps({"hidden_size": 64}))
        log.add_text("note", "a fine run")
        log.add_scalar("loss", 1.0, 1)
    (run,) = read_tensorboard(tmp_path)
    assert run.config == {"learning_rate": 0.1, "optim.betas": [0.9, 0.95], "model_config.hidden_size": 64}
    assert run.problems == ("1 value of 'note' left out: text",)


@pytest.mark.parametrize("writer", [SummaryWriter, tensorboardX.SummaryWriter])
def test_histograms_and_images_are_left_out_and_told(tmp_path, writer):
    with writer(str(tmp_path)) as log:
        log.add_scalar("loss", 1.0, 1)
        for step in range(2):
            log.add_histogram("weights", np.arange(10.0), step)
        log.add_image("sample", np.zeros((3, 4, 4), np.uint8), 1)
    (run,) = read_tensorboard(tmp_path)
    assert list(run.series) == ["loss"]
    assert run.problems == (
        "2 values of 'weights' left out: histogram",
        "1 value of 'sample' left out: image",
    )


def test_a_file_that_is_cut_off_keeps_what_stands_before(tmp_path):
    file = write(tmp_path, [float(step) for step in range(100)])
    file.write_bytes(file.read_bytes()[:-20])
    (run,) = read_tensorboard(tmp_path)
    same(run.series["train/loss"], range(1, 100), range(99))
    assert "cut off or damaged after byte" in run.problems[0]


def test_a_file_damaged_in_the_middle_keeps_what_stands_before_and_the_next_file_is_read(tmp_path):
    first = write(tmp_path, [float(step) for step in range(100)])
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 0xFF
    first.write_bytes(data)
    write(tmp_path, [5.0], first=200)
    (run,) = read_tensorboard(tmp_path)
    steps = run.series["train/loss"].step.tolist()
    assert steps[:-1] == list(range(1, len(steps)))
    assert 40 < len(steps) < 60
    assert steps[-1] == 200
    assert "cut off or damaged" in run.problems[0]


def test_a_file_that_is_none_is_told_and_the_other_runs_are_read(tmp_path):
    write(tmp_path / "good", [1.0])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.tfevents.1").write_text("step,loss\n1,2\n" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.tfevents.1").touch()
    found = list(read_tensorboard(tmp_path))
    assert [(Path(one.place).parent.name, one.reason) for one in found if isinstance(one, Unreadable)] == [
        ("bad", "this is no event file, or its beginning is damaged"),
        ("empty", "it is empty"),
    ]
    assert [run.key for run in found if isinstance(run, LoggedRun)] == ["good"]


def test_an_event_that_is_none_within_a_sound_record_is_told(tmp_path):
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = write(tmp_path, [1.0, 2.0])
    with file.open("ab") as out:
        RecordWriter(out).write(b"\xff\xff\xff")
    (run,) = read_tensorboard(tmp_path)
    same(run.series["train/loss"], [1, 2], [1, 2])
    assert "an event could not be read" in run.problems[0]


def test_one_file_is_the_run_of_its_folder(tmp_path):
    file = write(tmp_path / "pilot", [1.0, 2.0])
    (run,) = read_tensorboard(file)
    assert run.key == "pilot"
    same(run.series["train/loss"], [1, 2], [1, 2])


def test_a_run_without_a_scalar_is_a_run_without_series(tmp_path):
    SummaryWriter(str(tmp_path)).close()
    (run,) = read_tensorboard(tmp_path)
    assert run.series == {}


def test_a_folder_that_is_not_there_or_has_no_event_file_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="no such file or folder"):
        read_tensorboard(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInput, match="no event file"):
        read_tensorboard(tmp_path)
    with pytest.raises(InvalidInput, match="path of a file"):
        read_tensorboard(7)
    (unreadable,) = read_tensorboard(tmp_path / "notes.txt")
    assert "no event file" in unreadable.reason

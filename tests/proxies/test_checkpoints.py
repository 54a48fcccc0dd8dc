"""Checkpoints: whole or not at all, and of this configuration and these data alone."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from isoloss.errors import UnusableData
from isoloss.proxies import TokenData, Training
from isoloss.proxies.checkpoints import read_checkpoint
from tests.proxies.small import small_config, small_data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trial.ckpt"


def saved(path: Path, until: int = 5) -> Training:
    training = Training.start(small_config(), small_data())
    training.advance(until)
    training.save(path)
    return training


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file can become longer than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_old_checkpoint_and_the_training_whole(path: Path) -> None:
    training = saved(path)
    old = path.read_bytes()
    training.advance(8)
    with full_disk(len(old) // 2), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        training.save(path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path], "no part of it is left"
    rest = training.advance()
    whole = Training.start(small_config(), small_data()).advance()
    assert rest["loss"] == whole["loss"][8:]
    assert Training.resume(small_config(), small_data(), "cpu", path).advance()["loss"] == whole["loss"][5:]


def test_a_checkpoint_needs_a_folder_that_is_there(path: Path) -> None:
    training = Training.start(small_config(), small_data())
    with pytest.raises(FileNotFoundError):
        training.save(path.parent / "nowhere" / "trial.ckpt")


def test_a_process_killed_while_it_saves_leaves_a_whole_checkpoint(path: Path) -> None:
    training = saved(path)

    def save_for_ever() -> None:
        while True:
            training.save(path)

    for number in range(5):
        process = multiprocessing.get_context("fork").Process(target=save_for_ever)
        process.start()
        time.sleep(0.03 + 0.011 * number)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert Training.resume(small_config(), small_data(), "cpu", path).step == 5
    training.save(path)
    assert list(path.parent.iterdir()) == [path], "the parts that were left are gone"


def test_a_resumed_training_knows_what_it_was(path: Path) -> None:
    training = saved(path)
    training.notes.append("a note")
    training._micro_sequences = 2
    training.save(path)
    resumed = Training.resume(small_config(), small_data(), "cpu", path)
    assert (resumed.step, resumed.total_steps, resumed.status) == (5, 12, "running")
    assert (resumed.notes, resumed.micro_batch_tokens) == (["a note"], 64)


def test_where_nothing_was_saved_there_is_nothing_to_resume(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Training.resume(small_config(), small_data(), "cpu", path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half of an archive"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(UnusableData, match=r"trial\.ckpt is not a checkpoint"):
        Training.resume(small_config(), small_data(), "cpu", path)


def test_a_damaged_checkpoint_is_refused(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnusableData):
        Training.resume(small_config(), small_data(), "cpu", path)


@pytest.mark.parametrize("state", [{}, {"format": 99}, {"format": 1}, [1]], ids=str)
def test_a_file_of_another_format_is_refused(state: object, path: Path) -> None:
    torch.save(state, path)
    with pytest.raises(UnusableData):
        Training.resume(small_config(), small_data(), "cpu", path)


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({"format": 1, "model": Trap()}, path)
    with pytest.raises(UnusableData):
        read_checkpoint(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_of_another_configuration_is_refused(path: Path) -> None:
    saved(path)
    with pytest.raises(UnusableData, match="another configuration"):
        Training.resume(small_config(seed=1), small_data(), "cpu", path)


def test_a_checkpoint_of_other_data_is_refused(path: Path) -> None:
    saved(path)
    other = TokenData("others", small_data().tokens[::-1].copy(), 256)
    with pytest.raises(UnusableData, match="other data than others"):
        Training.resume(small_config(), other, "cpu", path)

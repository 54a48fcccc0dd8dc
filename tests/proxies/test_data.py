"""Data: what is read and refused, what is held out, and the order of batches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.proxies import TokenData, Training, load_data
from isoloss.proxies.data import STRETCHES
from tests.proxies.small import small_config, small_data

LENGTH = 32


def numbered(n_tokens: int) -> TokenData:
    """Data whose tokens are their own places."""
    return TokenData("numbered", np.arange(n_tokens), n_tokens)


def test_the_standard_library_is_read_as_bytes() -> None:
    data = load_data("python-stdlib")
    assert data.vocab_size == 256
    assert 2_000_000 < data.tokens.size < 50_000_000
    assert b"def " in data.tokens[:100_000].tobytes()
    assert load_data("python-stdlib").fingerprint == data.fingerprint


@pytest.mark.parametrize(("n_tokens", "batch_tokens"), [(1_500, 32), (5_003, 128), (1_400_000, 65_536)])
def test_no_token_is_both_trained_on_and_held_out(n_tokens: int, batch_tokens: int) -> None:
    data = numbered(n_tokens)
    config = small_config(n_tokens=2 * n_tokens, val_tokens=n_tokens, batch_tokens=batch_tokens)
    trained, held_out = np.zeros((2, n_tokens), dtype=bool)
    for step in range(1, config.total_steps + 1):
        trained[data.batch(config, step)] = True
    held_out[data.validation(config)] = True
    assert not (trained & held_out).any()
    assert data.n_train + data.n_validation == n_tokens
    assert held_out.sum() > 0.7 * data.n_validation
    assert trained.sum() > 0.9 * data.n_train
    assert data.n_validation / n_tokens == pytest.approx(1 / STRETCHES, rel=0.1)


def test_windows_run_on_where_training_crosses_what_is_held_out() -> None:
    data = numbered(5_000)
    config = small_config(n_tokens=5_000)
    for step in range(1, 40):
        steps = np.diff(data.batch(config, step), axis=1)
        assert set(np.unique(steps)) <= {1, 1 + data.stretch}
    assert set(np.unique(np.diff(data.validation(config), axis=1))) == {1}


def test_an_epoch_takes_each_window_once() -> None:
    data = numbered(4_000)
    config = small_config(n_tokens=10_000)
    n_windows = (data.n_train - LENGTH) // LENGTH
    rows = np.concatenate([data.batch(config, step) for step in range(1, config.total_steps + 1)])
    for epoch in range(2):
        targets = rows[epoch * n_windows : (epoch + 1) * n_windows, 1:]
        assert np.unique(targets).size == targets.size
    first, second = rows[:n_windows], rows[n_windows : 2 * n_windows]
    assert not np.array_equal(np.sort(first[:, 0]), np.sort(second[:, 0])), "each epoch has its own offset"


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    data = numbered(4_000)
    config = small_config()
    later = [data.batch(config, step) for step in (9, 2, 9)]
    assert np.array_equal(later[0], later[2])
    assert np.array_equal(later[0], numbered(4_000).batch(small_config(peak_lr=1.0), 9))
    assert not np.array_equal(later[0], data.batch(small_config(seed=1), 9))
    assert not np.array_equal(later[0], later[1])


def test_validation_windows_do_not_overlap() -> None:
    data = numbered(100_000)
    windows = data.validation(small_config(n_tokens=256, val_tokens=3_200))
    assert windows.shape == (100, LENGTH + 1)
    assert np.unique(windows[:, 1:]).size == 3_200
    assert np.array_equal(windows, data.validation(small_config(n_tokens=256, val_tokens=3_200, seed=5)))


def test_a_text_tree_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name, text in (
        ("b/z.txt", "zett"),
        ("a.py", "ah"),
        ("b/c/d.md", "deh"),
        (".git/x", "hidden"),
        ("e", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text * 50)
    data = load_data(tmp_path)
    assert data.tokens.tobytes() == ("ah" * 50 + "\n" + "deh" * 50 + "\n" + "zett" * 50).encode()
    assert data.notes == ()


def test_what_is_no_text_is_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("straße " * 50)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 50)
    (tmp_path / "zeros").write_bytes(b"\0" * 50)
    data = load_data(str(tmp_path))
    assert data.tokens.size == len("straße " * 50) + 50
    assert data.notes == (f"2 files of {tmp_path.name} skipped: no UTF-8 text",)
    training = Training.start(small_config(val_tokens=32, sequence_length=16), data)
    assert data.notes[0] in training.notes


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file with UTF-8 text"):
        load_data(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 50)
    with pytest.raises(InvalidInput, match="1 file and none of it is UTF-8 text"):
        load_data(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "", "/dev/null", "python", None, 3, b"bytes"])
def test_missing_data_are_refused(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"data: "):
        load_data(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x" * 100)
    (tmp_path / "secret.txt").chmod(0)
    with pytest.raises(InvalidInput, match=r"secret\.txt"):
        load_data(tmp_path)


def test_tokens_of_a_file_are_mapped_and_their_vocabulary_found(tmp_path: Path) -> None:
    path = tmp_path / "corpus.bin"
    tokens = (np.arange(10_000) * 7 % 1000).astype("<u2")
    tokens.tofile(path)
    data = load_data(path)
    assert isinstance(data.tokens, np.memmap)
    assert np.array_equal(data.tokens, tokens)
    assert data.vocab_size == 1000
    path.with_suffix(".json").write_text(json.dumps({"vocab_size": 1024}))
    assert load_data(path).vocab_size == 1024
    assert load_data(path).fingerprint != data.fingerprint


@pytest.mark.parametrize("said", ["{}", "[]", "1024", '{"vocab_size": 1000}', '{"vocab_size": "many"}', "{"])
def test_a_vocabulary_that_cannot_be_is_refused(said: str, tmp_path: Path) -> None:
    np.arange(1001, dtype="<u2").tofile(tmp_path / "corpus.bin")
    (tmp_path / "corpus.json").write_text(said)
    with pytest.raises(InvalidInput, match=r"corpus\.json"):
        load_data(tmp_path / "corpus.bin")


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_a_file_that_is_no_list_of_tokens_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "corpus.bin").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"corpus\.bin has \d bytes"):
        load_data(tmp_path / "corpus.bin")


def test_data_smaller_than_a_batch_and_a_validation_are_refused_before_any_training() -> None:
    few = TokenData("few", np.zeros(140, dtype=np.uint8), 256)
    with pytest.raises(InvalidInput, match="few has 133 tokens to train on, less than one batch of 128"):
        Training.start(small_config(), few)
    with pytest.raises(InvalidInput, match="for validation"):
        Training.start(small_config(), TokenData("few", np.zeros(500, dtype=np.uint8), 256))
    with pytest.raises(InvalidInput, match="too few to split"):
        TokenData("none", np.zeros(3, dtype=np.uint8), 256)


def test_other_tokens_have_another_fingerprint() -> None:
    data = small_data()
    changed = data.tokens.copy()
    changed[5000] ^= 1
    assert TokenData("words", changed, 256).fingerprint != data.fingerprint
    assert TokenData("other name", data.tokens.copy(), 256).fingerprint == data.fingerprint


def test_large_data_are_told_apart_by_pieces_of_them() -> None:
    large = np.zeros(2**26 + 1000, dtype=np.uint8)
    before = TokenData("large", large, 256).fingerprint
    assert TokenData("large", large[:-1], 256).fingerprint != before
    large[-1] = 1
    assert TokenData("large", large, 256).fingerprint != before

"""Data sets as the library `datasets` writes them (its version 5: streams of Arrow and a list of them)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest

from isoloss.errors import InvalidInput
from isoloss.proxies import load_data


def written(folder: Path, parts: list[dict[str, Any]], **state: Any) -> Path:
    """A data set of some files, as `Dataset.save_to_disk` lays them out."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(parts):05d}.arrow" for number in range(len(parts))]
    for name, columns in zip(names, parts, strict=True):
        table = arrow.table(columns)
        with (
            arrow.OSFile(str(folder / name), "wb") as sink,
            arrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=7)
    listed = {"_data_files": [{"filename": name} for name in names], "_split": None, "_fingerprint": "f"}
    (folder / "state.json").write_text(json.dumps(listed | state))
    (folder / "dataset_info.json").write_text(json.dumps({"description": "", "features": {}}))
    return folder


def tokens(rows: int, start: int = 0) -> dict[str, Any]:
    values = [list(range(start + row, start + row + 10)) for row in range(rows)]
    return {"input_ids": arrow.array(values, arrow.list_(arrow.int32()))}


def test_lists_of_tokens_of_all_files_follow_each_other(tmp_path: Path) -> None:
    data = load_data(written(tmp_path / "set", [tokens(20), tokens(30, start=100)]))
    rows = [range(row, row + 10) for row in (*range(20), *range(100, 130))]
    assert data.tokens.tolist() == [token for row in rows for token in row]
    assert data.vocab_size == 139
    assert data.name == "set"


@pytest.mark.parametrize(
    "kind",
    [arrow.large_list(arrow.int64()), arrow.list_(arrow.uint16()), arrow.list_(arrow.int32(), 10)],
    ids=str,
)
def test_lists_of_every_kind_are_read(kind: Any, tmp_path: Path) -> None:
    column = arrow.array([list(range(10))] * 30, kind)
    assert (
        load_data(written(tmp_path / "set", [{"input_ids": column}])).tokens.tolist() == list(range(10)) * 30
    )


def test_texts_are_read_as_bytes(tmp_path: Path) -> None:
    data = load_data(written(tmp_path / "set", [{"text": ["straße", None, "two"] * 10, "label": [1] * 30}]))
    assert data.tokens.tobytes() == "\n".join(["straße", "two"] * 10).encode()
    assert data.vocab_size == 256


def test_of_several_splits_train_is_read(tmp_path: Path) -> None:
    written(tmp_path / "set" / "test", [tokens(5)])
    written(tmp_path / "set" / "train", [tokens(20)])
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    assert load_data(tmp_path / "set").tokens.size == 200
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "dev"]}))
    with pytest.raises(InvalidInput, match="one of test, dev"):
        load_data(tmp_path / "set")
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["test"]}))
    assert load_data(tmp_path / "set").tokens.size == 50


def test_a_selection_that_was_not_flattened_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", [tokens(20)], _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(InvalidInput, match="flatten_indices"):
        load_data(folder)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", [tokens(20), tokens(20)])
    second = folder / "data-00001-of-00002.arrow"
    second.write_bytes(b"no stream at all")
    with pytest.raises(InvalidInput, match=r"data-00001-of-00002\.arrow is no Arrow stream"):
        load_data(folder)
    second.unlink()
    with pytest.raises(InvalidInput, match=r"data-00001-of-00002\.arrow is missing"):
        load_data(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"state\.json is no JSON"):
        load_data(folder)
    (folder / "state.json").unlink()
    with pytest.raises(InvalidInput, match="was not saved whole"):
        load_data(folder)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [1.0] * 30},
        {"input_ids": [1] * 30},
        {"input_ids": [[0.5]] * 30},
        {"text": [1] * 30},
        {"input_ids": arrow.array([[-1] * 10] * 30)},
        {"input_ids": arrow.array([[1, None]] * 30)},
        {"input_ids": arrow.array([], arrow.list_(arrow.int32()))},
    ],
    ids=["no text", "no lists", "fractions", "numbers for text", "negative", "null", "empty"],
)
def test_columns_that_hold_no_text_and_no_tokens_are_refused(columns: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        load_data(written(tmp_path / "set", [columns]))


def test_a_file_outside_of_the_data_set_is_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", [tokens(20)])
    (tmp_path / "secret.arrow").write_bytes((folder / "data-00000-of-00001.arrow").read_bytes())
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(InvalidInput, match=r"secret\.arrow is missing"):
        load_data(folder)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "set", [tokens(20)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match="pip install pyarrow"):
        load_data(folder)


def test_what_the_library_itself_wrote_is_read(tmp_path: Path) -> None:
    """Where `datasets` is installed; it is no dependency."""
    pytest.importorskip("datasets", reason="datasets is not installed")
    code = (
        "import sys\nfrom datasets import Dataset, DatasetDict\n"
        "rows = Dataset.from_dict({'input_ids': [list(range(k, k + 9)) for k in range(50)]})\n"
        "rows.save_to_disk(sys.argv[1] + '/plain', num_shards=3)\n"
        "rows.shuffle(seed=0).select(range(40)).save_to_disk(sys.argv[1] + '/chosen')\n"
        "texts = Dataset.from_dict({'text': ['words'] * 50})\n"
        "DatasetDict({'train': texts}).save_to_disk(sys.argv[1] + '/splits')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120, capture_output=True)
    rows = np.arange(50)[:, None] + np.arange(9)
    assert load_data(tmp_path / "plain").tokens.tolist() == rows.flatten().tolist()
    assert load_data(tmp_path / "chosen").tokens.size == 40 * 9
    assert load_data(tmp_path / "splits").tokens.tobytes() == b"\n".join([b"words"] * 50)

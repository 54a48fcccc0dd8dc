"""Files of rows as logged runs: what is understood, and what is told of what is not."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.importers import read_csv_runs, read_json_lines, read_parquet
from isoloss.importers.logged_runs import LoggedRun, Unreadable


def lines(path, *rows, end="\n"):
    text = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(text) + end)
    return path


def only(source) -> LoggedRun:
    [run] = source
    assert isinstance(run, LoggedRun)
    return run


def test_nested_objects_are_flattened_and_their_configuration_taken_apart(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        {"config": {"model": {"d_model": 512}, "lr": 1e-3}},
        {"step": 1, "train": {"loss": 3.0}, "name": "Cosine", "state": "crashed", "note": "hi"},
        {"step": 2, "train": {"loss": 2.5}},
    )
    run = only(read_json_lines(path))
    assert run.series["train.loss"].value.tolist() == [3.0, 2.5]
    assert run.config == {"model.d_model": 512, "lr": 1e-3, "note": "hi"}
    assert (run.key, run.name, run.status) == ("a", "Cosine", "failed")
    assert run.problems == ()


def test_every_kind_of_bad_row_is_one_message_with_its_place(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        {"step": 1, "loss": 3.0, "lr": 1e-3},
        "not json",
        "[1, 2]",
        {"step": 2.5, "loss": 1.0},
        {"step": -1, "loss": 1.0},
        {"step": "two", "loss": 1.0},
        {"step": 3, "loss": "NaN", "lr": "high"},
        {"loss": 1.0},
        '{"step": 4, "lo',
        end="",
    )
    run = only(read_json_lines(path))
    assert run.series["loss"].step.tolist() == [1, 3]
    assert np.isnan(run.series["loss"].value[1])
    assert run.problems == (
        "2 lines passed over for being no JSON object, line 2 first",
        "the last line (9) is cut off and passed over",
        "1 row with no step left out",
        "1 row with a step that is no number left out",
        "1 row with a step that is no whole number left out, line 4 first",
        "1 row with a negative step left out, line 5 first",
        "1 value of 'lr' left out, for being no number",
    )


def test_a_column_of_runs_tells_the_rows_apart(tmp_path):
    rows = [
        {"run": name, "step": step, "loss": step + offset, "seed": int(offset)}
        for step in (1, 2)
        for name, offset in (("a", 1.0), ("b", 2.0))
    ]
    first, second = read_json_lines(lines(tmp_path / "all.jsonl", *rows))
    assert (first.key, second.key) == ("a", "b")
    assert second.series["loss"].value.tolist() == [3.0, 4.0]
    assert (first.config, second.config) == ({"seed": 1}, {"seed": 2})
    assert second.place.endswith("all.jsonl, run b")


@pytest.mark.parametrize(
    ("columns", "step"),
    [
        (("_step", "train/global_step"), "train/global_step"),
        (("global_step", "step"), "step"),
        (("_step",), "_step"),
        (("iteration",), "iteration"),
    ],
)
def test_the_step_is_that_of_the_training_before_a_trackers_counter(tmp_path, columns, step):
    rows = [{name: 10 * at + (name == step) for name in columns} | {"loss": 1.0} for at in range(3)]
    run = only(read_json_lines(lines(tmp_path / "a.jsonl", *rows)))
    assert run.series["loss"].step.tolist() == [1, 11, 21]
    assert list(run.series) == ["loss"], "no other counter is a metric"


def test_files_that_cannot_be_used_are_told_and_the_rest_is_read(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    lines(tmp_path / "none.jsonl", {"loss": 1.0})
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"step": 1}')[:15])
    (tmp_path / "other.jsonl").write_bytes(b"\x00\xff")
    lines(tmp_path / "good.jsonl", {"step": 1, "loss": 1.0})
    found = list(read_json_lines([tmp_path, tmp_path / "absent.jsonl"]))
    told = {one.place.rpartition("/")[2]: one.reason for one in found if isinstance(one, Unreadable)}
    assert told == {
        "absent.jsonl": "there is no such file",
        "empty.jsonl": "the file is empty",
        "none.jsonl": "no column is the step; name the one that is by --map NAME=step (columns: loss)",
        "other.jsonl": "no line of it is a JSON object",
        "torn.jsonl.gz": told["torn.jsonl.gz"],
    }
    assert told["torn.jsonl.gz"].startswith("the gzip data are damaged")
    assert [one.key for one in found if isinstance(one, LoggedRun)] == ["good"]


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="file in this folder"):
        list(read_json_lines(tmp_path))


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("a.jsonl", "a"),
        ("deep/er/a.jsonl", "deep-er-a"),
        ("one/history.jsonl", "one"),
        ("run-abc123-history:v7/0000.jsonl", "abc123"),
        ("out/checkpoint-50/trainer_state.json", "out"),
    ],
)
def test_a_run_is_called_after_its_file_or_where_all_files_have_one_name_after_its_folder(
    tmp_path, place, key
):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    lines(tmp_path / place, {"step": 1, "loss": 1.0})
    assert only(read_json_lines(tmp_path)).key == key


def test_of_checkpoints_the_newest_has_the_whole_log(tmp_path):
    for step in (9, 50, 200):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        history = [{"step": at, "loss": 1.0} for at in range(1, step + 1)]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": history, "max_steps": 300}))
    run = only(read_json_lines(tmp_path))
    assert run.series["loss"].step[-1] == 200
    assert run.config["max_steps"] == 300


def test_nan_in_most_rows_stands_for_a_blank_and_at_the_end_for_itself(tmp_path):
    values = [float("nan")] * 4 + [3.0] + [float("nan")] * 4 + [2.0]
    rows = [{"step": at, "val_loss": value, "loss": 1.0} for at, value in enumerate(values)]
    rows += [{"step": 10, "loss": float("nan")}]
    run = only(read_json_lines(lines(tmp_path / "a.jsonl", *rows)))
    assert run.series["val_loss"].step.tolist() == [4, 9]
    assert np.isnan(run.series["loss"].value[-1])
    assert "8 NaNs of 'val_loss' taken for blanks" in run.problems


def test_parquet_is_read_exactly_with_blanks_structs_and_large_steps(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "step": pyarrow.array([1, None, 2**53 - 1], pyarrow.int64()),
            "train": [{"loss": 3.0}, {"loss": 2.0}, {"loss": None}],
            "half": pyarrow.array([np.float16(0.5), None, np.float16(2.0)], pyarrow.float16()),
            "flag": [True, False, True],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and then nothing")
    run, bad = read_parquet(tmp_path)
    assert isinstance(bad, Unreadable)
    assert bad.reason.startswith("this is no Parquet file")
    assert run.series["half"].step.tolist() == [1, 2**53 - 1]
    assert run.series["train.loss"].value.tolist() == [3.0]
    assert run.problems == ("1 row with no step left out", "column 'flag' left out: it holds no numbers")


def test_rows_of_a_csv_file_may_stand_in_any_order_unless_they_contradict_each_other(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n3,7\n1,9\n2,8\n")
    assert only(read_csv_runs(path)).series["loss"].step.tolist() == [1, 2, 3]
    path.write_text("step,loss\n1,9\n2,8\n3,7\n2,8.5\n")
    assert only(read_csv_runs(path)).series["loss"].step.tolist() == [1, 2, 3, 2]

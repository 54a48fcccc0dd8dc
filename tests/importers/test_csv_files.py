from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isoloss.errors import InvalidInput
from isoloss.importers import read_columns, read_table

steps = st.lists(st.integers(0, 2**53), min_size=1, max_size=30, unique=True).map(sorted)
cell = st.one_of(st.none(), st.floats())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@given(data=st.data(), steps=steps, delimiter=st.sampled_from(",;\t"), zipped=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_was_written_is_read_back_exactly(tmp_path, data, steps, delimiter, zipped):
    columns = {
        name: data.draw(st.lists(cell, min_size=len(steps), max_size=len(steps))) for name in ("loss", "lr")
    }
    path = tmp_path / "curve.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["step", *columns])
        for row in zip(steps, *columns.values(), strict=True):
            writer.writerow(["" if value is None else repr(value) for value in row])
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    read = read_columns(path)
    assert read["step"].tolist() == steps
    for name, cells in columns.items():
        assert read[name].mask.tolist() == [value is None for value in cells]
        expected = [math.nan if value is None else value for value in cells]
        assert np.array_equal(read[name].data, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("step,loss,lr", ["step", "loss", "lr"]),
        ("iter,train_loss,val_loss,learning_rate", ["step", "loss", "val_loss", "lr"]),
        ("_step,train/loss,eval/loss,_runtime", ["step", "loss", "val_loss", "wall_time_s"]),
        ("Iteration,Training Loss,n_tokens,Perplexity", ["step", "loss", "tokens", "perplexity"]),
        ("trainer/global_step,loss,train_loss,grad_norm", ["step", "loss", "train_loss", "grad_norm"]),
    ],
)
def test_usual_names_are_understood(tmp_path, header, fields):
    path = write(tmp_path / "a.csv", f"{header}\n{','.join('1' for _ in fields)}\n")
    assert list(read_columns(path)) == fields


def test_the_users_own_map_wins_over_a_guess(tmp_path):
    path = write(tmp_path / "a.csv", "n,loss,nll\n1,2,3\n")
    columns = read_columns(path, map={"step": "n", "loss": "nll"})
    assert columns["loss"].tolist() == [3.0]


def test_a_column_of_text_is_left_out_with_its_reason(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "step,loss,note,2nd\n1,2,warm,1\n"))
    assert list(table.columns) == ["step", "loss"]
    assert table.field_map.ignored == {
        "2nd": "it has no name that a field can have",
        "note": "it holds text",
    }


def test_blank_lines_byte_marks_and_quotes_do_no_harm(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"step","loss"\r\n\r\n"1","2.5"\r\n,\r\n2, 2.25 \r\n')
    assert read_columns(path)["loss"].tolist() == [2.5, 2.25]


def test_steps_written_as_floats_are_whole_numbers(tmp_path):
    path = write(tmp_path / "a.csv", "step,loss\n1.0,2\n1e3,2\n")
    assert read_columns(path)["step"].tolist() == [1, 1000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: the file is empty"),
        ("1,2\n2,3\n", "line 1: these are numbers"),
        ("step,loss,loss\n1,2,3\n", "two columns are called 'loss'"),
        ("loss,lr\n1,2\n", "no column is the step"),
        ("step,loss\n1,2\n2,3,4\n", "line 3: 3 cells under a header of 2"),
        ("step,loss\n1,2\n2,oops\n", "line 3, column 'loss': 'oops' is no number"),
        ("step;loss\n1;2,5\n", r"line 2, column 'loss': '2,5' is no number \(write a decimal point"),
        ("step,loss\n1,2\n\n,3\n", "line 4, column 'step': the step is missing"),
        ("step,loss\n1.5,2\n", "line 2, column 'step': '1.5' is no step"),
        ("step,loss\nnan,2\n", "line 2, column 'step': 'nan' is no step"),
        ("step,loss\n-1,2\n", "line 2, column 'step': -1 is outside"),
        ("step,loss\n9007199254740993,2\n", "line 2, column 'step': .* is outside"),
        ("step,x\n1,2\n2,a\n", "line 3, column 'x': 'a' is no number"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_line_and_column(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        read_columns(write(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"step,loss\n1,\xff\n", "not UTF-8"),
        (gzip.compress(b"step,loss\n" * 99, mtime=0)[:-12], "gzip data are damaged"),
    ],
)
def test_damaged_bytes_are_told(tmp_path, data, message):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        read_columns(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(InvalidInput, match="there is no such file"):
        read_columns(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="directory"):
        read_columns(tmp_path)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"loss": "nope"}, "there is no column 'nope'"),
        ({"loss": "a", "lr": "a"}, "chosen for loss and lr"),
        ({"My Loss": "a"}, "is no name for a field"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path, chosen, message):
    with pytest.raises(InvalidInput, match=message):
        read_columns(write(tmp_path / "a.csv", "step,a\n1,2\n"), map=chosen)

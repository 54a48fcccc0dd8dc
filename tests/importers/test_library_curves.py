from __future__ import annotations

import json
import re

import numpy as np
import pytest

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers import read_curves, read_runs
from isoloss.observations import branch_learning_rates
from isoloss.schedules import schedule_from_spec

CONSTANT = {"kind": "constant", "peak_lr": 0.1, "total_steps": 10}


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text("iter,train_loss\n1,9\n2,\n3,8\n")
    return tmp_path


def test_a_pattern_gives_a_curve_a_file_called_after_it(folder):
    curves = read_curves(str(folder / "*.csv"), schedule=CONSTANT, config={"batch_tokens": 512})
    assert [curve.run_id for curve in curves] == ["a", "b"]
    assert curves[0].step.tolist() == [1, 3]
    assert curves[0].loss_nats.tolist() == [9, 8]
    assert curves[0].schedule.total_steps == 10
    assert curves[0].batch_tokens == 512


def test_a_loss_that_is_written_as_nan_is_told_and_an_empty_cell_is_not(folder):
    (folder / "c.csv").write_text("step,loss\n1,9\n2,\n3,8\n4,nan\n5,nan\n6,nan\n")
    blank, written = read_curves([folder / "a.csv", folder / "c.csv"], schedule=CONSTANT)
    assert blank.notes == ()
    assert written.notes == (
        "3 of its points left out: loss not finite",
        "the loss is NaN from step 4 on: diverged?",
    )


def test_a_runs_file_says_schedule_and_configuration_of_each(folder):
    entry = {"file": "a.csv", "run_id": "first", "schedule": CONSTANT, "config": {"n_params": 7}}
    (folder / "runs.json").write_text(json.dumps([entry]))
    (curve,) = read_curves([], runs_file=folder / "runs.json")
    assert (curve.run_id, curve.n_params) == ("first", 7)


def test_a_logged_learning_rate_is_enough(folder):
    path = folder / "logged.csv"
    path.write_text("step;loss;lr\n1;9;0.1\n2;8;0.05\n")
    (curve,) = read_curves(path)
    assert curve.schedule.lr([1, 2]).tolist() == pytest.approx([0.1, 0.05])


def test_a_curve_without_a_learning_rate_says_so(folder):
    with pytest.raises(UnusableData, match="no learning rate"):
        read_curves(folder / "a.csv")


def test_values_that_make_no_curve_are_told_with_their_file(folder):
    path = folder / "wrong.csv"
    path.write_text("step,loss\n1,-2\n")
    with pytest.raises(InvalidInput, match=r"wrong\.csv: loss: .* above 0"):
        read_curves(path, schedule=CONSTANT)


def test_a_column_of_weights_is_told_to_be_unread(folder):
    path = folder / "weighted.csv"
    path.write_text("step,loss,Weight,grad_norm\n1,9,2,1\n2,8,1,1\n")
    (curve,) = read_curves(path, schedule=CONSTANT)
    assert curve.notes == ("no law reads its column 'Weight': every point counts the same",)


def test_a_pattern_that_names_nothing_is_refused(folder):
    with pytest.raises(InvalidInput, match="no file matches"):
        read_curves(str(folder / "*.tsv"))


@pytest.mark.parametrize("wrong", [None, 5, b"x", object, [None], [5], [[]], {"a": 1}, "a\0b"], ids=repr)
def test_what_names_no_file_is_refused(wrong):
    with pytest.raises(InvalidInput, match="must be the path of a file") as refused:
        read_curves(wrong)
    assert refused.value.fields["field"] == "paths"
    with pytest.raises(InvalidInput, match="must be the path of a file") as refused:
        read_runs(wrong)
    assert refused.value.fields["field"] == "path"
    with pytest.raises(InvalidInput, match="must be the path of a file"):
        read_curves("a.csv", runs_file=[wrong])


@pytest.mark.parametrize(
    "wrong", ["~nobody-of-this-name/*.csv", "**x/*.csv", "x" * 5_000], ids=lambda name: name[:9]
)
def test_a_path_that_the_system_refuses_is_told(wrong):
    with pytest.raises(InvalidInput) as refused:
        read_curves(wrong)
    assert refused.value.fields["field"] == wrong


@pytest.mark.parametrize("wrong", [5, "x", ["a"], {1: 2}, np.ones(2), object()], ids=type)
def test_arguments_of_a_wrong_kind_are_named(folder, wrong):
    table = folder / "runs.csv"
    table.write_text("N,D,loss\n1e7,2e8,4.1\n")
    for field in ("map", "config", "target", "n_params_kind"):
        with pytest.raises(InvalidInput) as refused:
            read_runs(table, **{field: wrong})
        assert refused.value.fields["field"] == field
    for field in ("map", "config", "target", "schedule"):
        with pytest.raises((InvalidInput, UnusableData), match=f"{field}|has no x"):
            read_curves(folder / "a.csv", **{"schedule": CONSTANT, field: wrong})
    for read in (read_runs, read_curves):
        with pytest.raises(InvalidInput, match=r"map: the column of 'loss' must be named"):
            read(table, map={"loss": np.ones(2)})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"run_id": [1]}, "entry 1, run_id: must be a name"),
        ({"config": 5}, "entry 1, config: must be an object"),
        ({"parent": 5}, "entry 1, parent: must be an object"),
        ({"parent": {}}, "entry 1, parent: needs a run_id"),
        (
            {"parent": {"run_id": "b", "branch_step": "5"}},
            "entry 1, parent: needs a run_id and the whole number",
        ),
    ],
)
def test_an_entry_of_a_runs_file_that_makes_no_sense_is_named(folder, said, message):
    (folder / "runs.json").write_text(json.dumps([{"file": "a.csv", "schedule": CONSTANT, **said}]))
    with pytest.raises(InvalidInput, match=message):
        read_curves([], runs_file=folder / "runs.json")


def test_a_branch_has_its_parents_points_and_rates(tmp_path) -> None:
    """A runs file that names a parent gives the branch the parent's curve up to the branch step."""
    flat = {"kind": "constant", "total_steps": 100, "peak_lr": 1e-3}
    falling = {"kind": "wsd", "total_steps": 100, "peak_lr": 1e-3, "decay_start": 60}
    runs = [
        {"file": "branch.csv", "schedule": falling, "parent": {"run_id": "trunk", "branch_step": 50}},
        {"file": "trunk.csv", "schedule": flat},
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "trunk.csv").write_text("step,loss\n20,4\n40,3.5\n60,3.3\n80,3.2\n")
    (tmp_path / "branch.csv").write_text("step,loss\n70,3.1\n90,2.9\n")
    files = [tmp_path / "branch.csv", tmp_path / "trunk.csv"]
    branch, trunk = read_curves(files, runs_file=tmp_path / "runs.json")
    assert (branch.run_id, trunk.run_id) == ("branch", "trunk"), "in the order of the files"
    assert branch.step.tolist() == [20, 40, 70, 90]
    assert branch.loss_nats.tolist() == [4, 3.5, 3.1, 2.9]
    assert branch.schedule.lr([50, 80, 100]).tolist() == pytest.approx([1e-3, 5e-4, 0])
    with pytest.raises(InvalidInput, match="read it too"):
        read_curves(files[:1], runs_file=tmp_path / "runs.json")


def test_a_file_that_the_runs_file_does_not_name_is_refused(folder):
    (folder / "runs.json").write_text(json.dumps([{"file": "a.csv", "schedule": CONSTANT}]))
    with pytest.raises(InvalidInput, match=r"no entry of runs\.json names b\.csv"):
        read_curves(str(folder / "*.csv"), runs_file=folder / "runs.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; it needs a header and rows"),
        ("epoch,nll\n1,9\n", r"no column is the step; .*map={'step': 'column'} .*\(it has epoch, nll\)"),
        ("run_id,step,loss\na,1,9\nb,1,8\n", "column run_id holds 2 runs: one file a run"),
        ("step,loss\n1,-9\n", "loss: a loss in nats per token is above 0"),
    ],
)
def test_a_file_that_is_no_curve_is_named_once(folder, text, message):
    path = folder / "odd.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=rf"^{re.escape(str(path))}: {message}") as refused:
        read_curves(path, schedule=CONSTANT)
    assert str(refused.value).count("odd.csv") == 1


def test_a_file_that_is_not_there_is_named_once():
    with pytest.raises(InvalidInput, match=r"^nofile: there is no such file$"):
        read_curves("nofile")


def test_a_target_that_no_column_holds_is_said_with_the_columns_that_there_are(folder):
    (folder / "odd.csv").write_text("iter,nll\n1,9\n2,8\n")
    with pytest.raises(UnusableData, match=r"no loss: .*map={'loss': 'column'} .*\(it has iter, nll\)"):
        read_curves(folder / "odd.csv", schedule=CONSTANT)
    (folder / "odd.csv").write_text("iter,loss\n1,\n2,\n")
    with pytest.raises(UnusableData, match="no loss: its column is empty"):
        read_curves(folder / "odd.csv", schedule=CONSTANT)


@pytest.mark.parametrize(
    ("rates", "words"), [("1e-3,-1e-3,1e-3", "at step 2 .* is -0.001"), ("0,0,0", "is 0, from step 1")]
)
def test_logged_learning_rates_that_are_none_are_refused(tmp_path, rates, words):
    """Below 0, or 0 at every step: the error names file, run and step, with a declared schedule and without."""
    lines = [f"{step},3.0,{lr}" for step, lr in enumerate(rates.split(","), start=1)]
    (tmp_path / "a.csv").write_text("\n".join(["step,loss,lr", *lines]))
    for declared in (None, CONSTANT):
        with pytest.raises(InvalidInput, match=f"a.csv.*run 'a': .*{words}"):
            read_curves(tmp_path / "a.csv", schedule=declared)


def test_a_branch_that_logs_a_learning_rate_below_0_is_refused():
    """Its own log, behind the parent's schedule, is looked at as well."""
    steps, parent = np.arange(1, 9), schedule_from_spec(CONSTANT)
    with pytest.raises(InvalidInput, match="run 'b': at step 7 the logged learning rate is -1"):
        branch_learning_rates("b", parent, 4, steps, np.where(steps == 7, -1.0, 1e-3), None)

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isoloss.errors import Conflict, InvalidInput, NotFound
from isoloss.importers import import_curves, read_table
from isoloss.importers.curves import sendable_columns


@dataclass
class Recorder:
    """A service that keeps what it is sent."""

    specifications: dict[str, Any] = field(default_factory=dict)
    points: dict[str, Any] = field(default_factory=dict)
    refuse: str | None = None

    def __post_init__(self) -> None:
        self.projects = SimpleNamespace(create=lambda name: {"name": name})
        self.runs = SimpleNamespace(get=self._get, put_document=self._put)
        self.points_room = SimpleNamespace(append=self._append)

    def _get(self, project: str, run_id: str) -> Any:
        if run_id not in self.specifications:
            raise NotFound(kind="run", name=run_id)
        return self.specifications[run_id]

    def _put(self, project: str, run_id: str, document: Any) -> None:
        self.specifications[run_id] = document

    def _append(
        self, project: str, run_id: str, columns: Any, *, on_conflict: str = "error"
    ) -> dict[str, int]:
        if run_id == self.refuse:
            raise Conflict(reason="step 1 has another loss")
        self.points[run_id] = columns
        return {"accepted": len(columns["step"]), "duplicates": 0, "last_step": 0}


@dataclass
class Service:
    recorder: Recorder

    def __post_init__(self) -> None:
        self.projects, self.runs = self.recorder.projects, self.recorder.runs
        self.points = self.recorder.points_room


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def service(recorder: Recorder) -> Service:
    return Service(recorder)


def curve(path: Path, text: str = "step,loss,lr\n1,9,0.1\n2,8,0.1\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_becomes_a_run_of_its_name(service, recorder, tmp_path):
    report = import_curves(service, "p", [curve(tmp_path / "my run.csv.gz")], schedule={"kind": "constant"})
    finished = {"name": "my-run", "status": "finished", "schedule": {"kind": "constant"}}
    assert recorder.specifications == {"my-run": finished}
    assert recorder.points["my-run"]["loss"].tolist() == [9, 8]
    assert (report.runs[0].accepted, report.skipped) == (2, ())


def test_the_runs_file_says_which_file_is_which_run(service, recorder, tmp_path):
    curve(tmp_path / "curves" / "a.csv")
    runs = tmp_path / "runs.json"
    entry = {"file": "curves/a.csv", "run_id": "cosine", "name": "Cosine", "status": "preempted"}
    runs.write_text(json.dumps([entry]))
    import_curves(service, "p", [], runs)
    assert recorder.specifications == {"cosine": {"name": "Cosine", "status": "preempted"}}
    assert list(recorder.points) == ["cosine"]


def test_points_of_a_branch_up_to_its_branch_step_are_its_parents(service, recorder, tmp_path):
    """They are left out with a note, also where the service knew of the parent; a file of no others is skipped."""
    parent = {"run_id": "trunk", "branch_step": 1}
    runs_file = tmp_path / "runs.json"
    runs_file.write_text(json.dumps([{"file": "a.csv", "parent": parent}]))
    file = curve(tmp_path / "a.csv", "step,loss,lr\n1,9,0.1\n2,8,\n3,7,\n")
    first = import_curves(service, "p", [file], runs_file=runs_file)
    again = import_curves(service, "p", [file])
    for report in (first, again):
        note = "1 point up to step 1 left out: there the run's points are its parent's"
        assert report.runs[0].notes == (note,)
        assert recorder.points["a"]["step"].tolist() == [2, 3]
        assert set(recorder.points["a"]) == {"step", "loss"}
    nothing = import_curves(service, "p", [curve(tmp_path / "a.csv", "step,loss\n1,9\n")])
    assert "at or before step 1, where it branches" in nothing.skipped[0].reason


def test_a_branch_follows_its_parent(service, recorder, tmp_path):
    curve(tmp_path / "a.csv"), curve(tmp_path / "b.csv")
    runs = tmp_path / "runs.json"
    branch = {"file": "a.csv", "parent": {"run_id": "b", "branch_step": 1}}
    runs.write_text(json.dumps([branch, {"file": "b.csv"}]))
    import_curves(service, "p", [], runs)
    assert list(recorder.specifications) == ["b", "a"]


def test_importing_again_keeps_the_specification_of_a_run_of_which_nothing_is_said(
    service, recorder, tmp_path
):
    recorder.specifications["a"] = {"name": "named by hand"}
    import_curves(service, "p", [curve(tmp_path / "a.csv")])
    assert recorder.specifications["a"] == {"name": "named by hand"}


def test_a_broken_file_is_skipped_with_its_reason_and_makes_no_run(service, recorder, tmp_path):
    bad = curve(tmp_path / "bad.csv", "step,loss\n1,oops\n")
    report = import_curves(service, "p", [bad, curve(tmp_path / "good.csv")])
    assert [run.run_id for run in report.runs] == ["good"]
    assert list(recorder.specifications) == ["good"]
    assert "line 2, column 'loss'" in report.skipped[0].reason


def test_what_the_service_refuses_is_skipped_with_its_reason(service, recorder, tmp_path):
    recorder.refuse = "a"
    report = import_curves(service, "p", [curve(tmp_path / "a.csv"), curve(tmp_path / "b.csv")])
    assert [run.run_id for run in report.runs] == ["b"]
    assert report.skipped[0].reason == "step 1 has another loss"


def test_two_files_of_one_name_are_not_mixed(service, recorder, tmp_path):
    report = import_curves(service, "p", [curve(tmp_path / "x" / "a.csv"), curve(tmp_path / "y" / "a.csv")])
    assert len(report.runs) == 1
    assert "comes from" in report.skipped[0].reason


def test_progress_follows_the_files(service, tmp_path):
    seen = []
    files = [curve(tmp_path / "a.csv"), curve(tmp_path / "b.csv")]
    import_curves(service, "p", files, on_progress=lambda *state: seen.append(state))
    assert seen == [(0, 2, "a.csv"), (1, 2, "b.csv"), (2, 2, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "JSON list"),
        ("[1]", "entry 1: an entry is an object"),
        ('[{"file": "a.csv", "colour": "red"}]', "entry 1: unknown: colour"),
    ],
)
def test_a_runs_file_that_is_none_is_refused(service, tmp_path, text, message):
    runs = tmp_path / "runs.json"
    runs.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        import_curves(service, "p", [], runs)


def test_nothing_to_import_is_refused(service):
    with pytest.raises(InvalidInput, match="no file"):
        import_curves(service, "p", [])


def test_run_ids_are_as_many_as_files(service, tmp_path):
    with pytest.raises(InvalidInput, match="2 run ids were given for 1 files"):
        import_curves(service, "p", [curve(tmp_path / "a.csv")], run_ids=["a", "b"])


def test_rows_of_one_step_complete_each_other_in_the_order_of_the_steps(tmp_path):
    text = "step,loss,val_loss\n3,7,\n1,9,\n2,8,\n2,,8.5\n"
    columns, notes = sendable_columns(read_table(curve(tmp_path / "a.csv", text)))
    assert columns["step"].tolist() == [1, 2, 3]
    assert columns["loss"].tolist() == [9, 8, 7]
    assert columns["val_loss"].tolist() == [None, 8.5, None]
    assert notes == []


def test_a_file_without_anything_to_fit_says_which_columns_there_are(service, tmp_path):
    report = import_curves(service, "p", [curve(tmp_path / "a.csv", "iter,nll\n1,9\n2,8\n")])
    assert any(
        "no column is the loss" in note and "it has iter, nll" in note for note in report.runs[0].notes
    )


def test_rows_of_one_step_that_disagree_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="step 1 has two values of loss"):
        sendable_columns(read_table(curve(tmp_path / "a.csv", "step,loss\n1,9\n1,8\n")))


def test_only_a_loss_may_be_no_number_and_what_is_left_out_is_told(tmp_path):
    text = "step,loss,grad_norm,lr\n1,nan,inf,\n2,8,1,\n"
    columns, notes = sendable_columns(read_table(curve(tmp_path / "a.csv", text)))
    assert np.isnan(columns["loss"][0])
    assert columns["grad_norm"].tolist() == [None, 1.0]
    assert set(columns) == {"step", "loss", "grad_norm"}
    assert any("grad_norm" in note for note in notes)
    assert any("lr left out" in note for note in notes)
    assert any(note.startswith("1 values of loss are NaN or infinite: no fit uses them") for note in notes)


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no rows"):
        sendable_columns(read_table(curve(tmp_path / "a.csv", "step,loss\n")))


def test_a_runs_file_elsewhere_names_a_file_by_its_base_name(service, recorder, tmp_path):
    runs = tmp_path / "runs.json"
    runs.write_text(json.dumps([{"file": "a.csv", "run_id": "first"}]))
    import_curves(service, "p", [curve(tmp_path / "curves" / "a.csv")], runs)
    assert list(recorder.points) == ["first"]


def test_a_file_that_the_runs_file_does_not_name_is_skipped_with_that_reason(service, recorder, tmp_path):
    runs = tmp_path / "runs.json"
    runs.write_text(json.dumps([{"file": "x/a.csv"}, {"file": "y/a.csv"}, {"file": "b.csv"}]))
    report = import_curves(service, "p", [curve(tmp_path / "a.csv"), curve(tmp_path / "b.csv")], runs)
    assert list(recorder.points) == ["b"]
    assert [skipped.reason for skipped in report.skipped] == ["no entry of runs.json names a.csv"]


def test_the_report_says_whether_the_project_was_made(service, recorder, tmp_path):
    assert import_curves(service, "p", [curve(tmp_path / "a.csv")]).created

    def refuse(name: str) -> Any:
        raise Conflict(reason=f"there is a project {name} already")

    recorder.projects.create = refuse
    assert not import_curves(service, "p", [curve(tmp_path / "a.csv")]).created

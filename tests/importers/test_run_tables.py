"""Tables of finished runs: what is understood, what is refused, and what goes to a project."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import Conflict, InvalidInput, Unavailable
from isoloss.fitting.table_screening import screen_table
from isoloss.importers import import_table
from isoloss.laws import LAWS

MAP = {"n_params": "N", "n_tokens": "D", "final_loss": "loss"}
ROWS = "N,D,loss,note\n1e7,2e8,4.1,a\n3e7,,3.7,b\n1e8,2e9,nan,c\n"


def write(folder: Path, text: str, name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_row_is_a_run_with_its_columns_and_outcome(tmp_path: Path) -> None:
    """Fields by the map, a constant configuration for all, NaN for empty cells, names by row."""
    table = isoloss.read_runs(write(tmp_path, ROWS), MAP, config={"weight_decay": 0.1, "dataset": "d"})
    assert table.run_ids == ("row-0001", "row-0002", "row-0003")
    np.testing.assert_array_equal(table.columns["n_params"], [1e7, 3e7, 1e8])
    np.testing.assert_array_equal(table.columns["n_tokens"], [2e8, math.nan, 2e9])
    np.testing.assert_array_equal(table.outcome, [4.1, 3.7, math.nan])
    np.testing.assert_array_equal(table.columns["weight_decay"], [0.1] * 3)
    assert "note" not in table.columns


@pytest.mark.parametrize(
    "header", ["N,D,loss", "params,tokens,train_loss", "n_params;n_tokens;final_loss", "Model Size\tD\tLoss"]
)
def test_usual_names_and_delimiters_are_understood(tmp_path: Path, header: str) -> None:
    """Without a map, in any case and with any of the usual delimiters, also zipped."""
    mark = next((mark for mark in ";\t" if mark in header), ",")
    text = "\n".join([header, mark.join(("1e7", "2e8", "4.1"))])
    path = tmp_path / "runs.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    table = isoloss.read_runs(path)
    assert (table.columns["n_params"], table.columns["n_tokens"], table.outcome) == (1e7, 2e8, 4.1)


def test_runs_go_by_their_own_names_and_other_numbers_keep_theirs(tmp_path: Path) -> None:
    """A column run_id names the rows; a column of numbers that nothing is known of is one of the table."""
    text = "run,N,D,final_val_loss,Data Share\nbig run/1,1e9,2e10,2.9,0.5\n"
    table = isoloss.read_runs(write(tmp_path, text), target="val_loss")
    assert table.run_ids == ("big-run-1",)
    assert (table.target, table.columns["data_share"], table.outcome) == ("val_loss", 0.5, 2.9)


def test_columns_that_no_law_reads_are_told(tmp_path: Path) -> None:
    """Weights and other columns that look meant are in the notes of the table, of its fit and of an import."""
    text = "N,D,loss,weight,train_loss,7\n1e7,2e8,4.1,2,4.2,1\n3e7,2e8,3.9,1,4,1\n"
    path = write(tmp_path, text)
    notes = (
        "no law reads columns 'weight', 'train_loss': kept beside the runs, and every run counts the same",
        "passed over: column '7', for want of a name, or because another column has it",
    )
    table = isoloss.read_runs(path)
    assert table.notes == notes
    assert set(notes) <= set(isoloss.fit("power_law", table, bootstrap=0).reasons)
    assert import_table(Service(), "p", path).notes == notes
    assert isoloss.read_runs(write(tmp_path, "N,D,loss\n1e7,2e8,4.1\n")).notes == ()


def test_counts_of_one_kind_are_asked_for(tmp_path: Path) -> None:
    """Where rows have several counts of parameters, `n_params_kind` chooses; a kind that no row has is refused."""
    path = write(tmp_path, "N,n_params_total,D,loss\n1e7,2e7,2e8,4.1\n")
    kinds = {"n_params_kind": "non_embedding"}
    assert isoloss.read_runs(path, config=kinds).column("n_params") == 1e7
    asked = isoloss.read_runs(path, config=kinds, n_params_kind="total")
    assert (asked.column("n_params"), asked.n_params_kind) == (2e7, "total")
    with pytest.raises(InvalidInput, match="no row has n_params_active"):
        isoloss.read_runs(path, n_params_kind="active")
    for said in ({"n_params_kind": "foo"}, {"config": {"n_params_kind": "foo"}}):
        with pytest.raises(InvalidInput, match="'foo' is not one of total, non_embedding, active"):
            isoloss.read_runs(path, **said)  # type: ignore[arg-type]


def test_a_run_whose_loss_is_infinite_or_whose_status_says_so_diverged(tmp_path: Path) -> None:
    """Neither has an outcome."""
    path = write(tmp_path, "N,D,loss,status\n1e7,2e8,inf,\n1e7,2e8,5.0,diverged\n1e7,2e8,4.0,finished\n")
    np.testing.assert_array_equal(isoloss.read_runs(path).outcome, [math.nan, math.nan, 4.0])


def test_a_column_diverged_is_the_status(tmp_path: Path) -> None:
    """True or 1 says that the run diverged; what is neither true nor false is refused."""
    path = write(tmp_path, "N,D,loss,diverged\n1e7,2e8,5.0,1\n1e7,2e8,4.0,0\n1e7,2e8,6,True\n1e7,2e8,3,\n")
    table = isoloss.read_runs(path)
    np.testing.assert_array_equal(table.outcome, [math.nan, 4.0, math.nan, 3.0])
    assert (table.notes, "diverged" in table.columns) == ((), False)
    path = write(tmp_path, "N,D,loss,diverged\n1e7,2e8,5.0,maybe\n")
    with pytest.raises(InvalidInput, match=r"row 1 .*column 'diverged': 'maybe' is neither true nor false"):
        isoloss.read_runs(path)


def test_runs_that_have_not_finished_have_no_outcome_and_are_named(tmp_path: Path) -> None:
    """A loss on the way is no final loss; a fit says the status of each."""
    rows = [
        "a,1e7,2e8,5,running",
        "b,1e7,2e8,5,running",
        "c,1e7,2e8,5,failed",
        "d,1e7,2e8,4,",
        "e,1,1,4,finished",
    ]
    table = isoloss.read_runs(write(tmp_path, "\n".join(["run,N,D,loss,status", *rows])))
    np.testing.assert_array_equal(table.outcome, [*[math.nan] * 3, 4.0, 4.0])
    screened, left_out = screen_table(table, LAWS["chinchilla"])
    assert screened.run_ids == ("e", "d")
    assert {one["run_id"]: one["reason"] for one in left_out} == {
        "a": "it has not finished: its status is running",
        "b": "it has not finished: its status is running",
        "c": "it has not finished: its status is failed",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("N,D,loss\n", "there are no rows under the header"),
        ("", "the file is empty"),
        ("N,D,loss\n1e7,2e8,4.1\n1e7,many,4.1\n", "row 2 (line 3), column 'D': 'many' is no number"),
        (
            'N,D,loss\n1e7,2e8,"4,1"\n',
            "row 1 (line 2), column 'loss': '4,1' is no number (write a decimal point",
        ),
        ("N,D,loss\n1e7,2e8,4.1x\n", "row 1 (line 2), column 'loss': '4.1x' is no number"),
        ("N,D,loss\ninf,2e8,4.1\n", "row 1 (line 2), column 'N': inf is not finite"),
        ("N,D,perplexity\n1e7,2e8,4.1\n", "no column is the final_loss"),
        ("run,N,D,loss\na,1,1,1\na,1,1,1\n", "row 2 (line 3): run 'a' stands in row 1 already"),
        ("N,D,loss,status\n1,1,1,odd\n", "row 1 (line 2), status: 'odd' is none of"),
        ("N,D,loss,n_params_kind\n1,1,1,odd\n", "row 1 (line 2), n_params_kind: 'odd' is not one of total"),
    ],
)
def test_what_cannot_be_read_is_named_by_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    """Files without rows, text where a number belongs, and tables without an outcome."""
    with pytest.raises(InvalidInput) as caught:
        isoloss.read_runs(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A column that is not there; text in a column of the user's choice."""
    path = write(tmp_path, ROWS)
    with pytest.raises(InvalidInput, match="there is no column 'M'"):
        isoloss.read_runs(path, {"n_params": "M"})
    with pytest.raises(InvalidInput, match=r"row 1 \(line 2\), column 'note': 'a' is no number"):
        isoloss.read_runs(path, {"batch_tokens": "note"})


def test_parquet_needs_a_library_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the error says what to install; with one the columns are read as they are."""
    path = write(tmp_path, "PAR1", "runs.parquet")
    for library in ("pyarrow.parquet", "pandas"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InvalidInput, match="install pyarrow"):
        isoloss.read_runs(path)
    with pytest.raises(InvalidInput, match="no such file"):
        isoloss.read_runs(tmp_path / "none.parquet")
    columns = {"N": [10**7, None], "D": [2e8, 4e8], "loss": [4.1, math.nan], "note": ["a", None]}
    monkeypatch.setattr("isoloss.importers.run_tables._parquet_columns", lambda path: columns)
    table = isoloss.read_runs(path)
    np.testing.assert_array_equal(table.columns["n_params"], [1e7, math.nan])
    np.testing.assert_array_equal(table.outcome, [4.1, math.nan])


class Runs:
    """Runs as the service keeps them."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.puts = 0

    def list(self, project: str) -> list[dict[str, Any]]:
        return list(self.kept.values())

    def put_document(self, project: str, run_id: str, document: dict[str, Any]) -> dict[str, Any]:
        self.puts += 1
        if document["config"].get("n_params") == 666:
            raise InvalidInput(field="config.n_params", reason="must be something else")
        if document["config"].get("n_params") == 503:
            raise Unavailable(service="it", reason="down")
        blank = {"recipe": None, "notes": None, "parent": None, "schedule": None}
        self.kept[run_id] = {"run_id": run_id, **blank, **document}
        return self.kept[run_id]


class Projects:
    def __init__(self) -> None:
        self.made = False

    def create(self, name: str) -> None:
        if self.made:
            raise Conflict(reason="it is there")
        self.made = True


class Service:
    def __init__(self) -> None:
        self.projects, self.runs = Projects(), Runs()


def test_every_row_becomes_a_finished_run_and_again_changes_nothing(tmp_path: Path) -> None:
    """The first import puts the rows, the second one sends nothing, and what was added to a run stays."""
    service = Service()
    path = write(tmp_path, ROWS)
    said: dict[str, Any] = {"config": {"weight_decay": 0.1}, "tags": ["pilot"], "recipe": "adamw"}
    report = import_table(service, "p", path, MAP, **said)
    assert (report.new, report.changed, report.unchanged, report.created) == (3, 0, 0, True)
    assert service.runs.kept["row-0001"] == {
        "run_id": "row-0001",
        "name": "row-0001",
        "status": "finished",
        "recipe": "adamw",
        "tags": ["pilot"],
        "notes": None,
        "parent": None,
        "schedule": None,
        "config": {"weight_decay": 0.1, "n_params": 1e7, "n_tokens": 2e8, "note": "a"},
        "summary": {"final_loss": 4.1},
    }
    assert service.runs.kept["row-0003"]["summary"] == {}
    service.runs.kept["row-0001"] |= {"notes": "mine", "tags": ["pilot", "mine"]}
    again = import_table(service, "p", path, MAP, **said)
    assert (again.new, again.changed, again.unchanged, again.created) == (0, 0, 3, False)
    assert service.runs.puts == 3
    changed = import_table(service, "p", write(tmp_path, ROWS.replace("4.1", "4.0")), MAP, **said)
    assert (changed.new, changed.changed, changed.unchanged) == (0, 1, 2)
    kept = service.runs.kept["row-0001"]
    assert (kept["summary"], kept["notes"], kept["tags"]) == ({"final_loss": 4.0}, "mine", ["pilot", "mine"])


def test_a_row_that_the_service_refuses_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """The others are there; a service that is gone ends the import."""
    service = Service()
    report = import_table(service, "p", write(tmp_path, "N,D,loss\n666,1,1\n5,1,1\n"))
    assert (report.new, [one.run_id for one in report.skipped]) == (1, ["row-0001"])
    assert "must be something else" in report.skipped[0].reason
    with pytest.raises(Unavailable):
        import_table(service, "p", write(tmp_path, "N,D,loss\n503,1,1\n7,1,1\n"))


def test_two_tables_of_numbered_rows_are_kept_apart_by_a_prefix(tmp_path: Path) -> None:
    """Without one the second table would be new values of the first one's runs."""
    service = Service()
    import_table(service, "p", write(tmp_path, ROWS), MAP)
    report = import_table(service, "p", write(tmp_path, "N,D,loss\n5,1,1\n", "b.csv"), prefix="b-")
    assert (report.new, report.changed) == (1, 0)
    assert list(service.runs.kept) == ["row-0001", "row-0002", "row-0003", "b-row-0001"]


def test_nothing_is_sent_of_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken number in the last row leaves the project untouched."""
    service = Service()
    with pytest.raises(InvalidInput, match="row 2"):
        import_table(service, "p", write(tmp_path, "N,D,loss\n5,1,1\n5,1,x\n"))
    assert not service.projects.made


def test_a_map_the_wrong_way_round_is_told(tmp_path: Path) -> None:
    """Field to column, not column to field: the refusal says how it was meant."""
    with pytest.raises(InvalidInput, match=r"a map is FIELD=COLUMN; did you mean n_params=N\?"):
        isoloss.read_runs(write(tmp_path, ROWS), {"N": "n_params"})


def test_a_map_to_what_is_no_field_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    """A misspelt field would be a column that no law reads; a field under two spellings is one field."""
    path = write(tmp_path, ROWS)
    with pytest.raises(InvalidInput, match=r"'foo' is no field .*batch_tokens, .*n_params"):
        isoloss.read_runs(path, {**MAP, "foo": "note"})
    with pytest.raises(InvalidInput, match="columns 'note' and 'loss' are both chosen for tokenizer"):
        isoloss.read_runs(path, {"tokenizer": "note", "tokeniser": "loss"})


def test_the_other_spelling_of_a_field_is_the_field(tmp_path: Path) -> None:
    """`tokeniser` and `optimiser`, as columns and in a map, are checked as `tokenizer` and `optimizer` are."""
    header = "N,D,loss,tokeniser,optimiser,vocabulary"
    path = write(tmp_path, f"{header}\n1e7,2e8,4.1,gpt2,adamw,a\n3e7,2e8,3.9,llama,muon,b\n")
    table = isoloss.read_runs(path)
    assert table.label("tokenizer") == ("gpt2", "llama")
    assert table.label("optimizer") == ("adamw", "muon")
    assert not any("tokeni" in note for note in table.notes)
    assert isoloss.read_runs(path, {"tokeniser": "vocabulary"}).label("tokenizer") == ("a", "b")


@pytest.mark.parametrize("field", ["loss", "val_loss"])
def test_a_negative_loss_is_refused_by_row_and_column(tmp_path: Path, field: str) -> None:
    """No loss in nats per token lies below 0; a reward may."""
    path = write(tmp_path, f"N,D,{field}\n1e7,2e8,4.1\n3e7,2e8,-3.9\n")
    with pytest.raises(InvalidInput, match=rf"row 2 \(line 3\), column '{field}': -3.9 is below 0"):
        isoloss.read_runs(path, target=field)
    rewards = write(tmp_path, "compute_flops,reward\n1e18,-0.5\n1e19,0.5\n", "rewards.csv")
    assert isoloss.read_runs(rewards, target="reward").outcome[0] == -0.5

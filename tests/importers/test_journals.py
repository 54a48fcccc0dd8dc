"""The journal of an import: written before, read again after a crash."""

from __future__ import annotations

import pytest

from isoloss.errors import InvalidInput, NotFound
from isoloss.importers.journals import Journal, RunEntry, append, find_import, past_imports


def test_an_import_that_changes_nothing_leaves_no_journal(tmp_path):
    journal = Journal.begin(tmp_path / "imports", "csv", "p")
    journal.record()
    journal.finish()
    assert journal.import_id is None
    assert not (tmp_path / "imports").exists()


def test_a_journal_tells_what_it_was_told(tmp_path):
    journal = Journal.begin(tmp_path, "csv", "p", "http://there")
    entries = (
        RunEntry("a", created=True, points_after=10),
        RunEntry("b", before={"name": "b"}, after={"name": "c"}, points_before=0, points_after=5, filled=3),
    )
    journal.record(*entries)
    [past] = past_imports(tmp_path)
    assert (past.header, past.runs, past.state) == (journal.header, entries, "broken off")
    journal.finish()
    [past] = past_imports(tmp_path)
    assert past.state == "done"


def test_a_line_that_a_crash_tore_costs_itself_alone(tmp_path):
    journal = Journal.begin(tmp_path, "csv", "p")
    journal.record(RunEntry("a", created=True))
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'{"run": {"run_id": "b", "crea')
    append(path, [{"undone": True}])
    [past] = past_imports(tmp_path)
    assert ([run.run_id for run in past.runs], past.state, past.torn) == (["a"], "undone", 1)


def test_files_that_are_no_journals_are_passed_over(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n")
    (tmp_path / "y.jsonl").write_bytes(b"\x00\xff")
    (tmp_path / "z.jsonl").write_text('{"isoloss_import": 1}\n')
    (tmp_path / "e.jsonl").write_text("")
    assert list(past_imports(tmp_path)) == []
    assert list(past_imports(tmp_path / "none")) == []


def test_an_import_is_found_by_the_beginning_of_its_id(tmp_path):
    for _ in range(2):
        Journal.begin(tmp_path, "csv", "p").record(RunEntry("a"))
    first, second = (past.header.import_id for past in past_imports(tmp_path))
    assert find_import(tmp_path, first).header.import_id == first
    with pytest.raises(InvalidInput, match="2 imports begin with"):
        find_import(tmp_path, second[:4])
    for wrong in ("9", ""):
        with pytest.raises(NotFound):
            find_import(tmp_path, wrong)

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from isoloss.client import spool as spools
from isoloss.client.backlog import Backlog
from isoloss.client.fresh import MOST_FRESH_BYTES
from isoloss.client.messages import Messages
from isoloss.client.operations import Operation, points, rows_of
from isoloss.client.spool import Identity, OtherFormat, Place, Spool, identity_of

RUN = Identity("pilot", "r")


def block(first, last, loss=2.0):
    return points([(step, {"loss": loss + step}) for step in range(first, last + 1)])


def opened(root, **options):
    return Spool(RUN.folder_in(root), RUN, **options).open()


def backlog_in(root, **options):
    return Backlog(opened(root, segment_bytes=4096), Messages("run r"), **options)


def sent_from(backlog):
    """Everything that a backlog gives, as the service would have it."""
    state = {}
    while (chunk := backlog.next()) is not None:
        if chunk.operation.kind == "points":
            state.update(rows_of(chunk.operation.content))
        backlog.acknowledge(max(state, default=None))
    return state


def test_what_was_written_is_sent_in_its_order_by_the_next_process(tmp_path):
    first = backlog_in(tmp_path)
    written = [Operation("run", {"name": "r"}), block(1, 300), Operation("rewind", 200), block(201, 400)]
    for operation in written:
        first.append([operation])
    second = backlog_in(tmp_path)
    kinds = []
    while (chunk := second.next()) is not None:
        kinds.append(chunk.operation.kind)
        second.acknowledge(None)
    assert kinds == ["run", "points", "rewind", "points"]
    second.close()
    assert [path.name for path in RUN.folder_in(tmp_path).iterdir()] == []


def test_what_is_acknowledged_is_not_sent_again_and_its_files_are_deleted(tmp_path):
    backlog = backlog_in(tmp_path)
    for first in range(1, 5000, 100):
        backlog.append([block(first, first + 99)])
    n_files = len(backlog.spool.segments)
    assert n_files > 10
    chunk = backlog.next()
    assert chunk.operation.n_points == 4000
    backlog.acknowledge(4000)
    assert len(backlog.spool.segments) < n_files / 2
    assert sorted(sent_from(backlog_in(tmp_path))) == list(range(4001, 5001))


def test_a_torn_last_line_costs_itself_alone_and_is_said_once(tmp_path, caplog):
    backlog = backlog_in(tmp_path)
    backlog.append([block(1, 10)])
    backlog.append([block(11, 20)])
    path = backlog.spool.segments[-1].path
    path.write_bytes(path.read_bytes()[:-7])
    later = backlog_in(tmp_path)
    later.append([block(21, 30)])
    assert sorted(sent_from(later)) == [*range(1, 11), *range(21, 31)]
    assert caplog.text.count("damaged line") == 1
    assert later.losses() == ["1 damaged line of the spool passed over"]


def test_what_was_just_written_is_sent_as_it_was_whatever_the_disk_does_to_it(tmp_path):
    backlog = backlog_in(tmp_path)
    backlog.append([block(1, 10), Operation("rewind", 8), block(9, 20)])
    backlog.append([block(21, 30)])
    path = backlog.spool.segments[-1].path
    path.write_bytes(b"\0" * path.stat().st_size)
    sizes = []
    while (chunk := backlog.next()) is not None:
        sizes.append(chunk.operation.n_points)
        backlog.acknowledge(30)
    assert sizes == [10, 0, 22]
    assert backlog.losses() == []


def test_what_is_too_much_for_memory_in_an_outage_is_read_from_the_disk_in_its_order(tmp_path):
    backlog = backlog_in(tmp_path)
    for first in range(1, 100_001, 1000):
        backlog.append([block(first, first + 999)])
        assert sum(size for _, _, size in backlog._fresh._lines) <= MOST_FRESH_BYTES
    first = backlog.next()
    backlog.acknowledge(first.operation.content["step"][-1])
    backlog.append([block(100_001, 100_500)])
    assert sorted(sent_from(backlog)) == list(range(first.operation.n_points + 1, 100_501))
    backlog.append([block(100_501, 100_600)])
    assert backlog._fresh.start == backlog.spool.sent
    assert sorted(sent_from(backlog)) == list(range(100_501, 100_601))
    assert backlog._fresh.after(backlog.spool.sent) == []


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"{}\n[]\n", b"\xff\xfe\n", b'{"points": 3}\n'])
def test_damaged_files_never_stop_the_others(tmp_path, damage):
    backlog = backlog_in(tmp_path)
    backlog.append([block(1, 10)])
    (backlog.spool.folder / "00000009.jsonl").write_bytes(damage)
    (backlog.spool.folder / "sent.json").write_bytes(damage)
    (backlog.spool.folder / "notes.jsonl").write_bytes(b"not ours")
    later = backlog_in(tmp_path)
    later.append([block(11, 20)])
    assert sorted(sent_from(later)) == list(range(1, 21))


def test_a_full_spool_halves_its_newest_part_first_and_says_so_once(tmp_path, caplog):
    backlog = backlog_in(tmp_path, most_bytes=64 << 10)
    for first in range(1, 6000, 100):
        backlog.append([block(first, first + 99)])
    assert backlog.spool.size <= (64 << 10) + 4096
    assert [segment.thinned for segment in backlog.spool.segments[:4]] == [0, 0, 0, 0]
    assert caplog.text.count("every other point") == 1
    kept = sent_from(backlog_in(tmp_path))
    assert len(kept) == 6000 - backlog.thinned_points < 6000
    assert set(range(1, 400)) <= set(kept)
    assert max(kept) == 6000
    assert all(row == {"loss": 2.0 + step} for step, row in kept.items())


def test_a_spool_stays_within_its_bound_however_much_comes(tmp_path):
    backlog = backlog_in(tmp_path, most_bytes=64 << 10)
    for first in range(1, 40_000, 100):
        backlog.append([block(first, first + 99)])
        assert backlog.spool.size <= (64 << 10) + 4096
    kept = sorted(sent_from(backlog))
    assert len(kept) == 40_000 - backlog.thinned_points
    assert (kept[0], kept[-1]) == (1, 40_000)


def test_without_a_disk_the_memory_keeps_what_fits_and_counts_what_it_loses():
    backlog = Backlog(None, Messages("run r"), most_memory=1 << 20)
    for first in range(1, 100_000, 1000):
        backlog.append([block(first, first + 999)])
    assert backlog.lost_points > 0
    assert "lost while neither disk nor service took them" in backlog.losses()[0]
    kept = sent_from(backlog)
    assert len(kept) == 100_000 - backlog.lost_points
    assert set(range(1, 1000)) <= set(kept)


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path):
    """The file may not grow beyond 20 kB, then it may: what came in between was kept in memory, in its order."""
    code = """if True:
        import json, resource, sys
        from pathlib import Path
        from tests.client.test_spool import backlog_in, block, sent_from
        backlog = backlog_in(Path(sys.argv[1]))
        backlog.spool.segment_bytes = 1 << 20
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for first in range(1, 10_001, 100):
            if first == 2001:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            if first == 8001:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            backlog.append([block(first, first + 99)])
            if first == 5001:
                in_between = backlog.n_points_in_memory
        print(json.dumps([in_between, backlog.n_points_in_memory, sorted(sent_from(backlog))]))
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    in_between, in_the_end, steps = json.loads(done.stdout)
    assert in_between > 1000
    assert in_the_end == 0
    assert steps == list(range(1, 10_001))
    assert done.stderr.count("cannot be written") == 1


def test_a_full_disk_while_sending_works_loses_nothing(tmp_path, monkeypatch):
    backlog = backlog_in(tmp_path)
    backlog.append([block(1, 10)])
    backlog.spool.close()
    backlog.spool.folder.joinpath("00000002.jsonl").mkdir()  # where the next file should be
    state = {}
    for first in (11, 21, 31):
        backlog.append([block(first, first + 9)])
        state |= sent_from(backlog)
    assert sorted(state) == list(range(1, 41))


def test_a_spool_that_is_deleted_while_in_use_is_begun_anew(tmp_path, caplog):
    import shutil

    backlog = backlog_in(tmp_path)
    backlog.append([block(1, 10)])
    shutil.rmtree(backlog.spool.folder)
    backlog.append([block(11, 20)])
    assert sorted(sent_from(backlog_in(tmp_path))) == list(range(11, 21))
    assert "was deleted while it was in use" in caplog.text


def test_one_process_has_a_spool_at_a_time(tmp_path):
    folder = RUN.folder_in(tmp_path)
    held = spools.lock(folder)
    assert spools.lock(folder) is None
    spools.unlock(folder, held, tmp_path / "elsewhere")
    assert not folder.exists()
    again = spools.lock(folder)
    assert again is not None
    (folder / "00000001.jsonl").write_bytes(b"")
    spools.unlock(folder, again)
    assert folder.exists()


@pytest.mark.parametrize(("project", "run_id"), [("...", "..x"), (".hidden", "r"), ("a.b", "-")])
def test_no_name_leads_out_of_the_folder(tmp_path, project, run_id):
    identity = Identity(project, run_id)
    folder = identity.folder_in(tmp_path)
    assert folder.resolve().relative_to(tmp_path.resolve()).parts == folder.relative_to(tmp_path).parts
    spool = Spool(folder, identity).open()
    spool.append(b"{}\n")
    assert identity_of(folder) == identity


def test_a_spool_of_another_format_is_left_alone(tmp_path):
    (tmp_path / "00000001.jsonl").write_text('{"isoloss_spool": 2, "project": "p", "run_id": "r"}\n')
    with pytest.raises(OtherFormat, match="format 2"):
        identity_of(tmp_path)


def test_places_are_in_the_order_of_writing():
    assert Place(1, 500) < Place(2, 0) < Place(2, 1)

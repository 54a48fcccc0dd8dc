from __future__ import annotations

import json
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.client.intake import Change, Intake
from isoloss.client.messages import Messages
from isoloss.client.operations import (
    Operation,
    joined,
    line_of,
    may_follow,
    merged,
    operation_of,
    points,
    rows_of,
    text_of,
    thinned,
    with_cells,
)
from isoloss.client.readings import Readings
from isoloss.client.stale import remains_of
from isoloss.client.thinning import MOST_THINNED, next_to_thin

rows = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.dictionaries(st.sampled_from(["loss", "lr", "val_loss"]), st.floats(0.1, 9), min_size=1),
    ),
    min_size=1,
    max_size=40,
)


def taken(*records, may_exist=False):
    messages = Messages("run r")
    return Intake(messages, Readings(messages), may_exist).take(deque(records))


def state_after(operations):
    """What the service has after operations: the last value of a step counts, a rewind removes what comes after."""
    state = {}
    for operation in operations:
        if operation.kind == "rewind":
            state = {step: row for step, row in state.items() if step <= operation.content}
        elif operation.kind == "points":
            for step, row in rows_of(merged([operation.content])):
                state.setdefault(step, {}).update(row)
    return state


@given(rows)
def test_a_line_comes_back_as_the_operation_that_it_holds(some):
    operation = points(some)
    assert operation_of(line_of(operation)) == operation


@given(st.lists(rows, min_size=1, max_size=4))
def test_points_that_became_text_once_are_joined_to_what_they_are_together(blocks):
    together = [with_cells(points(blocks[0]))]
    for block in blocks[1:]:
        if may_follow(with_cells(points(block)), together[-1]):
            together.append(with_cells(points(block)))
    found = joined(together)
    assert found.content == merged([each.content for each in together])
    assert operation_of(line_of(found)) == found
    if found.cells is not None:
        assert json.loads(text_of(found)) == found.content


@given(rows, st.data())
def test_a_torn_or_damaged_line_is_no_operation(some, data):
    line = line_of(points(some))
    cut = data.draw(st.integers(0, len(line) - 1))
    assert operation_of(line[:cut]) is None
    assert operation_of(b"\0" * cut + b"\n") is None


@pytest.mark.parametrize(
    "document",
    [
        [], 3, {}, {"points": []}, {"points": {"loss": [1]}}, {"points": {"step": [1], "loss": [1, 2]}},
        {"points": {"step": [1.5]}}, {"points": {"step": [1], "loss": [[]]}}, {"rewind": "3"}, {"rewind": -1},
        {"run": 3}, {"other": {}}, {"run": {}, "rewind": 3},
    ],
)  # fmt: skip
def test_a_line_of_another_form_is_no_operation(document):
    assert operation_of(json.dumps(document).encode() + b"\n") is None


@given(rows)
def test_merged_points_have_increasing_steps_and_the_last_value_of_each(some):
    together = merged([points([row]).content for row in some])
    assert together["step"] == sorted(set(together["step"]))
    assert dict(rows_of(together)) == state_after([points(some)])


@given(rows)
def test_what_is_logged_is_what_the_operations_leave(some):
    steps = sorted({step for step, _ in some})
    records = [(step, row) for step, row in zip(steps, (row for _, row in some), strict=False)]
    assert state_after(taken(*records)) == dict(records)


@given(st.lists(rows, min_size=1, max_size=4))
def test_doing_all_again_ends_in_the_same_state(passes):
    records = [record for some in passes for record in sorted(some, key=lambda each: each[0])]
    operations = taken(*records)
    once = state_after(operations)
    for done in range(len(operations) + 1):
        assert state_after(operations[:done] + operations) == once


@given(st.lists(rows, min_size=1, max_size=4))
def test_what_remains_in_the_end_is_found_without_the_service(passes):
    records = [record for some in passes for record in sorted(some, key=lambda each: each[0])]
    operations = taken(*records)
    filled = {}
    for operation in remains_of(operations):
        for step, row in rows_of(operation.content):
            filled[step] = {**row, **filled.get(step, {})}
    assert filled == state_after(operations)


def test_a_metric_that_goes_back_rewinds_and_one_that_is_late_does_not(caplog):
    records = [(step, {"loss": float(step)}) for step in range(1, 11)]
    late = [(5, {"val_loss": 3.0}), (10, {"val_loss": 2.9}), (9, {"accuracy": 0.5})]
    assert [each.kind for each in taken(*records, *late)] == ["points"]
    assert not caplog.records
    again = [(4, {"loss": 8.0}), (5, {"loss": 7.0, "val_loss": 2.0})]
    operations = taken(*records, *late, *again)
    assert [each.kind for each in operations] == ["points", "rewind", "points"]
    assert operations[1].content == 4
    assert sorted(state_after(operations)) == [1, 2, 3, 4, 5]
    assert "step 4 comes after step 10" in caplog.text


def test_a_run_that_may_exist_goes_on_from_its_first_step():
    assert [each.kind for each in taken((7, {"loss": 1.0}), (8, {"loss": 1.0}), may_exist=True)] == [
        "rewind",
        "points",
    ]


def test_changes_keep_their_place_between_points():
    status = Operation("run", {"status": "finished"})
    operations = taken((1, {"loss": 1.0}), (None, Change((status,))), (2, {"loss": 1.0}))
    assert [each.kind for each in operations] == ["points", "run", "points"]


@given(rows)
def test_thinning_keeps_the_first_point_of_every_kind_and_half_of_the_others(some):
    [half] = thinned([points(some)])
    before, after = dict(rows_of(merged([points(some).content]))), dict(rows_of(half.content))
    assert all(before[step] == row for step, row in after.items())
    for kind in {frozenset(row) for row in before.values()}:
        alike = [step for step, row in before.items() if frozenset(row) == kind]
        assert [step for step in alike if step in after] == alike[::2]


def test_thinning_leaves_everything_else_in_its_place():
    some = points([(step, {"loss": 1.0}) for step in range(10)])
    rewind = Operation("rewind", 3)
    assert [each.kind for each in thinned([some, some, rewind, some])] == ["points", "rewind", "points"]


def test_the_oldest_part_is_thinned_last_and_none_twice_before_all_once():
    levels = [0, 0, 0]
    order = []
    for _ in range(6):
        chosen = next_to_thin(levels)
        order.append(chosen)
        levels[chosen] += 1
    assert order == [2, 1, 0, 2, 1, 0]
    assert next_to_thin([]) is None
    assert next_to_thin([MOST_THINNED]) is None

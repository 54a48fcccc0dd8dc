from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.client import wire
from isoloss.client.batches import split_columns
from isoloss.client.points import columns_of
from isoloss.errors import InvalidInput

ACCEPTED = {"accepted": 2, "duplicates": 0, "last_step": 2}
cells = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def sent(columns, **options):
    return [json.loads(wire.dump(batch)) for batch in split_columns(columns, **options)]


@given(st.lists(cells, min_size=1, max_size=50))
def test_a_column_comes_back_exactly_through_json(column):
    masked = wire.masked_array(json.loads(wire.dump(column)))
    assert masked.mask.tolist() == [cell is None for cell in column]
    assert np.array_equal(masked.compressed(), [cell for cell in column if cell is not None], equal_nan=True)
    assert json.loads(wire.dump(masked)) == json.loads(wire.dump(column))


def test_arrays_and_lists_make_the_same_request():
    listed = sent({"step": [1, 2], "loss": [9.0, 8.0]})
    assert sent({"step": np.array([1, 2]), "loss": np.array([9.0, 8.0])}) == listed
    assert sent({"step": np.array([1.0, 2.0]), "loss": np.float32([9.0, 8.0])}) == listed
    assert sent({"step": range(1, 3), "loss": (9.0, 8.0)}) == listed


def test_nan_is_a_measurement_in_the_loss_and_a_gap_elsewhere_in_plain_arrays():
    values = np.array([1.0, math.nan])
    (batch,) = sent({"step": [1, 2], "loss": values, "val_loss": values, "lr": values})
    assert batch == {"step": [1, 2], "loss": [1.0, "NaN"], "val_loss": [1.0, None], "lr": [1.0, None]}


def test_lists_and_masked_arrays_say_themselves_what_is_missing():
    masked = np.ma.MaskedArray([math.nan, 1.0], mask=[False, True])
    (batch,) = sent({"step": [1, 2], "loss": masked, "val_loss": [math.inf, None]})
    assert batch == {"step": [1, 2], "loss": ["NaN", None], "val_loss": ["Infinity", None]}


def test_long_columns_are_cut_into_batches_that_lose_nothing(scripted):
    client, script = scripted(httpx.Response(200, json=ACCEPTED))
    seen = []
    client.points.append(
        "p",
        "r",
        {"step": np.arange(1, 10_001), "loss": np.linspace(9, 3, 10_000)},
        batch_size=3000,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [len(body["step"]) for body in script.bodies] == [3000, 3000, 3000, 1000]
    assert [step for body in script.bodies for step in body["step"]] == list(range(1, 10_001))
    assert seen[-1] == (10_000, 10_000)


def test_the_answers_to_the_batches_are_added_up(scripted):
    first = httpx.Response(200, json={"accepted": 2, "duplicates": 1, "last_step": 3})
    second = httpx.Response(200, json={"accepted": 0, "duplicates": 3, "last_step": 6})
    client, _ = scripted(first, second)
    answer = client.points.append("p", "r", {"step": range(1, 7), "loss": [1.0] * 6}, batch_size=3)
    assert answer == {"accepted": 2, "duplicates": 4, "last_step": 6}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": [1.0]}, "need a column of steps"),
        ({"step": [1, 2], "loss": [1.0]}, "loss: the column has 1 values for 2 steps"),
        ({"step": [1, 1], "loss": [1.0, 1.0]}, "steps must increase"),
        ({"step": [2, 1], "loss": [1.0, 1.0]}, "steps must increase"),
        ({"step": [1.5], "loss": [1.0]}, "not a whole number"),
        ({"step": [True], "loss": [1.0]}, "not a whole number"),
        ({"step": [None], "loss": [1.0]}, "not a whole number"),
        ({"step": [1], "loss": np.ones((1, 1))}, "one dimension"),
    ],
)
def test_columns_that_cannot_be_points_are_refused_before_anything_is_sent(scripted, columns, message):
    client, script = scripted(httpx.Response(200, json=ACCEPTED))
    with pytest.raises(InvalidInput, match=message):
        client.points.append("p", "r", columns, batch_size=1)
    assert script.requests == []


def test_points_are_read_as_masked_arrays(scripted):
    answer = {"step": [1, 2, 3], "loss": [9.0, "NaN", None], "lr": [0.1, 0.1, 0.1]}
    client, _ = scripted(httpx.Response(200, json=answer))
    points = client.points.read("p", "r", columns=["loss", "lr"])
    assert points["step"].dtype == np.int64
    assert points["loss"].mask.tolist() == [False, False, True]
    assert math.isnan(points["loss"][1])
    assert columns_of({"columns": answer, "gaps": []}) == answer


def test_names_are_quoted_so_that_none_leads_elsewhere(scripted):
    client, script = scripted(httpx.Response(200, json={}))
    client.runs.get("p", "a/../b?x")
    assert script.requests[0].url.raw_path == b"/v1/projects/p/runs/a%2F..%2Fb%3Fx"

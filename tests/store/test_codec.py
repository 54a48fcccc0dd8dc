from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.codec import decode, decode_steps, encode, encode_steps
from store.columns import Column

FLOATS = arrays(np.float64, st.integers(0, 50), elements=st.floats(width=64))


@settings(max_examples=200, deadline=None)
@given(values=FLOATS, data=st.data())
def test_a_column_comes_back_to_the_bit(values: np.ndarray, data: st.DataObject) -> None:
    """NaN, infinities, minus zero, subnormals, and what is missing survive compression."""
    present = data.draw(arrays(np.bool_, len(values)))
    for column in (Column.of(values), Column.of(values, present)):
        found = decode(encode(column))
        assert found.values.tobytes() == column.values.tobytes()
        assert found.present.tolist() == column.present.tolist()


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 2**62), gaps=st.lists(st.integers(1, 2**40), max_size=30))
def test_steps_come_back(start: int, gaps: list[int]) -> None:
    """Steps of any size and spacing survive compression."""
    step = np.cumsum([start, *gaps], dtype=np.int64)
    assert decode_steps(encode_steps(step)).tolist() == step.tolist()


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0],
        [-0.0, 0.0],
        [0.0, 0.5, 1.0],
        [2.0**53, 2.0**53 + 2],
        [5.0],
        [0.0, 2.0**63, 0.0],
        [0.0, -(2.0**70), 0.0],
    ],
)
def test_progressions_are_exact(values: list[float]) -> None:
    """What looks like a progression of whole numbers is stored as one only where that is exact."""
    column = Column.of(values)
    assert decode(encode(column)).values.tobytes() == column.values.tobytes()


def test_a_logged_curve_shrinks_to_a_fifth_of_a_row() -> None:
    """A chunk of a noisy loss in float32, a schedule, and tokens costs at most 17 bytes a point."""
    n = 4000
    random = np.random.default_rng(0)
    s = np.arange(n)
    loss = (2.5 + 3 * np.exp(-s / 1000) + random.normal(0, 0.02, n)).astype(np.float32)
    columns = [loss.astype(np.float64), 3e-4 * np.cos(s / n), s * 524288.0]
    size = sum(len(encode(Column.of(column))) for column in columns) + len(encode_steps(s + 1))
    assert size / n < 17

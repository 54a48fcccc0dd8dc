"""Tables of learning rates, and the declarations that stand for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import InvalidSchedule
from isoloss.schedules import schedule_from_spec, spec_of_table


def table(spec):
    schedule = schedule_from_spec(spec)
    return schedule.lr(np.arange(1, schedule.total_steps + 1))


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ({"kind": "constant", "total_steps": 700, "peak_lr": 3e-4}, "constant"),
        ({"kind": "cosine", "total_steps": 5000, "peak_lr": 3e-4, "end_lr": 3e-5}, "cosine"),
        (
            {"kind": "cosine", "total_steps": 5000, "peak_lr": 3e-4, "end_lr": 3e-5, "warmup_steps": 100},
            "cosine",
        ),
        (
            {"kind": "linear", "total_steps": 90_000, "peak_lr": 3e-4, "warmup_steps": 100},
            "piecewise_linear",
        ),
        (
            {"kind": "wsd", "total_steps": 900, "peak_lr": 1e-3, "warmup_steps": 9, "decay_start": 700},
            "piecewise_linear",
        ),
        (
            {"kind": "two_stage", "total_steps": 900, "peak_lr": 1e-3, "second_lr": 1e-4, "switch_step": 500},
            "piecewise_linear",
        ),
        (
            {
                "kind": "wsd", "total_steps": 900, "peak_lr": 1e-3, "decay_start": 700, "end_lr": 1e-5,
                "decay_shape": "sqrt",
            },
            "values",
        ),
    ],
)  # fmt: skip
def test_a_table_is_declared_by_its_shape_and_agrees_at_every_step(declared, kind):
    rates = table(declared)
    spec = spec_of_table(rates)
    assert spec["kind"] == kind
    np.testing.assert_allclose(table(spec), rates, rtol=1e-9)
    assert len(str(spec)) < 200 or kind in ("values", "piecewise_linear")


def test_a_long_cosine_after_a_shifted_warm_up_is_thinned_within_a_fifth_of_the_agreement():
    steps, warmup, total = np.arange(200_000), 2000, 200_000
    falling = 0.5 * (1 + np.cos(np.pi * (steps - warmup) / (total - warmup)))
    rates = 3e-4 * np.where(steps < warmup, steps / warmup, falling)
    spec = spec_of_table(rates)
    assert spec["kind"] == "piecewise_linear"
    assert len(spec["knots"]) < 12_000
    np.testing.assert_allclose(table(spec), rates, rtol=2.1e-7)
    assert schedule_from_spec(spec).warmup_steps == warmup + 1


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60).filter(lambda rates: max(rates) > 1e-9))
def test_any_table_of_rates_is_declared_as_it_is(rates):
    np.testing.assert_allclose(table(spec_of_table(rates)), rates, rtol=1e-9, atol=0)


@pytest.mark.parametrize("rates", [[], [0.0, 0.0], [1e-3, -1e-3], [1e-3, math.nan], [[1e-3]], [math.inf]])
def test_a_table_that_is_no_schedule_is_refused(rates):
    with pytest.raises(InvalidSchedule):
        spec_of_table(rates)

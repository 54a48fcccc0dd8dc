from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.cli import arguments
from isoloss.cli.fit_view import meaningful_digits
from isoloss.cli.output import interval, number


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(2, 500))
def test_evenly_spaced_steps_increase_from_start_to_stop(start, length, count):
    steps = arguments.steps(f"{start}:{start + length}:{count}")
    assert (steps[0], steps[-1]) == (start, start + length)
    assert steps == sorted(set(steps))
    assert len(steps) == min(count, length + 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-3", -3), ("7e9", 7e9), ("true", True), ("false", False), ("adamw", "adamw"), ("1_0", 10.0)],
)
def test_a_typed_value_is_the_number_that_it_spells_or_the_text(text, value):
    assert arguments.scalar(text) == value
    assert type(arguments.scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (5000, "5,000"),
        (7_000_000_000, "7,000,000,000"),
        (1_901_592_576_000_000_000, "1.902e+18"),
        (3.14159265, "3.142"),
        (0.000012345, "1.234e-05"),
        (1234.5, "1,234"),
        (48720.3, "48,720"),
        (9999.96, "10,000"),
        (6.02e23, "6.02e+23"),
        (float("nan"), "nan"),
        (0.0, "0"),
    ],
)
def test_numbers_have_sensible_digits(value, text):
    assert number(value) == text


def test_an_interval_is_low_and_high_in_brackets():
    assert interval([0.25, 1.5]) == "[0.2500, 1.500]"
    assert interval(None) == "-"


@pytest.mark.parametrize(
    ("bounds", "like", "text"),
    [
        ([0.25538, 6.18890], "0.362", "[0.255, 6.189]"),
        ([10517.47, 274085.6], "188,900", "[10,520, 274,100]"),
        ([0.00001, 0.5], "0.362", "[1e-05, 0.500]"),
        ([1.5e-7, 2e-7], "1.8e-07", "[1.5e-07, 2e-07]"),
    ],
)
def test_an_interval_has_the_decimals_of_its_value(bounds, like, text):
    assert interval(bounds, like=like) == text


@pytest.mark.parametrize(
    ("value", "spread", "digits"),
    [
        (2.34567, 0.012, 4),
        (2.34567, 1.0, 3),
        (1.0, None, 4),
        (1e9, 1e-9, 8),
        (0.0, 1, 4),
        (0.99810243, 0.02, 6),
    ],
)
def test_a_value_is_shown_as_far_as_its_standard_error_gives_it_a_meaning(value, spread, digits):
    assert meaningful_digits(value, spread) == digits


def test_a_name_that_is_given_twice_is_refused():
    """Which of the two was meant nobody can tell."""
    with pytest.raises(arguments.BadArgument, match="--config: 'n_params' is given twice"):
        arguments.pairs("--config", ["n_params=1e9", "n_params=7e9"], arguments.scalar)

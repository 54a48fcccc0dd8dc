"""Expressions of users: arithmetic passes, everything else is refused before it is evaluated."""

from __future__ import annotations

import pytest

from isoloss.errors import InvalidExpression
from isoloss.fitting.expressions import MAX_CHARACTERS, checked_expressions

NAMES = ["L0", "A", "alpha", "C", "lambda"]


def test_arithmetic_passes_with_floats_and_identifiers() -> None:
    """Whole numbers become floats, and the keyword lambda an identifier."""
    safe = checked_expressions({"A": "2 * alpha ** 2 + max(C, -L0) - sqrt(lambda)"}, NAMES)
    assert safe == {"A": "2.0 * alpha ** 2.0 + max(C, -L0) - sqrt(lambda_)"}


def test_expressions_come_in_an_order_of_evaluation() -> None:
    """What another expression needs comes first."""
    assert list(checked_expressions({"A": "C + 1", "C": "alpha"}, NAMES)) == ["C", "A"]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd').read()",
        "alpha.__class__",
        "[x for x in (1, 2)]",
        "(lambda: 1)()",
        "A if C else L0",
        "alpha < 1",
        "f'{A}'",
        "'a' * 3",
        "A @ C",
        "A // C",
        "A % C",
        "+A",
        "not A",
        "1e400",
        "1j",
        "True",
        "gamma",
        "sqrt",
        "max()",
        "sqrt(x=1)",
        "sin(A)",
        "",
        "A +",
        "A; C",
        "A = 1",
        "a" * 1000,
        " + ".join(["A"] * 40),
        "(" * 150 + "A" + ")" * 40,
        "A\x00",
        "while True: pass",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Files, loops, attributes, calls, comparisons, long and deep texts."""
    with pytest.raises(InvalidExpression):
        checked_expressions({"C": text}, NAMES)


def test_towers_of_powers_end() -> None:
    """9**9**9**9 would run for ever on whole numbers; as floats it overflows at once."""
    assert checked_expressions({"C": "9**9**9**9"}, NAMES) == {"C": "9.0 ** 9.0 ** 9.0 ** 9.0"}


def test_circles_are_refused() -> None:
    """Two parameters cannot each follow from the other, nor one from itself."""
    for circle in ({"A": "C", "C": "A"}, {"A": "A + 1"}):
        with pytest.raises(InvalidExpression, match="circle"):
            checked_expressions(circle, NAMES)


def test_long_expressions_say_their_length() -> None:
    """The limit is named, and the text is not repeated whole."""
    with pytest.raises(InvalidExpression, match=f"more than {MAX_CHARACTERS}") as caught:
        checked_expressions({"C": "1 + " * 300 + "1"}, NAMES)
    assert len(str(caught.value)) < 200

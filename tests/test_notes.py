"""Notes on many runs leave the causes in sight."""

from __future__ import annotations

from isoloss.notes import counted, first_line, grouped


def test_notes_that_differ_in_runs_and_numbers_alone_are_one() -> None:
    """The first stands for all; what is said of no run, or otherwise, stays as it is and where it is."""
    notes = [f"run a.{one}-b: its {one}73 points were fitted as 20" for one in range(1, 4)]
    told = grouped(["A = 1 is loose", "A = 2 is loose", *notes, "run c: diverged?"])
    assert told == [
        "A = 1 is loose",
        "A = 2 is loose",
        "run a.1-b: its 173 points were fitted as 20 (and so of 2 more runs)",
        "run c: diverged?",
    ]


def test_a_count_agrees_with_its_noun() -> None:
    """One of a thing is not several, and none are."""
    assert [counted(n, "point") for n in (0, 1, 2, 1200)] == [
        "0 points",
        "1 point",
        "2 points",
        "1,200 points",
    ]


def test_what_is_said_of_many_pairs_alike_is_one_reason() -> None:
    """A comparison of many recipes leaves the other reasons in sight."""
    why = "there is no compute at which both are known"
    told = grouped([f"a vs {one}: {why}" for one in "bcd"] + ["recipe 'a' is weak: few runs"])
    assert told == [f"a vs b: {why} (and so of 2 more pairs)", "recipe 'a' is weak: few runs"]


def test_an_error_is_told_by_its_first_line_or_by_its_type() -> None:
    """One that says nothing still has a name, and a long one is cut."""
    assert first_line(ValueError("no number\nsecond"), 5) == "no nu"
    assert first_line(RuntimeError(" \n"), 120) == "RuntimeError"

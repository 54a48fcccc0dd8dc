"""Results as Markdown tables, ready for RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows of equal keys under a title."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")

"""What a recording did, in order, as lines of text: the form in which it lies in a spool.

A line is one JSON object with one key: `run` (fields of the specification that change), `rewind` (the last step to
keep) or `points` (columns of equal length). Doing all of them again in their order ends in the same state, which is
why a spool may be sent twice.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from isoloss.client import wire

Columns = dict[str, list[Any]]
NUMBER = int | float | str | None


@dataclass(frozen=True)
class Operation:
    """One line: `kind` is run, rewind or points.

    `cells` are the columns of points whose steps increase, as JSON has them between its brackets: what became text
    for the disk is sent as the same text.
    """

    kind: str
    content: Any
    cells: Mapping[str, bytes] | None = field(default=None, compare=False, repr=False)

    @property
    def n_points(self) -> int:
        return len(self.content["step"]) if self.kind == "points" else 0


def line_of(operation: Operation) -> bytes:
    """The operation as a line with its end."""
    text = text_of(operation) if operation.cells is not None else wire.dump(operation.content)
    return b'{"%s":%s}\n' % (operation.kind.encode(), text)


def with_cells(operation: Operation) -> Operation:
    """The same with its cells, where it is points whose steps increase."""
    if operation.kind != "points" or not _increases(operation.content["step"]):
        return operation
    cells = {name: wire.dump(column)[1:-1] for name, column in operation.content.items()}
    return Operation("points", operation.content, cells)


def text_of(operation: Operation) -> bytes:
    """Points with cells as JSON."""
    cells = operation.cells or {}
    columns = [wire.dump(name) + b":[" + column + b"]" for name, column in cells.items()]
    return b"{" + b",".join(columns) + b"}"


def may_follow(operation: Operation, before: Operation) -> bool:
    """Whether points can be joined behind others, by their cells where both have them."""
    if operation.kind != "points" or before.kind != "points":
        return False
    if operation.cells is None or before.cells is None:
        return operation.cells is before.cells
    return bool(before.content["step"][-1] < operation.content["step"][0])


def joined(operations: Sequence[Operation]) -> Operation:
    """One operation of several of which each may follow the one before; with cells where they have them."""
    if len(operations) == 1 and (operations[0].cells is not None or operations[0].kind != "points"):
        return operations[0]
    blocks = [each.content for each in operations]
    if any(each.cells is None for each in operations):
        return Operation("points", merged(blocks))
    names = dict.fromkeys(name for block in blocks for name in block)
    cells = {name: b",".join(_cells_of(each, name) for each in operations) for name in names}
    return Operation("points", stacked(blocks), cells)


def _cells_of(operation: Operation, name: str) -> bytes:
    cells = operation.cells or {}
    return cells[name] if name in cells else b",".join([b"null"] * operation.n_points)


def operation_of(line: bytes) -> Operation | None:
    """The operation that a line holds, None where it is torn or no operation."""
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    if not isinstance(document, dict) or len(document) != 1:
        return None
    [(kind, content)] = document.items()
    return Operation(kind, content) if _is_whole(kind, content) else None


def _is_whole(kind: str, content: Any) -> bool:
    if kind == "rewind":
        return type(content) is int and content >= 0
    if kind == "run":
        return isinstance(content, dict)
    return kind == "points" and _are_columns(content)


def _are_columns(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("step"), list):
        return False
    n_steps = len(content["step"])
    steps_are_whole = all(type(step) is int for step in content["step"])
    return steps_are_whole and all(
        isinstance(cells, list) and len(cells) == n_steps and all(isinstance(cell, NUMBER) for cell in cells)
        for cells in content.values()
    )


def points(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Operation:
    """Rows of (step, values) as columns, null where a row has no value."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns: Columns = {"step": [step for step, _ in rows]}
    for name in names:
        columns[name] = [row.get(name) for _, row in rows]
    return Operation("points", columns)


def merged(blocks: Sequence[Columns]) -> Columns:
    """Blocks of points as one whose steps increase strictly; of several values of a step the last one counts."""
    if len(blocks) == 1 and _increases(blocks[0]["step"]):
        return blocks[0]
    together = stacked(blocks)
    if _increases(together["step"]):
        return together
    rows: dict[int, dict[str, Any]] = {}
    for step, row in rows_of(together):
        rows.setdefault(step, {}).update(row)
    columns: Columns = points(sorted(rows.items())).content
    return columns


def rows_of(columns: Columns) -> list[tuple[int, dict[str, Any]]]:
    """A block's rows, each with the values that it has."""
    names = [name for name in columns if name != "step"]
    cells = zip(*(columns[name] for name in names), strict=True) if names else ((),) * len(columns["step"])
    return [
        (step, {name: value for name, value in zip(names, row, strict=True) if value is not None})
        for step, row in zip(columns["step"], cells, strict=True)
    ]


def thinned(operations: Iterable[Operation]) -> list[Operation]:
    """The same with every other point left out: of those that hold the same columns, the second, fourth, ..."""
    kept: list[Operation] = []
    for kind, same in groupby(operations, key=lambda each: each.kind):
        if kind == "points":
            kept.append(_halved(merged([each.content for each in same])))
        else:
            kept.extend(same)
    return kept


def _halved(columns: Columns) -> Operation:
    seen: dict[frozenset[str], int] = {}
    rows = []
    for step, row in rows_of(columns):
        alike = frozenset(row)
        seen[alike] = seen.get(alike, 0) + 1
        if seen[alike] % 2:
            rows.append((step, row))
    return points(rows)


def stacked(blocks: Sequence[Columns]) -> Columns:
    """Blocks of points one below the other, null where one has no such column."""
    if len(blocks) == 1:
        return blocks[0]
    names = dict.fromkeys(name for block in blocks for name in block)
    together: Columns = {name: [] for name in names}
    for block in blocks:
        missing = [None] * len(block["step"])
        for name, cells in together.items():
            cells.extend(block.get(name, missing))
    return together


def _increases(steps: Sequence[int]) -> bool:
    return all(map(operator.lt, steps, steps[1:]))

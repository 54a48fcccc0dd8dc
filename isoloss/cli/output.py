"""What a command prints: one JSON document, or calm tables; errors and progress on the other stream."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from isoloss.errors import IsolossError

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 160
LARGEST_IN_FULL = 1e9
LARGEST_COUNT_IN_FULL = 1e12
FEWEST_DIGITS, MOST_DIGITS = 4, 8
NOBODY_THERE = ("refused", "Name or service not known", "name or service not known")

Advance = Callable[[float, str], None]


@dataclass(frozen=True)
class Output:
    """Where a command's results go, as JSON or as text for people."""

    as_json: bool = False

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        # Names come from users: brackets in them are no markup.
        plain = {"markup": False, "highlight": False, "emoji": False}
        width = None if sys.stdout.isatty() else WIDTH_OF_FILES
        return Console(width=width, **plain)  # type: ignore[arg-type]

    def show(self, document: object, render: Callable[[], None]) -> None:
        """Print the document as JSON, or let `render` print it for people."""
        if self.as_json:
            self.print_json(document)
        else:
            render()

    def print_json(self, document: object) -> None:
        from isoloss.client.wire import plain

        sys.stdout.write(json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line for people."""
        self.console.print(text, style=style or None, soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[str] = (),
        whole: Sequence[str] = (),
    ) -> None:
        """Print a narrow table; the columns in `right` hold numbers, those in `whole` are never folded."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
        for place, column in enumerate(columns):
            widest = max((len(row[place]) for row in rows), default=0)
            least = max(widest, len(column)) if column in whole else None
            justify: Literal["left", "right"] = "right" if column in right else "left"
            table.add_column(column, justify=justify, overflow="fold", min_width=least)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def hint(self, text: str) -> None:
        """Say something beside the result, on stderr; nothing in JSON."""
        if not self.as_json:
            sys.stderr.write(f"{text}\n")

    def fail(self, error: IsolossError) -> None:
        """Say in one sentence what went wrong, on stderr."""
        text = json.dumps(problem_of(error)) if self.as_json else f"Error: {_one_line(_with_remedy(error))}"
        sys.stderr.write(f"{text}\n")

    @contextmanager
    def progress(self, description: str) -> Iterator[Advance]:
        """A bar on stderr, drawn on a terminal only; what is yielded moves it to a share with a message."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _share, _message: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        texts = (
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[message]}", markup=False),
        )
        bar = Progress(
            texts[0], BarColumn(), TimeElapsedColumn(), texts[1], console=Console(stderr=True), transient=True
        )
        with bar:
            task = bar.add_task(description, total=1.0, message="")
            yield lambda share, message: bar.update(task, completed=share, message=message)


def problem_of(error: IsolossError) -> dict[str, Any]:
    """The error as a problem document; an error of this side has no status."""
    from isoloss.client.errors import ApiError

    if isinstance(error, ApiError):
        return error.problem()
    return {"type": "about:blank", "title": type(error).__name__, "detail": str(error)}


def _with_remedy(error: IsolossError) -> str:
    """What went wrong, in the words of the command line where the service speaks of its own protocol."""
    from isoloss.client.errors import Unauthorized
    from isoloss.errors import Unavailable

    said = str(error)
    if isinstance(error, Unauthorized):
        said = said.partition(": send")[0].rstrip(".")
        return f"{said}: set ISOLOSS_API_KEY, or name a file that holds the key with --api-key-file"
    if isinstance(error, Unavailable) and said.endswith(NOBODY_THERE):
        return f"{said}; start it with `isoloss up`, or set ISOLOSS_URL"
    return said


def number(value: object, digits: int = 4) -> str:
    """A number with sensible digits: whole ones in full up to a trillion, others rounded to `digits` that count."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) and abs(value) < LARGEST_COUNT_IN_FULL:
        return f"{value:,}"
    rounded = float(f"{value:.{digits}g}")
    if 1e-4 <= abs(rounded) < 10.0**digits:
        return f"{rounded:#,.{digits}g}".rstrip(".")
    if 10.0**digits <= abs(rounded) < LARGEST_IN_FULL:
        return f"{rounded:,.0f}"
    return f"{value:.{digits}g}"


def interval(bounds: Sequence[float] | None, digits: int = 4, like: str = "") -> str:
    """An interval as [low, high], a side without limit as `open`.

    It has as many decimals as the number `like`, where that is one in full.
    """
    if not bounds:
        return "-"
    return f"[{', '.join(_bound(float(bound), digits, like) for bound in bounds)}]"


def with_interval(value: float, bounds: Sequence[float] | None) -> str:
    """A value and its interval, with as many digits as show how wide the interval is."""
    digits = digits_of(value, bounds)
    shown = number(value, digits)
    return f"{shown} {interval(bounds, digits, like=shown)}" if bounds else shown


def digits_of(value: float, bounds: Sequence[float] | None) -> int:
    """How many digits of a value two have a meaning beside the width of its interval: 4 to 8."""
    width = abs(float(bounds[1]) - float(bounds[0])) / 2 if bounds else 0.0
    if not value or not 0 < width < math.inf or not math.isfinite(value):
        return FEWEST_DIGITS
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(width)) + 2
    return max(FEWEST_DIGITS, min(digits, MOST_DIGITS))


def _bound(bound: float, digits: int, like: str) -> str:
    if math.isinf(bound):
        return "open"
    decimals = len(like.partition(".")[2])
    # Of a large count not every digit has a meaning.
    aligned = f"{bound:,.{decimals}f}" if decimals else f"{float(f'{bound:.{digits}g}'):,.0f}"
    # A bound far from the value has its own digits: rounded away, or longer than anyone reads.
    if not like or "e" in like or abs(bound) >= LARGEST_IN_FULL or (bound and not aligned.strip("-0.,")):
        return number(bound, digits)
    return aligned


def moment(written: str | None) -> str:
    """A time as the service writes it, short, by the clock of this machine."""
    if not written:
        return "-"
    at = datetime.fromisoformat(written).astimezone()
    return f"{at:%m-%d %H:%M}" if at.year == datetime.now().astimezone().year else f"{at:%Y-%m-%d}"


def print_fields(output: Output, fields: Mapping[str, object]) -> None:
    """Print what is known of one thing, a line a field; what is empty is left out."""
    rows = [[name.replace("_", " "), _shown(value)] for name, value in fields.items() if _is_told(value)]
    width = max((len(row[0]) for row in rows), default=0)
    for name, value in rows:
        output.line(f"{name:<{width}}   {value}")


def _is_told(value: object) -> bool:
    return value is not None and value != [] and value != {} and value != ""


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        entries = [_shown(entry) for entry in value]
        return ("; " if any(", " in entry for entry in entries) else ", ").join(entries)
    return number(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())

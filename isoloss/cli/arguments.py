"""Values as they are typed: `name=value` pairs, JSON or @file, lists of steps."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from isoloss.errors import InvalidInput

Value = TypeVar("Value")
WHOLE = re.compile(r"[+-]?\d+")


class BadArgument(InvalidInput):
    """{field}: {reason}"""


class MissingArgument(BadArgument):
    """{field} is needed: {reason}"""


def pairs(option: str, entries: Sequence[str] | None, read: Callable[[str], Value]) -> dict[str, Value]:
    """`["a=1", "b=2"]` as a dictionary, each value read by `read`; raises BadArgument, for a double too."""
    named: dict[str, Value] = {}
    for entry in entries or ():
        name, equals, text = entry.partition("=")
        if not equals or not name.strip():
            raise BadArgument(field=option, reason=f"{entry!r} is not name=value")
        if name.strip() in named:
            raise BadArgument(field=option, reason=f"{name.strip()!r} is given twice")
        try:
            named[name.strip()] = read(text.strip())
        except ValueError as error:
            raise BadArgument(field=option, reason=f"{entry!r}: {error}") from error
    return named


def given_fit(fit_id: str) -> str:
    """A fit's id as it was typed; a shell's variable that is not set leaves an empty one, which is none."""
    if not fit_id.strip():
        raise typer.BadParameter("no fit id given")
    return fit_id


def selection(
    run: list[str] | None, tag: list[str] | None, recipe: str | None, where: str | None, all_runs: bool
) -> dict[str, Any]:
    """The runs that are meant; raises BadArgument unless they are named in exactly one way."""
    choices = {"run_ids": run, "tags": tag, "recipe": recipe, "where": where, "all": all_runs}
    chosen = {name: value for name, value in choices.items() if value}
    if len(chosen) != 1:
        raise BadArgument(field="runs", reason="name exactly one of --run, --tag, --recipe, --where, --all")
    return chosen


def bounds(text: str) -> list[float | None]:
    """`0:1`, `0:` or `:1` as a lower and an upper bound."""
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError("bounds are low:high")
    sides = [float(side) if side.strip() else None for side in (low, high)]
    if sides[0] is not None and sides[1] is not None and sides[0] > sides[1]:
        raise ValueError(f"reversed; write {high.strip()}:{low.strip()}")
    return sides


def prior(text: str) -> list[float] | None:
    """`0.3:0.2` as a centre and a standard deviation, `none` as no prior."""
    if text.lower() == "none":
        return None
    centre, colon, spread = text.partition(":")
    if not colon:
        raise ValueError("a prior is centre:sd, or none")
    return [float(centre), float(spread)]


def scalar(text: str) -> Any:
    """A typed value of a configuration: number, true, false or else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    if WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def steps(text: str) -> list[int]:
    """`100,200` as it is, or `start:stop:count` as `count` steps evenly spaced from start to stop."""
    if ":" not in text:
        return [_whole(part) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3:
        raise BadArgument(field="--steps", reason=f"{text!r} is not start:stop:count")
    start, stop, count = (_whole(part) for part in parts)
    if count < 1 or stop < start:
        raise BadArgument(field="--steps", reason=f"{text!r} names no steps")
    if count == 1:
        return [stop]
    return sorted({start + (stop - start) * index // (count - 1) for index in range(count)})


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text.strip()):
        raise BadArgument(field="--steps", reason=f"{text.strip()!r} is no whole number")
    return int(text)


def json_object(option: str, text: str) -> dict[str, Any]:
    """A JSON object typed as it is, or read from the file that `@path` names; raises BadArgument."""
    document = json_document(option, _read(option, text[1:]) if text.startswith("@") else text)
    if not isinstance(document, dict):
        raise BadArgument(field=option, reason="a JSON object is expected")
    return document


def json_file(option: str, path: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input for `-`; raises BadArgument."""
    return json_object(option, f"@{path}")


def json_document(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadArgument(field=option, reason=f"this is not JSON ({error})") from error


def _read(option: str, path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadArgument(field=option, reason=f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadArgument(field=option, reason=f"{path} is not UTF-8 text") from error

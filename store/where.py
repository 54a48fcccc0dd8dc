"""The `where` of lists: comparisons joined by and/or, turned into SQL whose values are parameters.

    config.n_params >= 1e8 and (status = "finished" or tags = "pilot")

Operators are = == != < <= > >=; values are numbers, quoted strings, bare words, true, false and null. A
missing value equals null alone, differs from every other value, and is neither above nor below anything.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from isoloss.errors import InvalidInput

JSON_NULL: sa.ColumnElement[Any] = sa.literal_column("'null'::jsonb", JSONB)
MAX_LENGTH = 2000
MAX_DEPTH = 20
MAX_EXPONENT = 400

Condition = sa.ColumnElement[bool]
Value = str | Decimal | bool | None
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()]|==|=|!=|<=|>=|<|>)
    |(?P<string>"(?:[^"\\]|\\.)*"|'[^']*')
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<word>[A-Za-z_][\w.\-]*))""",
    re.VERBOSE,
)
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TYPES: dict[str, type[TypeEngine[Any]]] = {"boolean": sa.Boolean, "number": sa.Numeric, "string": sa.Text}
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Field:
    """Something that a list can be filtered and sorted by, as a jsonb expression; `path` below it is free.

    A field of tags is an array of text, and is compared by what it contains.
    """

    expression: sa.ColumnElement[Any]
    free: bool = False
    tags: bool = False

    def at(self, path: str) -> sa.ColumnElement[Any]:
        """The jsonb value at a dotted path; SQL null where there is none."""
        found: sa.ColumnElement[Any] = sa.func.to_jsonb(self.expression)
        if self.free:
            found = self.expression.op("#>")(sa.cast(path.split("."), ARRAY(sa.Text)))
        return sa.func.nullif(found, JSON_NULL, type_=JSONB)


Fields = Mapping[str, Field]


def field_at(fields: Fields, name: str, parameter: str) -> tuple[Field, str]:
    """The field of this name and the path below it. Raises InvalidInput that names the known ones."""
    head, _, path = name.partition(".")
    found = fields.get(head)
    if found is None or found.free != bool(path):
        known = ", ".join(sorted(f"{key}.*" if field.free else key for key, field in fields.items()))
        raise InvalidInput(field=parameter, reason=f"there is no field {name!r}; known: {known}")
    return found, path


def condition(text: str, fields: Fields) -> Condition:
    """The condition that `text` says, over the fields of a list. Raises InvalidInput."""
    if len(text) > MAX_LENGTH:
        raise InvalidInput(field="where", reason=f"is longer than {MAX_LENGTH} characters")
    parser = _Parser(_tokens(text), fields)
    found = parser.either()
    if parser.rest:
        raise InvalidInput(field="where", reason=f"and, or or the end is expected at {parser.rest[-1][1]!r}")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidInput(field="where", reason=f"cannot be read from {text[at:].strip()[:20]!r} on")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return tokens


@dataclass
class _Parser:
    tokens: list[tuple[str, str]]
    fields: Fields
    depth: int = 0
    rest: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.rest = self.tokens[::-1]

    def either(self) -> Condition:
        found = [self.both()]
        while self._next_is("or"):
            found.append(self.both())
        return sa.or_(*found)

    def both(self) -> Condition:
        found = [self.one()]
        while self._next_is("and"):
            found.append(self.one())
        return sa.and_(*found)

    def one(self) -> Condition:
        if not self._next_is("("):
            return self._comparison()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InvalidInput(field="where", reason=f"has more than {MAX_DEPTH} brackets in one another")
        found = self.either()
        if not self._next_is(")"):
            raise InvalidInput(field="where", reason="a bracket is not closed")
        self.depth -= 1
        return found

    def _comparison(self) -> Condition:
        name = self._take("word", "the name of a field")
        mark = self._take("mark", f"an operator after {name!r}").replace("==", "=")
        if mark in "()":
            raise InvalidInput(field="where", reason=f"an operator is expected after {name!r}")
        kind, text = self.rest.pop() if self.rest else ("end", "")
        found, path = field_at(self.fields, name, "where")
        value = _value(kind, text)
        return _contains(found, mark, value) if found.tags else _compare(found.at(path), mark, value)

    def _next_is(self, word: str) -> bool:
        if self.rest and self.rest[-1][1].lower() == word and self.rest[-1][0] in ("word", "mark"):
            self.rest.pop()
            return True
        return False

    def _take(self, kind: str, what: str) -> str:
        found, text = self.rest.pop() if self.rest else ("end", "")
        if found != kind:
            raise InvalidInput(field="where", reason=f"{what} is expected, not {text or 'the end'!r}")
        return text


def _value(kind: str, text: str) -> Value:
    if kind == "word":
        return _CONSTANTS.get(text.lower(), text)
    if kind == "string":
        return _unquoted(text)
    if kind == "number":
        return _number(text)
    raise InvalidInput(field="where", reason=f"a value is expected, not {text or 'the end'!r}")


def _unquoted(text: str) -> str:
    try:
        value = text[1:-1] if text[0] == "'" else str(json.loads(text))
    except ValueError:
        raise InvalidInput(field="where", reason=f"the string {text} cannot be read") from None
    if "\0" in value:
        raise InvalidInput(field="where", reason="a string holds a NUL character")
    return value


def _number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidInput(field="where", reason=f"the number {text} cannot be read") from None
    if value and abs(value.adjusted()) > MAX_EXPONENT:
        raise InvalidInput(field="where", reason=f"the number {text} is beyond any float")
    return value


def _contains(tags: Field, mark: str, value: Value) -> Condition:
    if mark not in ("=", "!=") or not isinstance(value, str):
        raise InvalidInput(field="where", reason='tags are asked for as in tags = "pilot"')
    found: Condition = tags.expression.any_() == value
    return found if mark == "=" else ~found


def _compare(found: sa.ColumnElement[Any], mark: str, value: Value) -> Condition:
    if value is None:
        return found.is_(None) if mark == "=" else found.is_not(None)
    typed, asked = _typed(found, value)
    if mark == "=":
        return sa.func.coalesce(typed == asked, sa.false())
    if mark == "!=":
        return sa.func.coalesce(typed != asked, sa.true())
    if isinstance(value, bool):
        raise InvalidInput(field="where", reason=f"{mark} does not order true and false")
    return sa.func.coalesce(_OPERATORS[mark](typed, asked), sa.false())


def _typed(found: sa.ColumnElement[Any], value: Value) -> tuple[sa.ColumnElement[Any], Any]:
    """The field as the type of the value, null where it is of another type."""
    kind = "boolean" if isinstance(value, bool) else "number" if isinstance(value, Decimal) else "string"
    text = found.op("#>>")(sa.cast([], ARRAY(sa.Text)))
    typed = sa.case((sa.func.jsonb_typeof(found) == kind, sa.cast(text, _TYPES[kind])))
    return typed, sa.cast(value, _TYPES[kind])

"""User expressions between parameters: read as a syntax tree, and refused unless they are plain arithmetic.

The evaluator behind lmfit can read files and loop for ever; nothing reaches it that has not passed here.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Mapping, Sequence

from isoloss.errors import InvalidExpression

MAX_CHARACTERS = 200
MAX_NODES = 50
OF_ONE = ("sqrt", "exp", "log")
OF_SEVERAL = ("min", "max")
FUNCTIONS = (*OF_ONE, *OF_SEVERAL)
"""The functions that an expression may use."""

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


def identifier(name: str) -> str:
    """Return the name under which a parameter can stand in an expression: `lambda` is a keyword of Python."""
    return f"{name}_" if keyword.iskeyword(name) else name


def checked_expressions(expressions: Mapping[str, str], parameters: Sequence[str]) -> dict[str, str]:
    """Return safe expressions by parameter name, in an order in which they can be evaluated.

    Names become identifiers and numbers floats (whole powers of whole numbers can run for ever). Raises
    InvalidExpression for anything but the parameters' names, finite numbers, + - * / **, unary minus and
    `FUNCTIONS`, for texts over `MAX_CHARACTERS` or `MAX_NODES`, and for circles.
    """
    known = {identifier(name): name for name in parameters}
    trees: dict[str, ast.Expression] = {}
    for name, text in expressions.items():
        if name not in parameters:
            raise InvalidExpression(
                field=f"expr.{name}", expression=text, reason="the law has no such parameter"
            )
        trees[name] = _parse(f"expr.{name}", text, known)
    uses = {name: {known[used] for used in _names(tree)} for name, tree in trees.items()}
    return {name: ast.unparse(trees[name]) for name in _in_order(uses, expressions)}


def _parse(field: str, text: str, known: Mapping[str, str]) -> ast.Expression:
    if len(text) > MAX_CHARACTERS:
        reason = f"it has {len(text)} characters, more than {MAX_CHARACTERS}"
        raise InvalidExpression(field=field, expression=text[:40] + "...", reason=reason)
    written = re.sub(r"\b([A-Za-z_]\w*)\b", lambda match: identifier(match[1]), text)
    try:
        tree = ast.parse(written.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidExpression(field=field, expression=text, reason="it is not an expression") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise InvalidExpression(field=field, expression=text, reason=f"it has more than {MAX_NODES} parts")
    try:
        return ast.Expression(_safe(tree.body, known))
    except ValueError as error:
        raise InvalidExpression(field=field, expression=text, reason=str(error)) from None


def _safe(node: ast.expr, known: Mapping[str, str]) -> ast.expr:
    """Return the node rebuilt from permitted parts alone; ValueError says what is not."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return ast.Constant(_finite(value))
        case ast.Name(id=name) if name in known:
            return ast.Name(name)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            return ast.BinOp(_safe(left, known), op, _safe(right, known))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ast.UnaryOp(ast.USub(), _safe(operand, known))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            _check_count(name, len(args))
            return ast.Call(ast.Name(name), [_safe(part, known) for part in args], [])
        case ast.Name(id=name):
            raise ValueError(f"{name!r} is no parameter of this law")
        case _:
            raise ValueError(f"{ast.unparse(node)[:40]!r} is not plain arithmetic")


def _check_count(name: str, n_values: int) -> None:
    if name in OF_ONE and n_values != 1:
        raise ValueError(f"{name} takes one value")
    if name in OF_SEVERAL and n_values < 2:
        raise ValueError(f"{name} takes at least two values")


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def _names(tree: ast.Expression) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in FUNCTIONS}


def _in_order(uses: Mapping[str, set[str]], texts: Mapping[str, str]) -> list[str]:
    done: list[str] = []
    while len(done) < len(uses):
        ready = [name for name in uses if name not in done and uses[name] & set(uses) <= set(done)]
        if not ready:
            name = next(name for name in uses if name not in done)
            raise InvalidExpression(
                field=f"expr.{name}", expression=texts[name], reason="the expressions go round in a circle"
            )
        done += ready
    return done

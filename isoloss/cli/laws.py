"""`isoloss laws` and `isoloss health`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from isoloss.cli.output import Output, print_fields
from isoloss.cli.session import Session, command
from isoloss.errors import NotFound

if TYPE_CHECKING:
    from isoloss.client.documents import Law, LawParameter


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "laws", asks_service=False)(laws)
    command(app, "health")(health)


def laws(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="Show this law.", show_default="all")] = None,
) -> None:
    """List the laws that can be fitted, or show one with its parameters."""
    # The laws are the library's: no service needs to run.
    from isoloss.laws import LAWS  # numbers are slow to load

    known = {law.name: cast("Law", law.describe()) for law in LAWS.values()}
    if name is None:
        rows = [[law["name"], law["formula"], ", ".join(law["requires"])] for law in known.values()]
        columns = ["law", "formula", "needs"]
        session.output.show(list(known.values()), lambda: session.output.table(columns, rows))
    elif name in known:
        session.output.show(known[name], lambda: _show(session.output, known[name]))
    else:
        raise NotFound(kind="law", name=name)


def _show(output: Output, law: Law) -> None:
    print_fields(output, {key: value for key, value in law.items() if key != "parameters"})
    output.line()
    rows = [
        [parameter["name"], parameter["unit"], _bounds(parameter), parameter["meaning"]]
        for parameter in law["parameters"]
    ]
    output.table(["parameter", "unit", "bounds", "meaning"], rows)


def _bounds(parameter: LawParameter) -> str:
    low, high = parameter["lower"], parameter["upper"]
    return f"[{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"


def health(session: Session) -> None:
    """Say whether the service answers and is ready; exit code 1 unless it is."""
    state = session.client.health()
    said = "ready" if state["ready"] else "alive, but not ready"
    session.output.show(state, lambda: session.output.line(f"The service at {state['url']} is {said}."))
    if not state["ready"]:
        raise typer.Exit(1)

"""`isoloss key`"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from isoloss.cli.session import Session, command

app = typer.Typer(name="key", help="Access keys.", no_args_is_help=True)


class Scope(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it.")],
    project: Annotated[
        str | None, typer.Option(help="The one project that it opens.", show_default="all")
    ] = None,
) -> None:
    """Make a key and show it, this once."""
    key = session.client.keys.create(name, [each.value for each in scope], project=project)
    session.output.show(key, lambda: session.output.line(key["key"]))
    session.output.hint("Keep this key: it is not shown again.")


@command(app, "list")
def list_all(session: Session) -> None:
    """List the keys, without their secrets."""
    keys = list(session.client.keys.list())
    rows = [
        [key["id"], key.get("name", "-"), ", ".join(key.get("scopes", [])), key.get("project") or "all"]
        for key in keys
    ]
    session.output.show(keys, lambda: session.output.table(["key", "name", "scopes", "project"], rows))


@command(app, "delete")
def delete(session: Session, key_id: Annotated[str, typer.Argument(help="The key's id.")]) -> None:
    """Revoke a key at once."""
    session.client.keys.delete(key_id)
    session.output.show({"deleted": key_id}, lambda: session.output.line(f"Key {key_id} is revoked."))

"""The commands that need the service beside the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.up import Service

DEFAULT_PORT = 8740


def register(app: typer.Typer) -> None:
    """Adds the service's commands to the `isoloss` command."""
    app.command()(up)


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ISOLOSS_DATA_DIR",
            help="Where the database, the logs and the key live.",
            show_default="~/.local/share/isoloss",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = DEFAULT_PORT,
    workers: Annotated[int, typer.Option(help="How many workers run jobs.", min=0, max=10)] = 2,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="ISOLOSS_DATABASE_URL",
            help="A PostgreSQL of yours. Give an address with a password by the environment.",
            show_default="an embedded one",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help='Write {"url", "api_key"} there once it serves.', show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document once it serves.", show_default=False)
    ] = False,
) -> None:
    """Start the service on this machine: database, API and workers, until Ctrl-C."""
    from app.credentials import write_private
    from app.up import StopAsked, Wanted, serving
    from isoloss.client.settings import data_dir as default_data_dir
    from isoloss.errors import IsolossError

    folder = (data_dir or default_data_dir()).expanduser().absolute()
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # it tells of this start, not of an earlier one
    try:
        with serving(Wanted(folder, host, port, workers, database_url)) as service:
            if ready_file is not None:
                write_private(ready_file, {"url": service.url, "api_key": service.api_key})
            _tell(service, as_json)
            service.keep_up()
    except StopAsked:
        if not as_json:
            typer.echo("Stopped.")
    except IsolossError as error:
        typer.echo(json.dumps({"error": str(error)}) if as_json else f"Error: {error}", err=not as_json)
        raise typer.Exit(1) from error


def _tell(service: Service, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"url": service.url, "api_key": service.api_key}))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]Isoloss[/bold] serves at [bold cyan]{service.url}[/bold cyan]")
    if service.key_is_new:
        console.print(f"Admin key, shown this once: [bold]{service.api_key}[/bold]", soft_wrap=True)
    console.print(
        f"The key is kept for this machine's command line in {service.credentials_path}", soft_wrap=True
    )
    console.print(f"Logs are in {service.wanted.data_dir / 'logs'}", soft_wrap=True)
    console.print("Ctrl-C stops it.")

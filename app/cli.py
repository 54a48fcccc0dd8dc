"""The commands that need the service beside the library."""

from __future__ import annotations

import json
import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.up import Service

DEFAULT_PORT = 8740


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def register(app: typer.Typer) -> None:
    """Adds the service's commands to the `isoloss` command."""
    app.command()(up)
    app.command()(demo)
    app.command()(worker)


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


def demo(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the demo's database lives.", show_default="~/.local/share/isoloss/demo"),
    ] = None,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 0,
    figure: Annotated[Path, typer.Option(help="Where to write the figure.")] = Path("isoloss-demo.html"),
    leave: Annotated[
        bool, typer.Option("--exit", help="End at once and stop the service.", show_default=False)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and end.", show_default=False)
    ] = False,
) -> None:
    """Start the service, fit a law to recorded curves, and predict schedules that it has not seen."""
    from app.up import StopAsked, Wanted, serving
    from isoloss.client.settings import data_dir as default_data_dir
    from isoloss.errors import IsolossError

    folder = (data_dir or default_data_dir() / "demo").expanduser().absolute()
    try:
        _check_writable("--figure", figure)
        with serving(Wanted(folder, "127.0.0.1", port, n_workers=2)) as service:
            _show_demo(service, figure, as_json)
            if not (leave or as_json):
                typer.echo(f"\nThe service goes on at {service.url}; Ctrl-C stops it. To look around:")
                typer.echo(f"ISOLOSS_DATA_DIR={shlex.quote(str(folder))} {_this_command()} project list")
                service.keep_up()
    except StopAsked:
        typer.echo("Stopped.", err=as_json)
    except IsolossError as error:
        typer.echo(json.dumps({"error": str(error)}) if as_json else f"Error: {error}", err=not as_json)
        raise typer.Exit(1) from error


def worker(
    device: Annotated[
        Device, typer.Option(help="What it trains on; auto is cuda where there is one, else cpu.")
    ] = Device.AUTO,
    processes: Annotated[
        int | None,
        typer.Option(help="How many train at once.", min=1, max=256, show_default="one a core, or a device"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ISOLOSS_DATA_DIR", help="Where the logs live.", show_default="~/.local/share/isoloss"
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="ISOLOSS_DATABASE_URL",
            help="The service's PostgreSQL. Give an address with a password by the environment.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train the trials of sweeps on this machine, until Ctrl-C: each goes back to the queue with a checkpoint.

    ISOLOSS_CHECKPOINT_DIR, which machines share by a network folder, keeps the checkpoints; ISOLOSS_PROXY_DATA
    holds the data sets.
    """
    from app.trainers import Wanted, training
    from app.up import StopAsked
    from isoloss.client.settings import data_dir as default_data_dir
    from isoloss.errors import IsolossError

    folder = (data_dir or default_data_dir()).expanduser().absolute()
    try:
        with training(Wanted(folder, device.value, processes, database_url)) as trainers:
            typer.echo(f"{trainers.in_words}; logs are in {folder / 'logs'}. Ctrl-C stops it.")
            trainers.keep_up()
    except StopAsked:
        typer.echo("Stopped.")
    except IsolossError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _check_writable(option: str, path: Path) -> None:
    """Refuses before the work what could not be written after it; raises InvalidInput."""
    from isoloss.errors import InvalidInput

    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(field=option, reason=f"there is no folder {folder}")
    if path.is_dir():
        raise InvalidInput(field=option, reason=f"{path} is a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(field=option, reason=f"{path} cannot be written")


def _this_command() -> str:
    """How to type this very command, from where the user stands."""
    script = Path(sys.executable).with_name("isoloss")
    if not script.exists():
        return "isoloss"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def _show_demo(service: Service, figure: Path, as_json: bool) -> None:
    from app.demo import draw, rows, run_demo
    from isoloss.client import Client

    def tell(line: str) -> None:
        if not as_json:
            typer.echo(line)

    tell(f"Isoloss serves at {service.url}")
    with Client(service.url, service.api_key) as client:
        outcome = run_demo(client, tell, service.tend)
    draw(outcome, figure)
    if as_json:
        typer.echo(json.dumps({"figure": str(figure), "rows": list(rows(outcome))}))
        return
    _demo_table(list(rows(outcome)))
    typer.echo(f"Figure: {figure.absolute()}")


def _demo_table(scores: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Schedules that the law has not seen, predicted and then compared", title_justify="left"
    )
    for name, align in (
        ("model", "left"),
        ("schedule", "left"),
        ("MAE, nats", "right"),
        ("worst error", "right"),
    ):
        table.add_column(name, justify=align)  # type: ignore[arg-type]
    table.add_column("points in 90 % interval", justify="right")
    for row in scores:
        shown = (f"{row['mae']:.4f}", f"{row['worst']:.2%}", f"{row['coverage']:.0%}")
        table.add_row(row["model"], row["schedule"], *shown)
    Console().print(table)


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
    from isoloss.client.settings import data_dir

    if data_dir().absolute() != service.wanted.data_dir.absolute():
        named = shlex.quote(str(service.wanted.data_dir.absolute()))
        console.print(f"In another terminal: export ISOLOSS_DATA_DIR={named}", markup=False, soft_wrap=True)
    console.print(f"Logs are in {service.wanted.data_dir / 'logs'}", soft_wrap=True)
    console.print("Ctrl-C stops it.")

"""The `isoloss` command: one module per noun; nothing slow is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from isoloss import __version__
from isoloss.cli import (
    advice,
    compare,
    exports,
    fits,
    forecasts,
    imports,
    jobs,
    keys,
    laws,
    predictions,
    projects,
    runs,
    service,
    sync,
    webhooks,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"isoloss {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Scaling laws fitted to your own training curves.

    The service is found by ISOLOSS_URL and ISOLOSS_API_KEY, else it is the one that `isoloss up` started.
    """


def build() -> typer.Typer:
    """The whole command line, with the commands that the service adds where it is installed."""
    # Tracebacks with local variables would print keys.
    app = typer.Typer(
        name="isoloss", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    for noun in (projects, runs, imports, exports, fits):
        app.add_typer(noun.app)
    predictions.register(app)
    advice.register(app)
    compare.register(app)
    forecasts.register(app)
    for noun in (webhooks, jobs, keys):
        app.add_typer(noun.app)
    sync.register(app)
    laws.register(app)
    service.register(app)
    return app


def main() -> None:
    """Run the command line."""
    build()(prog_name="isoloss")

"""The commands that the service adds, and what stands in their place where it is not installed."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import typer

GROUP = "isoloss.commands"
SERVICE_COMMANDS = {
    "up": "Start the service on this machine.",
    "demo": "Start the service, fit real curves and predict schedules that it has not seen.",
    "worker": "Train the trials of sweeps on this machine.",
    "backup": "Back up the service's database.",
    "restore": "Restore a backup.",
}


def register(app: typer.Typer) -> None:
    """Let every entry point of the group add its commands; say for the missing ones how to get them."""
    missing = [problem for entry in entry_points(group=GROUP) if (problem := _join(entry, app))]
    known = _command_names(app)
    reason = missing[0] if missing else "it is not installed"
    if missing or not {"up", "demo"} & known:
        for name, summary in SERVICE_COMMANDS.items():
            if name not in known:
                _stand_in(app, name, summary, reason)


def _command_names(app: typer.Typer) -> set[str]:
    # A command without a name is called after its function.
    return {
        info.name or str(getattr(info.callback, "__name__", "")).replace("_", "-")
        for info in app.registered_commands
    }


def _join(entry: EntryPoint, app: typer.Typer) -> str | None:
    """What keeps an entry point from being loaded; None once its commands are there."""
    try:
        entry.load()(app)
    except (ImportError, AttributeError) as error:
        return str(error)
    return None


def _stand_in(app: typer.Typer, name: str, summary: str, reason: str) -> None:
    @app.command(
        name, help=summary, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
    )
    def say_how(context: typer.Context) -> None:
        typer.echo(
            f"Error: `isoloss {context.info_name}` needs the service, which the library alone does not bring "
            f"({reason}); run `make demo` in a checkout of the repository.",
            err=True,
        )
        raise typer.Exit(1)

"""`isoloss import tensorboard|wandb|mlflow|trackio`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isoloss.cli.logged_imports import Runs, import_command

Logs = Annotated[Path, typer.Argument(help="The folder of logs, or one event file.")]
Offline = Annotated[
    Path, typer.Argument(help="The folder wandb, one above it, a run's folder, or a .wandb file.")
]
Store = Annotated[
    str, typer.Argument(help="A folder mlruns, a database or its SQLite file, or a server's address.")
]
Experiments = Annotated[
    list[str] | None, typer.Option("--experiment", help="An experiment; repeat it.", show_default="all")
]
Projects = Annotated[
    Path | None, typer.Argument(help="A project's file, or the folder.", show_default="trackio's own folder")
]


def add_trackers(app: typer.Typer) -> None:
    """Add a command for each tracker whose runs can be read."""

    @import_command(app, "tensorboard")
    def tensorboard(place: Logs) -> Runs:
        """Import runs from TensorBoard's event files, a run a folder as TensorBoard shows them."""
        from isoloss.importers import read_tensorboard

        return read_tensorboard(place)

    @import_command(app, "wandb")
    def wandb(place: Offline) -> Runs:
        """Import runs that Weights & Biases recorded offline; no account is needed.

        A run that was resumed offline has a folder a time; they become one run.
        """
        from isoloss.importers import read_wandb

        return read_wandb(place)

    @import_command(app, "mlflow")
    def mlflow(place: Store, experiment: Experiments = None) -> Runs:
        """Import runs from MLflow: a folder, a database or a server."""
        from isoloss.importers import read_mlflow

        return read_mlflow(place, experiment)

    @import_command(app, "trackio")
    def trackio(place: Projects = None) -> Runs:
        """Import runs from trackio's files, also while trackio writes them."""
        from isoloss.importers import read_trackio

        return read_trackio(place)

"""`isoloss compare`"""

from __future__ import annotations

from typing import Annotated

import typer

from isoloss.cli.arguments import selection
from isoloss.cli.fit_view import show_fit
from isoloss.cli.fits import waited
from isoloss.cli.session import Project, Session, command

LAW = "recipe_comparison"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "compare")(compare)


def compare(
    session: Session,
    project: Project,
    run: Annotated[list[str] | None, typer.Option(help="A run to compare; repeat it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Compare the runs with this tag; repeat it.")] = None,
    where: Annotated[str | None, typer.Option(help="Compare the runs for which this holds.")] = None,
    target: Annotated[str | None, typer.Option(help="loss or val_loss.")] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="Resamples for the intervals.", show_default="200")
    ] = None,
    level: Annotated[float | None, typer.Option(help="Level of the intervals.", show_default="0.9")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resamples.", show_default="0")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
) -> None:
    """Compare the recipes of a project's finished runs: gap, crossing, compute saved, who leads."""
    given = {"target": target, "bootstrap": bootstrap, "level": level, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    select = selection(run, tag, None, where, not (run or tag or where))
    fit = session.client.fits.create(project, LAW, **select, options=options)
    if wait:
        fit = waited(session, project, fit)
    session.output.show(fit, lambda: show_fit(session.output, fit))

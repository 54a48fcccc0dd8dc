"""`isoloss run`"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from isoloss.cli.arguments import json_file
from isoloss.cli.output import number, print_fields
from isoloss.cli.projects import Yes, confirm
from isoloss.cli.session import Project, Session, command
from isoloss.errors import InvalidInput

app = typer.Typer(name="run", help="Runs: one training run each, with its curve.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id.")]


# What `run show` prints beside the specification, so that its output can be put again.
SHOWN_ONLY = ("run_id", "last_step", "created_at", "updated_at")


class PointsFormat(StrEnum):
    CSV = "csv"
    JSON = "json"


@command(app, "list")
def list_all(
    session: Session,
    project: Project,
    where: Annotated[
        str | None, typer.Option(help="As in: config.n_params >= 1e6 and status = finished")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="The field to sort by; -field for the other way.")] = None,
) -> None:
    """List the runs of a project."""
    runs = list(session.client.runs.list(project, where=where, sort=sort))
    rows = [
        [
            run["run_id"],
            run["status"],
            number(run.get("last_step")),
            (run.get("schedule") or {}).get("kind", "-"),
            run.get("recipe") or "-",
            ", ".join(run.get("tags") or ()) or "-",
        ]
        for run in runs
    ]
    columns = ["run", "status", "last step", "schedule", "recipe", "tags"]
    session.output.show(runs, lambda: session.output.table(columns, rows, right=["last step"]))


@command(app, "show")
def show(session: Session, run_id: RunId, project: Project) -> None:
    """Show one run."""
    run = session.client.runs.get(project, run_id)
    session.output.show(run, lambda: print_fields(session.output, dict(run)))


@command(app, "put")
def put(
    session: Session,
    run_id: RunId,
    file: Annotated[
        str, typer.Argument(help="A JSON file with the run's specification; - for standard input.")
    ],
    project: Project,
) -> None:
    """Create a run, or replace its specification."""
    document = {"name": run_id, **json_file("file", file)}
    for name in SHOWN_ONLY:
        document.pop(name, None)
    run = session.client.runs.put_document(project, run_id, document)
    session.output.show(run, lambda: session.output.line(f"Run {run['run_id']} is stored."))


@command(app, "delete")
def delete(session: Session, run_id: RunId, project: Project, yes: Yes = False) -> None:
    """Delete a run with its points."""
    confirm(f"Delete run {run_id} with its points?", yes)
    session.client.runs.delete(project, run_id)
    session.output.show({"deleted": run_id}, lambda: session.output.line(f"Run {run_id} is deleted."))


@command(app, "points")
def points(
    session: Session,
    run_id: RunId,
    project: Project,
    format: Annotated[PointsFormat, typer.Option(help="The form of the points.")] = PointsFormat.CSV,
    columns: Annotated[str | None, typer.Option(help="Columns to write, as in step,loss.")] = None,
    from_step: Annotated[int | None, typer.Option(help="The first step to write.")] = None,
    to_step: Annotated[int | None, typer.Option(help="The last step to write.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file to write to.", show_default="standard output")
    ] = None,
) -> None:
    """Write the points of a run as CSV or JSON, exactly as they were recorded."""
    chosen = [name.strip() for name in columns.split(",")] if columns else None
    room = session.client.points
    if session.output.as_json or format is PointsFormat.JSON:
        from isoloss.client.wire import dump

        read = room.read(project, run_id, columns=chosen, from_step=from_step, to_step=to_step)
        text = dump(read).decode() + "\n"
    else:
        text = room.read_csv(project, run_id, columns=chosen, from_step=from_step, to_step=to_step)
    _write(text, out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidInput(field="--out", reason=f"{out}: {error.strerror}") from error


@command(app, "rewind")
def rewind(
    session: Session,
    run_id: RunId,
    step: Annotated[int, typer.Argument(help="The last step to keep.", min=0)],
    project: Project,
) -> None:
    """Forget every point after a step."""
    answer = session.client.points.rewind(project, run_id, step)
    session.output.show(answer, lambda: session.output.line(_end(run_id, answer.get("last_step"))))


def _end(run_id: str, last_step: int | None) -> str:
    if last_step is None:
        return f"Run {run_id} has no points now."
    return f"Run {run_id} ends at step {last_step:,} now."

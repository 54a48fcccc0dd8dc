"""`isoloss import`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.arguments import json_object, pairs
from isoloss.cli.output import Output, number
from isoloss.cli.session import Project, Session, command

if TYPE_CHECKING:
    from isoloss.importers import ImportReport

app = typer.Typer(name="import", help="Curves from the files of other tools.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Curves from the files of other tools."""


@command(app, "csv")
def csv(
    session: Session,
    project: Project,
    files: Annotated[list[Path] | None, typer.Argument(help="CSV files, one a run; gzip is fine.")] = None,
    runs: Annotated[Path | None, typer.Option(help="A JSON list that says which file is which run.")] = None,
    schedule: Annotated[str | None, typer.Option(help="The schedule of these runs: JSON or @file.")] = None,
    map: Annotated[list[str] | None, typer.Option(help="What a column holds, as in train_nll=loss.")] = None,
    run_id: Annotated[
        list[str] | None, typer.Option(help="The run's id; once a file.", show_default="name")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite other values at the same steps.")
    ] = False,
) -> None:
    """Send training curves to a project; doing it again changes nothing."""
    from isoloss.importers import import_curves

    fields = {field: column for column, field in pairs("--map", map, str).items()}
    with session.output.progress("Importing") as advance:
        report = import_curves(
            session.client,
            project,
            files or [],
            runs,
            run_ids=run_id,
            schedule=json_object("--schedule", schedule) if schedule else None,
            map=fields,
            on_conflict="replace" if replace else "error",
            on_progress=lambda done, total, file: advance(done / total, file),
        )
    session.output.show(_document(report), lambda: _show(session.output, report))
    if report.skipped:
        raise typer.Exit(1)


def _document(report: ImportReport) -> dict[str, Any]:
    document = asdict(report)
    for entry in (*document["runs"], *document["skipped"]):
        entry["path"] = str(entry["path"])
    return document


def _show(output: Output, report: ImportReport) -> None:
    if report.created:
        output.line(f"Project {report.project} was created.")
    rows = [
        [run.run_id, number(run.accepted), number(run.duplicates), ", ".join(run.fields.values())]
        for run in report.runs
    ]
    if rows:
        output.table(
            ["run", "new points", "there before", "fields"], rows, right=["new points", "there before"]
        )
    for run in report.runs:
        for note in run.notes:
            output.hint(f"{run.path}: {note}")
    for skipped in report.skipped:
        # Most reasons begin with the file already.
        told = skipped.reason.startswith(str(skipped.path))
        output.hint(f"Skipped {skipped.reason if told else f'{skipped.path}: {skipped.reason}'}")

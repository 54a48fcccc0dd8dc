"""`isoloss import`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli.arguments import pairs, scalar
from isoloss.cli.logged_imports import Runs, add_history, import_command, journal_for
from isoloss.cli.output import Output, number
from isoloss.cli.session import Project, Session, command
from isoloss.cli.tracker_imports import add_trackers

if TYPE_CHECKING:
    from isoloss.importers import TableReport

app = typer.Typer(
    name="import", help="Curves and tables of runs from the files of other tools.", no_args_is_help=True
)

SHOWN_ROWS = 10

Files = Annotated[list[Path], typer.Argument(help="Files, folders or patterns.")]
RunColumn = Annotated[
    str | None,
    typer.Option(help="The column that says which run a row is of.", show_default="run_id, run or run_name"),
]


@app.callback()
def _group() -> None:
    """Curves and tables of runs from the files of other tools."""


@import_command(app, "csv")
def csv(
    files: Annotated[
        list[Path] | None, typer.Argument(help="CSV files, folders or patterns; gzip is fine.")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="A JSON list that says which file is which run.")] = None,
    run_id: Annotated[
        list[str] | None, typer.Option(help="The run's id; once a file.", show_default="name")
    ] = None,
    run_column: RunColumn = None,
    step_column: str | None = None,
) -> Runs:
    """Import training curves from CSV files, a row a step: one file a run, or one file of many."""
    from isoloss.importers import read_csv_runs

    return read_csv_runs(files or [], runs, run_ids=run_id, run_column=run_column, step_column=step_column)


def _show_id(output: Output, import_id: str | None) -> None:
    if import_id is not None:
        output.line(f"isoloss import undo {import_id} takes it back.", style="dim")


@import_command(app, "jsonl")
def jsonl(files: Files, run_column: RunColumn = None, step_column: str | None = None) -> Runs:
    """Import runs from JSON Lines, one object a line; also trainer_state.json of Hugging Face's Trainer.

    A file is a run, or a column tells several apart. Nested objects are flattened with dots.
    """
    from isoloss.importers import read_json_lines

    return read_json_lines(files, run_column=run_column, step_column=step_column)


@import_command(app, "parquet")
def parquet(files: Files, run_column: RunColumn = None, step_column: str | None = None) -> Runs:
    """Import runs from Parquet files, a row a step: one file a run, or one file of many."""
    from isoloss.importers import read_parquet

    return read_parquet(files, run_column=run_column, step_column=step_column)


@import_command(app, "export")
def export(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `isoloss export runs` wrote.")],
) -> Runs:
    """Import what Isoloss exported: the same runs, schedules, branches and points, nothing guessed."""
    from isoloss.importers import read_export

    return read_export(folders)


@command(app, "table")
def table(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A table of finished runs: CSV, gzip is fine, or Parquet.")],
    project: Project,
    map: Annotated[
        list[str] | None,
        typer.Option(
            help="Which column a field is, FIELD=COLUMN, as in n_params=N or final_loss=loss; repeat it."
        ),
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="A field of all runs, as in weight_decay=0.1; repeat it.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for all runs; repeat it.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe of all runs.")] = None,
    prefix: Annotated[
        str, typer.Option(help="What numbered runs begin with, as in steplaw- for steplaw-row-0001.")
    ] = "",
) -> None:
    """Send finished runs to a project, a run a row, with what each was and what came of it.

    A run goes by the column run_id, or is called after its row: row-0001. Give each such table of a project a
    --prefix of its own. Usual names of columns are known, and --map says the rest as FIELD=COLUMN:
    --map n_params=N --map n_tokens=D --map final_loss=loss. Doing it again changes nothing.
    """
    from isoloss.importers import import_table

    with session.output.progress("Importing") as advance:
        report = import_table(
            session.client,
            project,
            file,
            pairs("--map", map, str),
            config=pairs("--config", config, scalar),
            tags=tag or (),
            recipe=recipe,
            prefix=prefix,
            on_progress=lambda done, total, what: advance(done / total, what),
            journal=journal_for(session, "table", project),
        )
    document = {**asdict(report), "path": str(report.path)}
    session.output.show(document, lambda: _show_table(session.output, report))
    if report.skipped:
        raise typer.Exit(1)


def _show_table(output: Output, report: TableReport) -> None:
    if report.created:
        output.line(f"Project {report.project} was created.")
    counts = {"new": report.new, "changed": report.changed, "there before": report.unchanged}
    told = [f"{number(count)} {what}" for what, count in counts.items() if count]
    output.line(f"Runs of {report.path.name}: {', '.join(told) or 'none'}")
    output.line(f"Each has {', '.join(report.fields)}", style="dim")
    for note in report.notes:
        output.hint(f"Note: {note}")
    for skipped in report.skipped[:SHOWN_ROWS]:
        output.hint(f"Skipped {skipped.run_id}: {skipped.reason}")
    if len(report.skipped) > SHOWN_ROWS:
        output.hint(f"and {len(report.skipped) - SHOWN_ROWS} more")
    _show_id(output, report.import_id)


add_trackers(app)
add_history(app)

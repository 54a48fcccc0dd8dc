"""`isoloss import`"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.arguments import BadArgument, json_object, pairs, scalar
from isoloss.cli.logged_imports import Runs, add_history, import_command, journal_for
from isoloss.cli.output import Output, number
from isoloss.cli.session import Project, Session, command
from isoloss.cli.tracker_imports import add_trackers

if TYPE_CHECKING:
    from isoloss.importers import ImportReport, TableReport

app = typer.Typer(
    name="import", help="Curves and tables of runs from the files of other tools.", no_args_is_help=True
)

SHOWN_ROWS = 10

Files = Annotated[list[Path], typer.Argument(help="Files, folders or patterns.")]
RunColumn = Annotated[
    str | None,
    typer.Option(help="The column that says which run a row is of.", show_default="run_id, run or run_name"),
]
StepColumn = Annotated[str | None, typer.Option(help="The column of the steps.", show_default="guessed")]


@app.callback()
def _group() -> None:
    """Curves and tables of runs from the files of other tools."""


@command(app, "csv")
def csv(
    session: Session,
    project: Project,
    files: Annotated[list[Path] | None, typer.Argument(help="CSV files, one a run; gzip is fine.")] = None,
    runs: Annotated[Path | None, typer.Option(help="A JSON list that says which file is which run.")] = None,
    schedule: Annotated[str | None, typer.Option(help="The schedule of these runs: JSON or @file.")] = None,
    map: Annotated[
        list[str] | None, typer.Option(help="What a column holds, COLUMN=FIELD, as in train_nll=loss.")
    ] = None,
    run_id: Annotated[
        list[str] | None, typer.Option(help="The run's id; once a file.", show_default="name")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite other values at the same steps.")
    ] = False,
) -> None:
    """Send training curves to a project; doing it again changes nothing."""
    from isoloss.importers import import_curves

    fields = _columns_of(pairs("--map", map, str))
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
            journal=journal_for(session, "csv", project),
        )
    session.output.show(_document(report), lambda: _show(session.output, report))
    if report.skipped:
        raise typer.Exit(1)


def _columns_of(named: Mapping[str, str]) -> dict[str, str]:
    """Which column a field is, of what each column holds; raises BadArgument where two hold the same."""
    fields: dict[str, str] = {}
    for column, field in named.items():
        if field in fields:
            raise BadArgument(
                field="--map", reason=f"columns {fields[field]!r} and {column!r} are both {field}"
            )
        fields[field] = column
    return fields


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
    _show_id(output, report.import_id)


def _show_id(output: Output, import_id: str | None) -> None:
    if import_id is not None:
        output.line(f"isoloss import undo {import_id} takes it back.", style="dim")


@import_command(app, "jsonl")
def jsonl(files: Files, run_column: RunColumn = None, step_column: StepColumn = None) -> Runs:
    """Import runs from JSON Lines, one object a line; also trainer_state.json of Hugging Face's Trainer.

    A file is a run, or a column tells several apart. Nested objects are flattened with dots.
    """
    from isoloss.importers import read_json_lines

    return read_json_lines(files, run_column=run_column, step_column=step_column)


@import_command(app, "parquet")
def parquet(files: Files, run_column: RunColumn = None, step_column: StepColumn = None) -> Runs:
    """Import runs from Parquet files, a row a step: one file a run, or one file of many."""
    from isoloss.importers import read_parquet

    return read_parquet(files, run_column=run_column, step_column=step_column)


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

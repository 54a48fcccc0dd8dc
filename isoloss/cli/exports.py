"""`isoloss export`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli.arguments import BadArgument, given_fit, selection
from isoloss.cli.output import Output, number
from isoloss.cli.session import Project, Session, command
from isoloss.notes import counted

if TYPE_CHECKING:
    from isoloss.exporters import ExportReport, FitReport, NotebookReport
    from isoloss.exporters import Selection as Chosen

app = typer.Typer(
    name="export", help="Runs, points and fits as files, complete and exact.", no_args_is_help=True
)

SHOWN = 10

Run = Annotated[list[str] | None, typer.Option(help="A run to export; repeat it.")]
Tag = Annotated[
    list[str] | None, typer.Option(help="The runs with this tag; repeat it for those that have all.")
]
Recipe = Annotated[str | None, typer.Option(help="The runs of this recipe.")]
Where = Annotated[str | None, typer.Option(help="The runs for which this holds.")]
AllRuns = Annotated[bool, typer.Option("--all", help="All runs of the project, as without a selection.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier export left there.")]


@app.callback()
def _group() -> None:
    """Runs, points and fits as files, complete and exact."""


@command(app, "runs")
def runs(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    project: Project,
    run: Run = None,
    tag: Tag = None,
    recipe: Recipe = None,
    where: Where = None,
    all_runs: AllRuns = False,
    format: Annotated[str, typer.Option(help="Of the points: csv, parquet, json or jsonl.")] = "csv",
    one_file: Annotated[
        bool, typer.Option("--one-file", help="The points of all runs in one file, not a file for each.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a project, or some of its runs, to a folder: specifications in runs.json, and all points.

    `isoloss import export FOLDER` makes the same runs of it. Runs that others branch off come along. The folder is
    there once it is complete.
    """
    from isoloss.exporters import export_runs

    chosen = _chosen(run, tag, recipe, where, all_runs)
    with session.output.progress("Exporting") as advance:
        report = export_runs(
            session.client,
            project,
            folder,
            chosen,
            format=format,
            one_file=one_file,
            force=force,
            on_progress=advance,
        )
    _tell(session.output, report)


@command(app, "points")
def points(
    session: Session,
    file: Annotated[Path, typer.Argument(help="The file to make: .csv, .parquet, .json or .jsonl.")],
    project: Project,
    run: Run = None,
    tag: Tag = None,
    recipe: Recipe = None,
    where: Where = None,
    all_runs: AllRuns = False,
    force: Force = False,
) -> None:
    """Write the points of runs to one file, a row a step, with the run's id and all columns."""
    from isoloss.exporters import export_points

    chosen = _chosen(run, tag, recipe, where, all_runs)
    with session.output.progress("Exporting") as advance:
        report = export_points(session.client, project, file, chosen, force=force, on_progress=advance)
    _tell(session.output, report)


@command(app, "fit")
def fit(
    session: Session,
    fit_id: Annotated[str, typer.Argument(help="The fit's id.", callback=given_fit)],
    project: Project,
    file: Annotated[
        Path | None,
        typer.Argument(help="The file to make: .json for all of it, .csv or .parquet for its parameters."),
    ] = None,
    notebook: Annotated[
        Path | None,
        typer.Option(help="A notebook to make, .ipynb, that makes the fit again without the service."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a fit to a file, or a notebook that makes it again with the library alone.

    The data that it was made of go to a folder beside the notebook, NAME-data.
    """
    from isoloss.exporters import export_fit, export_notebook

    if file is None and notebook is None:
        raise BadArgument(field="FILE", reason="name a file, or a --notebook, or both")
    written = made = None
    if file is not None:
        written = export_fit(session.client, project, fit_id, file, force=force)
    if notebook is not None:
        with session.output.progress("Exporting") as advance:
            made = export_notebook(
                session.client, project, fit_id, notebook, force=force, on_progress=advance
            )
    document = {
        "file": None if written is None else asdict(written),
        "notebook": None if made is None else asdict(made),
    }
    session.output.show(document, lambda: _show_fit(session.output, written, made))


def _chosen(
    run: list[str] | None, tag: list[str] | None, recipe: str | None, where: str | None, all_runs: bool
) -> Chosen:
    from isoloss.exporters import Selection

    if not (run or tag or recipe or where):
        return Selection()
    said = selection(run, tag, recipe, where, all_runs)
    return Selection.of_fit(said)


def _tell(output: Output, report: ExportReport) -> None:
    output.show(asdict(report), lambda: _show(output, report))
    if report.left_out:
        raise typer.Exit(1)


def _show(output: Output, report: ExportReport) -> None:
    output.line(
        f"Wrote {counted(report.n_runs, 'run')} of {report.project} with {counted(report.n_points, 'point')} "
        f"to {report.path}"
    )
    output.line(f"Columns: {', '.join(report.columns)}", style="dim")
    told = {
        "There because others branch off them": report.ancestors,
        "Without points": report.without_points,
        "Still training, as they stand": report.training,
    }
    for what, names in told.items():
        if names:
            output.hint(f"{what}: {_some(names)}")
    for one in report.left_out:
        output.hint(f"Left out {one.run_id}: {one.reason}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _show_fit(output: Output, written: FitReport | None, made: NotebookReport | None) -> None:
    if written is not None:
        rows = "the whole fit" if written.rows is None else f"{number(written.rows)} rows"
        output.line(f"Wrote {rows} ({written.law}, {written.verdict}) to {written.path}")
    if made is not None:
        told = f"{number(made.n_runs)} runs, {number(made.n_points)} points"
        output.line(f"Wrote {made.path}, and its data ({told}) to {made.data}")
        for note in made.notes:
            output.hint(f"Note: {note}")

"""What every `isoloss import` of logged runs shares: its options, the import itself, and the report."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from isoloss.cli.arguments import BadArgument, json_object, pairs, scalar
from isoloss.cli.output import Output, number
from isoloss.cli.projects import Yes, confirm
from isoloss.cli.session import Project, Session, command
from isoloss.notes import counted

if TYPE_CHECKING:
    from isoloss.importers import FieldNames, Journal, LoggedReport, UndoReport, Wishes
    from isoloss.importers.journals import PastImport

Arguments = ParamSpec("Arguments")
Runs = Iterator[Any]
"""What a reader yields: `LoggedRun` and `Unreadable`, which no command line imports before it runs."""

JOURNALS = "imports"
"""The folder of the journals, in that of the local data."""

STATUSES = ("running", "finished", "failed", "preempted", "diverged")
SHOWN_RUNS = 20
SHOWN_SKIPPED = 20


def _options(
    project: Project,
    map: Annotated[
        list[str] | None,
        typer.Option(
            help="What a metric or setting is, NAME=FIELD, as in nll=loss or it=step; NAME=- leaves it out; "
            "@file.json is a saved map. Repeat it."
        ),
    ] = None,
    save_map: Annotated[Path | None, typer.Option(help="Write the map that was used to this file.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be imported, and send nothing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite other values at the same steps.")
    ] = False,
    schedule: Annotated[str | None, typer.Option(help="The schedule of these runs: JSON or @file.")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="A field of all runs, as in n_params=6e7; repeat it.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for all runs; repeat it.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe of all runs.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"How these runs stand: {', '.join(STATUSES)}.", show_default="as logged"),
    ] = None,
) -> None: ...


def import_command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Arguments, Runs]], Callable[Arguments, Runs]]:
    """Add a reader as a command: a function of its own options that returns the runs of a source.

    The options that all imports share, what is sent and what is told come from here. A reader with a parameter
    `step_column` is told which column the map says is the step.
    """
    shared = list(inspect.signature(_options, eval_str=True).parameters.values())

    def add(reader: Callable[Arguments, Runs]) -> Callable[Arguments, Runs]:
        own = dict(inspect.signature(reader, eval_str=True).parameters)
        has_step = own.pop("step_column", None) is not None

        def run(session: Session, /, **given: Any) -> None:
            options = {parameter.name: given.pop(parameter.name) for parameter in shared}
            wishes = _wishes(options)
            step_column = wishes.names.step_column
            if has_step:
                given["step_column"] = step_column
            elif step_column is not None:
                reason = f"{step_column!r} cannot be the step: this source says its steps itself"
                raise BadArgument(field="--map", reason=reason)
            wishes = replace(wishes, names=wishes.names.without_step())
            _import(session, name, reader(**given), wishes, options)  # type: ignore[call-arg]

        first = inspect.Parameter("session", inspect.Parameter.POSITIONAL_ONLY)
        keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*own.values(), *shared]]
        run.__signature__ = inspect.Signature([first, *keyword])  # type: ignore[attr-defined]
        run.__doc__ = reader.__doc__
        command(app, name)(run)
        return reader

    return add


def _import(session: Session, kind: str, source: Runs, wishes: Wishes, options: Mapping[str, Any]) -> None:
    from isoloss.importers import import_logged

    journal = None if options["dry_run"] else journal_for(session, kind, options["project"])
    with session.output.progress("Importing") as advance:
        report = import_logged(
            session.client,
            options["project"],
            source,
            wishes,
            on_conflict="replace" if options["replace"] else "error",
            journal=journal,
            dry_run=options["dry_run"],
            on_progress=advance,
        )
    if options["save_map"] is not None:
        _save(options["save_map"], report.names)
    session.output.show(_document(report), lambda: _show(session.output, report))
    if report.skipped:
        raise typer.Exit(1)


def journal_for(session: Session, kind: str, project: str) -> Journal:
    """The journal of an import that begins now."""
    from isoloss.importers import Journal

    return Journal.begin(_folder(), kind, project, session.client.url)


def _folder() -> Path:
    from isoloss.client.settings import data_dir

    return data_dir() / JOURNALS


def _wishes(options: Mapping[str, Any]) -> Wishes:
    from isoloss.importers import Wishes

    if options["status"] not in (None, *STATUSES):
        raise BadArgument(field="--status", reason=f"{options['status']!r} is none of {', '.join(STATUSES)}")
    schedule = options["schedule"]
    return Wishes(
        names=_names(options["map"]),
        schedule=json_object("--schedule", schedule) if schedule else None,
        config=pairs("--config", options["config"], scalar),
        tags=tuple(options["tag"] or ()),
        recipe=options["recipe"],
        status=options["status"],
    )


def _names(entries: list[str] | None) -> FieldNames:
    """The map that was typed, over the saved ones that it names."""
    from isoloss.importers import FieldNames, chosen_names, read_map

    typed = [entry for entry in entries or () if not entry.startswith("@")]
    names = chosen_names(_pairs_at_last_sign(typed)) if typed else FieldNames()
    for entry in entries or ():
        if entry.startswith("@"):
            names = names.with_more(read_map(entry[1:]))
    return names


def _pairs_at_last_sign(entries: list[str]) -> dict[str, str]:
    """NAME=FIELD, where a name may hold the sign itself; raises BadArgument."""
    named: dict[str, str] = {}
    for entry in entries:
        name, sign, field = entry.rpartition("=")
        if not sign or not name.strip() or not field.strip():
            raise BadArgument(field="--map", reason=f"{entry!r} is not NAME=FIELD")
        if name.strip() in named:
            raise BadArgument(field="--map", reason=f"{name.strip()!r} is given twice")
        named[name.strip()] = field.strip()
    return named


def _save(path: Path, names: FieldNames) -> None:
    import json

    try:
        path.write_text(json.dumps(names.document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadArgument(field="--save-map", reason=f"{path}: {error.strerror}") from error


def _document(report: LoggedReport) -> dict[str, Any]:
    return {**asdict(report), "names": report.names.document()}


def _show(output: Output, report: LoggedReport) -> None:
    if report.created:
        output.line(f"Project {report.project} was created.")
    columns = ["run", "is", "new points", "there before", "left out", "schedule"]
    rows = [
        [
            run.run_id,
            run.state,
            number(run.accepted),
            number(run.duplicates),
            number(run.left_out),
            run.schedule or "-",
        ]
        for run in report.runs[:SHOWN_RUNS]
    ]
    if rows:
        output.table(columns, rows, right=columns[2:5])
    if len(report.runs) > SHOWN_RUNS:
        output.line(f"and {len(report.runs) - SHOWN_RUNS:,} more runs")
    _show_totals(output, report)
    _show_map(output, report.names)
    _show_notes(output, report)
    if report.import_id is not None:
        output.line(f"isoloss import undo {report.import_id} takes it back.", style="dim")


def _show_totals(output: Output, report: LoggedReport) -> None:
    states = [run.state for run in report.runs]
    told = [
        f"{states.count(state):,} {state}" for state in ("new", "changed", "unchanged") if state in states
    ]
    points = counted(sum(run.accepted for run in report.runs), "new point")
    before = f"{sum(run.duplicates for run in report.runs):,} there before"
    left_out = f"{counted(sum(run.left_out for run in report.runs), 'value')} left out"
    verb = "Would import" if report.dry_run else "Imported"
    output.line(
        f"{verb} into {report.project}: runs {', '.join(told) or 'none'}; {points}, {before}, {left_out}"
    )


def _show_map(output: Output, names: FieldNames) -> None:
    from isoloss.importers.logged_fields import CONFIG

    known = {name: field for name, field in names.config.items() if field in CONFIG}
    for what, fields in (("Metrics", names.metrics), ("Settings", known)):
        if fields:
            told = ", ".join(
                f"{name}={field}" for name, field in sorted(fields.items(), key=lambda one: one[1])
            )
            output.line(f"{what}: {told}", style="dim")


def _show_notes(output: Output, report: LoggedReport) -> None:
    from isoloss.notes import grouped

    for note in grouped([f"run {run.run_id}: {note}" for run in report.runs for note in run.notes]):
        output.hint(f"Note: {note}")
    for note in report.notes:
        output.hint(f"Note: {note}")
    for skipped in report.skipped[:SHOWN_SKIPPED]:
        told = skipped.reason.startswith(skipped.place)
        output.hint(f"Skipped {skipped.reason if told else f'{skipped.place}: {skipped.reason}'}")
    if len(report.skipped) > SHOWN_SKIPPED:
        output.hint(f"and {len(report.skipped) - SHOWN_SKIPPED:,} more")


def add_history(app: typer.Typer) -> None:
    """Add the commands on imports that were done: `list` and `undo`."""

    @command(app, "list", asks_service=False)
    def list_all(session: Session) -> None:
        """List the imports of this machine, the newest first, with the ids that undo them."""
        from isoloss.importers import past_imports

        past = list(past_imports(_folder()))
        rows = [[str(value) for value in _told(one).values()] for one in past]
        columns = ["import", "at", "source", "project", "new runs", "changed runs", "state"]
        session.output.show(
            [_told(one) for one in past],
            lambda: (
                session.output.table(columns, rows, right=columns[4:6], whole=columns[:1])
                if rows
                else session.output.line("Nothing was imported from here.")
            ),
        )

    @command(app, "undo")
    def undo(
        session: Session,
        import_id: Annotated[str, typer.Argument(metavar="ID", help="The import's id, or its beginning.")],
        yes: Yes = False,
    ) -> None:
        """Take an import back: delete the runs it made, restore those it changed, cut off points it appended."""
        from isoloss.importers import find_import
        from isoloss.importers import undo as take_back

        past = find_import(_folder(), import_id)
        if not past.undone:
            _check_service(session, past)
            told = _told(past)
            confirm(
                f"Delete {counted(told['new_runs'], 'run')} of project {past.header.project} with all points, and "
                f"restore {counted(told['changed_runs'], 'run')} that it changed?",
                yes,
            )
        with session.output.progress("Undoing") as advance:
            report = take_back(session.client, past, advance)
            session.output.show(asdict(report), lambda: _show_undone(session.output, report))
        if report.stays:
            raise typer.Exit(1)


def _check_service(session: Session, past: PastImport) -> None:
    """Refuse to undo at another service than the one that was imported to, unless that one is named."""
    if past.header.url != session.client.url and session.named_url is None:
        reason = (
            f"this import went to {past.header.url}, not {session.client.url}; if it moved, say so by --url"
        )
        raise BadArgument(field="--url", reason=reason)


def _told(past: PastImport) -> dict[str, Any]:
    header = past.header
    created = {run.run_id for run in past.runs if run.created}
    return {
        "import": header.import_id,
        "at": header.at,
        "source": header.source,
        "project": header.project,
        "new_runs": len(created),
        "changed_runs": len({run.run_id for run in past.runs} - created),
        "state": past.state,
    }


def _show_undone(output: Output, report: UndoReport) -> None:
    if report.before:
        output.line(f"Import {report.import_id} was undone before.")
        return
    counts = {
        "deleted": report.deleted,
        "restored": report.restored,
        "cut back": report.rewound,
        "not there": report.gone,
    }
    told = [f"{len(run_ids):,} {what}" for what, run_ids in counts.items() if run_ids]
    output.line(f"Import {report.import_id} is undone: runs {', '.join(told) or 'none'}.")
    for stays in report.stays:
        output.hint(f"Stays: {stays.run_id}: {stays.reason}")

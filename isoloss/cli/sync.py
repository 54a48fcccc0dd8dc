"""`isoloss sync`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.output import Output, number
from isoloss.cli.session import Session, command

if TYPE_CHECKING:
    from isoloss.client.sync import SyncReport


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "sync")
    def sync(
        session: Session,
        folder: Annotated[
            Path, typer.Argument(help="A folder of recorded runs, such as isoloss-runs, or one run's.")
        ],
    ) -> None:
        """Send what recorded runs left on disk, and delete what is sent; doing it again is harmless."""
        from isoloss.client.sync import sync as send

        with session.output.progress("Sending") as advance:
            report = send(session.client, folder, lambda done, total, run: advance(done / total, run))
        session.output.show(_document(report), lambda: _show(session.output, report))
        if report.skipped:
            raise typer.Exit(1)


def _document(report: SyncReport) -> dict[str, Any]:
    document = asdict(report)
    for entry in (*document["runs"], *document["skipped"]):
        entry["path"] = str(entry["path"])
    return document


def _show(output: Output, report: SyncReport) -> None:
    if not report.runs and not report.skipped:
        output.line("Nothing is left to send.")
    rows = [[run.project, run.run_id, number(run.accepted), number(run.duplicates)] for run in report.runs]
    if rows:
        columns = ["project", "run", "new points", "there before"]
        output.table(columns, rows, right=["new points", "there before"])
    for run in report.runs:
        for note in run.notes:
            output.hint(f"{run.run_id}: {note}")
    for skipped in report.skipped:
        output.hint(f"Skipped {skipped.path}: {skipped.reason}")

"""`isoloss forecast`"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli.output import moment, number, with_interval
from isoloss.cli.session import Project, Session, command
from isoloss.errors import Conflict, NotFound

if TYPE_CHECKING:
    from isoloss.client.documents import Forecast, ForecastOf

TRAIL_SHOWN = 8


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "forecast")(forecast)


def forecast(
    session: Session,
    project: Project,
    run_id: Annotated[
        str | None, typer.Argument(help="The run; every run that trains where left out.", show_default=False)
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on until the run ends; with --json a document a line.", show_default=False
        ),
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks of --watch.", min=1)] = 15.0,
) -> None:
    """Show how a run is expected to end: its final loss with a band, and its alarms."""
    if run_id is None:
        _list(session, project)
    elif watch:
        _watch(session, project, run_id, every)
    else:
        found = session.client.forecasts.get(project, run_id)
        session.output.show(found, lambda: _show(session, found))


def _list(session: Session, project: str) -> None:
    found = list(session.client.forecasts.list(project))
    rows = [
        [one["run_id"], f"{one['step']:,} of {one['last_step']:,}", one["target"], _final(one), _alarms(one)]
        for one in found
    ]
    columns = ["run", "step", "loss", "final", "alarms"]
    session.output.show(found, lambda: session.output.table(columns, rows, whole=columns[:-1]))


def _watch(session: Session, project: str, run_id: str, every: float) -> None:
    """Print each forecast that is new; end with the run."""
    seen = None
    while True:
        status = session.client.runs.get(project, run_id)["status"]
        try:
            found = session.client.forecasts.get(project, run_id)
        except (NotFound, Conflict) as error:
            if seen != str(error):
                session.output.hint(str(error))
            seen = str(error)
        else:
            if found["updated_at"] != seen:
                _print_line(session, found)
            seen = found["updated_at"]
        if status != "running":
            session.output.hint(f"The run is {status}.")
            return
        time.sleep(every)


def _print_line(session: Session, found: Forecast) -> None:
    if session.output.as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    place = f"step {found['step']:,} of {found['last_step']:,}"
    alarms = f"   {_alarms(found)}" if _open(found) else ""
    session.output.line(
        f"{moment(found['updated_at'])}   {place}   final {found['target']} {_final(found)}{alarms}"
    )


def _show(session: Session, found: Forecast) -> None:
    line = session.output.line
    line(f"Run {found['run_id']}, seen to step {found['step']:,} of {found['last_step']:,}.")
    line(f"Final {found['target']}: {_final(found)}, at {100 * found['level']:.0f} %", style="bold")
    if found["law"] is not None:
        line(
            f"It rests on {found['law']} and {found['n_runs']} finished runs ({moment(found['updated_at'])})."
        )
    for reason in found["reasons"]:
        line(f"Note: {reason}.")
    if found["left_band"]:
        line(f"It has left the band: {found['left_band']}.")
    for alarm in found["alarms"]:
        over = "" if alarm["over_at"] is None else ", over"
        line(f"{moment(alarm['at'])}   {alarm['kind'].replace('_', ' ')}{over}: {alarm['message']}")
    rows = [[number(one["step"]), _final(one)] for one in found.get("trail", [])[-TRAIL_SHOWN:]]
    if rows:
        session.output.table(["seen to step", "final"], rows, right=["seen to step"])


def _final(one: Forecast | ForecastOf) -> str:
    value, lower, upper = one["value"], one["lower"], one["upper"]
    if value is None:
        return "not known"
    return with_interval(value, None if lower is None or upper is None else [lower, upper])


def _open(found: Forecast) -> list[str]:
    return [alarm["kind"].replace("_", " ") for alarm in found["alarms"] if alarm["over_at"] is None]


def _alarms(found: Forecast) -> str:
    return ", ".join(_open(found)) or "-"

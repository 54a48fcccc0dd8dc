"""`isoloss sweep`"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.arguments import BadArgument, json_object, pairs, scalar
from isoloss.cli.output import moment, number, with_interval
from isoloss.cli.session import Project, Session, command

if TYPE_CHECKING:
    from isoloss.client.documents import Sweep, Trial

app = typer.Typer(
    name="sweep", help="Sweeps: small models trained over a space of settings.", no_args_is_help=True
)

SweepName = Annotated[str, typer.Argument(help="The sweep's name or id.")]
OVER = ("finished", "diverged", "pruned", "unfinished", "cancelled", "failed")


class Strategy(StrEnum):
    GRID = "grid"
    RANDOM = "random"
    HALVING = "halving"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Its name; its runs are called NAME-000 and so on.")],
    project: Project,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting: width=64, a list peak_lr=1e-3,2e-3, or a log range peak_lr=5e-4:1.6e-2:6, whose last "
            "part, the number of values, a random sweep does without; schedule takes JSON. Repeat it.",
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="The space as JSON, or @file.", show_default=False)
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="How its points are chosen and kept.")] = Strategy.GRID,
    trials: Annotated[int | None, typer.Option(help="The most trials.", show_default="all")] = None,
    device_hours: Annotated[
        float | None, typer.Option(help="Hours of devices that it may take.", show_default="no limit")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="When it ends at the latest, RFC 3339.", show_default="never")
    ] = None,
    data: Annotated[
        str, typer.Option(help="What is trained on: a name below the workers' ISOLOSS_PROXY_DATA.")
    ] = "python-stdlib",
    measure: Annotated[
        list[str] | None, typer.Option(help="Something to measure beside the loss; repeat it.")
    ] = None,
    device: Annotated[Device, typer.Option(help="What trains it.")] = Device.AUTO,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn of the space.")] = 0,
    eta: Annotated[
        int | None, typer.Option(help="halving keeps at least one of so many at a rung.", show_default="3")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A label of its runs; repeat it.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = False,
) -> None:
    """Have small models trained over a space; every point of it is checked before any is trained."""
    given = {} if space is None else json_object("--space", space)
    given |= pairs("--axis", axis, _axis)
    if not given:
        raise BadArgument(field="--axis", reason="a sweep needs a space: give --axis or --space")
    budget = {"trials": trials, "device_hours": device_hours, "deadline": deadline}
    sweep = session.client.sweeps.create(
        project,
        name,
        given,
        strategy=strategy.value,
        budget={key: value for key, value in budget.items() if value is not None},
        data=data,
        measure=measure or (),
        device=device.value,
        seed=seed,
        halving=None if eta is None else {"eta": eta},
        tags=tag or (),
    )
    sweep = _waited(session, project, sweep) if wait else sweep
    session.output.show(sweep, lambda: _show(session, sweep))


@command(app, "list")
def list_all(session: Session, project: Project) -> None:
    """List the sweeps."""
    found = list(session.client.sweeps.list(project))
    rows = [
        [one["name"], one["strategy"], one["status"], _over(one), one["device"], moment(one["created_at"])]
        for one in found
    ]
    columns = ["sweep", "strategy", "status", "trials done", "device", "created"]
    session.output.show(found, lambda: session.output.table(columns, rows, whole=columns))


@command(app, "show")
def show(
    session: Session,
    sweep: SweepName,
    project: Project,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = False,
) -> None:
    """Show a sweep: how each trial stands, what was done and what was spared."""
    found = session.client.sweeps.get(project, sweep)
    found = _waited(session, project, found) if wait else found
    session.output.show(found, lambda: _show(session, found))


@command(app, "pause")
def pause(session: Session, sweep: SweepName, project: Project) -> None:
    """Have nothing of a sweep train until it is resumed."""
    _moved(session, session.client.sweeps.pause(project, sweep))


@command(app, "resume")
def resume(session: Session, sweep: SweepName, project: Project) -> None:
    """Have the paused trials of a sweep go on from where they stood."""
    _moved(session, session.client.sweeps.resume(project, sweep))


@command(app, "cancel")
def cancel(session: Session, sweep: SweepName, project: Project) -> None:
    """End a sweep; its runs keep their points."""
    _moved(session, session.client.sweeps.cancel(project, sweep))


def _moved(session: Session, sweep: Sweep) -> None:
    session.output.show(
        sweep, lambda: session.output.line(f"Sweep {sweep['name']} is {sweep['status']}: {_counts(sweep)}.")
    )


def _axis(text: str) -> Any:
    """One value, a list with commas, a range low:high or low:high:count, or JSON."""
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"this is not JSON ({error})") from error
    if ":" in text:
        low, high, *count = text.split(":")
        if len(count) > 1:
            raise ValueError("a range is low:high or low:high:count")
        ends = {"low": scalar(low), "high": scalar(high), "scale": "log"}
        return ends | ({"count": scalar(count[0])} if count else {})
    values = [scalar(part.strip()) for part in text.split(",")]
    return values if "," in text else values[0]


def _waited(session: Session, project: str, sweep: Sweep) -> Sweep:
    try:
        with session.output.progress("Training") as advance:
            return session.client.sweeps.wait(
                project, sweep["id"], on_progress=lambda seen: advance(_share(seen), _counts(seen))
            )
    except KeyboardInterrupt:
        again = f"isoloss sweep show {sweep['name']} --project {project}"
        session.output.hint(f"It goes on without you: {again}")
        raise


def _share(sweep: Sweep) -> float:
    """The share of the steps that are done, or never will be."""
    steps = sweep["done"]["steps"] + sweep["saved"]["steps"] + sweep["left_undone"]["steps"]
    return steps / max(1, sweep["planned"]["steps"])


def _show(session: Session, sweep: Sweep) -> None:
    line = session.output.line
    line(
        f"Sweep {sweep['name']} ({sweep['strategy']}, {sweep['device']}) is {sweep['status']}.", style="bold"
    )
    for said in (sweep["reason"], sweep["hint"]):
        if said:
            line(f"{said[0].upper()}{said[1:]}.")
    line(f"Trials: {_counts(sweep)}.")
    line(f"Done: {_work(sweep['done'])}, {number(sweep['done']['repeated_steps'])} steps of it twice.")
    for title, work in (("Spared by pruning", sweep["saved"]), ("Left undone", sweep["left_undone"])):
        if work["trials"]:
            line(f"{title}: {_work(work)}, in {number(work['trials'])} trials.")
    rows = [_row(trial) for trial in sweep.get("trials", [])]
    columns = ["run", "point", "status", "step", "final loss", "note"]
    session.output.table(columns, rows, right=["step"], whole=["run", "status", "step"])


def _row(trial: Trial) -> list[str]:
    point = ", ".join(f"{name} {_value(value)}" for name, value in trial["point"].items())
    notes = [trial["message"] or "", *trial["notes"]]
    step = f"{trial['step']:,} of {trial['total_steps']:,}"
    return [trial["run_id"], point, trial["status"], step, _final(trial), "; ".join(filter(None, notes))]


def _value(value: Any) -> str:
    return str(value.get("kind", value)) if isinstance(value, dict) else number(value)


def _final(trial: Trial) -> str:
    told = trial["forecast"]
    if trial["final_loss"] is not None:
        return number(trial["final_loss"])
    if told is None:
        return "-"
    lower, upper = told["lower"], told["upper"]
    bounds = None if lower is None or upper is None else [lower, upper]
    return f"~{with_interval(told['value'], bounds)}"


def _work(work: Any) -> str:
    time = "" if work["device_seconds"] is None else f", {number(work['device_seconds'], 3)} s"
    return f"{number(work['steps'])} steps, {number(work['tokens'])} tokens{time}"


def _over(sweep: Sweep) -> str:
    counts = sweep["counts"]
    return f"{sum(counts.get(status, 0) for status in OVER)} of {sum(counts.values())}"


def _counts(sweep: Sweep) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(sweep["counts"].items()))

"""`isoloss recommend` and `isoloss pareto`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from isoloss.cli.advice_view import show_front, show_recommendation
from isoloss.cli.arguments import MissingArgument, pairs, selection
from isoloss.cli.session import Project, Session, command

if TYPE_CHECKING:
    from isoloss.client.advice import Advice
    from isoloss.client.documents import ParetoFront, Recommendation

Document = TypeVar("Document", "Recommendation", "ParetoFront")

Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        help="What the run may take, as in devices=64; repeat it. max_batch_tokens, devices, tokens_per_second, "
        "flops_per_second, deadline_hours, compute_flops, price_per_device_hour, width, depth.",
    ),
]
Priors = Annotated[
    list[str] | None,
    typer.Option(
        "--prior",
        help="A published law that may enter where the runs say little, as in power_lines.timescale; repeat it.",
    ),
]
Runs = Annotated[list[str] | None, typer.Option("--run", help="A run that it rests on; repeat it.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="Rest on the runs with this tag; repeat it for those with all."),
]
Recipe = Annotated[str | None, typer.Option(help="Rest on the runs of this recipe.")]
Where = Annotated[str | None, typer.Option(help="Rest on the runs for which this holds.")]
All = Annotated[bool, typer.Option("--all", help="Rest on all runs of the project, as it does by default.")]
Target = Annotated[str | None, typer.Option(help="loss, val_loss or reward.")]
Bootstrap = Annotated[int | None, typer.Option(help="Resamples for the intervals.", show_default="200")]
Level = Annotated[float | None, typer.Option(help="Level of the intervals.", show_default="0.9")]
Seed = Annotated[int | None, typer.Option(help="Seed of the resamples.", show_default="0")]
Kind = Annotated[str | None, typer.Option(help="total, non_embedding or active.")]
Shown = Annotated[str | None, typer.Option("--show", help="Show the one of this id, and ask for none.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "recommend")(recommend)
    command(app, "pareto")(pareto)


def recommend(
    session: Session,
    project: Project,
    n_params: Annotated[float | None, typer.Option(help="Parameters of the run.")] = None,
    n_tokens: Annotated[float | None, typer.Option(help="Tokens that it trains on.")] = None,
    constraint: Limit = None,
    prior: Priors = None,
    run: Runs = None,
    tag: Tags = None,
    recipe: Recipe = None,
    where: Where = None,
    all_runs: All = False,
    target: Target = None,
    bootstrap: Bootstrap = None,
    level: Level = None,
    seed: Seed = None,
    n_params_kind: Kind = None,
    show: Shown = None,
    wait: Wait = True,
) -> None:
    """Recommend how a run that was not trained is best set, as finished runs say."""
    nouns = session.client.recommendations
    if show is not None:
        told = nouns.get(project, show)
    else:
        told = nouns.create(
            project,
            n_params=_needed("--n-params", n_params),
            n_tokens=_needed("--n-tokens", n_tokens),
            constraints=pairs("--constraint", constraint, float),
            priors=prior or (),
            select=_selection(run, tag, recipe, where, all_runs),
            options=_options(target, bootstrap, level, seed, n_params_kind),
        )
        told = _waited(session, nouns, project, told, "recommend") if wait else told
    session.output.show(told, lambda: show_recommendation(session.output, told))


def pareto(
    session: Session,
    project: Project,
    target_loss: Annotated[float | None, typer.Option(help="The loss to reach, nats per token.")] = None,
    constraint: Limit = None,
    run: Runs = None,
    tag: Tags = None,
    recipe: Recipe = None,
    where: Where = None,
    all_runs: All = False,
    target: Target = None,
    bootstrap: Bootstrap = None,
    level: Level = None,
    seed: Seed = None,
    n_params_kind: Kind = None,
    show: Shown = None,
    wait: Wait = True,
) -> None:
    """List the sizes, data and batches that reach a loss at the fewest steps and operations."""
    nouns = session.client.pareto
    if show is not None:
        front = nouns.get(project, show)
    else:
        front = nouns.create(
            project,
            target_loss=_needed("--target-loss", target_loss),
            constraints=pairs("--constraint", constraint, float),
            select=_selection(run, tag, recipe, where, all_runs),
            options=_options(target, bootstrap, level, seed, n_params_kind),
        )
        front = _waited(session, nouns, project, front, "pareto") if wait else front
    session.output.show(front, lambda: show_front(session.output, front))


def _needed(option: str, value: float | None) -> float:
    if value is None:
        raise MissingArgument(
            field=option, reason="it says what is asked for (--show ID shows an earlier answer)"
        )
    return value


def _selection(
    run: list[str] | None, tag: list[str] | None, recipe: str | None, where: str | None, all_runs: bool
) -> dict[str, Any]:
    """The runs that are meant: all of the project where none are named."""
    named = any((run, tag, recipe, where))
    return selection(run, tag, recipe, where, all_runs or not named)


def _options(
    target: str | None,
    bootstrap: int | None,
    level: float | None,
    seed: int | None,
    n_params_kind: str | None,
) -> dict[str, Any]:
    options = {
        "target": target,
        "bootstrap": bootstrap,
        "level": level,
        "seed": seed,
        "n_params_kind": n_params_kind,
    }
    return {name: value for name, value in options.items() if value is not None}


def _waited(session: Session, nouns: Advice[Document], project: str, queued: Document, name: str) -> Document:
    try:
        with session.output.progress("Fitting") as advance:
            return nouns.wait(
                project,
                queued["id"],
                on_progress=lambda job: advance(job.get("progress") or 0.0, job.get("message") or ""),
            )
    except KeyboardInterrupt:
        again = f"isoloss {name} --show {queued['id']} --project {project}"
        session.output.hint(f"It goes on without you: {again}")
        raise

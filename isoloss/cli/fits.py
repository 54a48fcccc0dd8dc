"""`isoloss fit`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli.arguments import BadArgument, bounds, given_fit, pairs, prior, selection
from isoloss.cli.fit_view import show_fit, show_fits
from isoloss.cli.session import Project, Session, command

if TYPE_CHECKING:
    from isoloss.client.documents import Fit

app = typer.Typer(name="fit", help="Fits of laws to runs.", no_args_is_help=True)

FitId = Annotated[str, typer.Argument(help="The fit's id.", callback=given_fit)]


@command(app, "create")
def create(
    session: Session,
    project: Project,
    law: Annotated[
        str,
        typer.Argument(
            help="The law, as in lr_annealing; `isoloss laws` lists them. "
            "auto: the law that predicts runs best from others, one of curves or of finished runs as they are."
        ),
    ] = "auto",
    run: Annotated[list[str] | None, typer.Option(help="A run to fit; repeat it.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Fit the runs with this tag; repeat it for those that have all.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Fit the runs of this recipe.")] = None,
    where: Annotated[str | None, typer.Option(help="Fit the runs for which this holds.")] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Fit all runs of the project.")] = False,
    fix: Annotated[list[str] | None, typer.Option(help="Hold a parameter, as in alpha=0.5.")] = None,
    bound: Annotated[
        list[str] | None, typer.Option("--bounds", help="Bound a parameter, as in alpha=0:1.")
    ] = None,
    expr: Annotated[list[str] | None, typer.Option(help="Tie a parameter, as in beta=alpha/2.")] = None,
    target: Annotated[str | None, typer.Option(help="loss, val_loss or reward.")] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="Resamples for the intervals.", show_default="200")
    ] = None,
    level: Annotated[float | None, typer.Option(help="Level of the intervals.", show_default="0.9")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resamples.", show_default="0")] = None,
    starts: Annotated[int | None, typer.Option(help="Starts of the search.")] = None,
    huber_delta: Annotated[float | None, typer.Option(help="Where the loss function turns linear.")] = None,
    skip_steps: Annotated[int | None, typer.Option(help="Leave out the first steps of every run.")] = None,
    n_params_kind: Annotated[str | None, typer.Option(help="total, non_embedding or active.")] = None,
    holdout: Annotated[
        list[str] | None, typer.Option(help="A run to score instead of fitting; repeat it.")
    ] = None,
    holdout_fraction: Annotated[
        float | None, typer.Option(help="A share of the runs to score instead, at most 0.5.")
    ] = None,
    resample: Annotated[
        str | None,
        typer.Option(help="What resamples draw: runs, configurations or blocks.", show_default="by the data"),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(
            help="A reading of the law; `isoloss laws LAW` lists them.", show_default="the usual one"
        ),
    ] = None,
    priors: Annotated[
        list[str] | None,
        typer.Option(
            "--prior", help="Expect a parameter, as in alpha=0.3:0.2 (centre:sd); alpha=none drops it."
        ),
    ] = None,
    prior_strength: Annotated[
        float | None, typer.Option(help="Weight of the priors, in log loss; 0 drops them all.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile/--no-profile", help="Profile-likelihood intervals too.")
    ] = True,
    no_check: Annotated[
        list[str] | None,
        typer.Option(
            help="A check of finished runs to leave out, as in tuned or diverged; repeat it.",
            show_default="none",
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Where to compute: numpy, torch or cuda.", show_default="numpy")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Fit again whenever runs of the project end or change.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
) -> None:
    """Fit a law to runs and show its parameters with their intervals."""
    options = {
        "target": target,
        "fix": pairs("--fix", fix, float) or None,
        "bounds": pairs("--bounds", bound, bounds) or None,
        "expr": pairs("--expr", expr, str) or None,
        "huber_delta": huber_delta,
        "skip_steps": skip_steps,
        "starts": starts,
        "bootstrap": bootstrap,
        "level": level,
        "seed": seed,
        "n_params_kind": n_params_kind,
        "holdout": _holdout(holdout, holdout_fraction),
        "resample": resample,
        "convention": convention,
        "priors": pairs("--prior", priors, prior) or None,
        "prior_strength": prior_strength,
        "profile": None if profile else False,
        "backend": backend,
        "gate": dict.fromkeys(no_check, False) if no_check else None,
    }
    select = selection(run, tag, recipe, where, all_runs)
    given = {name: value for name, value in options.items() if value is not None}
    fit = session.client.fits.create(project, law, **select, options=given, follow=follow)
    if wait:
        fit = waited(session, project, fit)
    session.output.show(fit, lambda: show_fit(session.output, fit))


def _holdout(runs: list[str] | None, fraction: float | None) -> dict[str, Any] | None:
    if runs and fraction is not None:
        raise BadArgument(field="--holdout", reason="name runs or a fraction, not both")
    if fraction is not None:
        return {"fraction": fraction}
    return {"run_ids": runs} if runs else None


def waited(session: Session, project: str, fit: Fit) -> Fit:
    """The fit once it has ended, with its progress meanwhile."""
    try:
        with session.output.progress("Fitting") as advance:
            return session.client.fits.wait(
                project,
                fit["id"],
                on_progress=lambda job: advance(job.get("progress") or 0.0, job.get("message") or ""),
            )
    except KeyboardInterrupt:
        session.output.hint(f"The fit goes on without you: isoloss fit show {fit['id']} --project {project}")
        raise


@command(app, "list")
def list_all(session: Session, project: Project) -> None:
    """List the fits of a project."""
    fits = list(session.client.fits.list(project))
    session.output.show(fits, lambda: show_fits(session.output, fits))


@command(app, "show")
def show(session: Session, fit_id: FitId, project: Project) -> None:
    """Show one fit."""
    fit = session.client.fits.get(project, fit_id)
    session.output.show(fit, lambda: show_fit(session.output, fit))


@command(app, "unfollow")
def unfollow(session: Session, fit_id: FitId, project: Project) -> None:
    """Keep a fit's result from now on, whatever runs end."""
    fit = session.client.fits.unfollow(project, fit_id)
    said = f"Fit {fit_id} stays at revision {fit.get('revision', 0)}."
    session.output.show(fit, lambda: session.output.line(said))

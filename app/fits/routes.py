"""Fits: ask for one, list, show; predictions from one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from app.auth import Access, Reading, Writing
from app.bodies import StrictRoute
from app.fits.checks import check_counts, check_target, named, rows_beside, rows_of, rows_of_any
from app.fits.schemas import (
    FitDocument,
    NewFit,
    NewPrediction,
    PredictionDocument,
    QueuedFitDocument,
)
from app.idempotency import Idempotent
from app.schemas import PageOf, identifier, page_query, problems
from isoloss.errors import InvalidInput, InvalidSchedule, NotReady, UnusableData
from isoloss.fitting import AUTO, Fit, FitOptions, check_of_any_law, check_options
from isoloss.laws import LAWS, TableLaw
from isoloss.observations.tables import SUMMARY_FIELDS
from isoloss.readings import READERS
from isoloss.schedules import Schedule, schedule_from_spec
from isoloss.schedules.pieces import SquareRoot
from store import fits, following, queue, runs
from store.pages import Asked
from store.readings import readable
from store.run_tables import are_table, table_of
from store.tables import Run

router = APIRouter(prefix="/v1/projects/{project}/fits", tags=["fits"], route_class=StrictRoute)

MAX_SUMMED_STEPS = 2_000_000
_LAWS_OF_OUTCOMES = [
    name for name, law in LAWS.items() if isinstance(law, TableLaw) and law.predicts_outcomes
]


@router.post(
    "",
    status_code=202,
    response_model=QueuedFitDocument,
    responses=problems(400, 401, 403, 404, 422, 503),
)
def create_fit(body: NewFit, access: Writing, once: Idempotent) -> Response:
    """Ask for a fit of a law to runs; a worker does it, and `GET` of the fit or of its job tells how it stands.

    With `follow` it is done again whenever a run of the project that has ended changes, from where it stood, and
    left alone where its data have not changed.
    """
    return once.answer(access, 202, lambda: _queued(access, body))


@router.get("", responses=problems(401, 403, 404, 422, 503))
def list_fits(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[FitDocument]:
    """List the project's fits, the oldest first; `where` and `sort` know `law`, `status` and `created_at`."""
    page = fits.page(access.session, access.project_id, asked)
    return PageOf(items=[FitDocument.of(fit) for fit in page.items], next_cursor=page.next_cursor)


@router.get("/{fit_id}", responses=problems(401, 403, 404, 503))
def get_fit(fit_id: str, access: Reading) -> FitDocument:
    """Show a fit: parameters with intervals, errors, a verdict with its reasons, and where it came from."""
    return FitDocument.of(fits.get(access.session, identifier("fit", fit_id), access.project_id))


@router.post("/{fit_id}/unfollow", responses=problems(401, 403, 404, 503))
def unfollow(fit_id: str, access: Writing) -> FitDocument:
    """Make a fit that follows its runs keep its result from now on; again changes nothing."""
    return FitDocument.of(following.stop(access.session, identifier("fit", fit_id), access.project_id))


@router.post("/{fit_id}/predictions", responses=problems(400, 401, 403, 404, 409, 422, 503))
def predict(fit_id: str, body: NewPrediction, access: Reading) -> PredictionDocument:
    """Predict a run that need not have been trained.

    A law of loss curves predicts the losses under a `schedule`, a law of finished runs the outcome of a `config`.
    409 where the fit has not succeeded or determines nothing, 422 where what the law predicts from is missing.
    """
    fit = _found(access, fit_id)
    schedule = None if body.schedule is None else bounded(body.schedule)
    predicted = fit.predict(schedule=schedule, **body.keywords())
    return PredictionDocument.model_validate(predicted.as_dict())


def _found(access: Access, fit_id: str) -> Fit:
    """What a fit found. Raises NotFound, and NotReady also where another version wrote it otherwise."""
    state = fits.state(access.session, identifier("fit", fit_id), access.project_id)
    try:
        return Fit.from_document(state)
    except InvalidInput as error:
        reason = "another version wrote its result; ask for the fit again"
        raise NotReady(kind="fit", name=fit_id, reason=reason) from error


def bounded(spec: Mapping[str, Any]) -> Schedule:
    """The schedule of a prediction, which is made while the caller waits and others want their turn."""
    listed = spec.get("lr")
    _check_summed("lr", len(listed) if isinstance(listed, list) else 0)  # before a copy of the list is made
    schedule = schedule_from_spec(spec)
    roots = [piece.n_steps for piece in schedule.pieces if isinstance(piece, SquareRoot)]
    _check_summed("decay_shape", sum(roots))
    return schedule


def _check_summed(field: str, n_steps: int) -> None:
    if n_steps > MAX_SUMMED_STEPS:
        reason = f"{n_steps} steps would have to be summed one by one; a prediction takes {MAX_SUMMED_STEPS}"
        raise InvalidSchedule(field=field, reason=reason)


def _queued(access: Access, body: NewFit) -> QueuedFitDocument:
    _check(access, body)
    session, project_id = access.session, access.project_id
    if body.follow:
        following.start(session, project_id)
    options, select = body.options.sent(), body.select.chosen()
    fit = fits.create(session, project_id, body.law, select, options, follow=body.follow)
    lock = following.lock_of(fit.id) if body.follow else None
    fit.job.queue_id = queue.defer(session, "fit", {"job_id": str(fit.job_id)}, lock=lock)
    return QueuedFitDocument(id=fit.id, job_id=fit.job_id, law=fit.law, status="queued")


def _check(access: Access, body: NewFit) -> None:
    """Refuse now what a worker would refuse later."""
    if body.law not in (AUTO, *LAWS):
        raise InvalidInput(field="law", reason=f"{body.law!r} is not one of {', '.join((AUTO, *LAWS))}")
    with named("options"):
        options = FitOptions.from_mapping(body.options.sent())
        if body.law == AUTO:
            check_of_any_law(body.options.sent())
        else:
            check_options(body.law, options)
            check_target(LAWS[body.law], body.options.sent())
    with named("select"):
        chosen = runs.chosen(access.session, access.project_id, body.select.chosen())
    check_counts(chosen, options.n_params_kind)
    _check_holdout(body, chosen, _usable(access, body, options, chosen))


def _usable(access: Access, body: NewFit, options: FitOptions, chosen: Sequence[Run]) -> set[str]:
    """The chosen runs that may have all that the law needs. Raises UnusableData where none has."""
    sent = body.options.sent()
    if body.law in READERS:
        logged, rows = readable(access.session, body.law, chosen, sent)
        return logged if rows is None else logged | rows_beside(logged, body.law, options, rows)
    if body.law == AUTO and are_table(chosen, sent):
        return rows_of_any(_LAWS_OF_OUTCOMES, options, table_of(chosen, sent))
    if isinstance(LAWS.get(body.law), TableLaw):
        return rows_of(body.law, options, table_of(chosen, sent))
    usable = {run.run_id for run in chosen if _may_have_rates(run)}
    if not usable:
        reason = "no learning rate is known of any of these runs: declare a schedule or log lr"
        outcome = f"summary.{SUMMARY_FIELDS[options.target]}"
        nor_table = f"; nor has any of them {outcome}, for a law of finished runs"
        raise UnusableData(reason=reason + (nor_table if body.law == AUTO else ""))
    return usable


def _check_holdout(body: NewFit, chosen: Sequence[Run], usable: set[str]) -> None:
    holdout = body.options.holdout
    if holdout is None:
        return
    unknown = sorted(set(holdout.run_ids or ()) - {run.run_id for run in chosen})
    if unknown:
        raise InvalidInput(
            field="options.holdout.run_ids", reason=f"run {unknown[0]!r} is not among the chosen"
        )
    fitted = usable - set(holdout.run_ids or ())
    if body.law in READERS and fitted:
        return  # a share is one of readings, of which a run has many
    if len(fitted) <= math.ceil((holdout.fraction or 0) * len(fitted)):
        raise InvalidInput(field="options.holdout", reason="leaves no run to fit")


def _may_have_rates(run: Run) -> bool:
    return run.schedule is not None or "lr" in run.columns or run.parent_id is not None

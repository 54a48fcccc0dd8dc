"""Fits: ask for one, list, show; predictions from one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.auth import Access, Reading, Writing
from app.bodies import StrictRoute
from app.fits.schemas import FitDocument, NewFit, NewPrediction, PredictionDocument, QueuedFitDocument
from app.idempotency import Idempotent
from app.schemas import PageOf, identifier, page_query, problems
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting import Fit, FitOptions
from isoloss.laws import LAWS
from isoloss.observations import n_params_of
from store import fits, queue, runs
from store.pages import Asked
from store.tables import Run

router = APIRouter(prefix="/v1/projects/{project}/fits", tags=["fits"], route_class=StrictRoute)


@router.post(
    "",
    status_code=202,
    response_model=QueuedFitDocument,
    responses=problems(400, 401, 403, 404, 422, 503),
)
def create_fit(body: NewFit, access: Writing, once: Idempotent) -> Response:
    """Ask for a fit of a law to runs; a worker does it, and `GET` of the fit or of its job tells how it stands."""
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


@router.post("/{fit_id}/predictions", responses=problems(400, 401, 403, 404, 409, 422, 503))
def predict(fit_id: str, body: NewPrediction, access: Reading) -> PredictionDocument:
    """Predict a run that need not have been trained; 409 where the fit has not succeeded or determines nothing."""
    fit = Fit.from_document(fits.state(access.session, identifier("fit", fit_id), access.project_id))
    if body.schedule is None:
        raise InvalidInput(field="schedule", reason=f"the law {fit.law_name} predicts from one")
    return PredictionDocument.model_validate(fit.predict(**body.keywords()).as_dict())


def _queued(access: Access, body: NewFit) -> QueuedFitDocument:
    _check(access, body)
    fit = fits.create(access.session, access.project_id, body.law, body.select.chosen(), body.options)
    fit.job.queue_id = queue.defer(access.session, "fit", {"job_id": str(fit.job_id)})
    return QueuedFitDocument(id=fit.id, job_id=fit.job_id, law=fit.law, status="queued")


def _check(access: Access, body: NewFit) -> None:
    """Refuse now what a worker would refuse later."""
    if body.law not in LAWS:
        raise InvalidInput(field="law", reason=f"{body.law!r} is not one of {', '.join(LAWS)}")
    options = FitOptions.from_mapping(body.options)
    options.constrain(LAWS[body.law])
    chosen = runs.chosen(access.session, access.project_id, body.select.chosen())
    _check_counts(chosen, options.n_params_kind)
    _check_holdout(chosen, options)
    if not any(_may_have_rates(run) for run in chosen):
        raise UnusableData(
            reason="no learning rate is known of any of these runs: declare a schedule or log lr"
        )


def _check_counts(chosen: Sequence[Run], asked: str | None) -> None:
    counts = [n_params_of(run.config, asked) for run in chosen]
    kinds = sorted({kind for kind, count in counts if kind is not None and count is not None})
    if len(kinds) > 1:
        reason = f"the runs count their parameters in {' and '.join(kinds)}; ask for one kind"
        raise InvalidInput(field="options.n_params_kind", reason=reason)


def _check_holdout(chosen: Sequence[Run], options: FitOptions) -> None:
    asked = (options.holdout or {}).get("run_ids", ())
    unknown = sorted(set(asked) - {run.run_id for run in chosen})
    if unknown:
        raise InvalidInput(
            field="options.holdout.run_ids", reason=f"run {unknown[0]!r} is not among the chosen"
        )


def _may_have_rates(run: Run) -> bool:
    return run.schedule is not None or "lr" in run.columns or run.parent_id is not None

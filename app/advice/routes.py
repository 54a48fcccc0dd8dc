"""Recommendations and Pareto fronts: ask for one, list, show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.advice.schemas import (
    NewAdvice,
    NewPareto,
    NewRecommendation,
    ParetoDocument,
    QueuedAdviceDocument,
    RecommendationDocument,
)
from app.auth import Access, Reading, Writing
from app.bodies import StrictRoute
from app.fits.checks import check_counts, named, rows_of, rows_of_any
from app.idempotency import Idempotent
from app.schemas import PageOf, identifier, page_query, problems
from isoloss.advice import Constraints
from isoloss.advice.agreement import check_reach, check_resamples
from isoloss.advice.constraints import positive
from isoloss.advice.pareto import LAWS_NEEDED, limits_of_sizes
from isoloss.advice.published import chosen_priors
from isoloss.advice.recommendation import LAWS_ASKED
from isoloss.errors import UnusableData
from isoloss.fitting import FitOptions
from isoloss.observations import RunTable
from store import advice, queue, runs
from store.advice import Kind
from store.pages import Asked
from store.readings import readable
from store.run_tables import table_of
from store.tables import Advice

recommendations = APIRouter(
    prefix="/v1/projects/{project}/recommendations", tags=["recommendations"], route_class=StrictRoute
)
pareto = APIRouter(prefix="/v1/projects/{project}/pareto", tags=["pareto"], route_class=StrictRoute)


@recommendations.post(
    "",
    status_code=202,
    response_model=QueuedAdviceDocument,
    responses=problems(400, 401, 403, 404, 422, 503),
)
def create_recommendation(body: NewRecommendation, access: Writing, once: Idempotent) -> Response:
    """Ask how a run of a size and data is best set, as finished runs say.

    A worker fits the laws of settings and of the loss; `GET` of the recommendation, or of its job, tells how it
    stands.
    """

    def create() -> QueuedAdviceDocument:
        positive(body.n_params, "n_params")
        positive(body.n_tokens, "n_tokens")
        Constraints.of(body.asked()["constraints"])
        chosen_priors(body.priors)
        options, table = _read(access, body)
        with named("options"):
            check_resamples(options)
        check_reach(table, body.n_params, body.n_tokens)
        if not body.priors and not _logged_noise(access, body):
            rows_of_any((*LAWS_ASKED, "steps_to_target"), options, table)
        return _queued(access, "recommendation", body)

    return once.answer(access, 202, create)


@recommendations.get("", responses=problems(401, 403, 404, 422, 503))
def list_recommendations(
    access: Reading, asked: Annotated[Asked, Depends(page_query)]
) -> PageOf[RecommendationDocument]:
    """List the project's recommendations, the oldest first; `where` and `sort` know `status` and `created_at`."""
    page = advice.page(access.session, "recommendation", access.project_id, asked)
    return PageOf(items=[RecommendationDocument.of(one) for one in page.items], next_cursor=page.next_cursor)


@recommendations.get("/{recommendation_id}", responses=problems(401, 403, 404, 503))
def get_recommendation(recommendation_id: str, access: Reading) -> RecommendationDocument:
    """Show a recommendation: settings with intervals, what being wrong costs, and the fits that they rest on.

    What the runs do not determine is null with the reason; `wanted` lists the cheapest runs that would.
    """
    return RecommendationDocument.of(_found(access, "recommendation", recommendation_id))


@pareto.post(
    "",
    status_code=202,
    response_model=QueuedAdviceDocument,
    responses=problems(400, 401, 403, 404, 422, 503),
)
def create_pareto(body: NewPareto, access: Writing, once: Idempotent) -> Response:
    """Ask which sizes, data and batches reach a loss, of which none takes more steps and more operations.

    It needs `chinchilla` and `critical_batch`: where the runs do not determine both, it fails with the reason.
    """

    def create() -> QueuedAdviceDocument:
        positive(body.target_loss, "target_loss")
        limits_of_sizes(body.asked()["constraints"])
        options, table = _read(access, body)
        _check_all(options, table)
        return _queued(access, "pareto", body)

    return once.answer(access, 202, create)


@pareto.get("", responses=problems(401, 403, 404, 422, 503))
def list_fronts(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[ParetoDocument]:
    """List the project's fronts, the oldest first; `where` and `sort` know `status` and `created_at`."""
    page = advice.page(access.session, "pareto", access.project_id, asked)
    return PageOf(items=[ParetoDocument.of(one) for one in page.items], next_cursor=page.next_cursor)


@pareto.get("/{front_id}", responses=problems(401, 403, 404, 503))
def get_front(front_id: str, access: Reading) -> ParetoDocument:
    """Show a front: its choices, how far they reach beyond the runs, and the fits that they rest on."""
    return ParetoDocument.of(_found(access, "pareto", front_id))


def _found(access: Access, kind: Kind, advice_id: str) -> Advice:
    return advice.get(access.session, kind, identifier(advice.NAMES[kind], advice_id), access.project_id)


def _read(access: Access, body: NewAdvice) -> tuple[FitOptions, RunTable]:
    """The options and the chosen runs; refuses now what a worker would refuse later."""
    sent = body.options.sent()
    with named("options"):
        options = FitOptions.from_mapping(sent)
    with named("select"):
        chosen = runs.chosen(access.session, access.project_id, body.select.chosen())
    check_counts(chosen, options.n_params_kind)
    return options, table_of(chosen, sent)


def _logged_noise(access: Access, body: NewAdvice) -> bool:
    """Whether runs have readings of the noise of gradients, which tell a critical batch without any other run."""
    chosen = runs.chosen(access.session, access.project_id, body.select.chosen())
    try:
        readable(access.session, "noise_scale", chosen, body.options.sent())
    except UnusableData:
        return False
    return True


def _check_all(options: FitOptions, table: RunTable) -> None:
    for law in LAWS_NEEDED:
        try:
            rows_of(law, options, table)
        except UnusableData as error:
            raise UnusableData(reason=f"{law}: {error}") from None


def _queued(access: Access, kind: Kind, body: NewAdvice) -> QueuedAdviceDocument:
    session = access.session
    given = advice.create(session, access.project_id, kind, body.select.chosen(), body.asked())
    given.job.queue_id = queue.defer(session, kind, {"job_id": str(given.job_id)})
    return QueuedAdviceDocument(id=given.id, job_id=given.job_id, status="queued")

"""Forecasts of runs that train: of one, and of all of a project."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.auth import Reading
from app.forecasts.schemas import BriefForecastDocument, ForecastDocument
from app.schemas import PageOf, page_query, problems
from store import alarms, forecasts, runs
from store.pages import Asked

of_run = APIRouter(prefix="/v1/projects/{project}/runs/{run_id}/forecast", tags=["forecasts"])
of_project = APIRouter(prefix="/v1/projects/{project}/forecasts", tags=["forecasts"])


@of_run.get("", responses=problems(401, 403, 404, 409, 503))
def get_forecast(run_id: str, access: Reading) -> ForecastDocument:
    """Show how a run is expected to end: its final loss with a band, the rest of its curve, and its alarms.

    It is made anew at most once a minute while the run trains under a declared schedule and sends points, from
    the project's finished runs of the same data, tokenizer and size. 404 where none was tried yet, 409 with the
    reason where none can be made.
    """
    run = runs.get(access.session, access.project_id, run_id)
    found = forecasts.get(access.session, run)
    return ForecastDocument.of(run, found, alarms.of_run(access.session, run.id))


@of_project.get("", responses=problems(401, 403, 404, 422, 503))
def list_forecasts(
    access: Reading, asked: Annotated[Asked, Depends(page_query)]
) -> PageOf[BriefForecastDocument]:
    """List the forecasts of the runs that train, each with the alarms that are not over.

    `where` and `sort` know `run_id`, `status`, `step` and `updated_at`.
    """
    session = access.session
    page = forecasts.page(session, access.project_id, asked)
    keys = [forecast.run for forecast in page.items]
    found, given = runs.by_key(session, keys), alarms.open_of(session, keys)
    items = [BriefForecastDocument.brief(found[one.run], one, given.get(one.run, [])) for one in page.items]
    return PageOf(items=items, next_cursor=page.next_cursor)

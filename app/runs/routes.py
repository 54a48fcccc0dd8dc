"""Runs: declare, list, show, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from app.auth import Reading, Writing
from app.bodies import StrictRoute
from app.runs.schemas import RunDocument, RunIn
from app.schemas import MAX_NAME, NAME_PATTERN, PageOf, page_query, problems
from store import following, runs
from store.intake import declare
from store.pages import Asked

router = APIRouter(prefix="/v1/projects/{project}/runs", tags=["runs"], route_class=StrictRoute)

RunId = Annotated[
    str,
    Path(
        max_length=MAX_NAME,
        pattern=NAME_PATTERN,
        description="A name that you choose, so that a retry makes no second run.",
    ),
]


@router.put(
    "/{run_id}",
    responses={
        201: {"description": "The run is new.", "model": RunDocument},
        **problems(400, 401, 403, 404, 409, 422, 503),
    },
)
def put_run(run_id: RunId, body: RunIn, access: Writing, response: Response) -> RunDocument:
    """Declare a run, or replace what was declared of it; the same again changes nothing.

    201 for a new run, 200 for one that was there. Points are sent separately and stay; while some of them are
    not finite the run is `diverged`, whether it is said to be `running` or `finished`. 409 for a schedule that
    ends before a step that another run branches off at.
    """
    run, is_new = declare(access.session, access.project_id, run_id, body.specification())
    if is_new:
        response.status_code = 201
    return RunDocument.of(run, runs.parent_name(access.session, run))


@router.get("", responses=problems(401, 403, 404, 422, 503))
def list_runs(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[RunDocument]:
    """List the project's runs, in the order in which they were declared unless `sort` says another.

    `where` and `sort` know `config.*`, `summary.*`, `status`, `recipe`, `run_id`, `name`, `last_step`,
    `created_at` and `updated_at`, and `where` also `tags`. A missing field equals `null` alone.
    """
    page = runs.page(access.session, access.project_id, asked)
    items = [RunDocument.of(run, parent) for run, parent in page.items]
    return PageOf(items=items, next_cursor=page.next_cursor)


@router.get("/{run_id}", responses=problems(401, 403, 404, 503))
def get_run(run_id: str, access: Reading) -> RunDocument:
    """Show a run."""
    run = runs.get(access.session, access.project_id, run_id)
    return RunDocument.of(run, runs.parent_name(access.session, run))


@router.delete("/{run_id}", status_code=204, responses=problems(401, 403, 404, 409, 503))
def delete_run(run_id: str, access: Writing) -> None:
    """Delete a run with its points; 409 while other runs branch off it. This cannot be undone."""
    runs.delete(access.session, access.project_id, run_id)
    following.runs_changed(access.session, access.project_id)

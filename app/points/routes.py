"""Points: send, read, rewind."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from app.auth import Reading, Unopened, Writing
from app.bodies import StrictRoute, raw_body
from app.metrics import METRICS
from app.points.columns import points_of
from app.points.encoding import as_csv, as_json
from app.points.schemas import BATCH_BODY, CSV_TOO, AcceptedDocument, PointsDocument, Rewind, RewoundDocument
from app.schemas import problems
from isoloss.observations.point_columns import MAX_STEP
from store import following, points, runs
from store.intake import accept
from store.thinning import MIN_POINTS, Scale, Thinned, thin

router = APIRouter(prefix="/v1/projects/{project}/runs/{run_id}", tags=["points"], route_class=StrictRoute)


@router.post(
    "/points",
    openapi_extra=BATCH_BODY,
    response_model=AcceptedDocument,
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
def append_points(
    run_id: str,
    door: Unopened,
    body: Annotated[bytes, Depends(raw_body)],
    on_conflict: Annotated[
        Literal["error", "replace"],
        Query(
            description="What to do where a step has another value already: refuse the batch, or replace it."
        ),
    ] = "error",
) -> Response:
    """Send a batch of points, all or nothing.

    Batches come in any order. The same step with the same values is a duplicate and harmless; with another
    value it is a conflict, 409, unless `on_conflict=replace`. Columns sent separately for a step merge.
    """
    with door.open("write") as access:  # in this one thread: the dependency's way costs two more
        sent = points_of(body)
        done = accept(access.session, access.project_id, run_id, sent, on_conflict == "replace")
    METRICS.points_accepted.add(done.accepted)
    METRICS.points_duplicate.add(done.duplicates)
    answer = AcceptedDocument(accepted=done.accepted, duplicates=done.duplicates, last_step=done.last_step)
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get(
    "/points", response_model=PointsDocument, responses={**CSV_TOO, **problems(401, 403, 404, 422, 503)}
)
def read_points(
    run_id: str,
    access: Reading,
    columns: Annotated[
        str | None,
        Query(description="Columns, separated by commas; all where left out.", examples=["loss,lr"]),
    ] = None,
    from_step: Annotated[int | None, Query(ge=0, le=MAX_STEP, description="First step to return.")] = None,
    to_step: Annotated[int | None, Query(ge=0, le=MAX_STEP, description="Last step to return.")] = None,
    max_points: Annotated[
        int | None,
        Query(
            ge=MIN_POINTS,
            le=1_000_000,
            description="At most so many points, chosen to draw the same picture.",
        ),
    ] = None,
    x_scale: Annotated[Scale, Query(description="The x scale that `max_points` are chosen for.")] = "linear",
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Read the run's curve: exactly, or with `max_points` thinned for a picture.

    A branch's curve is its parent's up to and including the branch step, then its own. `Accept: text/csv`
    gives CSV.
    """
    run = runs.get(access.session, access.project_id, run_id)
    found = points.read(access.session, run, _names(columns), from_step, to_step)
    thinned = Thinned(found, {}) if max_points is None else thin(found, max_points, x_scale)
    if "text/csv" in accept:
        return StreamingResponse(as_csv(thinned.points), media_type="text/csv")
    return StreamingResponse(as_json(thinned.points, thinned.gaps), media_type="application/json")


@router.post("/rewind", responses=problems(400, 401, 403, 404, 409, 422, 503))
def rewind(run_id: str, body: Rewind, access: Writing) -> RewoundDocument:
    """Forget the run's points after a step, as a run does that goes on from a checkpoint.

    409 where another run branches off after that step.
    """
    run = points.hold(access.session, access.project_id, run_id)
    last_step = points.rewind(access.session, run, body.step)
    if run.status != "running":
        following.runs_changed(access.session, access.project_id)
    return RewoundDocument(last_step=last_step)


def _names(columns: str | None) -> list[str] | None:
    if columns is None:
        return None
    return [name for name in columns.split(",") if name and name != "step"]

"""Whether the service lives, whether it can work, and what it counts; without a key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.health.schemas import HealthDocument, ReadinessDocument
from app.metrics import exposition
from app.schemas import problems
from isoloss import __version__
from isoloss.errors import Unavailable
from store import jobs, migrate

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> HealthDocument:
    """Say that the process answers; it asks no database."""
    return HealthDocument(version=__version__)


@router.get("/readyz", responses=problems(503))
def readyz(request: Request) -> ReadinessDocument:
    """Say that the database is there and has the schema that this code needs; 503 otherwise."""
    with request.app.state.sessions() as session:
        found = migrate.revision(session.connection())
    if found is None or found != migrate.head():
        raise Unavailable(service="The database", reason=f"its schema is {found}, not {migrate.head()}")
    return ReadinessDocument(database=found)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(503)},
)
def metrics(request: Request) -> Response:
    """Counters in the text format of Prometheus."""
    with request.app.state.sessions() as session:
        text = exposition(jobs.counts(session))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

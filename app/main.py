"""The application: `create_app` puts settings, database, routes and problems together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine

from app import problems
from app.advice.routes import pareto, recommendations
from app.bodies import BodyLimit
from app.events.routes import router as events
from app.fits.routes import router as fits
from app.forecasts.routes import of_project as forecasts
from app.forecasts.routes import of_run as forecast_of_run
from app.health.routes import router as health
from app.jobs.routes import router as jobs
from app.keys.routes import router as keys
from app.laws.routes import router as laws
from app.metrics import Observed
from app.points.routes import router as points
from app.projects.routes import router as projects
from app.runs.routes import router as runs
from app.schemas import ProblemDocument
from app.settings import Settings
from app.sweeps.routes import router as sweeps
from app.webhooks.routes import router as webhooks
from isoloss import __version__
from store.engine import create_engine, create_sessions

DESCRIPTION = """Training curves in; scaling laws, predictions and their intervals out.

Every request needs `Authorization: Bearer <key>`. All values are in tokens, counts and nats. Types are strict:
strings and booleans are no numbers, and the numbers that are not finite are the strings "NaN", "Infinity" and
"-Infinity", in both directions. Times are RFC 3339 in UTC. Every error is a problem document (RFC 9457)."""

ROUTERS = (
    projects,
    runs,
    points,
    laws,
    fits,
    recommendations,
    pareto,
    forecast_of_run,
    forecasts,
    sweeps,
    jobs,
    keys,
    events,
    webhooks,
    health,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service over the database of the settings, those of the environment where none are given."""
    settings = settings or Settings.from_environment()
    engine = create_engine(
        settings.database_url,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout_s=settings.pool_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name="isoloss api",
    )
    app = FastAPI(
        title="Isoloss",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_closing(engine),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.sessions = create_sessions(engine)
    app.state.keys_seen = {}
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Observed)
    _describe_problems(app)
    return app


def _closing(engine: Engine) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        yield
        engine.dispose()

    return lifespan


def _describe_problems(app: FastAPI) -> None:
    """Add the schema that every operation's problems refer to, in place of FastAPI's own."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        schemas = document["components"]["schemas"]
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]

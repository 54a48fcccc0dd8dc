"""The event stream of a project: its runs, fits, jobs and forecasts as they change, and alarms.

The stream asks the database anew twice a second, and looks back a little each time: a transaction that began
earlier may commit later. It survives a database that comes and goes, and holds no connection between.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from app.auth import Reading
from app.problems import DATABASE_ERRORS
from app.schemas import problems
from store import events
from store.events import Change

router = APIRouter(prefix="/v1/projects/{project}/events", tags=["events"])

PERIOD_S = 0.5
LOOK_BACK = dt.timedelta(seconds=10)
HEARTBEAT_EVERY = 20  # periods

Seen = dict[tuple[str, str], dt.datetime]


@router.get(
    "",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events, each with a JSON object as its data: `run` (`run_id`, `status`, "
            "`last_step`), `fit`, `job`; `forecast` (`run_id`, `target`, `step`, `last_step`, `value`, `lower`, "
            "`upper`, `level`, `left_band`) when a run has a new one; `alarm` (`id`, `run_id`, `kind`, `step`, "
            "`message`) once for each: `left_band`, `diverged`, `silent`, and `resumed` after a silence; `sweep` "
            "(`id`, `name`, `status`, `reason`) and `trial` (`sweep_id`, `number`, `run_id`, `status`, `step`, "
            "`total_steps`, `message`).",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: run\ndata: {"run_id":"wsd-1","status":"running","last_step":1200}\n\n',
                }
            },
        },
        **problems(401, 403, 404, 503),
    },
)
def watch(request: Request, access: Reading) -> StreamingResponse:
    """Watch the project: an event for all that changes from now on, and for alarms."""
    started = events.now(access.session)
    stream = _events(request.app.state.sessions, access.project_id, started)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(
    sessions: sessionmaker[Session], project_id: int, started: dt.datetime
) -> AsyncIterator[bytes]:
    """Server-sent events until the client goes: writing to one that has gone ends this."""
    seen: Seen = {}
    since = started
    quiet = 0
    yield b": watching\n\n"
    while True:
        try:
            changes = await run_in_threadpool(_changes, sessions, project_id, since)
        except DATABASE_ERRORS:
            changes = []
        news = [change for change in changes if seen.get((change.kind, change.name)) != change.at]
        for change in news:
            seen[change.kind, change.name] = change.at
            yield b"event: %b\ndata: %b\n\n" % (change.kind.encode(), orjson.dumps(change.facts))
        if changes:
            since = max(started, changes[-1].at - LOOK_BACK)
            seen = {key: at for key, at in seen.items() if at >= since}
        quiet = 0 if news else quiet + 1
        if quiet % HEARTBEAT_EVERY == HEARTBEAT_EVERY - 1:
            yield b": still watching\n\n"
        await asyncio.sleep(PERIOD_S)


def _changes(sessions: sessionmaker[Session], project_id: int, since: dt.datetime) -> list[Change]:
    with sessions() as session:
        return events.since(session, project_id, since)

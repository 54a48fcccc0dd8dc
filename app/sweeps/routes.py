"""Sweeps: ask for one, list, show, pause, resume, cancel."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from app.auth import Access, Reading, Writing
from app.bodies import StrictRoute
from app.idempotency import Idempotent
from app.schemas import PageOf, page_query, problems
from app.sweeps.schemas import (
    Halving,
    NewSweep,
    QueuedSweepDocument,
    SweepDocument,
    SweepWithTrialsDocument,
)
from app.sweeps.views import brief, whole
from isoloss.errors import InvalidInput
from isoloss.proxies.halving import Rungs, pilots_of
from isoloss.proxies.spaces import trials_of
from store import sweeps, trainers
from store.pages import Asked
from store.sweeps import Budget, Planned
from store.tables import Sweep

router = APIRouter(prefix="/v1/projects/{project}/sweeps", tags=["sweeps"], route_class=StrictRoute)


@router.post(
    "",
    status_code=202,
    response_model=QueuedSweepDocument,
    responses=problems(400, 401, 403, 404, 409, 422, 503),
)
def create_sweep(body: NewSweep, access: Writing, once: Idempotent) -> Response:
    """Ask for small models to be trained over a space; every point of it is checked before any is trained.

    Each trial is an ordinary run, tagged `sweep:NAME`. Workers for the device take them from a queue, on any
    number of machines. 409 where the project has a sweep of this name, or a run of the name of one of its trials.
    """
    return once.answer(access, 202, lambda: _queued(access, body))


@router.get("", responses=problems(401, 403, 404, 422, 503))
def list_sweeps(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[SweepDocument]:
    """List the project's sweeps, the oldest first.

    `where` and `sort` know `name`, `status`, `strategy` and `created_at`.
    """
    page = sweeps.page(access.session, access.project_id, asked)
    return PageOf(items=[brief(access.session, one) for one in page.items], next_cursor=page.next_cursor)


@router.get("/{sweep}", responses=problems(401, 403, 404, 503))
def get_sweep(sweep: str, access: Reading) -> SweepWithTrialsDocument:
    """Show a sweep, by its id or name: how each trial stands, what was done and what was spared."""
    return whole(access.session, _found(access, sweep))


@router.post("/{sweep}/pause", responses=problems(401, 403, 404, 409, 503))
def pause_sweep(sweep: str, access: Writing) -> SweepWithTrialsDocument:
    """Pause a sweep: a trial that is trained is, within seconds, kept in a checkpoint. 409 where it has ended."""
    found = _found(access, sweep)
    sweeps.pause(access.session, found)
    return whole(access.session, found)


@router.post("/{sweep}/resume", responses=problems(401, 403, 404, 409, 503))
def resume_sweep(sweep: str, access: Writing) -> SweepWithTrialsDocument:
    """Have the paused trials of a sweep go on from where they stood. 409 where it has ended."""
    found = _found(access, sweep)
    sweeps.resume(access.session, found)
    return whole(access.session, found)


@router.post("/{sweep}/cancel", responses=problems(401, 403, 404, 503))
def cancel_sweep(sweep: str, access: Writing) -> SweepWithTrialsDocument:
    """End a sweep: its runs keep their points and are `preempted`. One that has ended stays as it is."""
    found = _found(access, sweep)
    sweeps.cancel(access.session, found)
    return whole(access.session, found)


def _found(access: Access, text: str) -> Sweep:
    try:
        key = uuid.UUID(text)
    except ValueError:
        return sweeps.by_name(access.session, text, access.project_id)
    return sweeps.get(access.session, key, access.project_id)


def _queued(access: Access, body: NewSweep) -> QueuedSweepDocument:
    if body.halving is not None and body.strategy != "halving":
        raise InvalidInput(field="halving", reason=f"a {body.strategy} sweep prunes nothing")
    asked = _asked(body)
    planned = _planned(body, asked)
    device = body.device
    if device == "auto":
        device = "cuda" if trainers.count(access.session, "cuda") else "cpu"
    hours = body.budget.device_hours
    budget = Budget(None if hours is None else float(hours) * 3600, body.budget.deadline)
    made = sweeps.create(
        access.session, access.project_id, body.name, body.strategy, device, asked, planned, budget
    )
    return QueuedSweepDocument(
        id=made.id, name=made.name, status="running", trials=len(planned), device=device
    )


def _asked(body: NewSweep) -> dict[str, Any]:
    names = {"space", "data", "measure", "seed", "tags"}
    asked = {
        **body.model_dump(include=names),
        "budget": body.budget.model_dump(mode="json", exclude_none=True),
    }
    if body.strategy == "halving":
        asked["halving"] = (body.halving or Halving()).asked()
    return asked


def _planned(body: NewSweep, asked: dict[str, Any]) -> list[Planned]:
    """The trials, each checked as training will check it."""
    configs = trials_of(
        body.space,
        body.strategy,
        n_trials=body.budget.trials,
        seed=body.seed,
        data=body.data,
        measure=body.measure,
    )
    documents = [config.document() for config in configs]
    steps = [config.total_steps for config in configs]
    if body.strategy != "halving":
        return [Planned(one, total, total) for one, total in zip(documents, steps, strict=True)]
    rungs = Rungs.of(asked["halving"]["eta"], asked["halving"]["rungs"])
    pilots = set(pilots_of(len(documents), body.seed))
    return [
        Planned(one, total, total if at in pilots else rungs.stop_at(0, total), at in pilots)
        for at, (one, total) in enumerate(zip(documents, steps, strict=True))
    ]

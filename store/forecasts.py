"""Forecasts of runs that train: what they rest on, what they said last, and what they said before."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from isoloss.errors import NotFound, NotReady
from isoloss.schedules import schedule_from_spec
from isoloss.version import __version__
from store import alarms, jobs, queue
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Forecast, Forecaster, Job, Project, Run
from store.watch import is_due
from store.where import Field

TASK = "forecast"
SOON = 1
"""Before what users ask for: a forecast takes a moment, a fit may take minutes."""

ALIKE = ("dataset", "tokenizer", "n_params", "n_params_kind", "batch_tokens")
"""What of their configuration runs have in common that tell of one another."""

TOLD = ("target", "step", "value", "lower", "upper")
TARGETS = ("val_loss", "loss")
FEWEST_ALIKE = 4
"""Finished runs with a validation loss for it to be forecast rather than the loss."""

MOST_ALIKE = 60
MOST_TRAIL = 400
MOST_JOBS_KEPT_FOR = dt.timedelta(hours=1)

FIELDS = {
    "run_id": Field(Run.run_id.expression),
    "status": Field(Run.status.expression),
    "step": Field(Forecast.step.expression),
    "updated_at": Field(sa.extract("epoch", Forecast.updated_at)),
}


@dataclass(frozen=True)
class Kind:
    """Runs that train of which the same finished ones tell, and the column that is forecast."""

    target: str
    alike: Mapping[str, Any]
    own: Mapping[str, Any]
    """What of a run also decides which of them tell of it: its peak learning rate, and if it states a decay."""

    @property
    def name(self) -> str:
        return json.dumps({"target": self.target, **self.alike, **self.own}, sort_keys=True)


@dataclass(frozen=True)
class Said:
    """A forecast that was made of a run, None for a reason; `step` is where the run stood."""

    run: int
    step: int
    document: Mapping[str, Any] | None
    reason: str | None


def queue_job(session: Session, project_id: int) -> None:
    """See to it that the project's runs are forecast: one job for all that ask."""
    lock = f"{TASK} {project_id}"
    args = {"project_id": project_id}
    queue.defer_once(session, TASK, args, lock=lock, after_s=0.0, priority=SOON)


def begin(session: Session, project_id: int, queue_id: int) -> uuid.UUID | None:
    """The job of what the queue hands out, the same when it is handed out again; None where the project is gone.

    Of those that went before none is kept for long: there is one a minute.
    """
    of_project = (Job.kind == TASK, Job.project_id == project_id)
    same = sa.select(Job.id).where(*of_project, Job.queue_id == queue_id)
    found = session.execute(same).scalar_one_or_none()
    if found is not None:
        return found
    old = Job.finished_at < sa.func.clock_timestamp() - MOST_JOBS_KEPT_FOR
    ended = sa.delete(Job).where(*of_project, sa.or_(Job.status == "succeeded", old))
    session.execute(ended, execution_options={"synchronize_session": False})
    if session.get(Project, project_id) is None:
        return None
    job = jobs.create(session, TASK, project_id)
    job.queue_id = queue_id
    session.flush()
    return job.id


def due(session: Session, project_id: int, every_s: float, most: int) -> Sequence[Run]:
    """The project's runs whose forecast is behind their points, those first that waited longest."""
    of_project = sa.select(Run).outerjoin(Forecast, Forecast.run == Run.id)
    chosen = of_project.where(Run.project_id == project_id, *is_due(every_s))
    return session.scalars(chosen.order_by(Forecast.updated_at.nulls_first(), Run.id).limit(most)).all()


def kind_of(session: Session, run: Run, known: dict[str, list[Run]]) -> tuple[Kind, list[Run]]:
    """Which finished runs tell of this one, the last of them, and of which column.

    Of the validation loss where the run and enough others have one, else of the loss. `known` keeps what was found,
    by the name of the kind.
    """
    alike = {name: run.config[name] for name in ALIKE if run.config.get(name) is not None}
    own = _own(run)
    for target in (name for name in TARGETS if name in run.columns):
        kind = Kind(target, alike, own)
        finished = _finished(session, run, kind, known)
        if target == TARGETS[-1] or len(finished) >= FEWEST_ALIKE:
            return kind, finished
    kind = Kind(TARGETS[-1], alike, own)
    return kind, _finished(session, run, kind, known)


def fingerprint(finished: Sequence[Run]) -> str:
    """What tells whether these runs have changed, without a look at their points."""
    said = [__version__, *(f"{run.id} {run.updated_at.isoformat()}" for run in finished)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def forecaster(session: Session, project_id: int, kind: Kind) -> Forecaster | None:
    """What was learned last of runs of this kind."""
    return session.get(Forecaster, (project_id, kind.name), populate_existing=True)


def unpacked(kept: Forecaster) -> dict[str, Any] | None:
    """The document of a forecaster."""
    if kept.document is None:
        return None
    document: dict[str, Any] = json.loads(zlib.decompress(kept.document))
    return document


def keep(
    session: Session,
    project_id: int,
    kind: str,
    data: str,
    document: Mapping[str, Any] | None,
    reason: str | None,
) -> None:
    """Store what was learned in the place of what was learned last."""
    packed = None if document is None else zlib.compress(json.dumps(document).encode())
    found = {"data": data, "document": packed, "reason": reason}
    made = insert(Forecaster).values(project_id=project_id, kind=kind, **found)
    session.execute(made.on_conflict_do_update(index_elements=["project_id", "kind"], set_=found))


def save(session: Session, said: Said) -> None:
    """Store a forecast as the run's last one, and give or end its alarm; of a run that is gone, nothing."""
    run = session.get(Run, said.run, populate_existing=True)
    if run is None:
        return
    before = session.get(Forecast, run.id, populate_existing=True)
    trail = [] if before is None else before.trail
    if said.document is not None:
        target = said.document["target"]
        kept = [one for one in trail if one["step"] <= said.step and one["target"] == target]
        trail = thinned([*kept, _line(said.document)])  # without what a restart went back on
    found = {"step": said.step, "document": said.document, "reason": said.reason, "trail": trail}
    made = insert(Forecast).values(run=run.id, project_id=run.project_id, **found)
    now = {**found, "updated_at": sa.func.clock_timestamp()}
    session.execute(made.on_conflict_do_update(index_elements=["run"], set_=now))
    left = None if said.document is None else said.document.get("left_band")
    if left and run.status == "running":
        alarms.sound(session, run, "left_band", str(left))
    elif said.document is not None:
        alarms.end(session, run.id, "left_band")


def thinned(trail: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trail with every other forecast of its older half left out, where it is too long."""
    if len(trail) <= MOST_TRAIL:
        return trail
    half = MOST_TRAIL // 2
    return trail[:-half:2] + trail[-half:]


def get(session: Session, run: Run) -> Forecast:
    """The run's last forecast. Raises NotFound where none was tried yet, NotReady where there is none with why."""
    found = session.get(Forecast, run.id, populate_existing=True)
    if found is None:
        raise NotFound(kind="forecast of run", name=run.run_id)
    if found.document is None:
        raise NotReady(
            kind="The forecast of run", name=run.run_id, reason=found.reason or "it cannot be made"
        )
    return found


def page(session: Session, project_id: int, asked: Asked) -> Page[Forecast]:
    """Part of the forecasts of a project's runs that train."""
    of_project = sa.select(Forecast).join(Run, Run.id == Forecast.run)
    training = of_project.where(Forecast.project_id == project_id, Run.status == "running")
    return page_of(session, training.where(Forecast.document.is_not(None)), Forecast.run, FIELDS, asked)


def _own(run: Run) -> dict[str, Any]:
    decay = (
        None if run.config.get("weight_decay") is None else run.config.get("weight_decay_kind", "lr_scaled")
    )
    return {"peak_lr": schedule_from_spec(run.schedule or {}).peak_lr, "decay": decay}


def _finished(session: Session, run: Run, kind: Kind, known: dict[str, list[Run]]) -> list[Run]:
    if kind.name in known:
        return known[kind.name]
    same = (
        Run.config.contains({name: kind.alike[name]})
        if name in kind.alike
        else Run.config[name].astext.is_(None)
        for name in ALIKE
    )
    target = Run.columns.contains([kind.target])
    chosen = sa.select(Run).where(Run.project_id == run.project_id, Run.status == "finished", target, *same)
    of_peak = Run.schedule.contains({"peak_lr": kind.own["peak_lr"]})
    order = (of_peak.is_(True).desc(), Run.updated_at.desc(), Run.id)
    newest = chosen.order_by(*order).limit(MOST_ALIKE)
    known[kind.name] = sorted(session.scalars(newest), key=lambda found: found.id)
    return known[kind.name]


def _line(document: Mapping[str, Any]) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"at": now, **{name: document.get(name) for name in TOLD}}

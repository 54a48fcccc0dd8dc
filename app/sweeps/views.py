"""A sweep and its trials as the API shows them, with the work that was done, spared and left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.sweeps.schemas import (
    DoneDocument,
    ExpectedLossDocument,
    SweepDocument,
    SweepWithTrialsDocument,
    TrialDocument,
    WorkDocument,
    point_of,
)
from store import trainers, trials
from store.tables import Forecast, Run, Sweep, Trial

SPARED = ("pruned",)
UNDONE = ("unfinished", "cancelled", "failed", "diverged")
SAME_NAME = (
    *(
        "number",
        "run_id",
        "status",
        "pilot",
        "step",
        "total_steps",
        "stop_at",
        "device",
        "worker",
        "attempts",
    ),
    *("repeated_steps", "device_seconds", "notes", "message", "started_at", "finished_at"),
)


def brief(session: Session, sweep: Sweep) -> SweepDocument:
    """The sweep as lists show it."""
    return SweepDocument(**_shown(session, sweep, trials.of_sweep(session, sweep.id)))


def whole(session: Session, sweep: Sweep) -> SweepWithTrialsDocument:
    """The sweep with its trials."""
    found = trials.of_sweep(session, sweep.id)
    forecasts, runs = trials.forecasts(session, found), trials.runs_of(session, found)
    shown = [_trial(sweep, trial, runs.get(trial.run_id), forecasts.get(trial.run_id)) for trial in found]
    return SweepWithTrialsDocument(**_shown(session, sweep, found), trials=shown)


def _shown(session: Session, sweep: Sweep, found: Sequence[Trial]) -> dict[str, Any]:
    asked = sweep.asked
    same = ("id", "name", "status", "reason", "strategy", "device", "created_at", "updated_at", "finished_at")
    return {
        **{name: getattr(sweep, name) for name in same},
        **{name: asked[name] for name in ("space", "data", "measure", "budget", "seed")},
        "halving": asked.get("halving"),
        "hint": _hint(session, sweep, found),
        "counts": dict(Counter(trial.status for trial in found)),
        "planned": _work((trial, trial.total_steps) for trial in found),
        "done": _done(found),
        "saved": _work((one, one.total_steps - one.step) for one in found if one.status in SPARED),
        "left_undone": _work((one, one.total_steps - one.step) for one in found if one.status in UNDONE),
    }


def _hint(session: Session, sweep: Sweep, found: Sequence[Trial]) -> str | None:
    waiting = any(trial.status == "queued" for trial in found)
    if sweep.status != "running" or not waiting or trainers.count(session, sweep.device):
        return None
    return (
        f"no worker trains on {sweep.device} here: install isoloss[proxy] where the service runs, or start "
        f"`isoloss worker --device {sweep.device}` on any machine that reaches the database"
    )


def _trial(sweep: Sweep, trial: Trial, run: Run | None, live: Forecast | None) -> TrialDocument:
    summary: Mapping[str, Any] = {} if run is None else run.summary
    return TrialDocument(
        **{name: getattr(trial, name) for name in SAME_NAME},
        point=point_of(sweep.asked["space"], trial.config),
        forecast=_forecast(trial, live),
        final_loss=summary.get("final_loss") if trial.status == "finished" else None,
        final_val_loss=summary.get("final_val_loss") if trial.status == "finished" else None,
    )


def _forecast(trial: Trial, live: Forecast | None) -> ExpectedLossDocument | None:
    """What the sweep expects of the trial, else what is forecast of its run as of any that trains."""
    told = trial.forecast
    if told is None and live is not None:
        told = live.document
    if told is None or told.get("value") is None:
        return None
    return ExpectedLossDocument(**{name: told[name] for name in ("value", "lower", "upper", "step")})


def _work(parts: Iterable[tuple[Trial, int]]) -> WorkDocument:
    """Steps of trials; their time by each one's own pace, None where one of them has none."""
    counted = list(parts)
    paces = [trial.device_seconds / trial.step if trial.step else None for trial, _ in counted]
    known = [pace for pace in paces if pace is not None]
    seconds = sum(pace * steps for pace, (_, steps) in zip(known, counted, strict=False))
    return WorkDocument(
        trials=len(counted),
        steps=sum(steps for _, steps in counted),
        tokens=sum(steps * trial.config["batch_tokens"] for trial, steps in counted),
        device_seconds=seconds if len(known) == len(counted) else None,
    )


def _done(found: Sequence[Trial]) -> DoneDocument:
    begun = [trial for trial in found if trial.attempts]
    return DoneDocument(
        trials=len(begun),
        steps=sum(trial.step for trial in begun),
        tokens=sum(trial.step * trial.config["batch_tokens"] for trial in begun),
        device_seconds=sum(trial.device_seconds for trial in begun),
        repeated_steps=sum(trial.repeated_steps for trial in begun),
    )

"""What a logged run becomes: a run's id, what is said of it, and its points; nothing is sent yet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, InvalidSchedule
from isoloss.importers.fields import lacking
from isoloss.importers.logged_config import read_config
from isoloss.importers.logged_fields import FieldNames, name_metrics, total_steps_of
from isoloss.importers.logged_points import LoggedPoints, read_points, without_zero_rates
from isoloss.importers.logged_runs import LoggedRun
from isoloss.importers.plans import run_id_of
from isoloss.importers.specifications import merged
from isoloss.notes import counted
from isoloss.observations.point_columns import KNOWN_COLUMNS
from isoloss.schedules import Schedule, schedule_from_spec, spec_of_log
from isoloss.schedules.logged import disagreement_with

RUN_ID = re.compile(r"(?=.{1,100}\Z)(\.*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})")
FITTED = frozenset({"loss", "val_loss", "reward", "grad_noise_scale", "grad_norm_small"})
"""Columns of points that laws are fitted to."""

LONGEST_LABEL, LONGEST_NOTES, MOST_TAGS = 200, 10_000, 100
INTERVALS_BEFORE_END = 2
"""Logging intervals that may lie between the last entry and the stated end of a training that has finished."""


@dataclass(frozen=True)
class Wishes:
    """What the user says of all runs of an import; it goes before what their source says."""

    names: FieldNames = field(default_factory=FieldNames)
    schedule: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    recipe: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class PlannedImport:
    """A run as it shall be: the whole specification, and its own points."""

    place: str
    run_id: str
    document: dict[str, Any]
    points: LoggedPoints
    names: FieldNames
    notes: tuple[str, ...]


def run_id_for(run: LoggedRun) -> str:
    """The id that a logged run gets; raises InvalidInput where its own gives none."""
    run_id = run_id_of(run.key)
    if RUN_ID.fullmatch(run_id) is None:
        raise InvalidInput(field=run.place, reason=f"{run.key!r} gives no run id")
    return run_id


def plan_logged(run: LoggedRun, wishes: Wishes, known: Mapping[str, Any] | None) -> PlannedImport:
    """What becomes of a run, of which the service may know something already; raises InvalidInput."""
    named = name_metrics(list(run.series), wishes.names.metrics)
    columns = {named.fields[name]: one for name, one in run.series.items() if name in named.fields}
    points = read_points(columns)
    texts = _texts(run, wishes.names.metrics)
    if not points.step.size:
        raise InvalidInput(field=run.place, reason=_why_no_points(run, points, texts))
    config = read_config(run.config, wishes.names.config)
    said = {**config.config, **run.specification.get("config", {}), **wishes.config}
    schedule, told = _schedule(run, points, {**(known or {}).get("config", {}), **said}, wishes, known)
    if schedule is not None and "peak_lr" not in said:
        said["peak_lr"] = schedule_from_spec(schedule).peak_lr
    document = merged(_said(run, wishes, said, schedule, points, known), known)
    points = without_zero_rates(points, _read(document.get("schedule")))
    points, shared = _own(run, points, document.get("parent"))
    notes = (
        *run.problems,
        *named.notes,
        *config.notes,
        *points.notes,
        *shared,
        *told,
        *_unfitted(run, columns),
    )
    names = FieldNames(named.fields, config.named.fields)
    return PlannedImport(run.place, run_id_for(run), document, points, names, notes)


def _texts(run: LoggedRun, chosen: Mapping[str, str]) -> list[str]:
    """Say which columns that were chosen for metrics hold none."""
    return [
        f"{name!r} is no metric: it holds {str(run.config[name])[:40]!r}, which is no number"
        for name, meant in chosen.items()
        if name in run.config and name not in run.series and meant in KNOWN_COLUMNS
    ]


def _why_no_points(run: LoggedRun, points: LoggedPoints, texts: Sequence[str]) -> str:
    reasons = "; ".join((*run.problems, *texts, *points.notes))
    return f"no point of it can be imported{': ' + reasons if reasons else ', nothing was logged'}"


def _unfitted(run: LoggedRun, columns: Mapping[str, Any]) -> list[str]:
    return [] if FITTED & columns.keys() else [lacking("loss", list(run.series))]


def _said(
    run: LoggedRun,
    wishes: Wishes,
    config: Mapping[str, Any],
    schedule: Mapping[str, Any] | None,
    points: LoggedPoints,
    known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the source and the user say of a run; a file is the log of a run that has ended, unless it is said."""
    status = wishes.status or run.status or (None if known else "finished")
    tags = [_label(tag) for tag in (*run.tags, *wishes.tags) if tag.strip()]
    unnamed = run.name in ("", run.key)
    said = {
        **{name: value for name, value in run.specification.items() if name not in ("file", "run_id")},
        "name": (known or {}).get("name") if known and unnamed else _label(run.name) or run_id_for(run),
        "status": "diverged" if points.has_diverged() else status,
        "recipe": wishes.recipe or run.specification.get("recipe"),
        "notes": run.notes[:LONGEST_NOTES].replace("\0", "") if run.notes else None,
        "schedule": dict(schedule) if schedule is not None else None,
    }
    return {
        **{name: value for name, value in said.items() if value is not None},
        "tags": tags[:MOST_TAGS],
        "config": dict(config),
    }


def _label(text: str) -> str:
    return text.replace("\0", "").strip()[:LONGEST_LABEL]


def _own(
    run: LoggedRun, points: LoggedPoints, parent: Mapping[str, Any] | None
) -> tuple[LoggedPoints, list[str]]:
    """The points without those that are the parent's; raises InvalidInput where it has no others."""
    if parent is None:
        return points, []
    own = points.step > parent["branch_step"]
    if not own.any():
        reason = f"all of its points lie at or before step {parent['branch_step']}, where it branches"
        raise InvalidInput(field=run.place, reason=reason)
    shared = counted(int(np.sum(~own)), "point")
    told = f"{shared} up to step {parent['branch_step']} left out: there the run's points are its parent's"
    kept = points.at(own)
    return replace(kept, left_out=points.left_out, notes=points.notes), [] if own.all() else [told]


def _schedule(
    run: LoggedRun,
    points: LoggedPoints,
    config: Mapping[str, Any],
    wishes: Wishes,
    known: Mapping[str, Any] | None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """The schedule to declare, None for what is there or none, and notes on where it comes from."""
    stated = wishes.schedule or run.specification.get("schedule")
    if stated is not None:
        return dict(stated), []
    step, lr = _rates(points)
    if not step.size:
        return None, []
    there = _read((known or {}).get("schedule"))
    if there is not None:
        differs = disagreement_with(step, lr, there)
        if differs is None:
            return None, []
        inside = step <= there.total_steps
        if disagreement_with(step[inside], lr[inside], there) is not None:
            return None, [f"the declared schedule stays, though {differs}"]
    status = wishes.status or run.status
    if status == "running":
        return None, ["it is still training: its schedule is not read off its log"]
    try:
        found = spec_of_log(step, lr, _ends(run, step, points, status), warmup_steps=_warmup(config))
    except InvalidSchedule as error:
        return None, [f"no schedule is declared: {error.fields['reason']}; --schedule declares it"]
    return found.spec, [found.note]


def _rates(points: LoggedPoints) -> tuple[IntArray, FloatArray]:
    """The logged rates of the updates, which count from 1."""
    lr = points.columns.get("lr")
    if lr is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    there = ~np.ma.getmaskarray(lr) & (points.step >= 1)
    return points.step[there], np.ma.getdata(lr)[there]


def _ends(run: LoggedRun, logged: IntArray, points: LoggedPoints, status: str | None) -> list[int]:
    """The lengths that the training may have had: a stated one that its log all but reaches, its last step."""
    last = int(points.step[-1])
    stated = total_steps_of(run.config)
    interval = int(np.median(np.diff(logged))) if logged.size > 1 else 1
    reached = stated is not None and last <= stated <= last + INTERVALS_BEFORE_END * interval
    return [stated, last] if stated is not None and reached and status in (None, "finished") else [last]


def _warmup(config: Mapping[str, Any]) -> int | None:
    value = config.get("warmup_steps")
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return int(value) if value is not None and whole else None


def _read(spec: Mapping[str, Any] | None) -> Schedule | None:
    return None if spec is None else schedule_from_spec(spec)

"""The curves that a fit asks for, read from the store as the library wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput, UnusableData
from isoloss.observations import Curve, branch_learning_rates, learning_rates
from isoloss.schedules import Schedule, branch, schedule_from_spec
from store import points, runs, samples
from store.columns import Column, Points
from store.tables import Run

LeftOut = list[dict[str, str]]
Histories = dict[int, tuple[Schedule, str | None]]
"""By the key of a run, the learning rates that it had and what is to be said of them."""


class Read(Protocol):
    """Reads columns of a run: `points.read`, or one that passes over most points."""

    def __call__(self, session: Session, run: Run, columns: list[str], *, inherit: bool = True) -> Points: ...


def load_curves(
    session: Session, project_id: int, select: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[list[Curve], LeftOut]:
    """Return the curves of the chosen runs, and those that are none with the reason.

    `options` may name the `target` column and the `n_params_kind`. Raises InvalidInput where `select` means
    no run.
    """
    curves: list[Curve] = []
    left_out: LeftOut = []
    histories: Histories = {}
    for run in runs.chosen(session, project_id, select):
        try:
            curves.append(_curve(session, run, options, histories))
        except (InvalidInput, UnusableData) as error:
            left_out.append({"run_id": run.run_id, "reason": str(error)})
    return curves, left_out


def sampled_curve(session: Session, run: Run, target: str, most_points: int, known: Histories) -> Curve:
    """Return the run's curve from about so many of its points; of one that trains with its schedule to come.

    Raises InvalidInput and UnusableData for a run that has no curve.
    """
    read = partial(samples.read, most=most_points)
    curve = _curve(session, run, {"target": target}, known, read)
    if run.status != "running" or run.schedule is None:
        return curve
    declared, history = schedule_from_spec(run.schedule), curve.schedule
    if history.total_steps >= declared.total_steps:
        return curve
    return replace(curve, schedule=branch(history, history.total_steps, declared))


def _curve(
    session: Session, run: Run, options: Mapping[str, Any], histories: Histories, read: Read = points.read
) -> Curve:
    target = options.get("target") or "loss"
    schedule, note = _history(session, run, histories, read)
    found = read(session, run, [target])
    return Curve.from_columns(
        run.run_id,
        {"step": found.step, target: _logged(found[target])},
        schedule=schedule,
        config=run.config,
        target=target,
        n_params_kind=options.get("n_params_kind"),
        notes=(note,) if note else (),
    )


def _history(session: Session, run: Run, known: Histories, read: Read) -> tuple[Schedule, str | None]:
    """Return the learning rates that a run had: of a branch its parent's up to the branch step, then its own.

    `known` keeps those that were worked out, since many branches have one trunk.
    """
    if run.id not in known:
        known[run.id] = _read_history(session, run, known, read)
    return known[run.id]


def _read_history(session: Session, run: Run, known: Histories, read: Read) -> tuple[Schedule, str | None]:
    own = read(session, run, ["lr"], inherit=False)
    declared = None if run.schedule is None else schedule_from_spec(run.schedule)
    lr = own["lr"].with_nan()
    if run.parent_id is None or run.branch_step is None:
        return learning_rates(run.run_id, own.step, lr, declared)
    parent, _ = _history(session, session.get_one(Run, run.parent_id), known, read)
    return branch_learning_rates(run.run_id, parent, run.branch_step, own.step, lr, declared)


def _logged(column: Column) -> npt.ArrayLike:
    """Return the values, masked where nothing was logged: a NaN that was logged is to be told."""
    return np.ma.MaskedArray(column.values, mask=~column.present)

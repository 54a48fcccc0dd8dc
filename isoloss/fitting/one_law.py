"""Fitting one law to curves or to a table of runs: screen, estimate, judge, predict what was held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.estimate import Progress, estimate, find_optimum
from isoloss.fitting.holdout import Held, HeldCurves, HeldRows, conformal, uncorrected
from isoloss.fitting.options import FitOptions
from isoloss.fitting.provenance import provenance
from isoloss.fitting.report import describe
from isoloss.fitting.result import Fit
from isoloss.fitting.screening import LeftOut, screen, screen_held, split
from isoloss.fitting.sensitivity import with_choices
from isoloss.fitting.table_screening import screen_table, split_table, without_twins
from isoloss.fitting.task import Task
from isoloss.laws import LAWS, CurveLaw, Law, TableLaw
from isoloss.observations import Curve, RunTable

Observations = Sequence[Curve] | RunTable


@np.errstate(
    over="ignore", invalid="ignore", divide="ignore"
)  # what is not finite is refused where it counts
def fit_law(
    law: str,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    progress: Progress,
    left_out: Sequence[dict[str, str]] = (),
    previous: Fit | None = None,
) -> Fit:
    """Fit a law under checked options, of which `given` are those that the caller named; see `procedure.fit`."""
    task, prepared = _task(law, observations, asked, given=given, left_out=left_out)
    if previous is not None and previous.selection is None and _unchanged(previous, task, prepared):
        return _with_left_out(previous, prepared)
    estimated = estimate(task, progress, _warm(previous, task.law))
    found = replace(
        with_choices(describe(task, estimated), task),
        left_out=prepared.left_out,
        provenance=provenance(task.data, task.options, prepared.held.sha256()),
    )
    return conformal(prepared.held.scored(found), task, estimated.validation, prepared.held)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # as above
def optimum(
    law: str, observations: Observations, asked: FitOptions, *, warm: FloatArray | None = None
) -> FloatArray:
    """Return the parameters (parameters,) of the fit that `fit_law` makes, and find out nothing else of it.

    `warm` (parameters,) is an earlier optimum on similar data: the search starts there.
    """
    task, _ = _task(law, observations, asked, given={}, left_out=())
    return find_optimum(task, _finite(warm)).theta


def still_holds(
    found: Fit,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    left_out: Sequence[dict[str, str]] = (),
) -> bool:
    """Return whether these observations and options are those that a fit, and its equals, were made with."""
    try:
        return all(
            _unchanged(one, *_task(one.law_name, observations, asked, given=given, left_out=left_out))
            for one in (found, *(equal for _, equal in found.equals))
        )
    except (UnusableData, InvalidInput):  # for this law; another one may do without what is lacking
        return False


def with_present_left_out(
    found: Fit,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    left_out: Sequence[dict[str, str]] = (),
) -> Fit:
    """Return a fit that still holds with the runs that are left out now; itself where they are the same."""
    _, prepared = _task(found.law_name, observations, asked, given=given, left_out=left_out)
    return _with_left_out(found, prepared)


def rescored(
    found: Fit,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    left_out: Sequence[dict[str, str]] = (),
) -> Fit:
    """Return a fit that has changed with scores of the held-out runs as it predicts them now."""
    _, prepared = _task(found.law_name, observations, asked, given=given, left_out=left_out)
    scored = prepared.held.scored(uncorrected(found))
    return replace(found, holdout=scored.holdout, left_out=scored.left_out)


def _task(
    law: str,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    left_out: Sequence[dict[str, str]],
) -> tuple[Task, Prepared]:
    if not isinstance(law, str) or law not in LAWS:
        raise InvalidInput(field="law", reason=f"{law!r} is not one of {', '.join(LAWS)}")
    read = LAWS[law].under(asked.convention)
    asked = options_for(asked, observations, given)
    prepared = _prepare(read, observations, asked, left_out)
    return Task(read, prepared.data, asked), prepared


@dataclass(frozen=True)
class Prepared:
    """What is fitted, what is held out and scored, and what is left out with its reason."""

    data: Dataset
    held: Held
    left_out: LeftOut


def _prepare(
    law: Law[Any], observations: Observations, asked: FitOptions, unread: Sequence[dict[str, str]]
) -> Prepared:
    """Return the observations as the law takes them; raises InvalidInput for those of the other kind."""
    if isinstance(law, TableLaw):
        if not isinstance(observations, RunTable):
            reason = f"{law.name} is fitted to a table of finished runs (isoloss.read_runs), not to curves"
            raise InvalidInput(field="law", reason=reason)
        return _prepare_table(law, observations, asked, unread)
    assert isinstance(law, CurveLaw)
    if isinstance(observations, RunTable):
        reason = f"{law.name} is fitted to loss curves (isoloss.read_curves), not to a table of runs"
        raise InvalidInput(field="law", reason=reason)
    return _prepare_curves(law, observations, asked, unread)


def _prepare_curves(
    law: CurveLaw[Any], curves: Sequence[Curve], asked: FitOptions, unread: Sequence[dict[str, str]]
) -> Prepared:
    in_order = sorted(curves, key=lambda curve: (*_content(curve), curve.run_id))
    to_fit, to_predict = split(in_order, asked, unread)
    fitted, dropped = screen(to_fit, asked, law, unread)
    held, unscored = screen_held(to_predict, to_fit, asked)
    return Prepared(CurveDataset(fitted), HeldCurves(held), [*dropped, *unscored])


def _content(curve: Curve) -> tuple[float, ...]:
    """Return what orders curves by what they are: no number may hang on their names or on their order.

    The one whose learning rate stays highest comes first. It keeps the points that branches share with it: what is
    left of those is where they are annealed, and that is then what is predicted when one is left out.
    """
    step, loss, schedule = curve.step, curve.loss_nats, curve.schedule
    if not loss.size:
        return ()
    highest = schedule.peak_lr * float(step[-1])
    mean = float(schedule.area(step[-1:])[0]) / highest if highest else 0.0
    ends = (step[0], step[-1], loss[0], loss[-1], loss.sum())
    return (-mean, schedule.peak_lr, loss.size, *map(float, ends))


def _prepare_table(
    law: TableLaw[Any], table: RunTable, asked: FitOptions, unread: Sequence[dict[str, str]]
) -> Prepared:
    screened, dropped = screen_table(table, law, unread, asked.gate)
    fitted, held = split_table(screened, law, asked, dropped)
    held, twins = without_twins(held, fitted)
    return Prepared(TableDataset(fitted, law.columns), HeldRows(held), [*dropped, *twins])


def options_for(asked: FitOptions, observations: Observations, given: Mapping[str, Any]) -> FitOptions:
    """Return the options as they hold for these observations, read with a target and a kind of count."""
    several = [observations] if isinstance(observations, RunTable) else list(observations)
    targets = sorted({one.target for one in several})
    if len(targets) > 1 or ("target" in given and targets and targets != [asked.target]):
        reason = f"the curves hold {' and '.join(targets)}; read them with target={asked.target!r}"
        raise InvalidInput(field="target", reason=reason)
    kinds = {one.n_params_kind for one in several}
    if asked.n_params_kind is not None and kinds - {asked.n_params_kind}:
        reason = f"the runs were not read with {asked.n_params_kind!r} counts"
        raise InvalidInput(field="n_params_kind", reason=reason)
    return replace(asked, target=targets[0]) if targets else asked


def _unchanged(previous: Fit, task: Task, prepared: Prepared) -> bool:
    """Return whether a fit was made of the same data, fitted and held out, with the same options."""
    now = provenance(task.data, task.options, prepared.held.sha256())
    return previous.law_name == task.law.name and previous.provenance == now


def _with_left_out(found: Fit, prepared: Prepared) -> Fit:
    """Runs that were never fitted are in no hash of the data: which they are, and why, may have changed."""
    # What cannot be predicted of the held-out runs is among them.
    now = prepared.held.scored(replace(found, left_out=prepared.left_out)).left_out
    return found if now == found.left_out else replace(found, left_out=now)


def _warm(previous: Fit | None, law: Law[Any]) -> FloatArray | None:
    """Return where an earlier fit ended, if it was one of this law that determined all of it."""
    return None if previous is None or previous.law_name != law.name else _finite(previous.theta)


def _finite(theta: FloatArray | None) -> FloatArray | None:
    return None if theta is None or not np.all(np.isfinite(theta)) else theta

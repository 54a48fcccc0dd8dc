"""Fitting a law to curves: screen, estimate, judge, predict what was held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.fitting.estimate import Progress, estimate
from isoloss.fitting.options import FitOptions
from isoloss.fitting.report import describe
from isoloss.fitting.result import Fit
from isoloss.fitting.scores import mean_scores, score_runs
from isoloss.fitting.screening import HeldOut, screen, screen_held, split
from isoloss.fitting.task import Task
from isoloss.laws import LAWS
from isoloss.observations import Curve


def fit(
    law: str,
    curves: Sequence[Curve],
    *,
    progress: Progress | None = None,
    left_out: Sequence[dict[str, str]] = (),
    **options: Any,
) -> Fit:
    """Fit a law to curves and say what the data determine.

    `options` are those of `FitOptions`, the same as the API's. `progress(fraction, message)` is called as the
    work goes on; `left_out` lists runs that the caller could not read, for the record. The same curves, options
    and seed give the same numbers. Raises InvalidInput for options and curves that contradict themselves,
    UnusableData where no curve can be used, and FitFailed where the law has no optimum.
    """
    if law not in LAWS:
        raise InvalidInput(field="law", reason=f"{law!r} is not one of {', '.join(LAWS)}")
    asked = _of_these(FitOptions.from_mapping(options), curves, options)
    in_order = sorted(curves, key=lambda curve: curve.run_id)  # the numbers must not hang on their order
    to_fit, to_predict = split(in_order, asked, left_out)
    fitted, dropped = screen(to_fit, asked, left_out)
    held, unscored = screen_held(to_predict, to_fit, asked)
    task = Task(LAWS[law], fitted, asked)
    found = describe(task, estimate(task, progress or _silent))
    return replace(found, left_out=[*dropped, *unscored], holdout=_holdout(found, held, asked))


def _of_these(asked: FitOptions, curves: Sequence[Curve], given: Mapping[str, Any]) -> FitOptions:
    """Return the options as they hold for these curves, which were read with a target and a kind of count."""
    targets = sorted({curve.target for curve in curves})
    if len(targets) > 1 or ("target" in given and targets and targets != [asked.target]):
        reason = f"the curves hold {' and '.join(targets)}; read them with target={asked.target!r}"
        raise InvalidInput(field="target", reason=reason)
    kinds = {curve.n_params_kind for curve in curves}
    if asked.n_params_kind is not None and kinds - {asked.n_params_kind}:
        reason = f"the curves were not read with {asked.n_params_kind!r} counts"
        raise InvalidInput(field="n_params_kind", reason=reason)
    return replace(asked, target=targets[0]) if targets else asked


def _silent(fraction: float, message: str) -> None:
    """Report progress to nobody."""


def _holdout(found: Fit, held: Sequence[HeldOut], options: FitOptions) -> dict[str, Any] | None:
    """Score the runs that were held out.

    The usual scores are of whole curves, as published evaluations take them. A branch shares its trunk's points
    with runs that were fitted: `unseen_mae` and `coverage`, the share of points inside the interval of a new
    run, are of the other points alone.
    """
    if not held or found.verdict == "unidentified":
        return None
    scores = score_runs(found.law, found.theta, [one.curve for one in held])
    unseen = score_runs(found.law, found.theta, [one.unseen for one in held])
    for one in held:
        name = one.curve.run_id
        scores["runs"][name] |= {
            "coverage": _coverage(found, one.unseen, options.level),
            "unseen_mae": unseen["runs"][name]["mae"],
            "unseen_points": one.unseen.n_points,
        }
    return {**scores, "mean": mean_scores(scores["runs"].values()), "level": options.level}


def _coverage(found: Fit, curve: Curve, level: float) -> float:
    _, below, above = found.log_interval(curve.schedule, curve.step, curve.n_params, level, new_run=True)
    observed = np.log(curve.loss_nats)
    return float(np.mean((observed >= below) & (observed <= above)))

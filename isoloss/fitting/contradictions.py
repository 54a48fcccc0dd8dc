"""Values, expressions and bounds that a user gave, against what the data would have instead."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from scipy import stats

from isoloss.arrays import FloatArray
from isoloss.fitting.task import Task, lies_at
from isoloss.fitting.variances import variances


def contradictions(task: Task, theta: FloatArray, objective: float) -> list[str]:
    """Return, in words, which parameters were given otherwise than the data have them, and what these prefer.

    Given are values, expressions, and the bounds at which the optimum theta (parameters,) lies. All of it is left
    free, and the objective goes down from there. Where it falls by more than noise allows at the level of the
    fit, as for a profile, that is contradicted.
    """
    given = _given(task, theta)
    return [
        f"{name} was {given[name]}; left free, the data put it at {value:.4g} and fit better than noise explains"
        for name, value in _preferred(task, theta, objective, given).items()
    ]


def _given(task: Task, theta: FloatArray) -> dict[str, str]:
    """Return the parameters that were given, each with how; of bounds those alone that hold the optimum."""
    named = dict.fromkeys([*task.options.fix, *task.constraints.expressions], "given")
    held = {name: "bounded" for name in task.options.bounds if _held_by_bound(task, theta, name)}
    return dict(sorted((named | held).items()))


def _held_by_bound(task: Task, theta: FloatArray, name: str) -> bool:
    """Return whether the optimum lies at a bound that is the user's and not the law's own."""
    index = task.law.index(name)
    own, ends = task.law.parameters[index], task.constraints.bounds[name]
    users = [end for end, limit in zip(ends, (own.lower, own.upper), strict=True) if end != limit]
    return name not in task.options.fix and lies_at(float(theta[index]), users)


def _preferred(task: Task, theta: FloatArray, objective: float, given: Collection[str]) -> dict[str, float]:
    """Return the values that the data prefer for what was given; none where noise explains the difference."""
    if not given:
        return {}
    freed = _without(task, given)
    found = freed.problem.solve(theta[None], np.ones((1, task.features.n_points)))
    residuals = freed.problem.residuals(found.theta)[0]
    if not np.isfinite(found.objective[0]) or not np.all(np.isfinite(residuals)):
        return {}
    scale = variances(freed, found.theta[0], residuals).scale
    left = max(1, residuals.size - freed.n_varied)
    allowed = stats.f.ppf(task.options.level, len(given), left) * len(given) * scale / 2
    if objective - found.objective[0] <= allowed:
        return {}
    return {
        name: float(found.theta[0, task.law.index(name)])
        for name in given
        if name not in freed.missing and name not in freed.held
    }


def _without(task: Task, given: Collection[str]) -> Task:
    """Return the task with these values, expressions and bounds taken away."""
    options = task.options
    fix = {name: value for name, value in options.fix.items() if name not in given}
    expr = {name: text for name, text in options.expr.items() if name not in given}
    bounds = {name: pair for name, pair in options.bounds.items() if name not in given}
    return Task(task.law, task.data, replace(options, fix=fix, expr=expr, bounds=bounds))

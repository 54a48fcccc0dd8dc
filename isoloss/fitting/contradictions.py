"""Values, expressions and bounds that a user gave, against what the data would have instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import f_quantile
from isoloss.fitting.constrained import solve_constrained
from isoloss.fitting.estimate import EXACT
from isoloss.fitting.solver import Solution
from isoloss.fitting.task import Task, lies_at
from isoloss.fitting.variances import variances


def contradictions(task: Task, theta: FloatArray, objective: float) -> list[str]:
    """Return, in words, which parameters were given otherwise than the data have them, and what these prefer.

    Given are values, expressions, and the bounds at which the optimum theta (parameters,) lies. All of it is left
    free, and the objective goes down from there. Where it falls by more than noise allows at the level of the
    fit, as for a profile, that is contradicted: those are named that are so where they alone are given, else all.
    """
    given = _given(task, theta)
    if not given:
        return []
    freed = _without(task, given)
    best = _solved(freed, theta)
    if not _risen(freed, best, objective, len(given)):
        return []
    values = _values(freed, best, given)
    alone = [
        name for name in values if len(given) == 1 or _contradicted_alone(task, theta, name, given, best)
    ]
    named = [_of_one(name, given[name], values[name]) for name in alone]
    return named if named or not values else [_of_several(values)]


def _contradicted_alone(
    task: Task, theta: FloatArray, name: str, given: Collection[str], best: Solution
) -> bool:
    """Return whether a parameter that alone is given, as it was, fits worse than noise explains."""
    freed = _without(task, given)
    only = _solved(_without(task, set(given) - {name}), theta)
    return _risen(freed, best, float(only.objective[0]), 1)


def _values(freed: Task, best: Solution, given: Collection[str]) -> dict[str, float]:
    absent = {*freed.missing, *freed.held}
    return {name: float(best.theta[0, freed.law.index(name)]) for name in given if name not in absent}


def _of_one(name: str, how: str, value: float) -> str:
    return f"{name} was {how}; left free, the data put it at {value:.4g} and fit better than noise explains"


def _of_several(values: Mapping[str, float]) -> str:
    put = ", ".join(f"{name} at {value:.4g}" for name, value in values.items())
    return f"what was given is contradicted together, none alone: left free, the data put {put}"


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


def _risen(freed: Task, best: Solution, objective: float, count: int) -> bool:
    """Return whether `count` things given raise the objective from its best by more than noise explains."""
    residuals = freed.problem.residuals(best.theta)[0]
    if not np.isfinite(best.objective[0]) or not np.all(np.isfinite(residuals)):
        return False
    scale = variances(freed, best.theta[0], residuals).scale
    left = max(1, residuals.size - freed.n_varied)
    allowed = f_quantile(freed.options.level, count, left) * count * scale / 2
    return bool(objective - best.objective[0] > allowed)


def _without(task: Task, given: Collection[str]) -> Task:
    """Return the task with these values, expressions and bounds taken away."""
    options = task.options
    fix = {name: value for name, value in options.fix.items() if name not in given}
    expr = {name: text for name, text in options.expr.items() if name not in given}
    bounds = {name: pair for name, pair in options.bounds.items() if name not in given}
    return Task(task.law, task.data, replace(options, fix=fix, expr=expr, bounds=bounds))


def _solved(task: Task, theta: FloatArray) -> Solution:
    ones, tied = np.ones((1, task.features.n_points)), task.constraints.expressions
    if tied:
        return solve_constrained(task.problem, theta[None], ones, tied, EXACT)
    return task.problem.solve(theta[None], ones)

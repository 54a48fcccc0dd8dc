"""Values and expressions that a user gave, against what the data would have instead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from isoloss.arrays import FloatArray
from isoloss.fitting.task import Task
from isoloss.fitting.variances import variances


def contradicted(task: Task, theta: FloatArray, objective: float) -> dict[str, float]:
    """Return the parameters that were given otherwise than the data have them, with the values that these prefer.

    All that was given is left free, and the objective goes down from the optimum theta (parameters,) under it.
    Where it falls by more than noise allows at the level of the fit, as for a profile, that is contradicted.
    """
    given = {*task.options.fix, *task.constraints.expressions}
    if not given:
        return {}
    freed = Task(task.law, task.data, replace(task.options, fix={}, expr={}))
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
        for name in sorted(given)
        if name not in freed.missing and name not in freed.held
    }

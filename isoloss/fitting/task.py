"""What a fit has to do: the law, its curves, and which of its parameters may move."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.errors import InvalidInput
from isoloss.fitting.objective import Problem, log_observed
from isoloss.fitting.options import Constraints, FitOptions
from isoloss.laws import Law
from isoloss.observations import Curve

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Task:
    """A law over curves under options; `runs` are the slices of all points that belong to each curve.

    `held` are the parameters that do not enter for these curves, `missing` those that they cannot determine,
    with the reason. Raises InvalidInput for options that name a parameter which does not enter.
    """

    def __init__(self, law: Law[Any], curves: list[Curve], options: FitOptions) -> None:
        self.law, self.curves, self.options = law, curves, options
        self.lengths = [curve.n_points for curve in curves]
        self.runs = [slice(low, high) for low, high in pairwise(np.cumsum([0, *self.lengths]))]
        self.features = law.prepare(curves)
        self.held = law.held(self.features, options.fix)
        self.missing = law.undetermined(self.features, options.fix)
        self._refuse_constraints_on_absent_parameters()
        self.constraints = options.constrain(law)
        observed = log_observed([curve.loss_nats for curve in curves])
        lower, upper = self._limits(self.constraints)
        self.problem = Problem(law, self.features, observed, lower, upper, options.huber_delta)
        self._note_too_few_points()

    def _note_too_few_points(self) -> None:
        known = {**self.options.fix, **self.held}
        n_free = self.n_varied
        if self.features.n_points <= n_free:
            why = f"{self.features.n_points} points for {n_free} parameters"
            self.missing = {
                parameter.name: why for parameter in self.law.parameters if parameter.name not in known
            }

    def _refuse_constraints_on_absent_parameters(self) -> None:
        given = {"fix": self.options.fix, "bounds": self.options.bounds, "expr": self.options.expr}
        for option, named in given.items():
            for name in named.keys() & self.held.keys() - self.missing.keys():
                reason = (
                    f"the runs have no such term in {self.law.name}: they do not differ in what it describes"
                )
                raise InvalidInput(field=f"{option}.{name}", reason=reason)

    def _limits(self, constraints: Constraints) -> tuple[FloatArray, FloatArray]:
        pairs = [
            (self.held.get(parameter.name, low), self.held.get(parameter.name, high))
            for parameter in self.law.parameters
            for low, high in [constraints.bounds[parameter.name]]
        ]
        lower, upper = np.array(pairs).T
        return lower, upper

    @property
    def varied(self) -> BoolArray:
        """Return which parameters the fit moves: neither held, nor fixed, nor given by an expression."""
        names = [parameter.name for parameter in self.law.parameters]
        given = np.array([name in self.constraints.expressions for name in names])
        return np.asarray(self.problem.free & ~given)

    @property
    def n_varied(self) -> int:
        return int(self.varied.sum())

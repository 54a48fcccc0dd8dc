"""What a fit has to do: the law, its data, and which of its parameters may move."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.errors import InvalidInput
from isoloss.fitting.constrained import directions
from isoloss.fitting.datasets import Dataset
from isoloss.fitting.objective import Problem
from isoloss.fitting.options import Constraints, FitOptions
from isoloss.laws import Law
from isoloss.notes import counted


class Task:
    """A law over a dataset under options.

    `held` are the parameters that do not enter for these runs, `missing` those that they cannot determine, with
    the reason. Raises InvalidInput for options that name a parameter which does not enter.
    """

    def __init__(self, law: Law[Any], data: Dataset, options: FitOptions) -> None:
        self.law, self.data, self.options = law, data, options
        self.features = data.prepare(law)
        self.held = law.held(self.features, options.fix)
        self.missing = law.undetermined(self.features, options.fix)
        self._refuse_constraints_on_absent_parameters()
        self.constraints = options.constrain(law)
        lower, upper = self._limits(self.constraints)
        self.problem = Problem(
            law,
            self.features,
            np.log(data.observed),
            lower,
            upper,
            options.huber_delta,
            options.priors_of(law, self.features),
            options.backend,
        )
        self._note_what_says_nothing()

    def _note_what_says_nothing(self) -> None:
        """Take all that is free for undetermined where the observations say nothing of it whatever the law."""
        why = self._says_nothing()
        if why is not None and self.n_varied:
            known = {**self.options.fix, **self.held}
            self.missing = {
                parameter.name: why for parameter in self.law.parameters if parameter.name not in known
            }

    def _says_nothing(self) -> str | None:
        if self.data.distinct() < self.n_varied + self.data.spare_needed:
            return self._too_few()
        if np.ptp(self.data.observed) == 0:
            return "the losses do not vary"
        return None

    def _too_few(self) -> str:
        distinct = self.data.distinct()
        what = self.data.observation if distinct == self.features.n_points else "different configuration"
        given = {*self.options.fix, *self.options.expr, *(self.held.keys() - self.missing.keys())}
        unknown = len(self.law.parameters) - len(given)
        needed = unknown + self.data.spare_needed
        return f"{counted(distinct, what)} for {counted(unknown, 'parameter')}, at least {needed} are needed"

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

    def directions(self, theta: FloatArray) -> FloatArray:
        """Return how the parameters move with the varied ones at theta (parameters,): (parameters, varied)."""
        return directions(self.problem, theta, self.constraints.expressions)

    @property
    def n_varied(self) -> int:
        return int(self.varied.sum())


def lies_at(value: float, bounds: Iterable[float]) -> bool:
    """Return whether a parameter lies at one of the finite bounds, but for rounding."""
    return any(abs(value - bound) <= 1e-9 * max(1.0, abs(bound)) for bound in bounds if np.isfinite(bound))

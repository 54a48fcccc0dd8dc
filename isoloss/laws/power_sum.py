"""A floor plus powers of what a run was: what laws of that form have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Parameter, Priors, TableLaw
from isoloss.laws.power_laws import (
    LogColumns,
    blank_jacobian,
    exponent_grid,
    log_columns,
    n_distinct,
    on_one_line,
    powers,
)

LEAST_COEFFICIENT = 1e-12

USUAL_EXPONENT = 0.34
"""Where the exponent of a term that does not enter is held: anywhere would do."""


@dataclass(frozen=True)
class Term:
    """coefficient * x^-exponent, or x^exponent where the exponent is `signed`, with x a variable of the law.

    `same` says in words that all runs have one x, `two` that they have two.
    """

    coefficient: str
    exponent: str
    same: str
    two: str
    signed: bool = False


def floor(unit: str = "nats/token") -> Parameter:
    return Parameter("E", "E", unit, 0.0, np.inf, "loss that remains", enters_linearly=True)


def coefficient(name: str, symbol: str, unit: str, meaning: str) -> Parameter:
    return Parameter(name, symbol, unit, LEAST_COEFFICIENT, np.inf, meaning, "log", enters_linearly=True)


def falling(name: str, symbol: str, meaning: str) -> Parameter:
    """Return the exponent of x^-exponent."""
    return Parameter(name, symbol, "1", 0.01, 3.0, meaning, "log")


class PowerSum(TableLaw[LogColumns]):
    """E + a power of each of the law's variables; parameters E, then coefficient and exponent of each term."""

    terms: ClassVar[tuple[Term, ...]]

    @abstractmethod
    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        """Return the variable of each term, (runs,), by the columns of the runs."""

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(*self.variables(columns))

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        found = self._powers(theta, features)
        xp = namespace(theta)
        return xp.stack([xp.ones_like(found[0]), *found], axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        total = theta[:, 0, None]
        for number, power in enumerate(self._powers(theta, features)):
            total = total + theta[:, 1 + 2 * number, None] * power
        return total

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        out = blank_jacobian(theta, features.n_points)
        out[:, 0] = 1.0
        total = theta[:, 0, None]
        for number, (term, power) in enumerate(zip(self.terms, self._powers(theta, features), strict=True)):
            at = 1 + 2 * number
            out[:, at] = power
            power = power * theta[:, at, None]
            total = total + power
            out[:, at + 1] = power * features.logs[number] * (1 if term.signed else -1)
        return total, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:  # noqa: ARG002
        exponents = exponent_grid(max(count, 24), len(self.terms))
        theta = np.zeros((len(exponents), len(self.parameters)))
        theta[:, 2::2] = exponents * [-1 if term.signed else 1 for term in self.terms]
        return theta

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        """Hold the term of a variable that does not vary at nothing: it is part of E."""
        held: dict[str, float] = {}
        for term, count in zip(self.terms, n_distinct(features), strict=True):
            if count == 1:
                held |= {
                    term.coefficient: LEAST_COEFFICIENT,
                    term.exponent: -USUAL_EXPONENT if term.signed else USUAL_EXPONENT,
                }
        return held

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        given = set(fixed)
        missing: dict[str, str] = {}
        for term, count in zip(self.terms, n_distinct(features), strict=True):
            names = (term.coefficient, term.exponent, "E")
            if count == 1:
                missing |= dict.fromkeys(names, f"all runs {term.same}")
            elif count == 2 and not given & set(names):
                why = f"two {term.two} give one difference, not a coefficient and an exponent"
                missing |= dict.fromkeys(names, why)
        own = {name for term in self.terms for name in (term.coefficient, term.exponent)}
        if not missing and not own & given and on_one_line(features):
            missing = dict.fromkeys(sorted(own), self.together)
        return {name: why for name, why in missing.items() if name not in given}

    together: ClassVar[str] = ""
    """What is said where the variables grow together in all runs."""

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def _powers(self, theta: FloatArray, features: LogColumns) -> list[Any]:
        return [
            powers(theta[:, 2 + 2 * number] * (-1 if term.signed else 1), features.logs[number])
            for number, term in enumerate(self.terms)
        ]

"""A product of powers of what a run is to be: the form of the laws for its settings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from math import ceil
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors, TableLaw
from isoloss.laws.power_laws import LogColumns, blank_jacobian, log_columns, n_distinct, on_one_line

STEEPEST = 5.0
"""No setting of a training grows faster with anything than this power."""

USUAL = 1.0
"""Searches start from exponents between this and its negative."""


def scaling(symbol: str, unit: str, meaning: str) -> Parameter:
    """Return the coefficient of a product of powers."""
    return Parameter("coefficient", symbol, unit, 1e-300, np.inf, meaning, "log", enters_linearly=True)


def slope(name: str, symbol: str, meaning: str) -> Parameter:
    """Return the exponent of one of its variables, of either sign."""
    return Parameter(name, symbol, "1", -STEEPEST, STEEPEST, meaning)


class PowerProduct(TableLaw[LogColumns]):
    """coefficient * x_1^exponent_1 * x_2^exponent_2 ...; parameters in this order."""

    varies: ClassVar[tuple[str, ...]]
    """Each variable in words, as in 'model sizes'."""

    together: ClassVar[str] = ""
    """What is said where the variables grow together in all runs."""

    @abstractmethod
    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        """Return the variables, (runs,) each, by the columns of the runs."""

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(*self.variables(columns))

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        exponents: FloatArray = namespace(theta).exp(theta[:, 1:] @ features.logs)[..., None]
        return exponents

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        predicted: FloatArray = theta[:, :1] * namespace(theta).exp(theta[:, 1:] @ features.logs)
        return predicted

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        predicted = self.predict(theta, features)
        out: Any = blank_jacobian(theta, features.n_points)
        out[:, 0] = predicted / theta[:, :1]
        out[:, 1:] = predicted[:, None, :] * features.logs[None]
        return predicted, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:
        n_exponents = len(features.logs)
        a_side = max(4, ceil(count ** (1 / n_exponents)))
        axes = np.meshgrid(*[np.linspace(-USUAL, USUAL, a_side)] * n_exponents, indexing="ij")
        exponents = np.stack([axis.ravel() for axis in axes], axis=1)
        return np.concatenate([np.zeros((len(exponents), 1)), exponents], axis=1)

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:
        """Hold the exponent of a variable that does not vary at nothing: it is part of the coefficient."""
        counts = zip(self.parameters[1:], n_distinct(features), strict=True)
        return {one.name: 0.0 for one, count in counts if count == 1 and one.name not in fixed}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        counts = zip(self.parameters[1:], self.varies, n_distinct(features), strict=True)
        missing = {one.name: f"there is one of {what} alone" for one, what, count in counts if count == 1}
        own = [parameter.name for parameter in self.parameters[1:]]
        if not missing and not set(own) & set(fixed) and on_one_line(features):
            missing = dict.fromkeys(own, self.together)
        return {name: why for name, why in missing.items() if name not in fixed}

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}

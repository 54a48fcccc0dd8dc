"""What every law brings with it: parameters with units and bounds, a prediction, its Jacobian, a guess."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from isoloss.observations import Curve
from isoloss.schedules import Schedule

FloatArray = npt.NDArray[np.float64]

Scale = Literal["linear", "log", "log_complement"]
"""The coordinate that the solver moves in: the value, its logarithm, or log(1 - value)."""

F = TypeVar("F", bound="Features")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law: its name in the paper, its unit, and where it may lie."""

    name: str
    symbol: str
    unit: str
    lower: float
    upper: float
    meaning: str
    scale: Scale = "linear"
    enters_linearly: bool = False


@dataclass(frozen=True)
class Features:
    """What a law needs of its observations, worked out once before a fit; `n_points` rows."""

    n_points: int


class Law(ABC, Generic[F]):
    """A published law: final methods only, one class a law.

    `theta` is always (members, len(parameters)), so that many starts and resamples are evaluated at once.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    reference: ClassVar[str]
    quantity: ClassVar[str]
    unit: ClassVar[str]
    requires: ClassVar[tuple[str, ...]]
    parameters: ClassVar[tuple[Parameter, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    """Parameters without which the law still predicts runs like those that it was fitted to."""

    @abstractmethod
    def prepare(self, curves: Sequence[Curve]) -> F:
        """Return the features of all points of the curves, in their order."""

    @abstractmethod
    def prepare_prediction(self, schedule: Schedule, steps: npt.ArrayLike, n_params: float | None) -> F:
        """Return the features of a run that need not have been trained."""

    @abstractmethod
    def basis(self, theta: FloatArray, features: F) -> FloatArray:
        """Return the columns that the linear parameters multiply, in their order: (members, points, linear).

        Only the other parameters of `theta` are read. This is what variable projection solves for (laws.md 1.3).
        """

    @abstractmethod
    def predict(self, theta: FloatArray, features: F) -> FloatArray:
        """Return the prediction (members, points)."""

    @abstractmethod
    def jacobian(self, theta: FloatArray, features: F) -> tuple[FloatArray, FloatArray]:
        """Return the prediction (members, points) and its derivatives (members, points, parameters)."""

    @abstractmethod
    def grid(self, features: F) -> FloatArray:
        """Return theta (k, parameters) that cover the nonlinear parameters where the data could put them."""

    @abstractmethod
    def held(self, features: F, fixed: Collection[str] = ()) -> dict[str, float]:
        """Return the parameters that do not enter for these observations, with the values to hold them at.

        `fixed` are those whose values the user gives.
        """

    @abstractmethod
    def undetermined(self, features: F, fixed: Collection[str] = ()) -> dict[str, str]:
        """Return the parameters that these observations cannot determine whatever their values, with why.

        `fixed` are those whose values the user gives, which may determine others.
        """

    @abstractmethod
    def derived(
        self, theta: FloatArray, curves: Sequence[Curve]
    ) -> Mapping[str, tuple[str, FloatArray, tuple[str, ...]]]:
        """Return quantities that follow: name -> (unit, values (members,), the parameters they need)."""

    def index(self, name: str) -> int:
        """Return the position of a parameter by its name."""
        return [parameter.name for parameter in self.parameters].index(name)

    def describe(self) -> dict[str, Any]:
        """Return the law as the API lists it: formula, parameters with units and bounds, fields, reference."""
        return {
            "name": self.name,
            "title": self.title,
            "formula": self.formula,
            "quantity": self.quantity,
            "unit": self.unit,
            "requires": list(self.requires),
            "reference": self.reference,
            "parameters": [
                {
                    "name": parameter.name,
                    "symbol": parameter.symbol,
                    "unit": parameter.unit,
                    "lower": None if np.isinf(parameter.lower) else parameter.lower,
                    "upper": None if np.isinf(parameter.upper) else parameter.upper,
                    "meaning": parameter.meaning,
                }
                for parameter in self.parameters
            ],
        }

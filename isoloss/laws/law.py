"""What every law brings with it: parameters with units and bounds, a prediction, its Jacobian, a guess."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.errors import InvalidInput
from isoloss.observations import Trained

Scale = Literal["linear", "log", "log_complement"]
"""The coordinate that the solver moves in: the value, its logarithm, or log(1 - value)."""

F = TypeVar("F", bound="Features")
Derived = Mapping[str, tuple[str, FloatArray, tuple[str, ...]]]
"""Quantities that follow: name -> (unit, values (members,), the parameters that they need)."""


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
    """What a law needs of its observations, worked out once before a fit.

    `n_points` rows; `n_terms` values, at least one a point, that the predictions of one member are summed from.
    """

    n_points: int
    n_terms: int


@dataclass(frozen=True)
class Priors:
    """Where a law expects parameters before it has seen data: adds strength^2/2 * ((x - centre) / sd)^2 each.

    `centres` maps a parameter to (centre, sd): the centre is a value of the parameter, the standard deviation is
    in the solver's coordinate, so of the logarithm where the parameter's scale is one. `strength` is in log loss.
    """

    centres: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    strength: float = 0.0


class Law(ABC, Generic[F]):
    """A law: what `CurveLaw` and `TableLaw` have in common, in terms of features alone.

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

    remedy: ClassVar[str]
    """What data would tell parameters apart that trade off."""

    remedies: ClassVar[Mapping[frozenset[str], str]] = {}
    """The same for pairs of parameters that need something else."""

    absolute: ClassVar[bool] = False
    """Whether errors are differences of what it predicts, as of a share; otherwise of its logarithm."""

    outcomes: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """Between which values lies what it predicts."""

    conventions: ClassVar[Mapping[str, str]] = {}
    """The readings of the law that a fit may choose from, with their meaning; the first is the usual one."""

    def __init__(self, convention: str | None = None) -> None:
        self.convention = convention if convention is not None else next(iter(self.conventions), None)

    def under(self, convention: str | None) -> Self:
        """Return the law read by another convention; raises InvalidInput where it has none of that name."""
        if convention is None:
            return self
        if convention not in self.conventions:
            known = ", ".join(self.conventions) or "it has none"
            raise InvalidInput(field="convention", reason=f"{self.name} has no {convention!r} ({known})")
        return type(self)(convention)

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
    def grid(self, features: F, count: int) -> FloatArray:
        """Return theta (k, parameters) that cover the nonlinear parameters where the data could put them.

        k is `count` or more where so many starts make sense.
        """

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
    def priors(self, features: F) -> Priors:
        """Return what the law expects of its parameters for observations like these; usually nothing."""

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
            "conventions": dict(self.conventions),
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


class CurveLaw(Law[F]):
    """A law of whole loss curves under a learning-rate schedule."""

    carries_over_peaks: ClassVar[bool] = False
    """Whether runs of different peak learning rates may be fitted together."""

    error_of_peak: ClassVar[float] = 0.02
    """Error in log loss, as one standard deviation, for each doubling of the peak learning rate away from the
    fitted ones, where a fit does not show how the loss depends on it. Of laws in shares of the peak: on
    `lr_scheduling`, fitted to one peak and asked for the last point of the cosine runs of the others, the root mean
    square for each doubling is .014 and the worst .029; the 90 percent intervals hold 69 of 69."""

    gains_with_rates: ClassVar[bool] = False
    """Whether the gain of annealing grows with the learning rate itself, without limit, not with its share."""

    floor: ClassVar[str] = "L0"
    """The parameter that is the loss that remains."""

    knows_sizes: ClassVar[bool] = False
    """Whether runs of different model sizes may be fitted together."""

    most_points: ClassVar[int] = 100_000
    """The most points that a fit takes in all; longer runs are thinned."""

    @abstractmethod
    def prepare(self, runs: Sequence[Trained]) -> F:
        """Return the features of all points of the runs, in their order.

        Raises UnusableData where a run lacks what the law needs of it.
        """

    @abstractmethod
    def derived(self, theta: FloatArray, runs: Sequence[Trained]) -> Derived:
        """Return quantities that follow from the parameters."""


class TableLaw(Law[F]):
    """A law of finished runs, by what they were: a row a run."""

    columns: ClassVar[tuple[str, ...]]
    """The columns that the law predicts from."""

    predicts_outcomes: ClassVar[bool] = True
    """Whether it predicts what came of a run, its final loss; otherwise how a run is best set."""

    of_runs: ClassVar[bool] = True
    """Whether a row is a finished run, and not one of many readings of it."""

    needs_outcome: ClassVar[bool] = True
    """Whether every run must have the outcome that is the target; otherwise its columns say all."""

    @property
    def run_columns(self) -> tuple[str, ...]:
        """The columns that every run must have that is fitted."""
        return self.columns

    @property
    def of_one_shape(self) -> str | None:
        """The column whose mean over a run, as a share of its peak, all runs must agree in; None for any shapes."""
        return None

    @abstractmethod
    def prepare(self, columns: Mapping[str, FloatArray]) -> F:
        """Return the features of runs by their columns (runs,), which are finite and above 0."""

    sensitive: ClassVar[tuple[str, ...]] = ()
    """What is told under each of the law's `choices` of runs: parameters, and quantities that follow."""

    def choices(
        self,
        columns: Mapping[str, FloatArray],  # noqa: ARG002
        outcome: FloatArray,  # noqa: ARG002
    ) -> Mapping[str, BoolArray]:
        """Return other choices of the runs (runs,) that are as good, in words; usually there are none."""
        return {}

    @abstractmethod
    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return how large each run is (runs,), in the direction in which the law is extrapolated."""

    @abstractmethod
    def derived(self, theta: FloatArray) -> Derived:
        """Return quantities that follow from the parameters."""

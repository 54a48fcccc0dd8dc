"""What a caller may ask of a fit, checked once for the library, the service and the command line."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.fitting.backends import check_backend
from isoloss.fitting.expressions import checked_expressions
from isoloss.fitting.objective import HUBER_DELTA
from isoloss.fitting.quality import check_switches
from isoloss.laws import Features, Law, Priors
from isoloss.observations import N_PARAMS_KINDS

Unit = Literal["runs", "configurations", "blocks"]
UNITS = ("runs", "configurations", "blocks")

DEFAULT_STRENGTH = 0.005
"""Weight, in log loss, of priors that a caller gives for a law that has none of its own (laws.md 1.4)."""

MAX_STRENGTH = 1e6
LEAST_DELTA, LEAST_SD = 1e-9, 1e-9
"""Below these, and above their inverses, squares of an option's effect have no digits left."""

TARGETS = ("loss", "val_loss", "reward")
MAX_BOOTSTRAP = 20_000
MAX_STARTS = 10_000

MAX_SHARE = 0.5
"""The largest share of the runs that may be held out."""


@dataclass(frozen=True)
class FitOptions:
    """The options of a fit; the defaults are the API's.

    `fix` {parameter: value}, `bounds` {parameter: [low, high]} and `expr` {parameter: expression} constrain it.
    `skip_steps` leaves out the points up to that step; None leaves out those of the warm-up. `bootstrap` is the
    number of resamples, `level` the coverage of every interval, `holdout` {"run_ids": [...]} or {"fraction": share
    up to 0.5} what is predicted and scored instead of fitted. `resample` is what is drawn: "runs",
    "configurations" or "blocks"; None lets the data decide. `profile` asks for profile-likelihood intervals.
    `convention` chooses a reading of the law, where it has several. `priors` {parameter: [centre, sd] or None}
    replaces or removes the law's own, `prior_strength` their weight in log loss. `backend` is where the
    arithmetic is done: "numpy", "torch" or "cuda". `gate` {check: false} switches off a check of finished runs:
    "units", "duplicates", "mixed_data", "under_annealed", "mixed_shapes", "diverged" or "tuned".
    """

    target: str = "loss"
    fix: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    expr: Mapping[str, str] = field(default_factory=dict)
    huber_delta: float = HUBER_DELTA
    skip_steps: int | None = None
    starts: int = 6
    bootstrap: int = 200
    level: float = 0.9
    holdout: Mapping[str, Any] | None = None
    seed: int = 0
    n_params_kind: str | None = None
    resample: Unit | None = None
    profile: bool = True
    convention: str | None = None
    priors: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    prior_strength: float | None = None
    backend: str = "numpy"
    gate: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        _require(self.target in TARGETS, "target", f"must be one of {', '.join(TARGETS)}")
        delta = self.huber_delta
        usual = _is_number(delta) and LEAST_DELTA <= delta <= 1 / LEAST_DELTA
        _require(usual, "huber_delta", f"must lie between {LEAST_DELTA:g} and {1 / LEAST_DELTA:g}")
        _whole(self.skip_steps, "skip_steps", 0, 10**10, optional=True)
        _whole(self.starts, "starts", 1, MAX_STARTS)
        _whole(self.bootstrap, "bootstrap", 0, MAX_BOOTSTRAP)
        _whole(self.seed, "seed", 0, 2**63 - 1)
        _require(_is_number(self.level) and 0 < self.level < 1, "level", "must lie between 0 and 1")
        known = self.n_params_kind is None or self.n_params_kind in N_PARAMS_KINDS
        _require(known, "n_params_kind", f"must be one of {', '.join(N_PARAMS_KINDS)}")
        _require(self.resample in (None, *UNITS), "resample", f"must be one of {', '.join(UNITS)}")
        _require(isinstance(self.profile, bool), "profile", "must be true or false")
        strength = self.prior_strength
        allowed = strength is None or (_is_number(strength) and 0 <= strength <= MAX_STRENGTH)
        _require(allowed, "prior_strength", f"must be a number from 0 to {MAX_STRENGTH:g}")
        check_backend(self.backend)
        check_switches(self.gate)
        _check_holdout(self.holdout)

    def _check_types(self) -> None:
        """Refuse what the later checks could not even look at."""
        for name in ("target", "n_params_kind", "resample", "convention", "backend"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, str), name, f"must be a name, not {_kind(value)}")
        for name in ("fix", "bounds", "expr", "priors"):
            value = getattr(self, name)
            by_name = isinstance(value, Mapping) and all(isinstance(one, str) for one in value)
            _require(by_name, name, f"must map parameters by their names, not be {_kind(value)}")
        for name, text in self.expr.items():
            _require(isinstance(text, str), f"expr.{name}", f"must be an expression, not {_kind(text)}")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> FitOptions:
        """Return the options that a mapping names; raises InvalidInput for unknown ones and wrong values."""
        known = {one.name for one in fields(cls)}
        for name in options:
            _require(name in known, f"options.{name}", "there is no such option")
        return cls(**{name: _plain(value) for name, value in options.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        return asdict(self)

    def constrain(self, law: Law[Any]) -> Constraints:
        """Return the law's bounds narrowed by the caller's, and the checked expressions."""
        limits = {parameter.name: (parameter.lower, parameter.upper) for parameter in law.parameters}
        narrowed = dict(limits)
        for name, pair in self.bounds.items():
            _require(name in limits, f"bounds.{name}", "the law has no such parameter")
            narrowed[name] = _narrow(f"bounds.{name}", pair, limits[name])
        for name, value in self.fix.items():
            _require(name in limits, f"fix.{name}", "the law has no such parameter")
            _check_fixed(f"fix.{name}", value, limits[name], narrowed[name])
            narrowed[name] = (float(value), float(value))
        for name in self.expr:
            free = name not in self.fix and name not in self.bounds
            _require(free, f"expr.{name}", "a parameter has an expression, or a value and bounds, not both")
        self._check_priors(law)
        law.under(self.convention)
        return Constraints(narrowed, checked_expressions(self.expr, list(limits)))

    def _check_priors(self, law: Law[Any]) -> None:
        known = {parameter.name: parameter for parameter in law.parameters}
        for name, pair in self.priors.items():
            _require(name in known, f"priors.{name}", "the law has no such parameter")
            if pair is None:
                continue
            shape = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
            usual = shape and LEAST_SD <= pair[1] <= 1 / LEAST_SD
            limits = f"from {LEAST_SD:g} to {1 / LEAST_SD:g}"
            _require(usual, f"priors.{name}", f"must be a pair [centre, sd], sd {limits}")
            low, high = known[name].lower, known[name].upper
            inside = low <= pair[0] <= high and (known[name].scale == "linear" or pair[0] > 0)
            _require(inside, f"priors.{name}", f"the centre must lie in [{low:g}, {high:g}]")

    def priors_of(self, law: Law[Any], features: Features) -> Priors:
        """Return the law's priors for these observations, as the caller has changed them."""
        own = law.priors(features)
        centres: dict[str, tuple[float, float]] = dict(own.centres)
        for name, pair in self.priors.items():
            if pair is None:
                centres.pop(name, None)
            else:
                centres[name] = (float(pair[0]), float(pair[1]))
        strength = own.strength or DEFAULT_STRENGTH
        return Priors(centres, strength if self.prior_strength is None else self.prior_strength)


@dataclass(frozen=True)
class Constraints:
    """Bounds by parameter, equal where it is fixed, and safe expressions in their order."""

    bounds: Mapping[str, tuple[float, float]]
    expressions: Mapping[str, str]


def _check_fixed(name: str, value: object, limits: tuple[float, float], given: tuple[float, float]) -> None:
    """Refuse a value that the law, or the caller's own bounds, exclude."""
    low, high = limits
    finite = _is_number(value) and math.isfinite(value)  # type: ignore[arg-type]
    _require(finite, name, f"must be a finite number in [{low:g}, {high:g}]")
    assert isinstance(value, int | float)
    inside = low <= value <= high
    _require(inside, name, f"{value:g} lies outside of the law's own bounds [{low:g}, {high:g}]")
    inside = given[0] <= value <= given[1]
    _require(inside, name, f"{value:g} lies outside of the bounds given for it, [{given[0]:g}, {given[1]:g}]")


def _narrow(name: str, pair: object, limits: tuple[float, float]) -> tuple[float, float]:
    _require(isinstance(pair, list | tuple) and len(pair) == 2, name, "must be a pair [low, high]")
    low, high = (limit if value is None else value for value, limit in zip(pair, limits, strict=True))  # type: ignore[call-overload]
    _require(_is_number(low) and _is_number(high), name, "must be numbers, or null where open")
    low, high = max(float(low), limits[0]), min(float(high), limits[1])
    _require(low < high, name, f"leave nothing of the law's own bounds [{limits[0]:g}, {limits[1]:g}]")
    return low, high


def _check_holdout(holdout: object) -> None:
    if holdout is None:
        return
    shape = isinstance(holdout, Mapping) and len(holdout) == 1 and set(holdout) <= {"run_ids", "fraction"}
    _require(shape, "holdout", 'must be {"run_ids": [...]} or {"fraction": share}')
    assert isinstance(holdout, Mapping)
    if "fraction" in holdout:
        share = holdout["fraction"]
        inside = _is_number(share) and 0 < share <= MAX_SHARE
        reason = (
            f"must lie above 0 and be at most {MAX_SHARE:g}: more would leave less to fit than is predicted"
        )
        _require(inside, "holdout.fraction", reason)
    else:
        names = holdout["run_ids"]
        listed = isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names)
        _require(bool(listed), "holdout.run_ids", "must be a list of run ids that is not empty")


def _whole(value: object, name: str, low: int, high: int, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _require(whole, name, f"must be a whole number in {low}..{high}")


def _is_number(value: object) -> bool:
    """Return whether a value is a number that a float can hold, infinite ones included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max or value in (math.inf, -math.inf)


def _plain(value: Any) -> Any:
    """Return an option with NumPy's numbers and lists, which are as good as Python's, as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _kind(value: object) -> str:
    return type(value).__name__


def _require(condition: bool, name: str, reason: str) -> None:
    if not condition:
        raise InvalidInput(field=name, reason=reason)

"""Which sizes, data and batches reach a loss at least time and compute: the Pareto front that B_crit spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.advice.constraints import Constraints, positive
from isoloss.advice.progress import part
from isoloss.advice.recommendation import fitted_to
from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit, FitOptions, fit
from isoloss.fitting.estimate import Progress
from isoloss.observations import RunTable

LAWS_NEEDED = ("chinchilla", "critical_batch")
"""The fits that a front rests on."""

SIZES, BATCHES = 25, 25
"""Model sizes and batches that are tried, evenly spaced in logarithms."""

SIZES_APART = 10.0
"""How far beyond the fitted sizes, either way, a front may lie."""

BATCHES_APART = 30.0
"""How many times below and above its critical batch a batch is tried."""


@dataclass(frozen=True)
class Choice:
    """A size, its data and its batch that reach the target: steps, operations and hours (None without a speed).

    `compute_interval` is that of the operations, None where no resamples were drawn.
    """

    n_params: float
    n_tokens: float
    batch_tokens: float
    critical_batch_tokens: float
    steps: float
    compute_flops: float
    compute_interval: tuple[float, float] | None
    hours: float | None

    def as_dict(self) -> dict[str, Any]:
        ends = self.compute_interval
        return {**self.__dict__, "compute_interval": None if ends is None else list(ends)}


@dataclass(frozen=True)
class ParetoFront:
    """Choices of which none is beaten in both steps and compute by another, the cheapest in compute first."""

    target_loss: float
    level: float
    choices: Sequence[Choice]
    extrapolation: Mapping[str, float]
    warnings: Sequence[str]
    fits: Mapping[str, Fit] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the front as plain JSON values."""
        return {
            "target_loss": self.target_loss,
            "level": self.level,
            "choices": [one.as_dict() for one in self.choices],
            "extrapolation": dict(self.extrapolation),
            "warnings": list(self.warnings),
            "basis": [{"law": name, "verdict": one.verdict} for name, one in self.fits.items()],
        }


def pareto(
    runs: RunTable,
    *,
    target_loss: float,
    constraints: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ParetoFront:
    """Return the sizes, data and batches that reach a loss, of which none takes more steps and more compute.

    At every size N the loss law gives the least data D_min for the target, and the critical batch what other
    batches take: S = S_min (1 + B_crit/B) steps, D = D_min (1 + B/B_crit) tokens, 6 N D operations (laws.md 3).
    Hours follow from `flops_per_second`, whatever the size and batch. Raises Unidentified where the runs do not
    determine the loss law or the critical batch, InvalidInput for a target that no run can reach, and for a speed
    in tokens, which belongs to one size.
    """
    target, limits = positive(target_loss, "target_loss"), limits_of_sizes(constraints)
    asked = FitOptions.from_mapping(options)
    if not isinstance(runs, RunTable):
        raise InvalidInput(field="runs", reason="must be a table of finished runs (isoloss.read_runs)")
    loss, critical = (
        _determined(fit(law, fitted_to(law, runs), progress=part(progress, number, 2, law), **options))
        for number, law in enumerate(LAWS_NEEDED)
    )
    sizes = _sizes(loss)
    data = _least_data(loss.theta[None], sizes, target)[0]
    if not np.any(np.isfinite(data)):
        floor = float(loss.theta[0])
        reason = (
            f"no size within {SIZES_APART:g} times the fitted ones reaches it: the law's floor is {floor:.4g}"
        )
        raise InvalidInput(field="target_loss", reason=reason)
    members = _least_data(loss.samples, sizes, target)
    choices = [
        one
        for number in np.flatnonzero(np.isfinite(data))
        for one in _of_size(sizes[number], data[number], members[:, number], critical, limits, asked.level)
    ]
    front = _undominated([one for one in choices if _allowed(one, limits)])
    beyond = _beyond(front, loss, critical)
    return ParetoFront(
        target,
        asked.level,
        front,
        beyond,
        _warnings(front, limits),
        {"chinchilla": loss, "critical_batch": critical},
    )


def limits_of_sizes(constraints: object) -> Constraints:
    """Return constraints that hold for any size; raises InvalidInput, for a speed in tokens too."""
    limits = Constraints.of(constraints)
    if limits.tokens_per_second is not None:
        reason = "is a speed of one size, and the sizes vary: give flops_per_second"
        raise InvalidInput(field="constraints.tokens_per_second", reason=reason)
    for name in ("width", "depth"):
        if getattr(limits, name) is not None:
            reason = "is of one model, and the sizes vary: a recommendation for one of them takes it"
            raise InvalidInput(field=f"constraints.{name}", reason=reason)
    return limits


def _determined(found: Fit) -> Fit:
    if found.verdict == "unidentified":
        raise Unidentified(reason=f"{found.law_name}: {'; '.join(found.reasons)}")
    return found


def _sizes(loss: Fit) -> FloatArray:
    low, high = loss.fitted_range.columns["n_params"]  # type: ignore[attr-defined]
    return np.geomspace(low / SIZES_APART, high * SIZES_APART, SIZES)


def _least_data(theta: FloatArray, sizes: FloatArray, target: float) -> FloatArray:
    """Return the tokens at which E + A N^-alpha + B D^-beta is the target, (members, sizes); NaN where none are."""
    floor, a, alpha, b, beta = (theta[:, [index]] for index in range(5))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        left = target - floor - a * sizes**-alpha
        return np.asarray((b / np.where(left > 0, left, np.nan)) ** (1 / beta))


def _of_size(
    size: float, data: float, members: FloatArray, critical: Fit, limits: Constraints, level: float
) -> list[Choice]:
    told = critical.log_members({"config": {"n_tokens": float(data)}})
    batch_crit = float(np.exp(told[0][0]))
    batches = batch_crit * np.geomspace(1 / BATCHES_APART, BATCHES_APART, BATCHES)
    if limits.max_batch_tokens is not None:
        batches = np.unique(np.minimum(batches, limits.max_batch_tokens))
    return [_choice(size, data, members, float(batch), told, limits, level) for batch in batches]


def _choice(
    size: float,
    data: float,
    members: FloatArray,
    batch: float,
    told: tuple[FloatArray, FloatArray],
    limits: Constraints,
    level: float,
) -> Choice:
    batch_crit = float(np.exp(told[0][0]))
    tokens = data * (1 + batch / batch_crit)
    count = min(len(members), len(told[1]))
    compute = 6 * size * members[:count] * (1 + batch / np.exp(told[1][:count, 0]))
    known = compute[np.isfinite(compute)]
    ends = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if known.size else None
    return Choice(
        n_params=float(size),
        n_tokens=float(tokens),
        batch_tokens=batch,
        critical_batch_tokens=batch_crit,
        steps=float(tokens / batch),
        compute_flops=float(6 * size * tokens),
        compute_interval=None if ends is None else (float(ends[0]), float(ends[1])),
        hours=limits.cost(float(size), float(tokens))["hours"],
    )


def _allowed(one: Choice, limits: Constraints) -> bool:
    affordable = limits.compute_flops is None or one.compute_flops <= limits.compute_flops
    in_time = limits.deadline_hours is None or one.hours is None or one.hours <= limits.deadline_hours
    return affordable and in_time


def _undominated(choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices that no other one beats in both steps and compute, by their compute."""
    front: list[Choice] = []
    fewest = np.inf
    for one in sorted(choices, key=lambda choice: (choice.compute_flops, choice.steps)):
        if one.steps < fewest:
            front.append(one)
            fewest = one.steps
    return front


def _beyond(front: Sequence[Choice], loss: Fit, critical: Fit) -> dict[str, float]:
    """Return by how much the front leaves what was fitted: sizes, and data for the critical batch."""
    if not front:
        return {}
    low, high = loss.fitted_range.columns["n_params"]  # type: ignore[attr-defined]
    sizes = [one.n_params for one in front]
    data = [one.n_tokens / (1 + one.batch_tokens / one.critical_batch_tokens) for one in front]
    least, most = critical.fitted_range.columns["n_tokens"]  # type: ignore[attr-defined]
    return {
        "n_params_factor": max(1.0, max(sizes) / high, low / min(sizes)),
        "n_tokens_factor": max(1.0, max(data) / most, least / min(data)),
    }


def _warnings(front: Sequence[Choice], limits: Constraints) -> list[str]:
    if not front:
        return ["no choice holds the constraints"]
    if limits.deadline_hours is not None and limits.flops_per_second is None:
        return ["whether the deadline holds is not known: give measured flops_per_second"]
    return []

"""Which sizes, data and batches reach a loss at least time and compute: the Pareto front that B_crit spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoloss.advice.constraints import Constraints, positive
from isoloss.advice.progress import part
from isoloss.advice.recommendation import FAR_BEYOND, fitted_to
from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput, Unidentified
from isoloss.fitting import Fit, FitOptions, fit
from isoloss.fitting.estimate import Progress
from isoloss.observations import RunTable
from isoloss.observations.tables import LeftOut

LAWS_NEEDED = ("chinchilla", "critical_batch")
"""The fits that a front rests on."""

SIZES, BATCHES = 25, 25
"""Model sizes and batches that are tried, evenly spaced in logarithms."""

SIZES_APART = 10.0
"""How far beyond the fitted sizes, either way, a front may lie."""

BATCHES_APART = 30.0
"""How many times below and above its critical batch a batch is tried."""

BARELY = 1e-6
"""Sizes within this relative distance are one."""

NO_CHOICE = "no choice holds the constraints"

FAR_OF = {
    "n_tokens_factor": "the least data of the front",
    "batch_tokens_factor": "the batches of the front",
}
"""What is told of a front that goes far beyond the runs."""


@dataclass(frozen=True)
class Choice:
    """A size, its data and its batch that reach the target, and what they take: steps, operations, hours, money.

    `compute_interval` is that of the operations, without end (infinity) where resamples never reach the target,
    and None where none were drawn. `hours`, `device_hours` and `money` are None for what the constraints do not
    tell.
    """

    n_params: float
    n_tokens: float
    batch_tokens: float
    critical_batch_tokens: float
    steps: float
    compute_flops: float
    compute_interval: tuple[float, float] | None
    hours: float | None
    device_hours: float | None
    money: float | None

    def as_dict(self) -> dict[str, Any]:
        ends = self.compute_interval
        return {**self.__dict__, "compute_interval": None if ends is None else list(ends)}


@dataclass(frozen=True)
class ParetoFront:
    """Choices of which none is beaten in both steps and compute by another, the cheapest in compute first.

    `extrapolation` says by how many times their sizes, least data and batches lie beyond the runs.
    """

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
    unread: Mapping[str, LeftOut] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ParetoFront:
    """Return the sizes, data and batches that reach a loss, of which none takes more steps and more compute.

    At every size N the loss law gives the least data D_min for the target, and the critical batch what other
    batches take: S = S_min (1 + B_crit/B) steps, D = D_min (1 + B/B_crit) tokens, 6 N D operations (laws.md 3).
    Hours follow from `flops_per_second`, whatever the size and batch. `unread` names the "runs" that the caller
    could not read, for the `left_out` of the fits. Raises Unidentified where the runs do not
    determine the loss law or the critical batch, InvalidInput for a target that no run can reach, and for a speed
    in tokens, which belongs to one size.
    """
    target, limits = positive(target_loss, "target_loss"), limits_of_sizes(constraints)
    asked = FitOptions.from_mapping(options)
    if not isinstance(runs, RunTable):
        raise InvalidInput(field="runs", reason="must be a table of finished runs (isoloss.read_runs)")
    given = {**options, "left_out": (unread or {}).get("runs", [])}
    loss, critical = (
        _determined(fit(law, fitted_to(law, runs), progress=part(progress, number, 2, law), **given))
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
    fits = {"chinchilla": loss, "critical_batch": critical}
    beyond = _beyond(front, loss, critical, _batches(runs, critical))
    warnings = [*_warnings(front, limits, sizes), *_far(beyond), *_weak(fits)] if front else [NO_CHOICE]
    return ParetoFront(target, asked.level, front, beyond, warnings, fits)


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
    """Return the tokens at which E + A N^-alpha + B D^-beta is the target, (members, sizes).

    Infinite where no number of tokens is enough, NaN for a member that is not known.
    """
    floor, a, alpha, b, beta = (theta[:, [index]] for index in range(5))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        left = target - floor - a * sizes**-alpha
        return np.asarray(np.where(left <= 0, np.inf, (b / left) ** (1 / beta)))


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
    cost = limits.cost(float(size), float(tokens))
    return Choice(
        n_params=float(size),
        n_tokens=float(tokens),
        batch_tokens=batch,
        critical_batch_tokens=batch_crit,
        steps=float(tokens / batch),
        compute_flops=float(6 * size * tokens),
        compute_interval=_interval(compute[~np.isnan(compute)], level),
        hours=cost["hours"],
        device_hours=cost["device_hours"],
        money=cost["money"],
    )


def _interval(members: FloatArray, level: float) -> tuple[float, float] | None:
    """Return the ends between which resamples lie; the nearest one, since some may be infinite."""
    if not members.size:
        return None
    low, high = np.quantile(members, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


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


def _batches(runs: RunTable, critical: Fit) -> FloatArray:
    """Return the batches of the runs that the critical batch was read off."""
    left_out = {one["run_id"] for one in critical.left_out}
    table = fitted_to("critical_batch", runs)
    batches = table.column("batch_tokens")[[name not in left_out for name in table.run_ids]]
    return batches[np.isfinite(batches)]


def _beyond(front: Sequence[Choice], loss: Fit, critical: Fit, batches: FloatArray) -> dict[str, float]:
    """Return by how much the front leaves what was fitted: its sizes, least data and batches."""
    if not front:
        return {}
    data = [one.n_tokens / (1 + one.batch_tokens / one.critical_batch_tokens) for one in front]
    in_loss, in_critical = (one.fitted_range.columns for one in (loss, critical))  # type: ignore[attr-defined]
    factors = {
        "n_params_factor": _outside([one.n_params for one in front], in_loss["n_params"]),
        "n_tokens_factor": max(_outside(data, one["n_tokens"]) for one in (in_loss, in_critical)),
    }
    if batches.size:
        ends = float(batches.min()), float(batches.max())
        factors["batch_tokens_factor"] = _outside([one.batch_tokens for one in front], ends)
    return factors


def _outside(values: Sequence[float], ends: tuple[float, float]) -> float:
    """Return how many times values lie below or above two ends, at least 1."""
    return max(1.0, max(values) / ends[1], ends[0] / min(values))


def _warnings(front: Sequence[Choice], limits: Constraints, sizes: FloatArray) -> Iterator[str]:
    if limits.deadline_hours is not None and limits.flops_per_second is None:
        yield "whether the deadline holds is not known: give measured flops_per_second"
    taken = [one.n_params for one in front]
    for edge, at, more in ((sizes[0], min(taken), "smaller"), (sizes[-1], max(taken), "larger")):
        if np.isclose(at, edge, rtol=BARELY):
            yield (
                f"the front reaches the edge of the sizes that were tried, {edge:.3g} parameters, {SIZES_APART:g} "
                f"times beyond the fitted ones: {more} ones may do better"
            )


def _far(beyond: Mapping[str, float]) -> Iterator[str]:
    for name, what in FAR_OF.items():
        if beyond.get(name, 1.0) > FAR_BEYOND:
            yield f"{what} lie {beyond[name]:.3g} times beyond the runs: what the laws say there is a guess"


def _weak(fits: Mapping[str, Fit]) -> Iterator[str]:
    weak = sorted(name for name, one in fits.items() if one.verdict == "weak")
    if weak:
        yield f"weak fits, whose reasons are worth reading: {', '.join(weak)}"

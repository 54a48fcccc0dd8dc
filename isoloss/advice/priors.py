"""What a published law and the runs together say of a setting, and how much of it came from the published law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isoloss.advice.published import PUBLISHED, Prior, Published
from isoloss.advice.quantities import Basis, Quantity
from isoloss.arrays import FloatArray
from isoloss.distributions import chi_squared_tail
from isoloss.fitting import Fit
from isoloss.fitting.intervals import students_factor
from isoloss.fitting.sweeps.surface import LEAST_SPARE
from isoloss.laws import LAWS, SweepLaw

LINEAR_MEAN = 0.5
"""The mean learning rate of linear decay to 0 as a share of its peak."""

LEVEL = 0.9
"""Of the intervals in which errors are as wide as they should be."""

UNLIKELY = 0.05
"""The chance below which runs and a published law are said to disagree."""


@dataclass(frozen=True)
class Seen:
    """What runs say of a setting at some points: logarithms, resamples `members` (resamples, points), variances."""

    at: Mapping[str, FloatArray]
    log_values: FloatArray
    members: FloatArray
    variances: FloatArray


def with_prior(
    name: str,
    found: Quantity | None,
    fit: Fit | None,
    target: Mapping[str, float],
    resamples: int,
    unit: str,
    mean_lr_share: float | None = None,
) -> Quantity:
    """Return the quantity of a published law and of runs together.

    `found` is what the runs' own law says at the target; where they do not determine it, the optima of their sweeps
    still bear on it through the published exponents. The law is a Gaussian prior of the logarithm, and runs are
    observations of it with their errors; every resample is drawn with both. `mean_lr_share` is the mean learning
    rate of the runs as a share of their peak, None where they do not say: a timescale is that of one shape.
    """
    law = _read_as(PUBLISHED[name], fit, mean_lr_share)
    seen = _at_target(found, target) if found is not None else _of_sweeps(fit, resamples)
    size = resamples if found is None else found.log_samples.size
    chance = np.random.default_rng([0, *name.encode()])
    log_value, samples, share, p_value = _posterior(law, target, seen, chance, size)
    prior = Prior(name, float(law.log_value(target)[0]), _error(law, target), share, p_value)
    if found is not None:
        return replace(found, log_value=log_value, log_samples=samples, prior=prior)
    basis = () if fit is None or seen is None else (Basis(fit, _beyond(seen.at, target)),)
    return Quantity(log_value, samples, unit, basis, prior=prior)


def _read_as(law: Published, fit: Fit | None, mean_lr_share: float | None) -> Published:
    """Return a published law in the reading of a fit: timescales are published for the peak of linear decay."""
    if law.law != "timescale":
        return law
    of_mean = fit is not None and fit.law.convention == "effective"
    share = 1.0 if of_mean else mean_lr_share or LINEAR_MEAN
    return replace(law, at_centre=law.at_centre * share / LINEAR_MEAN)


def _error(law: Published, target: Mapping[str, float]) -> float:
    return float(np.linalg.norm(law.loadings(target)[0]))


def _posterior(
    law: Published,
    target: Mapping[str, float],
    seen: Seen | None,
    chance: np.random.Generator,
    size: int,
) -> tuple[float, FloatArray, float, float | None]:
    """Return the logarithm, resamples of it (size,), the share of the prior, and how likely the runs are under it.

    Each resample is a draw of the published law, moved by what a resample of the runs is off it.
    """
    at, to = law.log_value(target)[0], law.loadings(target)[0]
    errors = chance.standard_normal((size, to.size))
    drawn = at + errors @ to
    if seen is None:
        return float(at), drawn, 1.0, None
    mean, loads = law.log_value(seen.at), law.loadings(seen.at)
    covariance = loads @ loads.T + np.diag(seen.variances)
    gain = np.linalg.solve(covariance, loads @ to)
    off = seen.log_values - mean
    moved = drawn + (seen.members - mean - errors @ loads.T) @ gain
    distance = float(off @ np.linalg.solve(covariance, off))
    share = 1 - float(gain @ loads @ to) / float(to @ to)
    return float(at + off @ gain), moved, share, float(chi_squared_tail(distance, off.size))


def _at_target(found: Quantity, target: Mapping[str, float]) -> Seen | None:
    if found.log_samples.size < 2:
        return None
    return Seen(
        {name: np.array([value]) for name, value in target.items()},
        np.array([found.log_value]),
        found.log_samples[:, None],
        np.array([np.var(found.log_samples)]),
    )


def _of_sweeps(fit: Fit | None, resamples: int) -> Seen | None:
    """Return the optimum that each sweep has by itself; None where there is none."""
    if fit is None or not isinstance(LAWS[fit.law_name], SweepLaw):
        return None
    own = [(group["by"], one) for group in fit.groups for one in group["parameters"][:1] if one["value"]]
    if not own:
        return None
    scatter = fit.diagnostics.get("scatter_of_optima") or 0.0
    # The noise of few runs is hardly known: errors are as wide as Student's quantile makes them.
    wider = students_factor(max(fit.diagnostics.get("spare_runs") or 0.0, LEAST_SPARE), LEVEL)
    logs = np.log([one["value"] for _, one in own])
    variances = np.array([(wider * one["std_error"] / one["value"]) ** 2 + scatter**2 for _, one in own])
    chance = np.random.default_rng([1, *fit.law_name.encode()])
    members = logs + np.sqrt(variances) * chance.standard_normal((resamples, logs.size))
    columns = {name: np.array([by[name] for by, _ in own]) for name in ("n_params", "n_tokens")}
    return Seen(columns, logs, members, variances)


def _beyond(at: Mapping[str, FloatArray], target: Mapping[str, float]) -> float:
    """Return how many times beyond the sweeps the target lies."""
    away = [max(target[name] / values.max(), values.min() / target[name]) for name, values in at.items()]
    return float(max(1.0, *away))


def disagreement(name: str, quantity: Quantity) -> str | None:
    """Return in words that the runs lie far from the published law, if they do."""
    prior = quantity.prior
    if prior is None or prior.p_value is None or prior.p_value >= UNLIKELY:
        return None
    return (
        f"{prior.name} says {np.exp(prior.log_value):.3g} for {name}, far from what the runs say: leave it out, or "
        "find out how they differ from those that it was fitted to"
    )

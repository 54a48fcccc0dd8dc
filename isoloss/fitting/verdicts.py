"""Whether the data determine a law: a verdict with its reasons in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoloss.fitting.fitted_range import SAME_PEAK
from isoloss.fitting.objective import Problem
from isoloss.fitting.resampling import Resampling
from isoloss.fitting.result import ParameterEstimate, Verdict

FloatArray = npt.NDArray[np.float64]

LOOSE_INTERVAL = 1.0
"""An interval as wide as the value itself leaves a parameter weakly determined."""

FAILED_SHARE = 0.1
"""Share of resamples without an optimum above which their spread is not trusted."""

FOLDS_NEEDED = 3
"""Schedules that must be predicted from the others before their error says something of another one."""

SINGULAR = 1e12
"""Condition number of the scaled curvature above which a direction is not determined at all."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict is drawn from."""

    missing: dict[str, str]
    optional: tuple[str, ...]
    estimates: Sequence[ParameterEstimate]
    starts_agree: float
    failed_resamples: float
    folds: int
    condition_number: float
    peak_lrs: tuple[float, ...]
    resampling: Resampling


def judge(evidence: Evidence) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons; the statement on how intervals were made is always among them."""
    unidentified = [
        f"{name} is not determined: {why}"
        for name, why in evidence.missing.items()
        if name not in evidence.optional
    ]
    if evidence.condition_number > SINGULAR:
        unidentified.append(
            "some combination of the parameters changes no prediction: they trade off exactly"
        )
    weak = [*_weak_parameters(evidence), *_weak_search(evidence)]
    said = [*unidentified, *weak, evidence.resampling.statement]
    return ("unidentified" if unidentified else "weak" if weak else "sound"), said


def _weak_parameters(evidence: Evidence) -> list[str]:
    reasons = [
        f"{name} is not determined: {why}"
        for name, why in evidence.missing.items()
        if name in evidence.optional
    ]
    for one in evidence.estimates:
        if one.at_bound:
            reasons.append(f"{one.name} lies at its bound, {one.value:.4g}")
        if one.value is not None and one.interval is not None:
            low, high = one.interval
            if high - low > LOOSE_INTERVAL * abs(one.value):
                reasons.append(
                    f"{one.name} is loosely determined: {one.value:.3g} in [{low:.3g}, {high:.3g}]"
                )
    return reasons


def _weak_search(evidence: Evidence) -> list[str]:
    lowest, highest = min(evidence.peak_lrs), max(evidence.peak_lrs)
    said = {
        f"only {evidence.starts_agree:.0%} of the starts reached the best objective": evidence.starts_agree
        < 0.5,
        f"{evidence.failed_resamples:.0%} of the resamples found no optimum": (
            evidence.failed_resamples > FAILED_SHARE
        ),
        f"the runs have peak learning rates from {lowest:.3g} to {highest:.3g}; this law does not carry over "
        "between peaks": highest > lowest * (1 + SAME_PEAK),
        "fewer than three schedules can be predicted from the others: the error on an unseen one is not known": (
            evidence.folds < FOLDS_NEEDED
        ),
    }
    return [words for words, holds in said.items() if holds]


def condition_number(problem: Problem, theta: FloatArray, free: npt.NDArray[np.bool_]) -> float:
    """Return the condition number of the curvature in the free parameters, scaled to unit diagonal."""
    jacobian = problem.relative_jacobian(theta[None])[0][:, free]
    norms = np.linalg.norm(jacobian, axis=0)
    if not free.any() or not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        return float("inf")
    values = np.linalg.svd(jacobian / norms, compute_uv=False)
    with np.errstate(divide="ignore"):
        return float((values[0] / values[-1]) ** 2)

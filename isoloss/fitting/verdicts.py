"""Whether the data determine a law: a verdict with its reasons in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoloss.fitting.fitted_range import SAME_PEAK
from isoloss.fitting.intervals import Spread
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

LARGE_DISCREPANCY = 0.02
"""Error in log loss, on a schedule predicted from the others, above which no prediction is trusted."""

RESAMPLES_BEYOND = 2
"""Resamples that must lie outside of an interval, or its ends are those of the few that were drawn."""

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
    resamples: int
    level: float
    spread: Spread
    outliers: dict[str, float]
    condition_number: float
    peak_lrs: tuple[float, ...]
    resampling: Resampling

    @property
    def statement(self) -> str:
        """How the intervals of parameters were made."""
        return (
            self.resampling.statement
            if self.resamples
            else "no resamples were asked for: there are no intervals"
        )


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
    weak = [*_weak_parameters(evidence), *_weak_search(evidence), *_weak_predictions(evidence)]
    said = [*unidentified, *weak, evidence.statement]
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


def _weak_search(evidence: Evidence) -> Iterator[str]:
    if evidence.starts_agree < 0.5:
        yield f"only {evidence.starts_agree:.0%} of the starts reached the best objective"
    if evidence.failed_resamples > FAILED_SHARE:
        yield f"{evidence.failed_resamples:.0%} of the resamples found no optimum"
    if 0 < evidence.resamples * (1 - evidence.level) < RESAMPLES_BEYOND:
        yield f"{evidence.resamples} resamples are too few for an interval of level {evidence.level:g}"


def _weak_predictions(evidence: Evidence) -> Iterator[str]:
    lowest, highest = min(evidence.peak_lrs), max(evidence.peak_lrs)
    if highest > lowest * (1 + SAME_PEAK):
        yield (
            f"the runs have peak learning rates from {lowest:.3g} to {highest:.3g}; this law does not carry over "
            "between peaks"
        )
    spread = evidence.spread
    if spread.discrepancy is None:
        yield "fewer than three schedules can be predicted from the others: the error on an unseen one is not known"
    elif spread.discrepancy > LARGE_DISCREPANCY:
        error = np.expm1(spread.discrepancy)
        yield f"run {spread.worst_run!r} is predicted {error:.1%} wrong from the other schedules"
    for run_id, median in evidence.outliers.items():
        yield f"run {run_id!r} lies far from the law, by {np.expm1(median):.1%} in the middle"


def condition_number(problem: Problem, theta: FloatArray, free: npt.NDArray[np.bool_]) -> float:
    """Return the condition number of the curvature in the free parameters, scaled to unit diagonal."""
    if not free.any():
        return 1.0
    jacobian = problem.relative_jacobian(theta[None])[0][:, free]
    norms = np.linalg.norm(jacobian, axis=0)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        return float("inf")
    values = np.linalg.svd(jacobian / norms, compute_uv=False)
    with np.errstate(divide="ignore"):
        return float((values[0] / values[-1]) ** 2)

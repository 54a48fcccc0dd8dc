"""Whether the data determine a law: a verdict with its reasons in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isoloss.distributions import chi_squared_quantile
from isoloss.fitting.intervals import Spread
from isoloss.fitting.profiles import Profile
from isoloss.fitting.ranges import SAME_PEAK, CurveRange, FittedRange, TableRange
from isoloss.fitting.resampling import RUNS_NEEDED, Resampling
from isoloss.fitting.result import RESAMPLES_BEYOND, ROUNDED, ParameterEstimate, Verdict, too_few_resamples
from isoloss.notes import counted

AGREEING = 2
"""Starts that must reach the best objective, or it may not be the best."""

CONFIGURATIONS_EACH = 2
"""Configurations of a table for each free parameter below which no interval shows how much a law may be off."""

SPARE = 8
"""Configurations beyond the free parameters from which on the size of the noise is known to a quarter, 1 / sqrt(2 *
8). With fewer, of many fits those have narrow intervals whose noise happens to look small."""

LUCK = 1e-3
"""Chance of noise that looks so small: intervals that would be narrow without it are no luck."""

LOOSE_INTERVAL = 1.0
"""An interval as wide as the value itself leaves a parameter weakly determined."""

FAILED_SHARE = 0.1
"""Share of resamples without an optimum above which their spread is not trusted."""

LARGE_DISCREPANCY = 0.02
"""Error in log loss, of runs predicted from others and beyond noise, above which no prediction is trusted."""

MISFIT, LARGE_MISFIT = 0.02, 0.2
"""Median error, in log loss, of the fitted runs that is worth a word, and above which the law is not theirs."""

SAME_SIZE = 0.01
"""Sizes and batches within this relative distance count as one: what is counted differs a little."""

MOST_NAMED = 5
"""Runs far from the law that are named one by one."""

RESTING = 0.5
"""Share of a parameter's variance that comes from priors above which it rests on them."""

DISAGREEING = 3.0
"""Standard deviations from its prior beyond which a parameter is hardly what the prior takes it for."""

SINGULAR = 1e12
"""Condition number of the scaled curvature above which a direction is not determined at all."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict is drawn from."""

    missing: dict[str, str]
    optional: tuple[str, ...]
    estimates: Sequence[ParameterEstimate]
    starts: int
    starts_agree: int
    failed_resamples: float
    resamples: int
    level: float
    spread: Spread
    outliers: dict[str, float]
    condition_number: float
    fitted_range: FittedRange
    resampling: Resampling
    profiles: dict[str, Profile]
    bounds: Mapping[str, tuple[float | None, float | None]]
    trade_offs: Sequence[str]
    distinct: int
    n_free: int
    misfit: float
    contradictions: Sequence[str]
    prior_shares: dict[str, float]
    far_from_priors: dict[str, float]

    @property
    def statement(self) -> str:
        """How the intervals of parameters were made."""
        if self.resamples:
            return self.resampling.statement
        if self.failed_resamples:
            return "no resample found an optimum: there are no intervals"
        return "no resamples were asked for: there are no intervals"


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
    if evidence.misfit > LARGE_MISFIT:
        unidentified.append(_misfit(evidence))
    unidentified += _several_sizes(evidence.fitted_range)
    weak = [*_weak_parameters(evidence), *_weak_search(evidence), *_weak_predictions(evidence)]
    said = [*unidentified, *weak, *_on_priors(evidence), evidence.statement]
    if not evidence.resamples:  # which the statement says
        weak.append(evidence.statement)
    return ("unidentified" if unidentified else "weak" if weak else "sound"), said


def _misfit(evidence: Evidence) -> str:
    return (
        f"the law misses the runs that it was fitted to, by a median of {np.expm1(evidence.misfit):.1%}: "
        "bounds, fixed values and priors may exclude them, or it is not their law"
    )


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
        reasons += _open_sides(one.name, evidence)
    reasons += [
        f"{name} lies {far:.1f} standard deviations from where its prior expects it: data and prior disagree"
        for name, far in evidence.far_from_priors.items()
        if far > DISAGREEING
    ]
    reasons += evidence.contradictions
    return [*reasons, *(evidence.trade_offs if reasons else ())]


def _on_priors(evidence: Evidence) -> Iterator[str]:
    """Say which parameters are the priors' more than the data's: their intervals hold what these leave open."""
    resting = [name for name, share in evidence.prior_shares.items() if share > RESTING]
    if resting:
        yield f"the law's priors say more than the data on: {', '.join(resting)}"


def _open_sides(name: str, evidence: Evidence) -> Iterator[str]:
    """Say on which sides the data do not limit a parameter, and where a bound that was given is all that does."""
    profile = evidence.profiles.get(name)
    if profile is None:
        return
    given = evidence.bounds.get(name, (None, None))
    sides = (("lower", "below", profile.lower), ("upper", "above", profile.upper))
    for (side, where, end), stopped, bound in zip(sides, profile.at_bounds, given, strict=True):
        if end is None and stopped and bound is not None:
            yield f"{name} is limited {where} by the bound given for it, {bound:g}, and not by the data"
        elif end is None:
            yield f"{name} has no {side} limit: its profile never rises enough {where}"


def _weak_search(evidence: Evidence) -> Iterator[str]:
    if evidence.starts_agree < min(AGREEING, evidence.starts):
        yield f"only {evidence.starts_agree} of {evidence.starts} starts reached the best objective"
    if evidence.failed_resamples > FAILED_SHARE:
        yield f"{evidence.failed_resamples:.0%} of the resamples found no optimum"
    drawn = evidence.resampling
    if evidence.resamples and drawn.of_whole_curves and drawn.n_units < RUNS_NEEDED:
        units = counted(drawn.n_units, drawn.unit.removesuffix("s"))
        shown = "to show how one differs from the next"
        yield f"{units} of curves are too few to resample: {RUNS_NEEDED} are needed {shown}"
    if 0 < evidence.resamples * (1 - evidence.level) < RESAMPLES_BEYOND * (1 - ROUNDED):
        yield too_few_resamples(evidence.resamples, evidence.level)


def _weak_predictions(evidence: Evidence) -> Iterator[str]:
    yield from _several_peaks(evidence.fitted_range)
    yield from _unread(evidence.fitted_range)
    yield from _few_configurations(evidence)
    if MISFIT < evidence.misfit <= LARGE_MISFIT:
        yield _misfit(evidence)
    spread = evidence.spread
    if spread.discrepancy is None:
        needed = " (three schedules are needed)" if isinstance(evidence.fitted_range, CurveRange) else ""
        yield (
            f"too few runs can be predicted from the others{needed}: the error on an unseen one is not known"
        )
    elif spread.discrepancy > LARGE_DISCREPANCY:
        yield f"predicted from the others, {spread.worst} is {np.expm1(spread.error or 0):.1%} off"
    for run_id, median in list(evidence.outliers.items())[:MOST_NAMED]:
        yield f"run {run_id!r} lies far from the law, by a median of {np.expm1(median):.1%}"
    if (others := len(evidence.outliers) - MOST_NAMED) > 0:
        yield f"other runs far from the law: {others}; leave out or mark those that diverged"


def _few_configurations(evidence: Evidence) -> Iterator[str]:
    needed = max(evidence.n_free + SPARE, CONFIGURATIONS_EACH * evidence.n_free)
    of_table = isinstance(evidence.fitted_range, TableRange) and not evidence.missing
    if of_table and evidence.distinct < needed and not _narrow_without_luck(evidence):
        yield (
            f"{counted(evidence.distinct, 'configuration')} for {counted(evidence.n_free, 'free parameter')}: "
            f"how large the noise is hardly shows, and narrow intervals are so by chance; add runs until there are "
            f"{needed}"
        )


def _narrow_without_luck(evidence: Evidence) -> bool:
    """Return whether no parameter would be loose even if the noise is as large as it can be."""
    spare = evidence.distinct - evidence.n_free
    if spare < 1 or evidence.distinct < CONFIGURATIONS_EACH * evidence.n_free:
        return False
    most = float(np.sqrt(spare / chi_squared_quantile(LUCK, spare)))
    known = [one for one in evidence.estimates if one.value is not None and one.interval is not None]
    return all(_width(one) * most <= LOOSE_INTERVAL * abs(one.value or 0.0) for one in known)


def _width(one: ParameterEstimate) -> float:
    return 0.0 if one.interval is None else one.interval[1] - one.interval[0]


def _several_sizes(fitted: FittedRange) -> Iterator[str]:
    if isinstance(fitted, CurveRange) and not fitted.knows_sizes and _several(fitted.n_params):
        sizes = f"{fitted.n_params[0]:g} to {fitted.n_params[-1]:g}"
        yield f"the runs have model sizes from {sizes}, and this law has no term for it: fit each size alone"


def _unread(fitted: FittedRange) -> Iterator[str]:
    """Name what differs between the runs and matters, but not to this law."""
    if isinstance(fitted, CurveRange) and _several(fitted.batches):
        batches = f"{fitted.batches[0]:g} to {fitted.batches[-1]:g} tokens"
        yield f"the runs have batches from {batches}; this law does not carry over between them"
    if isinstance(fitted, TableRange) and fitted.sizes is not None and _several(fitted.sizes):
        sizes = f"{fitted.sizes[0]:g} to {fitted.sizes[1]:g}"
        yield (
            f"the runs have n_params from {sizes}, which this law does not read: it holds only for runs whose size "
            "goes with the rest as in these"
        )


def _several(values: Sequence[float]) -> bool:
    return len(values) > 1 and values[-1] > values[0] * (1 + SAME_SIZE)


def _several_peaks(fitted: FittedRange) -> Iterator[str]:
    if not isinstance(fitted, CurveRange) or fitted.carries_over_peaks:
        return
    lowest, highest = fitted.peak_lrs[0], fitted.peak_lrs[-1]
    if highest > lowest * (1 + SAME_PEAK):
        yield (
            f"the runs have peak learning rates from {lowest:.3g} to {highest:.3g}; this law does not carry over "
            "between peaks"
        )

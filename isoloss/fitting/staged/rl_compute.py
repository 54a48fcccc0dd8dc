"""Reward over compute: one sigmoid for every curve, with what the data say of its asymptote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.intervals import Spread, noise_quantiles
from isoloss.fitting.options import FitOptions
from isoloss.fitting.ranges import TableRange
from isoloss.fitting.report import resampled
from isoloss.fitting.result import Fit, ParameterEstimate, Verdict
from isoloss.fitting.scores import Scores, mean_scores
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.staged.parts import (
    Part,
    Together,
    assembled,
    names_of,
    origin,
    verdict_of,
)
from isoloss.fitting.staged.rl_curve import Readings, Sigmoid, asymptote_ends, nearest, resamples
from isoloss.fitting.table_screening import refuse_doubles
from isoloss.laws.rl_compute import C_MID, R0, A, B, RLCompute
from isoloss.observations import RunTable
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT
from isoloss.observations.tables import COMPUTE, FOLLOWING, WHY_LEFT_OUT

ONLY = "all readings"
"""The name of the one curve of rows that name none."""

FAR_BELOW = 2.0
"""Readings before the rise that lie so many standard deviations below R0 are the noisy part: left out."""

HALF = 0.5
"""The share of a curve's compute from which its end is predicted."""

VAGUE = 30.0
"""Factor between the ends of the interval of C_mid or B above which it is hardly known."""

FAR_OFF = 0.1
"""Error in reward of a curve's end, predicted from its first half, above which no prediction is trusted."""

ONE_MOVES = 1.2
"""Factor by which a single reading moves C_mid or B from which on it is said, and the curve weak."""

MOST_LEFT_OUT = 60
"""Of curves with more readings none moves much alone."""

AT_BOUND = 1e-6
UNLIKELY = 0.05


def fit_rl_compute(
    law: RLCompute, table: RunTable, asked: FitOptions, unread: Sequence[dict[str, str]] = ()
) -> Fit:
    """Return a sigmoid for every curve of a table of readings.

    Raises InvalidInput for a table of another target and for two rows of one run, UnusableData where no reading is
    left.
    """
    table, names, left_out = screened(table, unread)
    parts: list[Part] = []
    ends: dict[str, End] = {}
    for name in sorted(set(names)):
        rows = [row for row, own in enumerate(names) if own == name]
        readings, dropped = _without_noisy_part(table, rows)
        left_out += dropped
        half = _end(readings, asked)
        parts.append(_part(law, name, table.only(rows), readings, asked, half))
        ends |= {name: half} if half is not None else {}
    reasons = parts[0].reasons if len(parts) == 1 else [one for part in parts for one in _said(part)]
    together = Together(
        verdict_of(parts), reasons, _holdout(ends), diagnostics=_diagnostics(asked), left_out=left_out
    )
    return assembled(law, table, parts, together, origin(law, table, names, asked))


def screened(table: RunTable, unread: Sequence[dict[str, str]]) -> tuple[RunTable, list[str], LeftOut]:
    """Return the usable readings in the order of their numbers, the curve of each, and the others with why.

    A reading of no compute is usable: it is where the curve begins.
    """
    if table.target != "reward":
        raise InvalidInput(
            field="target", reason=f"rl_compute is of rewards, and these runs hold {table.target}"
        )
    refuse_doubles(table)
    table = _with_stated_compute(table)
    reasons = [_lacking(table, row) for row in range(table.n_runs)]
    left_out = [
        *unread,
        *({"run_id": one, "reason": why} for one, why in zip(table.run_ids, reasons, strict=True) if why),
    ]
    kept = [row for row in _in_order(table) if reasons[row] is None]
    if not kept:
        why = ": run '{run_id}': {reason}".format(**left_out[0]) if left_out else ""
        raise UnusableData(reason=f"no reading is left to fit{why}")
    table = table.only(kept)
    return table, [ONLY if name is None else name for name in names_of(table, "curve")], left_out


def _with_stated_compute(table: RunTable) -> RunTable:
    """Return the table without sizes: 6 N D, which they make of compute that is not stated, lacks the rollouts."""
    sizes = FOLLOWING[COMPUTE][1]
    return replace(
        table, columns={name: values for name, values in table.columns.items() if name not in sizes}
    )


def _in_order(table: RunTable) -> list[int]:
    return list(map(int, np.lexsort((table.outcome, table.column("compute_flops")))))


def _lacking(table: RunTable, row: int) -> str | None:
    """Return what keeps a reading out, None where nothing does."""
    compute, reward = float(table.column("compute_flops")[row]), float(table.outcome[row])
    if np.isnan(compute):
        return "it has no config.compute_flops"
    if compute != 0 and not LOWEST_COUNT <= compute <= HIGHEST_COUNT:
        limits = f"must be 0, or lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
        return f"its config.compute_flops is {compute:g}, and {limits}"
    if np.isnan(reward):
        return WHY_LEFT_OUT.get(table.label("status")[row] or "", "it has no summary.reward")
    return None if 0 <= reward <= 1 else f"its summary.reward is {reward:.3g}, and must lie between 0 and 1"


def _without_noisy_part(table: RunTable, rows: Sequence[int]) -> tuple[Readings, LeftOut]:
    """Return the readings of a curve but those before its rise that lie far below where it began (laws.md 7)."""
    compute, reward = table.column("compute_flops")[list(rows)], table.outcome[list(rows)]
    later = compute > 0
    readings = Readings(compute[later], reward[later], reward[~later])
    found = _sigmoid(readings)
    if isinstance(found, str) or not readings.start.size:
        return readings, []
    below = reward[later] < found.theta[R0] - FAR_BELOW * found.noise
    n_noisy = int(np.argmin(below)) if not below.all() else 0
    if not n_noisy:
        return readings, []
    named = [table.run_ids[row] for row, one in zip(rows, later, strict=True) if one][:n_noisy]
    why = "it lies below where its curve began: the noisy part before the rise"
    kept = Readings(readings.compute[n_noisy:], readings.reward[n_noisy:], readings.start)
    return kept, [{"run_id": name, "reason": why} for name in named]


def _sigmoid(readings: Readings) -> Sigmoid | str:
    """Return the nearest sigmoid, or why there is none."""
    different = np.unique(readings.compute).size
    if different <= readings.n_fitted:
        begun = (
            "and one of no compute" if readings.start.size else "and none of no compute, so that R0 is fitted"
        )
        needed = readings.n_fitted + 1
        return f"its readings have {different} different computes, {begun}: {needed} at least are needed"
    if np.ptp(np.concatenate([readings.reward, readings.start])) == 0:
        return "all its rewards are equal: there is no rise to fit"
    return nearest(readings.thinned())


def _judged(
    law: RLCompute, readings: Readings, asked: FitOptions
) -> tuple[Sigmoid | None, FloatArray, tuple[float | None, float | None], str | None]:
    """Return a curve's sigmoid, resamples and interval of A, and why A is unidentified, None where it is not."""
    found = _sigmoid(readings)
    if isinstance(found, str):
        return None, np.empty((0, 4)), (None, None), found
    readings = readings.thinned()
    drawn = resamples(readings, found, asked.bootstrap, asked.seed)
    ends = asymptote_ends(readings, found, asked.level)
    return found, drawn, ends, _why_unidentified(law, found, drawn, ends, asked.level)


def _why_unidentified(
    law: RLCompute,
    found: Sigmoid,
    drawn: FloatArray,
    ends: tuple[float | None, float | None],
    level: float,
) -> str | None:
    start, best = found.theta[R0], found.theta[A]
    if best <= start + AT_BOUND or ends[0] is None:
        return "the rewards do not rise above where they began by more than noise"
    least = f"it is {ends[0]:.3g} at least"
    if best >= law.parameters[A].upper - AT_BOUND:
        return f"the asymptote is at its bound, 1: {least}"
    if ends[1] is None:
        return f"the data put no upper limit below 1 on the asymptote: {least}"
    interval = _interval(drawn[:, A], best, found.widening(level), level)
    if interval is not None and interval[1] >= 1 - AT_BOUND:
        return f"noise moves the asymptote to its bound, 1: {least}"
    return None


def _interval(
    values: FloatArray, centre: float, wider: float, level: float, *, in_logs: bool = False
) -> tuple[float, float] | None:
    if in_logs:
        ends = resampled(np.log(values), level, float(np.log(centre)), wider)[1]
        return None if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))
    ends = resampled(values, level, float(centre), wider)[1]
    return None if ends is None else (max(0.0, ends[0]), min(1.0, ends[1]))


def _part(
    law: RLCompute, name: str, table: RunTable, readings: Readings, asked: FitOptions, half: End | None
) -> Part:
    found, drawn, ends, why = _judged(law, readings, asked)
    if found is None:
        return Part(
            name, readings.reward.size + readings.start.size, "unidentified", [str(why), law.remedy], None
        )
    estimates = list(_estimates(law, found, drawn, ends, why, asked.level))
    weak = [] if why else [*_weak(estimates, half), *_resting_on_one(readings, found)]
    weak += [] if why or asked.bootstrap else ["no resamples were drawn"]
    verdict: Verdict = "unidentified" if why else "weak" if weak else "sound"
    reasons = [f"A, C_mid and B: {why}", law.remedy] if why else weak
    told = law.predict(found.theta[None], readings.features)[0]
    scores = score_rewards(readings.reward, told)
    fit = Fit(
        law_name=law.name,
        parameters={one.name: one for one in estimates},
        objective=float(np.mean(found.residuals**2) / 2),
        metrics={"runs": {name: scores}, "mean": scores},
        holdout=None if half is None else _holdout({name: half}),
        groups=[],
        derived=[],
        diagnostics={
            "n_points": int(readings.reward.size),
            "noise": found.noise,
            "memory_of_noise": found.memory,
            **_diagnostics(asked),
        },
        left_out=[],
        verdict=verdict,
        reasons=[*reasons, _statement(found)],
        provenance=origin(law, table, [name] * table.n_runs, asked),
        theta=found.theta,
        samples=drawn,
        inflation=found.widening(asked.level),
        spread=_spread(found, half),
        fitted_range=_range_of(law, table, readings),
        missing=dict.fromkeys(("A", "C_mid", "B"), why) if why else {},
    )
    return Part(name, readings.reward.size + readings.start.size, verdict, fit.reasons, fit)


def _range_of(law: RLCompute, table: RunTable, readings: Readings) -> TableRange:
    columns = {"compute_flops": readings.compute}
    return TableRange.of(columns, law.scale(columns), table.n_params_kind, None)


def _estimates(
    law: RLCompute,
    found: Sigmoid,
    drawn: FloatArray,
    ends: tuple[float | None, float | None],
    why: str | None,
    level: float,
) -> Iterator[ParameterEstimate]:
    """Yield the parameters; of an unidentified curve R0 alone, and what the profile says of A."""
    for place, one in enumerate(law.parameters):
        about = (one.name, one.symbol, one.unit)
        profile = ends if place == A else None
        if why and place != R0:
            yield ParameterEstimate(*about, None, None, None, at_bound=place == A, profile=profile)
            continue
        value, wider = float(found.theta[place]), found.widening(level)
        interval = _interval(drawn[:, place], value, wider, level, in_logs=place in (C_MID, B))
        error = float(np.std(drawn[:, place], ddof=1)) if len(drawn) > 1 else None
        at_bound = place in (C_MID, B) and not one.lower * 1.001 < value < one.upper / 1.001
        yield ParameterEstimate(*about, value, error, interval, at_bound=at_bound, profile=profile)


def _weak(estimates: Sequence[ParameterEstimate], half: End | None) -> Iterator[str]:
    for one in estimates:
        if one.at_bound:
            yield f"{one.name} is at its bound: the rise lies between two readings"
        elif one.name in ("C_mid", "B") and one.interval and one.interval[1] > VAGUE * one.interval[0]:
            yield f"{one.name} is known within a factor of {one.interval[1] / one.interval[0]:.2g} only"
    if half is None:
        yield "the first half has too few readings to predict the end from: the error further on is not known"
    elif abs(half.predicted - half.observed) > FAR_OFF:
        yield f"from its first half, its end is predicted {abs(half.predicted - half.observed):.2g} off"


def _resting_on_one(readings: Readings, found: Sigmoid) -> Iterator[str]:
    """Say which single reading C_mid and B rest on: intervals know what noise does to it, and no other error."""
    n = readings.compute.size
    if not readings.n_fitted + 1 < n <= MOST_LEFT_OUT:
        return
    without = np.array([nearest(readings.without(row)).theta for row in range(n)])
    for name, place in (("C_mid", C_MID), ("B", B)):
        row = int(np.argmax(np.abs(np.log(without[:, place] / found.theta[place]))))
        moved = float(without[row, place])
        if abs(np.log(moved / found.theta[place])) > np.log(ONE_MOVES):
            at = f"the reading at {readings.compute[row]:.3g}"
            yield f"{name} rests on one reading: without {at} it would be {moved:.3g}"


def _statement(found: Sigmoid) -> str:
    kind = (
        f"errors whose neighbours correlate by {found.memory:.2f}" if found.memory else "independent errors"
    )
    return f"intervals are what {kind} of {found.noise:.2g} in reward do, in the reading of R0 too"


def _said(part: Part) -> list[str]:
    return [f"curve {part.name!r} is {part.verdict}: {part.reasons[0]}"] if part.verdict != "sound" else []


def _diagnostics(asked: FitOptions) -> dict[str, Any]:
    statement = "noise as large as that of the residuals was drawn anew for every reading"
    return {"resampling": {"unit": "noise", "resamples": asked.bootstrap, "statement": statement}}


@dataclass(frozen=True)
class End:
    """A curve's last reading as its first half predicts it; `spread` the standard deviation that noise explains."""

    observed: float
    predicted: float
    lower: float | None
    upper: float | None
    spread: float
    verdict: Verdict
    n_fitted: int


def _end(readings: Readings, asked: FitOptions) -> End | None:
    """Return the end of a curve from the first half of its compute, None where that has too few readings."""
    if not readings.compute.size:
        return None
    law, last = RLCompute(), float(readings.compute.max())
    early = readings.until(HALF * last)
    found, drawn, _, why = _judged(law, early, asked)
    if found is None:
        return None
    at = law.prepare({"compute_flops": np.array([last])})
    told = float(law.predict(found.theta[None], at)[0, 0])
    observed = float(readings.reward[readings.compute == last].mean())
    members = law.predict(drawn, at)[:, 0]
    off = found.noise * np.random.default_rng([asked.seed, 37]).standard_normal(len(members))
    ends = _interval(members + off, told, found.widening(asked.level), asked.level)
    spread = float(np.sqrt(np.mean((members - told) ** 2) + found.noise**2)) if len(members) else found.noise
    verdict: Verdict = "unidentified" if why else "sound"
    low, high = ends if ends is not None else (None, None)
    return End(observed, told, low, high, spread, verdict, int(early.reward.size))


def _holdout(ends: Mapping[str, End]) -> dict[str, Any] | None:
    """Return how far off the last readings are that first halves predict; `ends` has them curve by curve."""
    if not ends:
        return None
    runs = {
        name: score_rewards(np.array([one.observed]), np.array([one.predicted])) for name, one in ends.items()
    }
    return {
        "predicted": "the last reading of each curve, from the first half of its compute",
        "score": float(np.sqrt(np.mean([(one.predicted - one.observed) ** 2 for one in ends.values()]))),
        "runs": runs,
        "mean": mean_scores(runs.values()),
        "ends": {
            name: {
                "observed": one.observed,
                "predicted": one.predicted,
                "lower": one.lower,
                "upper": one.upper,
                "verdict": one.verdict,
                "n_fitted": one.n_fitted,
            }
            for name, one in ends.items()
        },
        "others": [],
    }


def score_rewards(observed: FloatArray, predicted: FloatArray) -> Scores:
    """Return the scores of rewards (n,); relative errors are of those above 0, None where none is."""
    error, spread = predicted - observed, float(np.sum((observed - observed.mean()) ** 2))
    above = observed > 0
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else None,
        "max_relative_error": float(np.max(np.abs(error[above]) / observed[above])) if above.any() else None,
    }


def _spread(found: Sigmoid, half: End | None) -> Spread:
    """Return what noise leaves unexplained of the error of the end from the first half, in reward."""
    noise = noise_quantiles(found.residuals)
    if half is None:
        return Spread(None, 0, noise)
    error = abs(half.predicted - half.observed)
    explained = float(normal_quantile(1 - UNLIKELY / 2)) * half.spread
    beyond = float(np.sqrt(max(0.0, error**2 - half.spread**2))) if error > explained else 0.0
    return Spread(beyond, 1, noise, error, explained, "the end of the curve from its first half")

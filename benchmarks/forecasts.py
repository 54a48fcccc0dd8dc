"""Forecasts of runs that still train, replayed over every run of `lr_scheduling`.

Each run is cut where 25, 50 and 75 percent of it were seen, and its final loss is forecast from finished runs of
the set. None of these shares a trunk with it, and what is known of them is learned without it. Four projects: all
other runs; of these only shorter ones, so that every forecast reaches beyond; eight and four of them by chance.

    python -m benchmarks forecasts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import isoloss
from benchmarks.datasets import ScheduledRun, available, scheduled_runs
from benchmarks.tables import print_table
from isoloss.advice.forecast_traces import STOPS
from isoloss.advice.forecasts import Forecast, Forecaster, companions, families
from isoloss.errors import UnusableData

SEEN = (0.25, 0.5, 0.75)
FAULTS = (0.005, 0.01, 0.02)
"""By how much the log loss of a run is raised from 40 percent on, to see whether it is told."""

FAULTY_FROM = 0.4


@dataclass(frozen=True)
class Replay:
    """What was said of a run: forecasts by share seen, how often it left its band, which faults were told."""

    final: float
    forecasts: Mapping[float, Forecast]
    alarms: int
    told: Mapping[float, bool]


def main() -> None:
    if not available("lr_scheduling"):
        return
    runs = scheduled_runs()
    every = np.array(families([run.curve for run in runs]))
    for project in ("all others", "shorter ones", "eight by chance", "four by chance"):
        replays = list(_replayed(runs, every, project))
        print_table(f"forecasts from {project}", list(_rows(replays, len(runs))))


def _replayed(
    runs: Sequence[ScheduledRun], every: np.ndarray[tuple[int], np.dtype[np.int64]], project: str
) -> Iterator[Replay]:
    known: dict[tuple[str, ...], Forecaster | None] = {}
    for number, run in enumerate(runs):
        others = [one.curve for one, its in zip(runs, every, strict=True) if its != every[number]]
        if project == "shorter ones":
            others = [
                one for one in others if one.schedule.total_steps < 0.95 * run.curve.schedule.total_steps
            ]
        finished = companions(others, run.curve)
        if project.endswith("by chance"):
            finished = _some(finished, 8 if project.startswith("eight") else 4, number)
        key = tuple(one.run_id for one in finished)
        if key not in known:
            known[key] = _learned(finished)
        learned = known[key]
        if learned is not None:
            yield _replay(learned, run.curve)


def _some(curves: Sequence[isoloss.Curve], count: int, seed: int) -> list[isoloss.Curve]:
    """Return the curves of so many families by chance."""
    numbers = families(curves)
    kept = np.random.default_rng(seed).permutation(np.unique(numbers))[:count]
    return [curve for curve, its in zip(curves, numbers, strict=True) if its in kept]


def _learned(finished: Sequence[isoloss.Curve]) -> Forecaster | None:
    try:
        return Forecaster.learn(finished)
    except UnusableData:
        return None


def _replay(learned: Forecaster, curve: isoloss.Curve) -> Replay:
    told = {
        fault: any(one.left_band for one in _walk(learned, _faulty(curve, fault), FAULTY_FROM))
        for fault in FAULTS
    }
    return Replay(
        final=float(curve.loss_nats[-1]),
        forecasts={share: learned.forecast(_cut(curve, share)) for share in SEEN},
        alarms=sum(one.left_band is not None for one in _walk(learned, curve, 0.0)),
        told=told,
    )


def _walk(learned: Forecaster, curve: isoloss.Curve, begin: float) -> Iterator[Forecast]:
    """Yield what is said at the stops after `begin`, short of the end."""
    for stop in STOPS[1:-1]:
        if stop > begin:
            yield learned.forecast(_cut(curve, stop))


def _cut(curve: isoloss.Curve, share: float) -> isoloss.Curve:
    seen = curve.step <= share * curve.schedule.total_steps
    return replace(curve, step=curve.step[seen], loss_nats=curve.loss_nats[seen])


def _faulty(curve: isoloss.Curve, fault: float) -> isoloss.Curve:
    late = curve.step > FAULTY_FROM * curve.schedule.total_steps
    return replace(curve, loss_nats=curve.loss_nats * np.where(late, np.exp(fault), 1.0))


def _rows(replays: Sequence[Replay], n_runs: int) -> Iterator[dict[str, object]]:
    for share in SEEN:
        said = [(one.forecasts[share], one.final) for one in replays]
        off = np.array([abs(one.value / final - 1) for one, final in said if one.value])
        held = [one.lower <= final <= one.upper for one, final in said if one.lower and one.upper]
        half = [(one.upper / one.lower - 1) / 2 for one, _ in said if one.lower and one.upper]
        yield {
            "seen": f"{share:.0%}",
            "runs": f"{len(off)} of {n_runs}",
            "median off": f"{np.median(off):.3%}",
            "90 % within": f"{np.quantile(off, 0.9):.3%}",
            "band, median": f"{np.median(half):.3%}",
            "held": f"{np.mean(held):.3f}",
            "false alarms, runs": f"{np.mean([one.alarms > 0 for one in replays]):.3f}",
            **{
                f"+{fault:.1%} told": f"{np.mean([one.told[fault] for one in replays]):.2f}"
                for fault in FAULTS
            },
        }


if __name__ == "__main__":
    main()

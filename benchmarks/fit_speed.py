"""How long fits take, beside SciPy on the same objective in the same process, on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

import isoloss
from benchmarks.datasets import TRAIN, available, multi_power_curves, scheduled_runs
from benchmarks.rivals import ScipyRival, problem_of, random_starts
from benchmarks.tables import print_table
from benchmarks.tables_data import chinchilla_table
from isoloss.arrays import FloatArray
from isoloss.fitting.objective import HUBER_DELTA
from isoloss.fitting.one_law import Observations
from isoloss.fitting.starts import data_starts

ROUNDS = 7

OBJECTIVE = 0.0010182745
PUBLISHED = {"E": (1.81686, 0.02566), "alpha": (0.34781, 0.01540), "beta": (0.36585, 0.02060)}
"""Values and standard errors of the replication (README of the data)."""

STARTS, RESAMPLES = 4_500, 4_000
GRID = (
    np.arange(0, 30, 5.0),
    np.arange(0, 30, 5.0),
    np.arange(-1, 1.5, 0.5),
    np.arange(0, 2.5, 0.5),
    np.arange(0, 2.5, 0.5),
)
"""The replication's starts: ln A, ln B, ln E, alpha, beta."""

SCIPY_SAMPLE = 60
"""How many of SciPy's starts and resamples are timed, of each."""


def main() -> None:
    """Print how long fits of every law take, against their targets."""
    if available("chinchilla"):
        chinchilla()
    if available("multipowerlaw"):
        curves()


@dataclass(frozen=True)
class Timed:
    """What was done, how long it took, and how long it may."""

    what: str
    seconds: float
    target: float
    aim: float | None = None

    def row(self) -> Mapping[str, object]:
        return {
            "what": self.what,
            "measured": f"{self.seconds:.3g} s",
            "target": f"{self.target:g} s",
            "aim": "" if self.aim is None else f"{self.aim:g} s",
            "reached": "no"
            if self.seconds > self.target
            else "aim"
            if self.seconds < (self.aim or 0)
            else "yes",
        }


def median(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median of the seconds that the work takes."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(rounds))


def chinchilla() -> None:
    """Print the fit of the 240 points, its time, and SciPy's."""
    table = chinchilla_table()
    scipy = {jac: _bfgs(table, gradient=jac) for jac in (False, True)}
    ours = median(lambda: isoloss.fit("chinchilla", table, starts=STARTS, bootstrap=RESAMPLES), 3)
    refits = median(lambda: isoloss.fit("chinchilla", table, bootstrap=1000))
    print_table("chinchilla, 240 points: what is found", _found(isoloss.fit("chinchilla", table)))
    rows = [_beside(ours, scipy[jac], gradient=jac) for jac in (False, True)]
    print_table(f"chinchilla: {STARTS:,} starts and {RESAMPLES:,} resamples, one core", rows)
    print_table("chinchilla: refits", [Timed("a fit with 1,000 resamples", refits, 1.0, 0.5).row()])


def _found(fit: isoloss.Fit) -> list[Mapping[str, object]]:
    said = [
        {"what": "objective", "ours": f"{fit.objective:.10f}", "published": f"at most {OBJECTIVE}", "": ""}
    ]
    for name, (value, error) in PUBLISHED.items():
        ours = fit.parameters[name].value
        assert ours is not None
        away = f"{abs(ours - value) / error:.2f} standard errors away"
        said.append({"what": name, "ours": f"{ours:.5f}", "published": f"{value} ({error})", "": away})
    weak = [reason for reason in fit.reasons if reason.startswith(("A ", "B "))]
    return [
        *said,
        {"what": "A, B", "ours": fit.verdict, "published": "weakly identified", "": "; ".join(weak)},
    ]


@dataclass(frozen=True)
class Bfgs:
    """What a start and a resample take with SciPy, and where its starts ended."""

    start: float
    resample: float
    objectives: FloatArray

    @property
    def whole(self) -> float:
        return STARTS * self.start + RESAMPLES * self.resample


def _beside(ours: float, scipy: Bfgs, *, gradient: bool) -> Mapping[str, object]:
    best = float(np.min(scipy.objectives))
    reached = int(np.sum(scipy.objectives <= OBJECTIVE))
    return {
        "BFGS is given": "our analytic gradient" if gradient else "no gradient (its default)",
        "a start": f"{1e3 * scipy.start:.1f} ms",
        "a resample": f"{1e3 * scipy.resample:.1f} ms",
        "BFGS, all, scaled": f"{scipy.whole:.0f} s",
        "ours, all, median of 3": f"{ours:.2f} s",
        "ratio": f"{scipy.whole / ours:.0f}",
        "BFGS, best objective": f"{best:.10f}",
        "its starts that reached ours": f"{reached} of {len(scipy.objectives)}",
    }


def _bfgs(table: isoloss.RunTable, *, gradient: bool) -> Bfgs:
    """Time SciPy's BFGS on the log-sum-exp form from some of the published starts, and on some resamples.

    A resample starts from the optimum, as ours do.
    """
    random = np.random.default_rng(0)
    grid = np.array(list(product(*GRID)))
    log_n, log_d, log_loss = (
        np.log(column) for column in (table.columns["n_params"], table.columns["n_tokens"], table.outcome)
    )
    objective = _log_sum_exp(log_n, log_d, log_loss, gradient=gradient)

    def run(start: FloatArray, weights: FloatArray) -> Any:
        with np.errstate(all="ignore"):
            return minimize(objective, start, args=(weights,), method="BFGS", jac=gradient)

    ones = np.ones(table.n_runs)
    begun = time.perf_counter()
    found = [run(start, ones) for start in random.permutation(grid)[:SCIPY_SAMPLE]]
    from_starts = (time.perf_counter() - begun) / SCIPY_SAMPLE
    best = min(found, key=lambda one: float(one.fun)).x
    begun = time.perf_counter()
    for _ in range(SCIPY_SAMPLE):
        run(best, random.multinomial(table.n_runs, ones / table.n_runs).astype(float))
    resampled = (time.perf_counter() - begun) / SCIPY_SAMPLE
    return Bfgs(from_starts, resampled, np.array([one.fun for one in found]))


def _log_sum_exp(
    log_n: FloatArray, log_d: FloatArray, log_loss: FloatArray, *, gradient: bool
) -> Callable[[FloatArray, FloatArray], Any]:
    """Return the sum of Huber losses over (ln A, ln B, ln E, alpha, beta) and weights, or it with its gradient."""

    def objective(at: FloatArray, weights: FloatArray) -> Any:
        a, b, e, alpha, beta = at
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
        residuals = logsumexp(terms, axis=0) - log_loss
        clipped = np.clip(residuals, -HUBER_DELTA, HUBER_DELTA)
        value = float(np.sum(weights * clipped * (residuals - clipped / 2)))
        if not gradient:
            return value
        size, data, floor = softmax(terms, axis=0) * (weights * clipped)
        return value, np.array([size.sum(), data.sum(), floor.sum(), -size @ log_n, -data @ log_d])

    return objective


def curves() -> None:
    """Print how long fits of loss curves take, and SciPy from one start beside them."""
    three = multi_power_curves("25M", TRAIN)
    timed = [*_times(three)]
    beside = [_scipy_row(law, three) for law in ("lr_annealing", "multi_power", "concave_memory")]
    if available("lr_scheduling"):
        peaks = [run.curve for run in scheduled_runs() if not run.is_cooldown]
        timed += _peaks_times(peaks)
        beside.append(_scipy_row("effective_lr", peaks))
    print_table("fits of curves, one core", [one.row() for one in timed])
    print_table("one fit beside SciPy's L-BFGS-B from one start", beside)


def _times(three: Sequence[isoloss.Curve]) -> list[Timed]:
    nine = multi_power_curves("25M")
    return [
        Timed("lr_annealing, 3 curves", _fit("lr_annealing", three), 0.1),
        Timed("lr_annealing, 3 curves, 500 resamples", _fit("lr_annealing", three, 500), 5.0),
        Timed("lr_annealing, 9 curves, 1,000 resamples", _fit("lr_annealing", nine, 1000), 2.0),
        Timed("multi_power, 3 curves", _fit("multi_power", three), 2.0, 0.5),
        Timed("multi_power, 3 curves, 32 random starts", _race("multi_power", three, 32), 2.0, 0.5),
        Timed("multi_power, 3 curves, 500 resamples", _fit("multi_power", three, 500), 20.0),
        Timed("concave_memory, 3 curves", _fit("concave_memory", three), 0.1),
        Timed("concave_memory, 3 curves, 500 resamples", _fit("concave_memory", three, 500), 10.0),
    ]


def _peaks_times(peaks: Sequence[isoloss.Curve]) -> list[Timed]:
    return [
        Timed(f"effective_lr, {len(peaks)} runs of all peaks", _fit("effective_lr", peaks), 0.5),
        Timed("effective_lr, 200 resamples", _fit("effective_lr", peaks, 200), 30.0),
    ]


def _fit(law: str, curves: Observations, bootstrap: int = 0) -> float:
    rounds = 3 if bootstrap else ROUNDS
    return median(lambda: isoloss.fit(law, curves, bootstrap=bootstrap), rounds)


def _race(law: str, curves: Observations, count: int) -> float:
    """Time a search from random starts alone."""
    problem = problem_of(law, curves)
    starts = random_starts(problem, count)
    ones = np.ones((count, problem.features.n_points))
    return median(lambda: problem.solve(starts, ones, race=True))


def _scipy_row(law: str, curves: Observations) -> Mapping[str, object]:
    problem = problem_of(law, curves)
    start = data_starts(problem, 1)[0]
    rival = ScipyRival(problem)
    begun = time.perf_counter()
    _, objective = rival.minimum(start)
    theirs = time.perf_counter() - begun
    ours, fit = _fit(law, curves), isoloss.fit(law, curves, bootstrap=0)
    return {
        "law": law,
        "ours (all starts, refits to left-out schedules)": f"{ours:.3f} s",
        "SciPy, one start": f"{theirs:.2f} s",
        "ratio": f"{theirs / ours:.1f}",
        "objective, ours": f"{fit.objective:.8e}",
        "SciPy's": f"{objective:.8e}",
    }


if __name__ == "__main__":
    main()

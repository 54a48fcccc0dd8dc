"""Whether a fit finds the optimum: its objective beside the best that SciPy finds from 500 random starts.

`python -m benchmarks.optima [--starts 500]`. SciPy's L-BFGS-B (ftol 1e-15, gtol 1e-15) minimises what the fit
minimises: the sum of Huber losses and priors at the same screened points, within the same bounds, with our analytic
gradient, in the solver's coordinates (linear coefficients in units of the largest that their starts may be).

To end in half an hour, every start is given the `ITERATIONS` of its law, the best `GOING_ON` are given
`MORE_ITERATIONS` more, and the best `POLISHED` are restarted until their best gains less than a tenth of what is
told apart. So of the laws of curves "reached" counts those that were there by then, not all that would arrive.

The minimisers run in one thread each and wait for each other, so that what they ask for is worked out in batches:
lr_annealing takes twenty times as long one by one. All is done on one core.

Left out are sets without a law of ours: `critical_batch_size`, `rl_sigmoid` and `recipes` (no learning rates);
`multipowerlaw` states no weight decay, which effective_lr needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from scipy.optimize import OptimizeResult, minimize

import isoloss
from benchmarks.accuracy import CURVE_LAWS, ONE_PEAK_LAWS, PEAK_LRS, SIZES, runs_at
from benchmarks.datasets import TRAIN, available, multi_power_curves, scheduled_runs
from benchmarks.rivals import REFUSED, problem_of
from benchmarks.tables import print_table
from benchmarks.tables_data import (
    GEMSTONES,
    by_size,
    chinchilla_table,
    gemstones_table,
    marin_table,
    steplaw_table,
)
from isoloss.arrays import FloatArray, IntArray
from isoloss.fitting.objective import Problem
from isoloss.fitting.one_law import Observations

STARTS = 500

ITERATIONS = {
    "power_law": 1_000,
    "chinchilla": 1_000,
    "lr_annealing": 80,
    "multi_power": 80,
    "concave_memory": 50,
    "effective_lr": 20,
}
"""Iterations of every start, by law: the dearer a law, the fewer."""

GOING_ON, MORE_ITERATIONS = 30, 100
POLISHED, POLISH_ITERATIONS, POLISHES = 10, 300, 3

TOLERANCES = {"ftol": 1e-15, "gtol": 1e-15, "maxls": 40}
"""A tolerance at which L-BFGS-B reaches optima as flat as these (laws.md 1.3)."""

SAME = 1e-6
"""Relative distance within which two objectives are those of one optimum."""

SMALLEST_SHARE = 1e-3
"""Linear terms start between this share of the largest loss and all of it, evenly in logarithm."""

CHUNK_TERMS = 100_000
"""Terms of a law that are worked out at once: more no longer fit the caches."""

STEPS = (1e-4, 1e-5, 1e-6)
"""Steps of the differences that gradients are checked by, in the coordinates' units."""


@dataclass(frozen=True)
class Pair:
    """Observations and the law that is fitted to them."""

    data: str
    law: str
    observations: Observations
    convention: str | None = None

    @property
    def title(self) -> str:
        return self.law if self.convention is None else f"{self.law} ({self.convention})"

    def problem(self) -> Problem:
        return problem_of(self.law, self.observations, self.convention)


@dataclass(frozen=True)
class Starts:
    """Coordinates (starts, free parameters), and the units in which SciPy sees them."""

    at: FloatArray
    unit: FloatArray

    def only(self, rows: IntArray, at: FloatArray) -> Starts:
        """Return the starts of these rows, begun anew at other coordinates (rows, free parameters)."""
        return Starts(at, self.unit[rows])


@dataclass(frozen=True)
class Reached:
    """Where each start ended: coordinates (starts, free parameters) and objectives (starts,)."""

    at: FloatArray
    objective: FloatArray

    def best(self, count: int) -> IntArray:
        return np.argsort(self.objective, kind="stable")[:count]

    def replaced(self, rows: IntArray, other: Reached) -> Reached:
        """Return this with what starts of these rows reached from here, where it is lower."""
        at, objective = self.at.copy(), self.objective.copy()
        lower = other.objective < objective[rows]
        at[rows[lower]], objective[rows[lower]] = other.at[lower], other.objective[lower]
        return Reached(at, objective)


class Landscape:
    """The objective of a problem and its gradient over the coordinates of the parameters that are free."""

    def __init__(self, problem: Problem) -> None:
        ends = problem.coordinates(np.stack([problem.lower, problem.upper]))
        self.problem = problem
        self.free = np.flatnonzero(problem.free)
        self.held = ends[0]
        self.lower, self.upper = np.sort(ends, axis=0)[:, self.free]
        self.model = problem.model()

    def whole(self, at: FloatArray) -> FloatArray:
        """Return coordinates (members, parameters), those that are held among them."""
        whole = np.repeat(self.held[None], len(at), axis=0)
        whole[:, self.free] = at
        return whole

    def __call__(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return objectives (members,) and gradients (members, free); `REFUSED` and 0 where there is none."""
        size = max(1, CHUNK_TERMS // self.problem.features.n_terms)
        with np.errstate(all="ignore"):
            parts = [self._chunk(at[begin : begin + size]) for begin in range(0, len(at), size)]
        value, gradient = (np.concatenate(column) for column in zip(*parts, strict=True))
        defined = np.isfinite(value) & np.all(np.isfinite(gradient), axis=1)
        return np.where(defined, value, REFUSED), np.where(defined[:, None], gradient, 0.0)

    def _chunk(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        whole, delta = self.whole(at), self.problem.delta
        residuals, jacobian = self.model(whole)
        clipped = np.clip(residuals, -delta, delta)
        value = np.sum(clipped * (residuals - clipped / 2), axis=1)
        slope = (clipped[:, None, :] @ jacobian)[:, 0]
        centre, precision = self.problem.prior
        away = np.where(precision > 0, whole - centre, 0.0)
        value += np.sum(precision * away**2, axis=1) / 2
        return value, (slope + precision * away)[:, self.free]


def draw(landscape: Landscape, count: int, seed: int = 0) -> Starts:
    """Return random starts at which the objective is defined.

    What does not enter linearly is drawn between its bounds, evenly in its coordinate; what does, evenly in its
    logarithm, so that its term is at most as large as the largest loss, and at least `SMALLEST_SHARE` of that.
    """
    random = np.random.default_rng(seed)
    at, unit = np.zeros((2, 0, landscape.free.size))
    while len(at) < count:
        drawn = _drawn(landscape, random, count)
        defined = landscape(drawn.at)[0] < REFUSED
        at, unit = np.append(at, drawn.at[defined], axis=0), np.append(unit, drawn.unit[defined], axis=0)
    return Starts(at[:count], unit[:count])


def _drawn(landscape: Landscape, random: np.random.Generator, count: int) -> Starts:
    problem, parameters = landscape.problem, landscape.problem.law.parameters
    linear = np.array([parameter.enters_linearly for parameter in parameters])
    inner = ~linear[landscape.free]
    at = np.zeros((count, landscape.free.size))
    at[:, inner] = random.uniform(landscape.lower[inner], landscape.upper[inner], (count, inner.sum()))
    with np.errstate(all="ignore"):
        theta = problem.values(landscape.whole(at))
        height = np.concatenate([_heights(problem, part) for part in np.array_split(theta, count)])
        largest = np.exp(np.max(problem.log_observed)) / height
        size = largest * SMALLEST_SHARE ** random.uniform(size=largest.shape)
        sign = np.where(problem.lower[linear] < 0, random.choice([-1.0, 1.0], size=size.shape), 1.0)
        theta[:, linear] = np.where(problem.free[linear], sign * size, theta[:, linear])
        theta = np.clip(theta, problem.lower, problem.upper)
        at = problem.coordinates(theta)[:, landscape.free]
    unit = np.ones_like(theta)
    plain = linear & np.array([parameter.scale == "linear" for parameter in parameters])
    unit[:, plain] = largest[:, plain[linear]]
    usable = np.all(np.isfinite(at) & np.isfinite(unit[:, landscape.free]), axis=1)
    return Starts(at[usable], unit[usable][:, landscape.free])


def _heights(problem: Problem, theta: FloatArray) -> FloatArray:
    """Return the largest value of each column that a linear parameter multiplies, (members, linear)."""
    return np.asarray(np.max(np.abs(problem.law.basis(theta, problem.features)), axis=1))


def minimise(landscape: Landscape, starts: Starts, iterations: int) -> Reached:
    """Return where SciPy's L-BFGS-B is after at most so many iterations from every start."""
    requests: SimpleQueue[tuple[int, FloatArray | None]] = SimpleQueue()
    replies: list[SimpleQueue[tuple[float, FloatArray]]] = [SimpleQueue() for _ in starts.at]

    def run(number: int) -> OptimizeResult:
        unit = starts.unit[number]

        def asked(at: FloatArray) -> tuple[float, FloatArray]:
            requests.put((number, at * unit))
            value, gradient = replies[number].get()
            return value, gradient * unit

        try:
            return minimize(
                asked,
                starts.at[number] / unit,
                method="L-BFGS-B",
                jac=True,
                bounds=np.stack([landscape.lower / unit, landscape.upper / unit], axis=1),
                options={**TOLERANCES, "maxiter": iterations, "maxfun": 4 * iterations},
            )
        finally:
            requests.put((number, None))

    with ThreadPoolExecutor(len(starts.at)) as pool:
        running = [pool.submit(run, number) for number in range(len(starts.at))]
        _serve(landscape, requests, replies)
    found = [one.result() for one in running]
    return Reached(np.array([one.x for one in found]) * starts.unit, np.array([one.fun for one in found]))


def _serve(
    landscape: Landscape,
    requests: SimpleQueue[tuple[int, FloatArray | None]],
    replies: Sequence[SimpleQueue[tuple[float, FloatArray]]],
) -> None:
    """Answer the minimisers until the last has finished: one batch after another of what they all ask for.

    One runs at a time, until it asks again: threads that compete for the interpreter take several times as long.
    """
    first = (requests.get() for _ in replies)
    waiting = {number: at for number, at in first if at is not None}
    while waiting:
        answers = landscape(np.stack(list(waiting.values())))
        asked = {}
        for number, value, gradient in zip(waiting, *answers, strict=True):
            replies[number].put((float(value), gradient))
            _, at = requests.get()
            if at is not None:
                asked[number] = at
        waiting = asked


def search(landscape: Landscape, law: str, starts: Starts) -> Reached:
    """Return what SciPy reaches from the starts, in the rounds that the module describes."""
    reached = minimise(landscape, starts, ITERATIONS[law])
    reached = _go_on(landscape, starts, reached, GOING_ON, MORE_ITERATIONS)
    for _ in range(POLISHES):
        before = float(np.min(reached.objective))
        reached = _go_on(landscape, starts, reached, POLISHED, POLISH_ITERATIONS)
        if float(np.min(reached.objective)) > before * (1 - SAME / 10):
            break
    return reached


def _go_on(landscape: Landscape, starts: Starts, reached: Reached, count: int, iterations: int) -> Reached:
    """Return what is reached when the best go on from where they are, as new starts."""
    rows = reached.best(count)
    return reached.replaced(rows, minimise(landscape, starts.only(rows, reached.at[rows]), iterations))


def pairs() -> Iterator[Pair]:
    """Return every set of `shared/data` with every law that applies to it."""
    if available("chinchilla"):
        yield Pair("chinchilla, 240 points", "chinchilla", chinchilla_table())
    yield from _other_tables()
    if available("multipowerlaw"):
        for size in SIZES:
            curves = multi_power_curves(size, TRAIN)
            yield from (Pair(f"multipowerlaw {size}", law, curves) for law in ONE_PEAK_LAWS)
            yield Pair(f"multipowerlaw {size}", "multi_power", curves, "from_first_step")
    if available("lr_scheduling"):
        yield from _scheduled()


def _other_tables() -> Iterator[Pair]:
    if available("gemstones"):
        for name in GEMSTONES:
            yield Pair(f"gemstones {name}", "chinchilla", gemstones_table(name))
        yield from _power_laws("gemstones cool_end", gemstones_table("cool_end"))
    if available("steplaw"):
        yield Pair("steplaw, best of each cell", "chinchilla", steplaw_table())
        yield from _power_laws("steplaw", steplaw_table(), least=4)
    if available("marin_adamw"):
        yield Pair("marin_adamw, best of each cell", "chinchilla", marin_table())
        yield from _power_laws("marin_adamw", marin_table(), least=4)


def _power_laws(name: str, table: isoloss.RunTable, least: int = 5) -> Iterator[Pair]:
    for size, part in by_size(table, least).items():
        yield Pair(f"{name}, N = {size:.4g}", "power_law", part)


def _scheduled() -> Iterator[Pair]:
    for at in PEAK_LRS:
        curves = [run.curve for run in runs_at(at) if not run.is_cooldown]
        yield from (Pair(f"lr_scheduling {at:g}", law, curves) for law in CURVE_LAWS)
    every = [run.curve for run in scheduled_runs() if not run.is_cooldown]
    yield Pair("lr_scheduling, all peaks", "effective_lr", every)


def compared(pair: Pair, count: int) -> Mapping[str, object]:
    """Fit a law, let SciPy search, and return both as a row.

    Raises AssertionError where the problem given to SciPy is not the one that the fit solved.
    """
    begun = time.perf_counter()
    fit = isoloss.fit(pair.law, pair.observations, convention=pair.convention, bootstrap=0)
    ours = time.perf_counter() - begun
    landscape = Landscape(pair.problem())
    at = landscape.problem.coordinates(fit.theta[None])[:, landscape.free]
    assert np.isclose(landscape(at)[0][0], fit.objective, rtol=1e-9), "not the problem of the fit"
    begun = time.perf_counter()
    reached = search(landscape, pair.law, draw(landscape, count))
    theirs = time.perf_counter() - begun
    best = float(np.min(reached.objective))
    level = min(best, fit.objective) * (1 + SAME)
    return {
        "set": pair.data,
        "law": pair.title,
        "points": landscape.problem.features.n_points,
        "ours": f"{fit.objective:.9e}",
        "best of SciPy": f"{best:.9e}",
        "ours / SciPy - 1": f"{fit.objective / best - 1:.1e}",
        "worse": "WORSE" if fit.objective > best * (1 + SAME) else "",
        "SciPy reached": f"{int(np.sum(reached.objective <= level))} of {count}",
        "ours, a whole fit": f"{ours:.2f} s",
        "SciPy": f"{theirs:.1f} s",
    }


def gradient_error(landscape: Landscape, seed: int = 1) -> float:
    """Return how far the gradient is from central differences at one random start, of its length.

    Of several steps the best counts: rounding spoils short ones, curvature long ones.
    """
    start = draw(landscape, 1, seed)
    analytic = landscape(start.at)[1][0] * start.unit[0]
    moves = np.diag(start.unit[0])
    errors = []
    for step in STEPS:
        ahead, behind = (landscape(start.at + sign * step * moves)[0] for sign in (1, -1))
        errors.append(np.linalg.norm((ahead - behind) / (2 * step) - analytic))
    return float(min(errors) / np.linalg.norm(analytic))


def main(argv: Sequence[str] = ()) -> None:
    """Print that the gradients are right, then every fit beside SciPy, each row as it is ready."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optima")
    parser.add_argument("--starts", type=int, default=STARTS, help="random starts of SciPy")
    parser.add_argument("--only", default="", help="pairs whose set or law holds this text")
    asked = parser.parse_args(list(argv))
    chosen = [pair for pair in pairs() if asked.only in f"{pair.data} {pair.title}"]
    first = {pair.title: pair for pair in reversed(chosen)}
    print_table("gradients against central differences", [_gradient_row(pair) for pair in first.values()])
    rows = []
    for pair in chosen:
        rows.append(compared(pair, asked.starts))
        print("; ".join(map(str, rows[-1].values())), file=sys.stderr, flush=True)
    print_table(f"ours beside the best of {asked.starts} random SciPy starts", rows)


def _gradient_row(pair: Pair) -> Mapping[str, object]:
    return {"law": pair.title, "relative error": f"{gradient_error(Landscape(pair.problem())):.0e}"}


if __name__ == "__main__":
    main(sys.argv[1:])

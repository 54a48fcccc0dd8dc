"""How time and memory of a fit grow with the points of a run and with the number of runs.

`python -m benchmarks growth`: every row is measured in a fresh process, whose peak memory is its own. Writes the
plot too.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
import time
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import isoloss
from benchmarks.results import PLOTS
from benchmarks.tables import print_table
from isoloss.laws import LAWS
from isoloss.observations import Curve, PlannedRun
from isoloss.schedules import schedule_from_spec

LAW = "lr_annealing"
KINDS = (
    {"kind": "constant"},
    {"kind": "cosine", "end_lr": 1e-4},
    {"kind": "wsd", "decay_shape": "linear"},
)
SIZES = (
    *((3, points) for points in (1_000, 10_000, 100_000, 1_000_000, 3_333_333)),
    *((runs, 1_000) for runs in (1, 10, 100, 1_000, 10_000)),
)
"""(runs, points of each)."""


def curve(number: int, n_points: int) -> Curve:
    """A run with a point at every step of a schedule as long as that, and noise."""
    total = n_points + 500
    spec = KINDS[number % 3] | {"total_steps": total, "peak_lr": 1e-3, "warmup_steps": 500}
    if spec["kind"] == "wsd":
        spec["decay_start"] = int(total * (0.5 + 0.4 * (number % 101) / 101))
    schedule = schedule_from_spec(spec)
    step = np.arange(501, total + 1)
    law = LAWS[LAW]
    # The memory of annealing is a thirtieth of the run, whatever its length.
    truth = np.array([[2.4, 0.5, 0.48, 6_000 / total, 1 - 30 / total, 0.0, 0.34]])
    some = np.unique(np.linspace(501, total, min(n_points, 4_000)).astype(np.int64))
    exact = law.predict(truth, law.prepare([PlannedRun(some, schedule)]))[0]  # type: ignore[attr-defined]
    noise = 1 + 2e-3 * np.random.default_rng(number).standard_normal(n_points)
    return Curve(f"run-{number:05}", step, np.interp(step, some, exact) * noise, schedule)


class Measured(NamedTuple):
    """Seconds of a fit, and peak memory in MiB of the process with its data and of the fit on top."""

    n_runs: int
    n_points: int
    seconds: float
    peak: float
    added: float

    def row(self) -> dict[str, object]:
        return {
            "runs": f"{self.n_runs:,}",
            "points of each": f"{self.n_points:,}",
            "points in all": f"{self.n_runs * self.n_points:,}",
            "time": f"{self.seconds:.2f} s",
            "peak memory": f"{self.peak:.0f} MiB",
            "of it the fit's": f"{self.added:.0f} MiB",
        }


def measure(n_runs: int, n_points: int) -> Measured:
    """Fit so many runs with so many points each."""
    curves = [curve(number, n_points) for number in range(n_runs)]
    before = _peak()
    begun = time.perf_counter()
    isoloss.fit(LAW, curves, bootstrap=20)
    return Measured(n_runs, n_points, time.perf_counter() - begun, _peak(), _peak() - before)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figure(measured: Sequence[Measured]) -> Figure:
    """Draw time and the fit's memory over the points in all, with the limits for ten million."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    axes = drawn.subplots(1, 2)
    for ax, column, label, limit in zip(axes, ("seconds", "added"), ("s", "MiB"), (20, 1024), strict=True):
        for what, rows in _series(measured).items():
            points = [row.n_runs * row.n_points for row in rows]
            ax.loglog(points, [getattr(row, column) for row in rows], "o-", label=what)
        ax.loglog([1e3, 1e7], [limit / 1e4, limit], "--", color="0.6", label="linear, up to the limit")
        ax.set(xlabel="points in all", ylabel=f"{'time' if label == 's' else 'memory of the fit'}, {label}")
    axes[0].legend(frameon=False)
    return drawn


def _series(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    longer = [row for row in measured if row.n_runs == 3]
    more = [row for row in measured if row.n_points == 1_000 and row.n_runs != 3]
    return {"3 runs, longer and longer": longer, "more and more runs of 1,000 points": more}


def main() -> None:
    """Print time and peak memory over points and runs, and draw them."""
    measured = []
    for size in SIZES:
        with mp.get_context("spawn").Pool(1) as pool:
            measured.append(pool.apply(measure, size))
    print_table(
        f"{LAW}: growth with points and runs, 20 resamples, one core", [one.row() for one in measured]
    )
    PLOTS.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "isoloss", "svg.fonttype": "none"}):
        figure(measured).savefig(PLOTS / "growth.svg", metadata={"Date": None})
    print("\n![time and memory](plots/growth.svg)")


if __name__ == "__main__":
    main()

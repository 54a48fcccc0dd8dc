"""How time and memory of a fit grow with the points of a run and with the number of runs.

`python -m benchmarks growth`: every row is measured in a fresh process, whose peak memory is its own.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
import time
from collections.abc import Mapping

import numpy as np

import isoloss
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


def measure(n_runs: int, n_points: int) -> tuple[float, float, float]:
    """Return seconds of a fit, and peak memory in MiB of the process with its data and of the fit on top."""
    curves = [curve(number, n_points) for number in range(n_runs)]
    before = _peak()
    begun = time.perf_counter()
    isoloss.fit(LAW, curves, bootstrap=20)
    return time.perf_counter() - begun, _peak(), _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print time and peak memory over points and runs."""
    rows: list[Mapping[str, object]] = []
    for n_runs, n_points in SIZES:
        with mp.get_context("spawn").Pool(1) as pool:
            seconds, peak, added = pool.apply(measure, (n_runs, n_points))
        rows.append(
            {
                "runs": f"{n_runs:,}",
                "points of each": f"{n_points:,}",
                "points in all": f"{n_runs * n_points:,}",
                "time": f"{seconds:.2f} s",
                "peak memory": f"{peak:.0f} MiB",
                "of it the fit's": f"{added:.0f} MiB",
            }
        )
    print_table(f"{LAW}: growth with points and runs, 20 resamples, one core", rows)


if __name__ == "__main__":
    main()

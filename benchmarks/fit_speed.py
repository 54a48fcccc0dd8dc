"""How long a fit takes, beside SciPy on the same objective in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import minimize

import isoloss
from benchmarks.datasets import TRAIN, available, multi_power_curves
from benchmarks.tables import print_table
from isoloss.fitting import FitOptions
from isoloss.fitting.objective import Problem, log_observed
from isoloss.fitting.screening import screen
from isoloss.laws import LAWS

ROUNDS = 7


def main() -> None:
    """Print medians of one fit, of 500 resamples, and of SciPy's L-BFGS-B from one start."""
    if not available("multipowerlaw"):
        return
    rows = [row for size in ("25M", "100M") for row in _rows(size)]
    print_table("lr_annealing, three curves of multipowerlaw, lambda free, one core", rows)


def _rows(size: str) -> list[Mapping[str, object]]:
    curves, _ = screen(multi_power_curves(size, TRAIN), FitOptions())
    alone = _median(lambda: isoloss.fit("lr_annealing", curves, bootstrap=0))
    resampled = _median(lambda: isoloss.fit("lr_annealing", curves, bootstrap=500), rounds=3)
    scipy_time, scipy_objective = _scipy(curves)
    ours = isoloss.fit("lr_annealing", curves, bootstrap=0).objective
    return [
        {
            "size": size,
            "one fit (6 starts, 3 leave-one-out refits)": f"{alone:.3f} s",
            "with 500 resamples": f"{resampled:.2f} s",
            "SciPy L-BFGS-B, one start": f"{scipy_time:.3f} s",
            "objective, ours / SciPy": f"{ours:.6e} / {scipy_objective:.6e}",
        }
    ]


def _median(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(rounds))


def _scipy(curves: list[isoloss.Curve]) -> tuple[float, float]:
    """Time SciPy from one reasonable start on the same objective, at a tolerance that reaches the optimum."""
    law = LAWS["lr_annealing"]
    features = law.prepare(curves)
    bounds = np.array([[parameter.lower, parameter.upper] for parameter in law.parameters])
    problem = Problem(law, features, log_observed([curve.loss_nats for curve in curves]), *bounds.T)

    def objective(free: np.ndarray) -> float:
        value = problem.objective(np.array([[*free, 0.0, 0.34]]))[0]
        return float(value) if np.isfinite(value) else 1e3

    start = time.perf_counter()
    found = minimize(
        objective,
        [2.5, 0.5, 0.5, 0.5, 0.998],
        method="L-BFGS-B",
        bounds=[tuple(pair) for pair in bounds[:5]],
        options={"ftol": 1e-15, "gtol": 1e-12, "maxfun": 20_000, "maxiter": 5_000},
    )
    return time.perf_counter() - start, float(found.fun)


if __name__ == "__main__":
    main()

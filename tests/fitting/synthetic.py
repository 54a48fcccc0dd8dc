"""Curves that follow the annealing law, with noise that is correlated as a training loss's is."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import lfilter

from isoloss.laws import LAWS
from isoloss.observations import Curve, PlannedRun
from isoloss.schedules import schedule_from_spec

TRUTH = {"L0": 2.4, "A": 0.5, "alpha": 0.48, "C": 0.6, "lambda": 0.997, "B": 0.0, "beta": 0.34}
WARMED = {"warmup_steps": 500, "peak_lr": 1e-3}
CONSTANT: dict[str, Any] = {"kind": "constant", "total_steps": 12_000} | WARMED
COSINE: dict[str, Any] = {"kind": "cosine", "total_steps": 8_000, "end_lr": 1e-4} | WARMED
WSD: dict[str, Any] = {"kind": "wsd", "total_steps": 10_000, "decay_start": 8_000} | WARMED
LINEAR: dict[str, Any] = {"kind": "linear", "total_steps": 9_000} | WARMED


def curve(
    run_id: str,
    spec: dict[str, Any],
    *,
    noise: float = 1e-3,
    seed: int = 0,
    n_params: float | None = None,
    every: int = 50,
) -> Curve:
    """A run of the annealing law, a point `every` so many steps, whose relative noise has this deviation."""
    law = LAWS["lr_annealing"]
    schedule = schedule_from_spec(spec)
    step = np.arange(600, schedule.total_steps + 1, every)
    theta = np.array([[TRUTH[parameter.name] for parameter in law.parameters]])
    exact = law.predict(theta, law.prepare([PlannedRun(step, schedule)]))[0]
    white = np.random.default_rng(seed).standard_normal(step.size)
    correlated = lfilter([np.sqrt(1 - 0.5**2)], [1, -0.5], white)
    kind = None if n_params is None else "total"
    return Curve(run_id, step, exact * (1 + noise * correlated), schedule, n_params, kind)


def three_runs(noise: float = 1e-3, seed: int = 0) -> list[Curve]:
    """A constant, a cosine and a WSD run."""
    specs = {"constant": CONSTANT, "cosine": COSINE, "wsd": WSD}
    return [
        curve(name, spec, noise=noise, seed=seed + 10 * index)
        for index, (name, spec) in enumerate(specs.items())
    ]

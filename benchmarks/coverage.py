"""How often intervals hold the truth: simulated runs of every law, with noise of several kinds.

`python -m benchmarks coverage [law ...]`. A study draws noise, fits, and asks for runs that were not fitted;
coverage is the share of studies whose 90 percent interval for the mean holds the exact value, averaged over what
was asked. `well-specified` noise is independent and normal; the other kinds break what the intervals assume.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.signal import lfilter

import isoloss
from benchmarks.datasets import TRAIN, available, multi_power_curves
from benchmarks.tables import print_table
from isoloss.laws import LAWS, CurveLaw, TableLaw
from isoloss.observations import Curve, PlannedRun, RunTable
from isoloss.schedules import schedule_from_spec

LEVEL = 0.9
STUDIES = 200
RESAMPLES = 200
NOISE = 2e-3
"""Standard deviation of log loss."""

Draw = Callable[[np.random.Generator, Sequence[int]], np.ndarray]
"""Relative errors (points,) for runs of these lengths."""


def independent(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """Normal and independent from point to point."""
    return NOISE * random.standard_normal(sum(lengths))


def autocorrelated(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """An autoregression of coefficient 0.8 within every run."""
    parts = [lfilter([0.6], [1, -0.8], random.standard_normal(length + 50))[50:] for length in lengths]
    return NOISE * np.concatenate(parts)


def heavy_tailed(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """Student's t with two degrees of freedom."""
    return NOISE * random.standard_t(2, size=sum(lengths))


def run_offsets(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """Independent noise, and an offset of each run as large: what a seed does."""
    return independent(random, lengths) + np.repeat(NOISE * random.standard_normal(len(lengths)), lengths)


def corrupted(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """Independent noise, and one run in ten that is two percent too high."""
    broken = random.random(len(lengths)) < 0.1
    return independent(random, lengths) + np.repeat(np.where(broken, 0.02, 0.0), lengths)


@cache
def _real_residuals() -> tuple[np.ndarray, ...]:
    curves = multi_power_curves("25M", TRAIN)
    fit = isoloss.fit("lr_annealing", curves, bootstrap=0)
    return tuple(
        np.log(curve.loss_nats) - np.log(fit.predict(schedule=curve.schedule, steps=curve.step).value)
        for curve in (curve.from_step(curve.schedule.warmup_steps + 1) for curve in curves)
    )


def resampled_residuals(random: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """Blocks of ten residuals of real curves under the annealing law, whose misfit they hold too."""
    residuals = _real_residuals()
    parts = []
    for length in lengths:
        source = residuals[random.integers(len(residuals))]
        starts = random.integers(0, source.size - 10, size=-(-length // 10))
        parts.append(np.concatenate([source[start : start + 10] for start in starts])[:length])
    return np.concatenate(parts)


DRAWS: Mapping[str, Draw] = {
    "well-specified": independent,
    "autocorrelated": autocorrelated,
    "heavy-tailed": heavy_tailed,
    "offsets of runs": run_offsets,
    "corrupted runs": corrupted,
    "residuals of real curves": resampled_residuals,
}

WARMED = {"warmup_steps": 500}
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"kind": "constant", "total_steps": 12_000},
    {"kind": "cosine", "total_steps": 8_000, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 10_000, "decay_start": 8_000},
    {"kind": "two_stage", "total_steps": 9_000, "switch_step": 5_000, "second_lr": 3e-4},
    {"kind": "cosine", "total_steps": 12_000, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 12_000, "decay_start": 6_000, "decay_shape": "sqrt"},
    {"kind": "constant", "total_steps": 16_000},
    {"kind": "two_stage", "total_steps": 12_000, "switch_step": 9_000, "second_lr": 2e-4},
    {"kind": "wsd", "total_steps": 8_000, "decay_start": 7_000, "end_lr": 1e-4},
    {"kind": "linear", "total_steps": 9_000},
)
ASKED = (
    {"kind": "linear", "total_steps": 14_000},
    {"kind": "wsd", "total_steps": 20_000, "decay_start": 16_000},
)
PEAKS = (5e-4, 1e-3, 2e-3)


@dataclass(frozen=True)
class Design:
    """What is simulated: a law with its truth, runs without losses, and questions with exact answers."""

    law: str
    size: str
    truth: np.ndarray
    observed: list[Curve] | RunTable
    questions: Sequence[Mapping[str, Any]]
    exact: np.ndarray

    @property
    def lengths(self) -> list[int]:
        if isinstance(self.observed, RunTable):
            return [1] * self.observed.n_runs
        return [curve.n_points for curve in self.observed]

    def with_noise(self, noise: np.ndarray) -> list[Curve] | RunTable:
        """Return the observations with relative errors (points,)."""
        if isinstance(self.observed, RunTable):
            return dataclasses.replace(self.observed, outcome=self.observed.outcome * np.exp(noise))
        parts = np.split(noise, np.cumsum(self.lengths)[:-1])
        return [
            dataclasses.replace(curve, loss_nats=curve.loss_nats * np.exp(part))
            for curve, part in zip(self.observed, parts, strict=True)
        ]

    def study(self, draw: Draw, seed: int) -> float | None:
        """Return the share of questions whose interval holds the exact answer; None where none was given."""
        noise = draw(np.random.default_rng([seed, 7]), self.lengths)
        fit = isoloss.fit(self.law, self.with_noise(noise), bootstrap=RESAMPLES, seed=seed, profile=False)
        if fit.verdict == "unidentified":
            return None
        answers = [fit.predict(**question, level=LEVEL) for question in self.questions]
        lower, upper = (np.concatenate([getattr(one, end) for one in answers]) for end in ("lower", "upper"))
        return float(np.mean((lower <= self.exact) & (self.exact <= upper)))


def curve_design(name: str, truth: Mapping[str, float], n_schedules: int, points: int) -> Design:
    """Return a design of so many schedules with about so many points each; at three peaks where a law asks."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    theta = np.array([[truth[parameter.name] for parameter in law.parameters]])
    curves = []
    for peak in PEAKS if law.carries_over_peaks else PEAKS[1:2]:
        for number, spec in enumerate(SCHEDULES[:n_schedules]):
            schedule = schedule_from_spec(spec | WARMED | {"peak_lr": peak})
            step = np.unique(np.linspace(600, schedule.total_steps, points).astype(np.int64))
            run = PlannedRun(step, schedule, weight_decay=0.1)
            loss = law.predict(theta, law.prepare([run]))[0]
            curves.append(Curve(f"run-{number}-{peak:g}", step, loss, schedule, weight_decay=0.1))
    questions, exact = [], []
    for spec in ASKED:
        schedule = schedule_from_spec(spec | WARMED | {"peak_lr": PEAKS[1]})
        steps = np.array([schedule.total_steps // 2, schedule.total_steps])
        questions.append({"schedule": schedule, "steps": steps})
        exact.append(law.predict(theta, law.prepare([PlannedRun(steps, schedule, weight_decay=0.1)]))[0])
    return Design(
        name, f"{n_schedules} schedules x {points}", theta, curves, questions, np.concatenate(exact)
    )


def table_design(name: str, truth: Mapping[str, float], n_runs: int) -> Design:
    """Return a design of runs over two decades of sizes and of tokens, asked for inside and ten times beyond."""
    law = LAWS[name]
    assert isinstance(law, TableLaw)
    theta = np.array([[truth[parameter.name] for parameter in law.parameters]])
    random = np.random.default_rng(0)
    columns = {
        "n_params": 10 ** random.uniform(7, 9, n_runs),
        "n_tokens": 10 ** random.uniform(9, 11, n_runs),
    }
    outcome = law.predict(theta, law.prepare(columns))[0]
    table = RunTable(tuple(f"run-{row:03}" for row in range(n_runs)), columns, outcome)
    asked = {"n_params": np.array([3e8, 3e9, 1e10]), "n_tokens": np.array([3e10, 3e11, 1e12])}
    chosen = {name: asked[name] for name in law.columns}
    exact = law.predict(theta, law.prepare(chosen))[0]
    return Design(name, f"{n_runs} runs", theta, table, [chosen], exact)


TRUTHS: dict[str, dict[str, float]] = {
    "lr_annealing": {"L0": 2.4, "A": 0.5, "alpha": 0.48, "C": 0.6, "lambda": 0.997, "B": 0.0, "beta": 0.34},
    "power_law": {"E": 1.8, "coefficient": 900.0, "exponent": -0.31},
    "chinchilla": {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.31},
}


def designs(name: str) -> Iterator[Design]:
    """Return the designs of a law: few and many runs."""
    if isinstance(LAWS[name], TableLaw):
        yield from (table_design(name, TRUTHS[name], count) for count in (12, 30, 120))
    else:
        yield curve_design(name, TRUTHS[name], 3, 120)
        yield curve_design(name, TRUTHS[name], 10, 40)


def coverage(design: Design, draw: Draw, studies: int = STUDIES) -> tuple[float, int]:
    """Return the mean coverage over the studies that gave an answer, and how many did."""
    held = [found for seed in range(studies) if (found := design.study(draw, seed)) is not None]
    return (float(np.mean(held)) if held else np.nan), len(held)


def main(asked: Sequence[str] = ()) -> None:
    """Print the coverage of every law under every kind of noise."""
    for name in asked or TRUTHS:
        print_table(f"{name}: coverage of 90 percent intervals for the mean", list(_rows(name)))


def _rows(name: str) -> Iterator[Mapping[str, object]]:
    for design in designs(name):
        row: dict[str, object] = {"runs": design.size}
        for kind, draw in DRAWS.items():
            if draw is not resampled_residuals or available("multipowerlaw"):
                found, answered = coverage(design, draw)
                row[kind] = f"{found:.2f}" + ("" if answered == STUDIES else f" ({answered})")
        yield row


if __name__ == "__main__":
    main(sys.argv[1:])

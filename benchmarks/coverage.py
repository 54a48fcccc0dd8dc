"""How often intervals hold the truth: simulated runs of every law, with noise of several kinds.

`python -m benchmarks coverage [law ...]`. A study draws noise, fits, and asks for runs that were not fitted;
coverage is the share of studies whose 90 percent interval for the mean holds the exact value, averaged over what
was asked. `well-specified` noise is independent and normal; the other kinds break what the intervals assume.
Of a law with priors every study draws its truth from these.
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
from isoloss.fitting.objective import from_solver, to_solver
from isoloss.laws import LAWS, CurveLaw, Priors, TableLaw
from isoloss.observations import Curve, PlannedRun, RunTable
from isoloss.schedules import schedule_from_spec

LEVEL = 0.9
STUDIES = 200
OTHER_STUDIES = 60
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
    too_high = np.repeat(np.where(broken, 0.02, 0.0), lengths)
    return np.asarray(independent(random, lengths) + too_high)


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


Losses = Callable[[PlannedRun], np.ndarray]
"""The exact losses of a run at its steps."""

Outcomes = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""The exact outcomes of runs by their columns."""


def losses_of(name: str, theta: np.ndarray) -> Losses:
    """Return the losses of a curve law with these parameters (1, parameters)."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    return lambda run: law.predict(theta, law.prepare([run]))[0]


def outcomes_of(name: str) -> Outcomes:
    """Return the outcomes of a table law with its truth."""
    law, theta = LAWS[name], theta_of(name)
    assert isinstance(law, TableLaw)
    return lambda columns: law.predict(theta, law.prepare(columns))[0]


def theta_of(name: str) -> np.ndarray:
    return np.array([[TRUTHS[name][parameter.name] for parameter in LAWS[name].parameters]])


def drawn_theta(name: str, priors: Priors, seed: int) -> np.ndarray:
    """Return a law's truth with the parameters that it has priors for drawn from them, within its bounds."""
    law, theta = LAWS[name], theta_of(name)
    random = np.random.default_rng([seed, 11])
    for parameter, (centre, sd) in priors.centres.items():
        index = law.index(parameter)
        one = law.parameters[index]
        drawn = to_solver(one, np.array(centre)) + sd * random.standard_normal()
        theta[0, index] = np.clip(from_solver(one, drawn), one.lower, one.upper)
    return theta


def curve_design(name: str, losses: Losses, n_schedules: int, points: int) -> Design:
    """Return a design of so many schedules with about so many points each; at three peaks where a law asks."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    curves = []
    for peak in PEAKS if law.carries_over_peaks else PEAKS[1:2]:
        for number, spec in enumerate(SCHEDULES[:n_schedules]):
            schedule = schedule_from_spec(spec | WARMED | {"peak_lr": peak})
            step = np.unique(np.linspace(600, schedule.total_steps, points).astype(np.int64))
            run = PlannedRun(step, schedule, weight_decay=0.1)
            curves.append(
                Curve(f"run-{number}-{peak:g}", step, losses(run), schedule, weight_decay=run.weight_decay)
            )
    questions, exact = [], []
    for spec in ASKED:
        schedule = schedule_from_spec(spec | WARMED | {"peak_lr": PEAKS[1]})
        steps = np.array([schedule.total_steps // 2, schedule.total_steps])
        questions.append({"schedule": schedule, "steps": steps})
        exact.append(losses(PlannedRun(steps, schedule, weight_decay=0.1)))
    return Design(name, f"{n_schedules} schedules x {points}", curves, questions, np.concatenate(exact))


def table_design(name: str, outcomes: Outcomes, n_runs: int) -> Design:
    """Return a design of runs over two decades of sizes and of tokens, asked for inside and ten times beyond.

    Batches lie over one and a half decades; runs state only what the law reads.
    """
    law = LAWS[name]
    assert isinstance(law, TableLaw)
    random = np.random.default_rng(0)
    drawn = _with_compute(
        {
            "n_params": 10 ** random.uniform(7, 9, n_runs),
            "n_tokens": 10 ** random.uniform(9, 11, n_runs),
            "batch_tokens": 10 ** random.uniform(5, 6.5, n_runs),
        }
    )
    asked = _with_compute(
        {
            "n_params": np.array([3e8, 3e9, 1e10]),
            "n_tokens": np.array([3e10, 3e11, 1e12]),
            "batch_tokens": np.array([1e6, 3e6, 5e6]),
        }
    )
    columns, chosen = ({name: one[name] for name in law.columns} for one in (drawn, asked))
    table = RunTable(tuple(f"run-{row:03}" for row in range(n_runs)), columns, outcomes(drawn))
    return Design(name, f"{n_runs} runs", table, [{"config": chosen}], outcomes(asked))


def _with_compute(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return columns | {"compute_flops": 6 * columns["n_params"] * columns["n_tokens"]}


def broken(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a power law whose exponent changes slowly at ten billion tokens, with a floor."""
    data = columns["n_tokens"]
    return np.asarray(1.8 + 900 * data**-0.31 * (1 + (data / 1e10) ** 2) ** -0.05)


def two_powers(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return two power laws of compute, of which the flatter one is left in the end, with a floor."""
    compute = columns["compute_flops"] / 1e19
    return np.asarray(1.7 + 0.6 * compute**-0.25 + 0.6 * compute**-0.08)


def critical_batch(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return Chinchilla's law of the data that a batch makes use of, half of them at a million tokens."""
    used = columns["n_tokens"] / (1 + columns["batch_tokens"] / 1e6)
    return np.asarray(outcomes_of("chinchilla")({"n_params": columns["n_params"], "n_tokens": used}))


# fmt: off
TRUTHS: dict[str, dict[str, float]] = {
    "lr_annealing": {"L0": 2.4, "A": 0.5, "alpha": 0.48, "C": 0.6, "lambda": 0.997, "B": 0.0, "beta": 0.34},
    "multi_power": {
        "L0": 2.4, "A": 0.5, "alpha": 0.5, "B": 150.0, "C": 0.3, "beta": 0.6, "gamma": 0.65,
    },
    "concave_memory": {
        "L0": 2.6, "A": 0.9, "a": 0.5, "B": 0.3, "C": 15.0, "b": 0.6, "g": 0.3, "p": 0.75, "z": -0.05, "T": 0.0,
    },
    "effective_lr": {
        "L0": 2.7, "A": 0.58, "a": 0.486, "B": 0.57, "C": 13.9, "b": 1.02, "g": 0.24, "p": 0.736,
        "c": 0.85, "l": 0.553, "z": -0.042, "D": 0.0031,
    },
    "power_law": {"E": 1.8, "coefficient": 900.0, "exponent": -0.31},
    "chinchilla": {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.31},
    "kaplan": {"N_c": 8.8e13, "alpha_N": 0.076, "D_c": 5.4e13, "alpha_D": 0.095},
    "power_law_compute": {"E": 1.8, "coefficient": 800.0, "exponent": -0.15},
    "broken_power_law": {"E": 1.7, "A": 95.0, "a": 0.1, "C_b": 1e19, "b": 0.2, "f": 0.5},
    "three_term": {
        "E": 1.7, "A": 400.0, "alpha": 0.34, "B": 10.0, "beta": 0.4, "C": 50.0, "gamma": 0.4,
    },
}
# fmt: on


def _at_centres(name: str) -> Losses:
    return losses_of(name, theta_of(name))


OTHER_TRUTHS: dict[str, tuple[str, Callable[[], Any]]] = {
    "lr_annealing": ("concave_memory", lambda: _at_centres("concave_memory")),
    "multi_power": ("concave_memory", lambda: _at_centres("concave_memory")),
    "concave_memory": ("lr_annealing", lambda: _at_centres("lr_annealing")),
    "effective_lr": ("concave_memory", lambda: _at_centres("concave_memory")),
    "power_law": ("a broken power law", lambda: broken),
    "chinchilla": ("Kaplan's law", lambda: outcomes_of("kaplan")),
    "kaplan": ("chinchilla", lambda: outcomes_of("chinchilla")),
    "power_law_compute": ("a broken power law", lambda: outcomes_of("broken_power_law")),
    "broken_power_law": ("two power laws", lambda: two_powers),
    "three_term": ("a critical batch", lambda: critical_batch),
}
"""Truths outside a law's family."""


Designs = Callable[[int], Design]
"""The design of a study by its seed."""


def designs(name: str, truth: Any = None) -> Iterator[Designs]:
    """Return the designs of a law: few and many runs, of its own truth or of another one."""
    if isinstance(LAWS[name], TableLaw):
        outcomes = truth or outcomes_of(name)
        yield from (_always(table_design(name, outcomes, count)) for count in (12, 30, 120))
    else:
        yield from (_of_curves(name, truth, *size) for size in ((3, 120), (10, 40)))


def _always(design: Design) -> Designs:
    return lambda seed: design  # noqa: ARG005


def _of_curves(name: str, truth: Losses | None, n_schedules: int, points: int) -> Designs:
    """Return designs of the truth, or, where it is the law's own and has priors, of one drawn from these."""
    size = (n_schedules, points)
    usual = curve_design(name, truth or losses_of(name, theta_of(name)), *size)
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    assert not isinstance(usual.observed, RunTable)
    priors = law.priors(law.prepare(usual.observed))
    if truth is not None or not priors.centres:
        return _always(usual)
    return lambda seed: curve_design(name, losses_of(name, drawn_theta(name, priors, seed)), *size)


def coverage(design: Designs, draw: Draw, studies: int = STUDIES) -> tuple[float, int]:
    """Return the mean coverage over the studies that gave an answer, and how many did."""
    held = [found for seed in range(studies) if (found := design(seed).study(draw, seed)) is not None]
    return (float(np.mean(held)) if held else np.nan), len(held)


def main(asked: Sequence[str] = ()) -> None:
    """Print the coverage of every law under every kind of noise, and of a truth outside of its family."""
    for name in asked or TRUTHS:
        print_table(f"{name}: coverage of 90 percent intervals for the mean", list(_rows(name)))


def _rows(name: str) -> Iterator[Mapping[str, object]]:
    what, truth = OTHER_TRUTHS[name]
    for design, other in zip(designs(name), designs(name, truth()), strict=True):
        kinds = {kind: _shown(design, draw) for kind, draw in DRAWS.items() if _possible(draw)}
        yield {"runs": design(0).size} | kinds | {f"truth: {what}": _shown(other, independent)}


def _possible(draw: Draw) -> bool:
    return draw is not resampled_residuals or available("multipowerlaw")


def _shown(design: Designs, draw: Draw) -> str:
    # Studies of the noise that intervals assume are the promise; the others show how far it may be trusted.
    studies = STUDIES if draw is independent else OTHER_STUDIES
    found, answered = coverage(design, draw, studies)
    return f"{found:.2f}" + ("" if answered == studies else f" ({answered} of {studies} answered)")


if __name__ == "__main__":
    main(sys.argv[1:])

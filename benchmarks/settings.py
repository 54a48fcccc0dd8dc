"""Coverage of the laws of settings on simulated sweeps and studies.

python -m benchmarks settings
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import isoloss
from benchmarks.tables import print_table
from isoloss.observations import RunTable
from tests.fitting import synthetic_sweeps as swept
from tests.fitting.test_staged import batches, steps

STUDIES, RESAMPLES = 200, 100
FAR = {"n_params": 4e9, "n_tokens": 4e11}
NEAR = {"n_params": 3e8, "n_tokens": 1e10}

Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Design:
    """Runs of a study by its seed, and questions with exact answers, in words."""

    law: str
    what: str
    observed: Callable[[int], RunTable]
    questions: Mapping[str, tuple[Mapping[str, float], float]]


def _sweeps(law: str, what: str, observed: Callable[[int], RunTable], truth: Truth) -> Design:
    asked = {"inside": NEAR, "far beyond": FAR}
    answers = {
        name: (at, float(truth(np.array(at["n_params"]), np.array(at["n_tokens"]))))
        for name, at in asked.items()
    }
    return Design(law, what, observed, answers)


def _best_batch(size: np.ndarray, data: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return swept.best_batch(data)


def designs() -> Iterator[Design]:
    """Return what is simulated: few and many sites, few and many values of a setting, noise as in real runs."""
    for count, levels in ((6, 5), (8, 7), (12, 6)):
        what = f"{count} sites x {levels} weight decays"
        observed = partial(swept.decays, sites=swept.SITES[:count], levels=levels)
        yield _sweeps("timescale", what, observed, swept.best_timescale)
    for count, levels in ((6, 5), (12, 7)):
        what = f"{count} sites x {levels} learning rates"
        observed = partial(swept.lr_alone, sites=swept.SITES[:count], levels=levels)
        yield _sweeps("optimal_lr", what, observed, swept.best_lr)
    grid = "12 sites x 7 learning rates x 7 batches"
    yield _sweeps("optimal_lr", grid, swept.lr_and_batch, swept.best_lr)
    yield _sweeps("optimal_batch", grid, swept.lr_and_batch, _best_batch)
    inside, far = {"n_tokens": 8e9}, {"n_tokens": 2e11}
    critical = {"inside": (inside, 4 * 8e9**0.46), "far beyond": (far, 4 * 2e11**0.46)}
    yield Design("critical_batch", "2 sizes x 7 batches x 5 numbers of tokens", batches, critical)
    at = {
        "inside": {"n_params": 3e8, "batch_tokens": 1e6},
        "far beyond": {"n_params": 4e9, "batch_tokens": 2e6},
    }
    exact = {
        name: (one, 1.3 * one["n_params"] ** 0.38 + 18 * one["n_params"] / one["batch_tokens"])
        for name, one in at.items()
    }
    yield Design("steps_to_target", "4 sizes x 9 batches, noise 3 %", steps, exact)


def coverage(design: Design, studies: int) -> dict[str, object]:
    """Return how often 90 percent intervals for the mean hold the truth, and how wide they are."""
    held: dict[str, list[bool]] = {name: [] for name in design.questions}
    width: dict[str, list[float]] = {name: [] for name in design.questions}
    for seed in range(studies):
        fit = isoloss.fit(design.law, design.observed(seed), bootstrap=RESAMPLES)
        if fit.verdict == "unidentified":
            continue
        for name, (config, exact) in design.questions.items():
            told = fit.predict(config=dict(config))
            held[name].append(bool(told.lower[0] <= exact <= told.upper[0]))
            width[name].append(float(told.upper[0] / told.lower[0]))
    row: dict[str, object] = {"law": design.law, "study": design.what}
    for name in design.questions:
        row[name] = f"{np.mean(held[name]):.3f} (factor {np.sqrt(np.median(width[name])):.2f})"
    return row | {"answered": f"{len(next(iter(held.values())))} of {studies}"}


def main(studies: int = STUDIES) -> None:
    """Print the coverage of every law of settings."""
    rows = []
    for design in designs():
        rows.append(coverage(design, studies))
        print("; ".join(map(str, rows[-1].values())), file=sys.stderr, flush=True)
    print_table("laws of settings: coverage of 90 percent intervals, with half their width", rows)
    print_table(
        "recommendations from sweeps at one weight decay: coverage of 90 percent intervals",
        [recommended(decay, studies // 4) for decay in (None, 0.1, 0.05, 0.03)],
    )


def recommended(weight_decay: float | None, studies: int) -> dict[str, object]:
    """Return how often a recommendation holds the truth, and its mean beside it.

    Learning rate and batch were swept at this weight decay, None where each run had the best timescale.
    """
    size, data = np.array(FAR["n_params"]), np.array(FAR["n_tokens"])
    batch, rate, tau = _best_batch(size, data), swept.best_lr(size, data), swept.best_timescale(size, data)
    truth = {
        "peak_lr": rate,
        "batch_tokens": batch,
        "timescale": tau,
        "weight_decay": batch / (rate * tau * data),
    }
    held: dict[str, list[bool]] = {name: [] for name in truth}
    ratio: dict[str, list[float]] = {name: [] for name in truth}
    for seed in range(studies):
        grid = swept.lr_and_batch(seed, weight_decay=weight_decay)
        runs = swept.together(grid, swept.decays(seed + studies))
        asked: dict[str, Any] = {**FAR, "bootstrap": RESAMPLES}
        told = isoloss.recommend(runs, **asked).as_dict()
        for name, exact in truth.items():
            if told[name]["interval"] is not None:
                low, high = told[name]["interval"]
                held[name].append(bool(low <= exact <= high))
                ratio[name].append(told[name]["value"] / float(exact))
    shown = {
        name: f"{np.mean(held[name]):.2f} (x {np.exp(np.mean(np.log(ratio[name]))):.2f}, of {len(held[name])})"
        for name in truth
        if held[name]
    }
    at = "the best timescale" if weight_decay is None else f"{weight_decay:g}"
    return {"swept at": at, "studies": studies, **shown}

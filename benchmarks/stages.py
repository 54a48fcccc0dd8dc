"""How often intervals of laws in parts hold the truth: simulated curves of rewards, and simulated pairs of recipes.

`python -m benchmarks stages`: of 200 studies each, the share whose 90 percent interval holds the exact answer,
among those that the fit answers. Noise as in the real data: rewards of `rl_sigmoid` err by .004 to .018 about their
curves, and neighbouring steps of the 14b model alike (correlation .7); losses of `recipes` differ by .001 from seed
to seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import isoloss
from benchmarks.tables import print_table
from isoloss.errors import Unidentified
from isoloss.fitting import Fit
from isoloss.laws import LAWS, TableLaw
from isoloss.observations import RunTable

STUDIES = 200
RESAMPLES = 200
SEED_NOISE = 1e-3

Answers = Mapping[str, tuple[float, tuple[float, float] | None]]
"""Questions: the exact answer, and the interval that the fit gives, None where it says nothing."""


@dataclass(frozen=True)
class Curve:
    """A curve of rewards: `truth` (R0, A, C_mid, B), `steps` of its readings, their errors' size and memory."""

    what: str
    truth: tuple[float, float, float, float]
    steps: np.ndarray
    noise: float
    memory: float = 0.0

    def exact(self, steps: np.ndarray) -> np.ndarray:
        """Return the rewards (n,) without errors; R0 at step 0."""
        law = LAWS["rl_compute"]
        assert isinstance(law, TableLaw)
        later = law.prepare({"compute_flops": np.maximum(steps, 1e-9)})
        return np.where(steps > 0, law.predict(np.array([self.truth]), later)[0], self.truth[0])

    def drawn(self, seed: int) -> RunTable:
        """Return a study's readings."""
        off = np.random.default_rng([seed, 3]).standard_normal(self.steps.size)
        for place in range(1, off.size if self.memory else 0):
            off[place] = self.memory * off[place - 1] + np.sqrt(1 - self.memory**2) * off[place]
        reward = np.clip(self.exact(self.steps) + self.noise * off, 0.0, 1.0)
        names = tuple(f"reading-{number:03}" for number in range(self.steps.size))
        return RunTable(names, {"compute_flops": self.steps}, reward, "reward")

    def answers(self, seed: int) -> Answers:
        """Return the reward at the end and at twice and ten times the steps, and the asymptote."""
        fit = isoloss.fit("rl_compute", self.drawn(seed), bootstrap=RESAMPLES, seed=seed)
        last = float(self.steps[-1])
        asked = {"at the end": last, "at twice the steps": 2 * last, "at ten times the steps": 10 * last}
        exact = self.exact(np.array(list(asked.values())))
        told = _predicted(fit, {"compute_flops": list(asked.values())})
        rewards = {
            question: (float(truth), None if told is None else (float(told[0][n]), float(told[1][n])))
            for n, (question, truth) in enumerate(zip(asked, exact, strict=True))
        }
        return {**rewards, "A": (self.truth[1], fit.parameters["A"].interval)}


@dataclass(frozen=True)
class Pair:
    """Two recipes of E + coefficient C^exponent, at so many computes over two decades with so many seeds each."""

    what: str
    one: tuple[float, float, float]
    other: tuple[float, float, float]
    n_computes: int
    n_seeds: int

    def losses(self, recipe: tuple[float, float, float], compute: np.ndarray | float) -> np.ndarray:
        """Return the exact losses of a recipe."""
        floor, coefficient, exponent = recipe
        return np.asarray(floor + coefficient * compute**exponent)

    def drawn(self, seed: int) -> RunTable:
        """Return a study's runs."""
        compute = np.repeat(np.geomspace(1e20, 1e18, self.n_computes), self.n_seeds)
        exact = np.concatenate([self.losses(recipe, compute) for recipe in (self.one, self.other)])
        loss = exact + SEED_NOISE * np.random.default_rng([seed, 5]).standard_normal(exact.size)
        names = tuple(f"run-{number:03}" for number in range(exact.size))
        label = ("a",) * compute.size + ("b",) * compute.size
        return RunTable(names, {"compute_flops": np.tile(compute, 2)}, loss, labels={"recipe": label})

    def answers(self, seed: int) -> Answers:
        """Return the gap at the largest compute, the crossing, the compute saved, and a loss far beyond."""
        fit = isoloss.fit("recipe_comparison", self.drawn(seed), bootstrap=RESAMPLES, seed=seed)
        said = {one.name.removeprefix("a vs b."): one.interval for one in fit.derived}
        gap = float(self.losses(self.one, 1e20) - self.losses(self.other, 1e20))
        answers = {"gap at the largest compute": (gap, said["gap"])}
        if self.n_computes < 4:
            return answers
        told = _predicted(fit, {"recipe": "b", "compute_flops": 1e21})
        far = None if told is None else (float(told[0][0]), float(told[1][0]))
        floor, coefficient, exponent = self.one
        needed = ((self.losses(self.other, 1e20) - floor) / coefficient) ** (1 / exponent)
        return {
            **answers,
            "loss at ten times the compute": (float(self.losses(self.other, 1e21)), far),
            "crossing": (self._crossing(), said["crossing"]),
            "compute saved": (float(1e20 / needed), said["compute_saved"]),
        }

    def _crossing(self) -> float:
        grid = np.geomspace(1e17, 1e21, 100_001)
        gaps = self.losses(self.one, grid) - self.losses(self.other, grid)
        return float(grid[np.flatnonzero(np.diff(np.sign(gaps)))[0]])


def _predicted(fit: Fit, config: Mapping[str, object]) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        told = fit.predict(config=config)
    except Unidentified:
        return None
    return told.lower, told.upper


EVERY_FOURTH = np.arange(0.0, 56.0, 4.0)

CURVES = (
    Curve("like 0.6b: 14 readings", (0.04, 0.69, 17.0, 5.0), EVERY_FOURTH, 0.012),
    Curve("like 1.7b: 14 readings", (0.555, 0.838, 15.2, 2.1), EVERY_FOURTH, 0.01),
    Curve("like 8b: jumps at once", (0.636, 0.916, 4.1, 2.2), EVERY_FOURTH, 0.006),
    Curve("54 readings", (0.2, 0.8, 15.0, 2.0), np.arange(0.0, 54.0), 0.012),
    Curve("54 readings, neighbours err alike", (0.2, 0.8, 15.0, 2.0), np.arange(0.0, 54.0), 0.012, 0.7),
    Curve("no reading at step 0", (0.04, 0.69, 17.0, 3.0), np.arange(4.0, 68.0, 4.0), 0.012),
)
PAIRS = (
    Pair("8 computes", (1.7, 200.0, -0.12), (1.74, 290.0, -0.1295), 8, 1),
    Pair("6 computes, 3 seeds", (1.7, 200.0, -0.12), (1.74, 290.0, -0.1295), 6, 3),
    Pair("1 compute, 10 seeds", (1.7, 200.0, -0.12), (1.74, 290.0, -0.1295), 1, 10),
)


def _rows(law: str, what: str, answers: Callable[[int], Answers]) -> Iterator[dict[str, object]]:
    begun = time.perf_counter()
    each = [answers(seed) for seed in range(STUDIES)]
    spent = f"{time.perf_counter() - begun:.0f} s"
    for question in each[0]:
        known = [(truth, ends) for truth, ends in (one[question] for one in each) if ends is not None]
        held = [ends[0] <= truth <= ends[1] for truth, ends in known]
        width = [ends[1] - ends[0] for _, ends in known]
        yield {
            "law": law,
            "study": what,
            "question": question,
            "answered": f"{len(known)} of {STUDIES}",
            "held by 90 %": f"{np.mean(held):.1%}" if held else "",
            "median width": f"{np.median(width):.3g}" if width else "",
            "time": spent,
        }


def main() -> None:
    """Print how often the intervals of both laws hold the truth."""
    rows: list[dict[str, object]] = []
    for law, designs in (("rl_compute", CURVES), ("recipe_comparison", PAIRS)):
        for design in designs:
            rows += _rows(law, design.what, design.answers)
            print("; ".join(map(str, rows[-1].values())), file=sys.stderr, flush=True)
    print_table(f"laws in parts: {STUDIES} studies of each kind", rows)


if __name__ == "__main__":
    main()

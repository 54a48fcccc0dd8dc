"""Coverage of `lr_of_batch` and `noise_scale` on simulated studies, and what the public sweeps say of the batch.

python -m benchmarks noise_and_batch
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

import isoloss
from benchmarks.datasets import SHARED, available
from benchmarks.tables import print_table
from isoloss.fitting.result import ParameterEstimate
from isoloss.observations import RunTable
from tests.fitting import synthetic_batches as made

STUDIES, RESAMPLES = 200, 100
USUAL = (("sites", made.SITES), ("batches", made.BATCHES))


WHAT = """`python -m benchmarks noise_and_batch`: {studies} simulated studies a row, 90 percent intervals for
the mean, target .85 to .95; factors are the median of half an interval's width. Noise of .1 percent in every loss.
Gradients of 100 directions at batches of 250 thousand and 2 million tokens, with slow fluctuations (memory .9 from
one reading to the next) of 20 percent in |G|^2 and, apart from them, in tr(Sigma)."""


@dataclass(frozen=True)
class Study:
    """Simulated studies of a law by their seed, and questions with exact answers, in words."""

    law: str
    what: str
    observed: Callable[[int], RunTable]
    questions: Mapping[str, tuple[Mapping[str, float], float]]


def rate(form: str, **design: Any) -> Study:
    """Return studies of the learning rate: inside of the batches, and eight times beyond the largest."""
    inside = {"n_params": 2e8, "n_tokens": 5e9, "batch_tokens": 3e5}
    if len(design.get("sites", ())) == 1:
        inside |= dict(zip(("n_params", "n_tokens"), design["sites"][0], strict=True))
    largest = float(design.get("batches", made.BATCHES)[-1])
    asked = {"inside": inside, "8 times beyond": inside | {"batch_tokens": 8 * largest}}

    def exact(at: Mapping[str, float]) -> float:
        size, data, batch = (np.array(at[name]) for name in ("n_params", "n_tokens", "batch_tokens"))
        return float(made.best_lr(size, data, batch, form))

    def observed(seed: int) -> RunTable:
        return made.rising(seed, form=form, **design)

    n_sites, n_batches = (len(design.get(name, usual)) for name, usual in USUAL)
    sites = "1 site" if n_sites == 1 else f"{n_sites} sites"
    words = f"truth {form}, {sites}, {n_batches} batches"
    return Study("lr_of_batch", words, observed, {name: (at, exact(at)) for name, at in asked.items()})


def scale(what: str, *, ratio: bool = False, **design: Any) -> Study:
    """Return studies of the noise scale: inside of training, and four times beyond its end."""
    asked = {"inside": 2e10, "4 times beyond": 4e11}
    questions = {name: ({"n_tokens": at}, float(made.scale_at(np.array(at)))) for name, at in asked.items()}

    def observed(seed: int) -> RunTable:
        table = made.readings(seed, **design)
        return made.as_ratios(table) if ratio else table

    return Study("noise_scale", what, observed, questions)


def logged(n_steps: int) -> Study:
    """Return studies of the noise scale off the points of one run that logs every step from the first on."""
    batches = {"batch_small_tokens": made.SMALL, "batch_big_tokens": made.BIG}

    def observed(seed: int) -> RunTable:
        table = made.readings(seed, count=n_steps, first=made.LAST / n_steps)
        norms = {name: table.column(name) for name in ("grad_norm_small", "grad_norm_big")}
        config = {"batch_tokens": made.LAST / n_steps, **batches}
        run = isoloss.LoggedRun("run", np.arange(1, n_steps + 1), norms, config)
        return isoloss.table_of_readings("noise_scale", [run])

    return replace(scale(f"points of 1 run, every one of {n_steps:,} steps"), observed=observed)


STUDIED: Sequence[Study] = (
    rate("adam", sites=made.SITES[:3]),
    rate("sgd", sites=made.SITES[:3]),
    rate("sqrt", sites=made.SITES[:3]),
    rate("adam", sites=made.SITES[:1]),
    rate("adam", sites=made.SITES[:3], batches=made.BATCHES[:4]),
    scale("1 run, 500 readings"),
    scale("1 run, 2000 readings", count=2000),
    scale("1 run, 500 readings, longer memory (.98)", memory=0.98),
    scale("3 runs of 300 readings", curves=3, count=300),
    scale("10 runs of 100 readings", curves=10, count=100),
    scale("1 run, 500 readings of the ratio, each a mean of 50 steps", ratio=True),
    logged(1_000),
    logged(20_000),
)


def row(study: Study, n_studies: int) -> dict[str, object]:
    """Return the share of studies whose interval holds the exact answer to each question, and how wide it is."""
    began, held, wide, none = perf_counter(), [], [], 0
    for seed in range(n_studies):
        found = isoloss.fit(study.law, study.observed(seed), bootstrap=RESAMPLES, seed=seed)
        if found.verdict == "unidentified":
            none += 1
            continue
        told = [found.predict(config=dict(at)) for at, _ in study.questions.values()]
        exact = [answer for _, answer in study.questions.values()]
        held.append([one.lower[0] <= truth <= one.upper[0] for one, truth in zip(told, exact, strict=True)])
        wide.append([float(np.sqrt(one.upper[0] / one.lower[0])) for one in told])
    said: dict[str, object] = {"study": study.what}
    for name, share, factor in zip(
        study.questions, np.mean(held, axis=0), np.median(wide, axis=0), strict=True
    ):
        said |= {name: f"{share:.3f}", f"{name}: factor": f"{factor:.2f}"}
    return said | {"no answer": none, "seconds": f"{perf_counter() - began:.0f}"}


def main(n_studies: int = STUDIES) -> None:
    """Print the tables."""
    print("## Learning rate over the batch, and gradient noise\n")
    print(WHAT.format(studies=n_studies))
    for law in ("lr_of_batch", "noise_scale"):
        print_table(law, [row(study, n_studies) for study in STUDIED if study.law == law])
    if available("steplaw"):
        steplaw()


def steplaw() -> None:
    """Print what the public sweeps say of the learning rate over the batch."""
    names = {"n_params": "N", "n_tokens": "D", "final_loss": "smooth_loss", "peak_lr": "lr"}
    runs = isoloss.read_runs(SHARED / "steplaw" / "dense.csv", map=names)
    usual = isoloss.fit("lr_of_batch", runs)
    rows = []
    for form in ("adam", "sgd", "sqrt", "linear"):
        found = isoloss.fit("lr_of_batch", runs, convention=form)
        missed = found.holdout["score"] if found.holdout is not None else float("nan")
        rows.append(
            {
                "form": form,
                "batches left out are missed by": f"{np.expm1(found.diagnostics['readings'][form]):.0%}",
                "the largest, from smaller ones": f"{np.expm1(missed):.0%}",
                "B0, tokens": _with_ends(found.parameters["B0"]) if "B0" in found.parameters else "-",
                "exponent of N": _with_ends(found.parameters["exponent_n_params"]),
                "exponent of D": _with_ends(found.parameters["exponent_n_tokens"]),
            }
        )
    print_table("Public sweeps: steplaw", rows)
    print(f"\nVerdict {usual.verdict}: {'; '.join(usual.reasons[:3])}.")
    sites = [group for group in usual.groups if "batch_tokens" not in group["by"]]
    print_table("steplaw: a B0 for each site", list(map(_own, sites)))
    for one in usual.derived:
        low, high = one.interval or (float("nan"),) * 2
        print(f"\n`{one.name}`: {one.value:.2f} [{low:.2f}, {high:.2f}].")


def _with_ends(one: ParameterEstimate) -> str:
    low, high = one.interval or (float("nan"),) * 2
    return "open" if one.value is None else f"{one.value:.3g} [{low:.3g}, {high:.3g}]"


def _own(group: Mapping[str, Any]) -> dict[str, object]:
    own = {one["name"]: one for one in group["parameters"]}
    low, high = own["B0_alone"]["interval"]
    ends = [f"{one:.2g}" if one is not None else "open" for one in (low, high)]
    value = own["B0_alone"]["value"]
    return {
        "N": f"{group['by']['n_params']:.3g}",
        "D": f"{group['by']['n_tokens']:.3g}",
        "B0 of its own, tokens": "open" if not np.isfinite(value) else f"{value:.2g}",
        "from": ends[0],
        "to": ends[1],
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES)

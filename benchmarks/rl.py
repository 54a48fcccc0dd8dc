"""Public rewards over compute, and public recipes: verdicts, intervals, and what one half says of the other.

`python -m benchmarks rl`. `rl_sigmoid`: a sigmoid for each model size over RL steps, and the last reading as the
first half of the steps predicts it. `recipes`: the final validation losses of a recipe's seeds, by its number of
steps; half of the seeds against the others, 40 times by chance.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

import isoloss
from benchmarks.datasets import SHARED, available
from benchmarks.tables import print_table
from isoloss.fitting import Fit
from isoloss.observations import RunTable

SPLITS = 40
FEWEST_SEEDS = 8
"""Seeds that a recipe needs, four in each half."""


def rewards() -> RunTable:
    """Return the readings of `rl_sigmoid`, compute in RL steps."""
    named = {"compute_flops": "step", "reward": "accuracy", "curve": "model"}
    return isoloss.read_runs(SHARED / "rl_sigmoid" / "accuracy.csv", map=named, target="reward")


def recipe_runs() -> RunTable:
    """Return the runs of `recipes` that ended as planned, `FEWEST_SEEDS` or more of one recipe and length."""
    with (SHARED / "recipes" / "runs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["total_steps"] == row["schedule_steps"]]
    seeds = defaultdict(list)
    for row in rows:
        seeds[f"{row['recipe']}, {row['schedule_steps']} steps"].append(row)
    chosen = [(name, row) for name, same in seeds.items() if len(same) >= FEWEST_SEEDS for row in same]
    tokens = [float(row["schedule_steps"]) * float(row["tokens_per_step"]) for _, row in chosen]
    return RunTable(
        tuple(row["run_id"] for _, row in chosen),
        {"n_tokens": np.array(tokens)},
        np.array([float(row["final_val_loss"]) for _, row in chosen]),
        "val_loss",
        labels={"recipe": tuple(name for name, _ in chosen)},
    )


def halves(table: RunTable, seed: int) -> tuple[RunTable, RunTable]:
    """Return half of the seeds of every recipe, by chance, and the others."""
    random = np.random.default_rng(seed)
    first = np.zeros(table.n_runs, dtype=bool)
    names = np.array(table.label("recipe"))
    for name in np.unique(names):
        rows = random.permutation(np.flatnonzero(names == name))
        first[rows[: len(rows) // 2]] = True
    return table.only(np.flatnonzero(first)), table.only(np.flatnonzero(~first))


def _curve_rows(fit: Fit) -> Iterator[dict[str, object]]:
    ends = (fit.holdout or {})["ends"]
    for group in fit.groups:
        name, said = group["by"]["curve"], {one["name"]: one for one in group["parameters"]}
        end = ends[name]
        profile = said["A"]["profile"]
        yield {
            "model": name,
            "verdict": group["verdict"],
            "R0": _with_ends(said["R0"]),
            "A": _with_ends(said["A"]) if profile[1] is not None else f"at least {profile[0]:.3f}",
            "C_mid, steps": _with_ends(said["C_mid"]),
            "B": _with_ends(said["B"]),
            "end": f"{end['observed']:.3f}",
            "from the first half": f"{end['predicted']:.3f} ({end['lower']:.3f} to {end['upper']:.3f})",
            "error": f"{end['predicted'] - end['observed']:+.3f}",
            "the half's asymptote": end["verdict"],
        }


def _with_ends(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "not determined"
    return f"{one['value']:.3g} ({one['interval'][0]:.3g} to {one['interval'][1]:.3g})"


def _split(table: RunTable, seed: int) -> dict[str, list[float]]:
    """Return what one half says of the other: 1 for every interval that holds, and the correlation of ranks."""
    one, other = halves(table, seed)
    fit = isoloss.fit("recipe_comparison", one, seed=seed)
    means = _means(other)
    said: dict[str, list[float]] = defaultdict(list)
    own = {}
    for group in fit.groups:
        name, loss = group["by"]["recipe"], next(p for p in group["parameters"] if p["name"] == "loss")
        own[name] = loss["value"]
        _judge(said, "mean", loss["value"], loss["interval"], means[name])
    ranked = sorted(own)
    said["ranks"].append(stats.spearmanr([own[n] for n in ranked], [means[n] for n in ranked]).statistic)
    for gap in (d for d in fit.derived if d.name.endswith(".gap") and d.interval is not None):
        first, second = gap.name.removesuffix(".gap").split(" vs ")
        theirs = means[first] - means[second]
        assert gap.value is not None
        assert gap.interval is not None
        _judge(said, "gap", gap.value, gap.interval, theirs)
        if gap.interval[0] > 0 or gap.interval[1] < 0:
            said["leader"].append(float(np.sign(theirs) == np.sign(gap.value)))
    return said


def _means(table: RunTable) -> dict[str, float]:
    names = np.array(table.label("recipe"))
    return {str(name): float(table.outcome[names == name].mean()) for name in np.unique(names)}


def _judge(
    said: dict[str, list[float]], what: str, value: float, ends: Sequence[float], theirs: float
) -> None:
    """Note whether an interval holds the other half's number, as it is and for a number as uncertain as its own."""
    wider = [value + np.sqrt(2) * (end - value) for end in ends]
    said[f"{what}, interval"].append(float(ends[0] <= theirs <= ends[1]))
    said[f"{what}, of a half again"].append(float(wider[0] <= theirs <= wider[1]))


def _recipes() -> None:
    table = recipe_runs()
    splits = [_split(table, seed) for seed in range(SPLITS)]
    together = {name: np.concatenate([one.get(name, []) for one in splits]) for name in splits[0]}
    n_recipes = len(set(table.label("recipe")))
    asked = {
        "ranks": "rank correlation of the two halves' means",
        "mean, interval": "the other half's mean lies in the 90 % interval of the mean (.76 to .80 expected)",
        "mean, of a half again": "the same for an interval of another half's mean (.90 expected)",
        "gap, interval": "the other half's gap of two recipes of equal steps lies in its interval (.76 to .80)",
        "gap, of a half again": "the same for an interval of another half's gap (.90)",
        "leader": "where the gap's interval excludes 0, the other half has the same leader",
    }
    rows = [
        {"question": text, "of": together[name].size, "share or mean": f"{np.mean(together[name]):.3f}"}
        for name, text in asked.items()
        if name in together
    ]
    title = (
        f"recipes: half of the seeds against the others, {n_recipes} recipes of {FEWEST_SEEDS} seeds or more"
    )
    print_table(title, rows)
    _best(table)


def _best(table: RunTable) -> None:
    """Print every recipe with all its seeds, the lowest loss first."""
    fit = isoloss.fit("recipe_comparison", table)
    rows = []
    for group in fit.groups:
        said = {one["name"]: one for one in group["parameters"]}
        rows.append({"recipe": group["by"]["recipe"], "seeds": group["n_runs"], "at": said["loss"]["value"]})
        low, high = said["loss"]["interval"]
        rows[-1]["final loss"] = f"{said['loss']['value']:.5f} ({low:.5f} to {high:.5f})"
    ranked = sorted(rows, key=lambda row: float(row["at"]))
    print_table("recipes, all seeds", [{k: v for k, v in row.items() if k != "at"} for row in ranked])


def main() -> None:
    """Print both data sets, where they are there."""
    if available("rl_sigmoid"):
        fit = isoloss.fit("rl_compute", rewards())
        print_table("rl_sigmoid: rewards over RL steps, 90 % intervals", list(_curve_rows(fit)))
        score = (fit.holdout or {})["score"]
        print(f"\nThe last readings from first halves: an rms error of {score:.4f} in accuracy.")
    if available("recipes"):
        _recipes()


if __name__ == "__main__":
    main()

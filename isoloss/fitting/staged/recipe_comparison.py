"""Recipes compared over compute: each one's loss; of every pair the gap, the crossing and the compute saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.distributions import normal_quantile, students_quantile
from isoloss.errors import FitFailed, UnusableData
from isoloss.fitting.estimate import silent
from isoloss.fitting.one_law import fit_law
from isoloss.fitting.options import FitOptions
from isoloss.fitting.quality import CHECKS, pass_gate
from isoloss.fitting.report import resampled
from isoloss.fitting.result import Derived, Fit, Verdict, lead
from isoloss.fitting.staged.parts import Part, Together, assembled, names_of, origin
from isoloss.fitting.table_screening import screen_table
from isoloss.laws import LAWS, TableLaw
from isoloss.laws.recipe_comparison import RecipeComparison
from isoloss.observations import RunTable
from isoloss.observations.tables import COMPUTE, LeftOut

FEWEST_COMPUTES = 4
"""Different computes that a recipe needs for a law of its own: one more than the law has parameters."""

BESIDE = 10.0
"""How many times beyond the runs a crossing, or the compute of an equal loss, is looked for."""

GRID = 400
"""Computes at which two recipes are compared to find where they cross."""

SAME = 1e-6
"""Relative distance within which two computes are one."""

WIDEST = 4.0
"""The most that an interval is widened by for its largest run's leverage."""

NO_RECIPE = "it has no recipe"


@dataclass(frozen=True)
class Recipe:
    """A recipe's runs: `compute` and `loss` (runs,); `fit` its own law, None where it has none, with `why`.

    `number` tells its chances apart from those of others; `seed` and `count` are those of the resamples.
    """

    name: str
    number: int
    compute: FloatArray
    loss: FloatArray
    fit: Fit | None
    why: str | None
    seed: int
    count: int

    @cached_property
    def computes(self) -> FloatArray:
        """The different computes, rising."""
        rising = np.unique(self.compute)
        return rising[np.concatenate([[True], np.diff(np.log(rising)) > SAME])]

    def at(self, compute: float) -> FloatArray:
        """Return the losses (runs,) that were measured at a compute."""
        return self.loss[np.abs(np.log(self.compute / compute)) <= SAME]

    def knows(self, compute: float) -> bool:
        """Return whether the loss at a compute is known: within the law's runs, or where runs were measured."""
        if self.fit is not None:
            ends = float(self.compute.min()), float(self.compute.max())
            return ends[0] * (1 - SAME) <= compute <= ends[1] * (1 + SAME)
        return bool(self.at(compute).size)

    def losses(self, compute: FloatArray) -> FloatArray:
        """Return its losses (1 + resamples, computes), the estimate first, NaN where chance is not known.

        By its law; without one the mean of the runs there, which moves as Student's t does.
        """
        if self.fit is not None:
            (name,) = _law_of(self.fit).columns
            return np.exp(self.fit.drawn({"config": {name: compute}}, self.number))
        return np.stack([self._mean_at(float(one)) for one in compute], axis=1)

    def _mean_at(self, compute: float) -> FloatArray:
        measured = self.at(compute)
        if not measured.size:
            return np.full(1 + self.count, np.nan)
        off = np.full(self.count, np.nan)
        if measured.size > 1 and np.ptp(measured) > 0:
            random = np.random.default_rng([self.seed, self.number, 29])
            error = float(measured.std(ddof=1)) / np.sqrt(measured.size)
            off = error * random.standard_t(measured.size - 1, self.count)
        return np.concatenate([[measured.mean()], measured.mean() + off])


def fit_recipes(
    law: RecipeComparison, table: RunTable, asked: FitOptions, unread: Sequence[dict[str, str]] = ()
) -> Fit:
    """Return every recipe's own law and what follows for each pair of recipes.

    Raises InvalidInput for two rows of one run, UnusableData where no run is left.
    """
    read = read_by(table)
    table, left_out = screen_recipes(table, asked.gate, unread)
    whose = names_of(table, "recipe")
    left_out += [
        {"run_id": one, "reason": NO_RECIPE}
        for one, name in zip(table.run_ids, whose, strict=True)
        if name is None
    ]
    table = table.only([row for row, name in enumerate(whose) if name is not None])
    names = [name for name in whose if name is not None]
    if not names:
        raise UnusableData(reason=f"no run is left to fit: {NO_RECIPE}")
    recipes = [
        _recipe(read, name, number, table.only([row for row, own in enumerate(names) if own == name]), asked)
        for number, name in enumerate(sorted(set(names)))
    ]
    pairs = [_Pair(one, other, read, asked) for one, other in combinations(recipes, 2)]
    parts = _parts(recipes, read, asked)
    weak = [
        f"recipe {one.name!r} is weak: {one.reasons[0]}" for one in parts if one.fit and one.verdict == "weak"
    ]
    reasons = [*_alone(recipes), *weak, *(why for pair in pairs for why in pair.reasons)]
    together = Together(
        _verdict(pairs, parts),
        [*reasons, *([law.remedy] if not any(pair.known for pair in pairs) else [])],
        _holdout(recipes),
        [one for pair in pairs for one in pair.derived()],
        {"compared_over": read.columns[0], "n_pairs": len(pairs), "leads_at": _largest_common(recipes)},
        left_out,
    )
    return assembled(law, table, parts, together, origin(law, table, names, asked))


def screen_recipes(
    table: RunTable, gate: Mapping[str, bool] | None = None, unread: Sequence[dict[str, str]] = ()
) -> tuple[RunTable, LeftOut]:
    """Return the rows that enter a comparison and the others with why; raises as `screen_table` does.

    Every recipe passes the gate by itself: that another one is better, annealed otherwise or on other data is
    what is compared.
    """
    read = read_by(table)
    table, left_out = screen_table(table, read, unread, dict.fromkeys(CHECKS, False))
    whose = names_of(table, "recipe")
    stopped: dict[str, str] = {}
    for name in sorted(set(whose), key=str):
        rows = [row for row, own in enumerate(whose) if own == name]
        stopped |= _stopped(table.only(rows), read, gate or {})
    kept = [row for row, run_id in enumerate(table.run_ids) if run_id not in stopped]
    if not kept:
        raise UnusableData(reason=f"no run is left to fit: {next(iter(stopped.values()))}")
    left_out += [{"run_id": run_id, "reason": why} for run_id, why in stopped.items()]
    return table.only(kept), left_out


def _stopped(runs: RunTable, read: TableLaw[Any], gate: Mapping[str, bool]) -> dict[str, str]:
    """Return why the gate stops runs of a recipe, by their names; all where a check leaves none."""
    try:
        return {one["run_id"]: one["reason"] for one in pass_gate(runs, read, gate)[1]}
    except UnusableData as error:
        return dict.fromkeys(runs.run_ids, str(error))


def read_by(table: RunTable) -> TableLaw[Any]:
    """Return the law of compute, or of tokens where more runs say those."""
    by_compute, by_tokens = (np.sum(np.isfinite(table.column(name))) for name in (COMPUTE, "n_tokens"))
    law = LAWS["power_law_compute" if by_compute >= by_tokens else "power_law"]
    assert isinstance(law, TableLaw)
    return law


def _law_of(fit: Fit) -> TableLaw[Any]:
    assert isinstance(fit.law, TableLaw)
    return fit.law


def _recipe(read: TableLaw[Any], name: str, number: int, runs: RunTable, asked: FitOptions) -> Recipe:
    compute = runs.column(read.columns[0])
    about = (name, number, compute, runs.outcome)
    blank = Recipe(*about, None, None, asked.seed, asked.bootstrap)
    different = blank.computes.size
    if different < FEWEST_COMPUTES:
        why = f"its runs have {different} different {read.columns[0]}, too few for a law: their means are compared"
        return replace(blank, why=why)
    try:
        own = replace(asked, profile=False, resample=None)
        fit = fit_law(read.name, runs, own, given={}, progress=silent)
    except (FitFailed, UnusableData) as error:
        return replace(blank, why=f"no law fits it ({error})")
    if fit.verdict == "unidentified":
        return replace(blank, why=f"its law is unidentified, so that means are compared: {fit.reasons[0]}")
    return replace(blank, fit=_wide_enough(fit, compute, runs.outcome))


def _wide_enough(fit: Fit, compute: FloatArray, loss: FloatArray) -> Fit:
    """Return a recipe's fit whose interval at its largest compute is no narrower than that of linear theory.

    The largest of few runs draws the law to itself: its residual is smaller than its error, and resampled weights
    make too little of it. Linear theory takes one noise for all runs: t s sqrt(g (J'J)^-1 g) in log loss (Bates and
    Watts 1988, section 2.3.2).
    """
    law, level, left = _law_of(fit), float(fit.provenance["options"]["level"]), loss.size - fit.theta.size
    if left < 1 or len(fit.samples) < 2:
        return fit
    told, slopes = law.jacobian(fit.theta[None], law.prepare({law.columns[0]: compute}))
    share = slopes[0] / told[0][:, None]
    scale = np.linalg.norm(share, axis=0)
    noise = np.sqrt(np.sum(np.log(told[0] / loss) ** 2) / left)
    largest = int(np.argmax(compute))
    leverage = np.linalg.qr(share / scale)[0][largest]
    expected = noise * np.linalg.norm(leverage) * students_quantile((1 + level) / 2, left)
    at = law.prepare({law.columns[0]: compute[[largest]]})
    shown = float(np.std(np.log(law.predict(fit.samples, at))[:, 0])) * normal_quantile((1 + level) / 2)
    needed = expected / shown if shown > 0 else 1.0
    return replace(fit, inflation=float(max(fit.inflation, min(needed, WIDEST * fit.inflation))))


def _parts(recipes: Sequence[Recipe], read: TableLaw[Any], asked: FitOptions) -> list[Part]:
    """Return what is said of each recipe, and how likely it leads at the largest compute that all know."""
    leads = _leads(recipes, _largest_common(recipes))
    return [
        Part(
            one.name,
            one.loss.size,
            "weak" if one.fit is None else one.fit.verdict,
            [str(one.why)] if one.fit is None else one.fit.reasons,
            one.fit,
            list(_values(one, read, leads.get(one.name), asked)),
        )
        for one in recipes
    ]


def _leads(recipes: Sequence[Recipe], shared: float | None) -> dict[str, float]:
    """Return how likely each recipe has the lowest loss at a compute; nothing where chance is not known of all."""
    if shared is None or len(recipes) < 2:
        return {}
    drawn = {one.name: one.losses(np.array([shared])) for one in recipes}
    if not all(np.all(np.isfinite(one)) for one in drawn.values()):
        return {}
    return {name: share[0] for name, share in lead(drawn).items()}


def _values(
    one: Recipe, read: TableLaw[Any], leads: float | None, asked: FitOptions
) -> Iterator[dict[str, Any]]:
    """Yield a recipe's largest compute, its loss there, and how likely it leads where all recipes are known."""
    largest, column = float(one.computes[-1]), read.columns[0]
    losses = one.losses(np.array([largest]))[:, 0]
    yield _said(f"largest_{column}", "FLOP" if column == COMPUTE else "tokens", largest)
    yield _said("mean_loss", "nats/token", float(one.at(largest).mean()))
    yield _said("loss", "nats/token", float(losses[0]), _ends(losses, asked.level))
    yield _said("leads", "1", leads)


def _said(
    name: str, unit: str, value: float | None, interval: tuple[float, float] | None = None
) -> dict[str, Any]:
    ends = None if interval is None else list(interval)
    return {"name": name, "symbol": name, "unit": unit, "value": value, "std_error": None, "interval": ends}


def _ends(values: FloatArray, level: float) -> tuple[float, float] | None:
    """Return the interval of resamples (1 + resamples,), the estimate first; None where chance is not known."""
    return resampled(values[1:], level, float(values[0]), 1.0)[1]


def _largest_common(recipes: Sequence[Recipe]) -> float | None:
    """Return the largest compute at which the loss of every recipe is known, None where there is none."""
    candidates = np.unique(np.concatenate([one.computes for one in recipes]))[::-1]
    return next((float(one) for one in candidates if all(recipe.knows(one) for recipe in recipes)), None)


Ended = tuple[float | None, tuple[float, float] | None]
"""A value and its interval, None where the data do not say."""


@dataclass(frozen=True)
class Crossing:
    """The compute at which two recipes cross, with its interval; `share` of the resamples have a crossing."""

    compute: float | None
    interval: tuple[float, float] | None
    share: float


NO_CROSSING = Crossing(None, None, 0.0)


class _Pair:
    """Two recipes: what is known of their gap at the largest common compute, their crossing, the compute saved."""

    def __init__(self, one: Recipe, other: Recipe, read: TableLaw[Any], asked: FitOptions) -> None:
        self.one, self.other = one, other
        self.column = read.columns[0]
        self.unit = "FLOP" if self.column == COMPUTE else "tokens"
        self.level = asked.level
        self.shared = _largest_common([one, other])

    @property
    def name(self) -> str:
        return f"{self.one.name} vs {self.other.name}"

    @property
    def by_laws(self) -> bool:
        return self.one.fit is not None and self.other.fit is not None

    @cached_property
    def gaps(self) -> FloatArray | None:
        """The loss of the one above the other's at the largest common compute, (1 + resamples,)."""
        if self.shared is None:
            return None
        at = np.array([self.shared])
        one, other = _paired(self.one.losses(at), self.other.losses(at))
        return np.asarray(one[:, 0] - other[:, 0])

    @property
    def known(self) -> bool:
        """Return whether the gap has an interval."""
        return self.gaps is not None and self.gaps.size > 1 and bool(np.all(np.isfinite(self.gaps)))

    @property
    def reasons(self) -> list[str]:
        """What keeps the two from being compared, in words."""
        if self.shared is None:
            return [f"{self.name}: there is no compute at which both are known"]
        if not self.known:
            return [f"{self.name}: one run at a compute, or equal ones, do not show what chance does"]
        crossing = self._over_grid[0]
        if crossing.compute is None and crossing.share > 1 - self.level:
            return [f"{self.name}: whether they cross within {BESIDE:g} times their runs the data do not say"]
        return []

    def derived(self) -> Iterator[Derived]:
        """Yield what follows for the pair; the data do not say what has no value."""
        gaps = self.gaps
        value, ends, leads = None, None, None
        if gaps is not None:
            value, ends = float(gaps[0]), _ends(gaps, self.level)
            leads = float(np.mean(gaps[1:] < 0)) if self.known else None
        yield Derived(f"{self.name}.largest_common", self.unit, self.shared, None)
        yield Derived(f"{self.name}.gap", "nats/token", value, ends)
        yield Derived(f"{self.name}.first_leads", "1", leads, None)
        crossing, saved = self._over_grid
        yield Derived(f"{self.name}.crossing", self.unit, crossing.compute, crossing.interval)
        yield Derived(f"{self.name}.compute_saved", "1", *saved)

    @cached_property
    def _over_grid(self) -> tuple[Crossing, Ended]:
        """Where the two cross, and how many times less compute the first needs, from their laws over a grid.

        The losses themselves, (1 + resamples, grid) of each, are not kept: there may be many pairs.
        """
        if not self.by_laws:
            return NO_CROSSING, (None, None)
        computes = np.concatenate([self.one.compute, self.other.compute])
        grid = np.geomspace(computes.min() / BESIDE, computes.max() * BESIDE, GRID)
        one, other = _paired(self.one.losses(grid), self.other.losses(grid))
        return self._crossing(grid, one - other), self._saved(grid, one)

    def _crossing(self, grid: FloatArray, gaps: FloatArray) -> Crossing:
        """Return the compute at which the two cross, by their gaps (1 + resamples, grid)."""
        changes = np.sign(gaps[:, :-1]) != np.sign(gaps[:, 1:])
        share = float(np.mean(changes[1:].any(axis=1))) if len(gaps) > 1 else 0.0
        if not changes[0].any():
            return Crossing(None, None, share)
        place = int(np.flatnonzero(changes[0])[-1])
        value, ends = _ended(_crossings(np.log(grid), gaps, changes, place), self.level)
        return Crossing(value, ends, share)

    def _saved(self, grid: FloatArray, losses: FloatArray) -> Ended:
        """Return how many times less compute the first needs for the loss of the second at the largest common one.

        `losses` (1 + resamples, grid) are those of the first.
        """
        if self.shared is None:
            return None, None
        own, target = _paired(losses, self.other.losses(np.array([self.shared])))
        needed = [_reached(np.log(grid), one, wanted) for one, wanted in zip(own, target[:, 0], strict=True)]
        return _ended(np.log(self.shared) - np.array(needed), self.level)


def _ended(logs: FloatArray, level: float) -> Ended:
    """Return a value and its interval of logarithms (1 + resamples,), the estimate first.

    Both None where the estimate, or an end of the interval, lies beyond the grid: infinitely far.
    """
    if not np.isfinite(logs[0]):
        return None, None
    if len(logs) < 2:
        return float(np.exp(logs[0])), None
    ends = np.quantile(logs[1:], [(1 - level) / 2, (1 + level) / 2], method="nearest")
    if not np.all(np.isfinite(ends)):
        return None, None
    low, high = np.exp([min(ends[0], logs[0]), max(ends[1], logs[0])])
    return float(np.exp(logs[0])), (float(low), float(high))


def _paired(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return as many resamples of both: a few of a law's may have no optimum."""
    count = min(len(one), len(other))
    return one[:count], other[:count]


def _crossings(logs: FloatArray, gaps: FloatArray, changes: BoolArray, place: int) -> FloatArray:
    """Return ln C of the crossing nearest to the estimate's, (members,), of gaps (members, grid).

    Without one it lies beyond an end of the grid: above, where the gap has the sign all along that the estimate's
    has below its crossing, and below otherwise.
    """
    before = np.sign(gaps[0, place])
    near = np.array([_nearest(row, place) for row in changes])
    found = near >= 0
    rows, left = np.flatnonzero(found), near[found]
    at = np.where(np.sign(gaps[:, -1]) == before, np.inf, -np.inf)
    low, high = gaps[rows, left], gaps[rows, left + 1]
    at[rows] = logs[left] + low / (low - high) * (logs[left + 1] - logs[left])
    return at


def _nearest(changes: BoolArray, place: int) -> int:
    places = np.flatnonzero(changes)
    return int(places[np.argmin(np.abs(places - place))]) if places.size else -1


def _reached(logs: FloatArray, losses: FloatArray, wanted: float) -> float:
    """Return ln C at which falling losses (grid,) reach one; infinite where they lie above or below it."""
    if losses[-1] > wanted:
        return np.inf
    if losses[0] < wanted:
        return -np.inf
    return float(np.interp(-wanted, -losses, logs))


def _alone(recipes: Sequence[Recipe]) -> list[str]:
    if len(recipes) > 1:
        return []
    return [f"there is one recipe, {recipes[0].name!r}: nothing to compare it with"]


def _verdict(pairs: Sequence[_Pair], parts: Sequence[Part]) -> Verdict:
    """Return unidentified where no pair can be compared, sound where all can and every recipe's law is sound."""
    known = [pair.known for pair in pairs]
    if not any(known):
        return "unidentified"
    weak = any(part.verdict == "weak" and part.fit is not None for part in parts)
    return "weak" if weak or not all(known) or any(pair.reasons for pair in pairs) else "sound"


def _holdout(recipes: Sequence[Recipe]) -> dict[str, Any] | None:
    """Return how well each recipe's largest runs were predicted from its smaller ones, None without any law."""
    held = {
        one.name: one.fit.holdout for one in recipes if one.fit is not None and one.fit.holdout is not None
    }
    if not held:
        return None
    runs: Mapping[str, Any] = {name: one["mean"] for name, one in held.items()}
    names = next(iter(runs.values()))
    means = {
        name: float(np.mean([one[name] for one in runs.values()]))
        if all(one[name] is not None for one in runs.values())
        else None
        for name in names
    }
    score = float(np.sqrt(np.mean([one["score"] ** 2 for one in held.values()])))
    told = "the largest runs of each recipe, from its smaller ones"
    return {"predicted": told, "score": score, "runs": dict(runs), "mean": means, "others": []}

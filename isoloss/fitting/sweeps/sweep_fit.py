"""Fitting a law of the best setting to sweeps: find the surface, leave out each in turn, predict the largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.distributions import chi_squared_quantile
from isoloss.errors import FitFailed, InvalidInput
from isoloss.fitting.datasets import Fold, TableDataset, scale_of
from isoloss.fitting.estimate import BATCH, Progress, silent
from isoloss.fitting.intervals import Spread, noise_quantiles, students_factor
from isoloss.fitting.one_law import Observations, options_for
from isoloss.fitting.options import FitOptions
from isoloss.fitting.provenance import came_from, provenance
from isoloss.fitting.resampling import RUNS_NEEDED
from isoloss.fitting.result import Fit
from isoloss.fitting.screening import held_names
from isoloss.fitting.sweeps.cells import OTHER_SETTINGS, Screened, read_for, screen_sweeps, sweeps_of
from isoloss.fitting.sweeps.surface import OwnOptima, Surface, Sweeps, noise_about, own_optima
from isoloss.fitting.sweeps.sweep_report import described, scored
from isoloss.fitting.sweeps.sweep_task import SweepEstimate, SweepTask
from isoloss.fitting.table_screening import refuse_doubles
from isoloss.fitting.units import Units, draws
from isoloss.laws.power_laws import ON_ONE_LINE, SAME_LOG
from isoloss.laws.sweep_law import Axis, SweepLaw
from isoloss.observations import RunTable

UNLIKELY = 0.05
"""Chance, over all folds, that noise passes for an error of the law."""

WORTH_A_COLUMN = 0.05
"""Share by which a law of one more column must predict left-out sites better."""

AS_GOOD_AS_ABSENT = 1e-9
"""The weight of a site that is left out: its offset stays determined."""

UNUSED_OPTIONS = ("bounds", "expr", "priors", "prior_strength", "skip_steps")
"""Options that mean nothing where an optimum is read off sweeps."""


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def fit_sweeps(
    law: SweepLaw,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    progress: Progress,
    left_out: Sequence[dict[str, str]] = (),
    previous: Fit | None = None,
) -> Fit:
    """Fit a law of the best setting to a table of runs; raises as `one_law.fit_law` does."""
    law, asked = law.under(asked.convention), options_for(asked, observations, given)
    _check(law, observations, asked)
    assert isinstance(observations, RunTable)
    law = read_for(law, observations, asked.gate)
    fitted, held = _split(observations, law, asked)
    screened = screen_sweeps(fitted, law, left_out, asked.gate)
    read = (*law.run_columns, *(axis.column for axis in law.axes), *OTHER_SETTINGS)
    data = TableDataset(screened.table, read)
    held_sha256 = TableDataset(held, read).sha256() if held.n_runs else None
    now = provenance(data, asked, held_sha256)
    if previous is not None and previous.law_name == law.name and came_from(previous.provenance, now):
        return replace(previous, left_out=screened.left_out)
    progress(0.05, "reading the sweeps")
    law, scores = _supported(law, screened, asked)
    task = task_of(law, screened, asked)
    estimate = _estimate(task, progress) if task.shows_noise else None
    found = described(task, estimate, now | {"convention": law.convention}, scores)
    return scored(found, held, law)


def _supported(
    law: SweepLaw, screened: Screened, asked: FitOptions
) -> tuple[SweepLaw, dict[str, float | None]]:
    """Return the law as the sweeps support it, and the error of left-out sites under each of its readings.

    A reading of more columns must predict them better by `WORTH_A_COLUMN`.
    """
    scores: dict[str, float | None] = {}
    if law.convention != next(iter(law.conventions), None) or not law.readings:
        return law, scores
    chosen, least = law.under(law.readings[0]), np.inf
    for name in law.readings:
        one = task_of(law.under(name), screened, replace(asked, bootstrap=0))
        estimate = None if one.missing else _estimate(one, silent)
        scores[name] = error = None if estimate is None else estimate.left_out_error
        if error is not None and error < least * (1 - WORTH_A_COLUMN):
            chosen, least = one.law, error
    return chosen, scores


def _check(law: SweepLaw, observations: Observations, asked: FitOptions) -> None:
    if not isinstance(observations, RunTable):
        reason = f"{law.name} is fitted to a table of finished runs (isoloss.read_runs), not to curves"
        raise InvalidInput(field="law", reason=reason)
    refuse_doubles(observations)
    check_options(law, asked)


def check_options(law: SweepLaw, asked: FitOptions) -> None:
    """Raise InvalidInput for options that a law of sweeps has no use for, or that contradict it."""
    for option in UNUSED_OPTIONS:
        if getattr(asked, option) not in ({}, None):
            reason = f"{law.name} reads optima off sweeps, and has no use for it"
            raise InvalidInput(field=option, reason=reason)
    if asked.backend != "numpy":
        raise InvalidInput(field="backend", reason=f"sweeps are few: {law.name} is fitted with numpy alone")
    asked.constrain(law)


def _split(table: RunTable, law: SweepLaw, asked: FitOptions) -> tuple[RunTable, RunTable]:
    """Return (runs to fit, runs to predict); a fraction holds out the largest runs."""
    if asked.holdout is None:
        return table, table.only([])
    scale = [float(one) for one in scale_of(table, law)]
    known = np.isfinite(scale)
    names = [name for name, one in zip(table.run_ids, known, strict=True) if one]
    held = held_names(names, [one for one in scale if np.isfinite(one)], asked.holdout, ())
    inside = np.array([name in held for name in table.run_ids])
    return table.only(np.flatnonzero(~inside)), table.only(np.flatnonzero(inside))


def task_of(law: SweepLaw, screened: Screened, asked: FitOptions) -> SweepTask:
    """Return what a fit has to do, whatever of it the sweeps determine."""
    columns, n_cells = screened.columns(), len(screened.cells)
    if not n_cells:
        return _nothing_to_do(law, screened, asked)
    features = law.prepare({name: columns[name] for name in law.columns})
    missing = law.undetermined(features, asked.fix)
    absent = frozenset({*missing, *law.held(features, asked.fix)})
    own = [one.name for one in law.parameters[1:] if one.name not in absent]
    places = np.unique(np.round(features.logs / SAME_LOG), axis=1).shape[1]
    if set(missing.values()) == {law.together}:  # not even along the line on which they lie
        missing = {parameter.name: law.together for parameter in law.parameters}
    elif places < (count := 1 + len(own) - len(asked.fix.keys() & set(own))):
        why = f"{places} different sweep{'s' * (places > 1)} for {count} parameters"
        missing = dict.fromkeys((parameter.name for parameter in law.parameters), why)
    if (
        "coefficient" in missing
    ):  # every sweep still has an optimum of its own, about the part that can be told
        logs = dict(zip([one.name for one in law.parameters[1:]], features.logs, strict=True))
        own = _apart(logs, [*logs])
        absent = frozenset(logs) - frozenset(own)
    kept = [number for number, one in enumerate(law.parameters[1:]) if one.name in own]
    traits = [np.vstack([np.ones(n_cells), features.logs[kept]])]
    names = [tuple(own)]
    for axis in screened.axes[1:]:
        named, found = _traits(axis, columns, n_cells)
        traits.append(found)
        names.append(named)
    sweeps, rows = sweeps_of(screened, law, traits)
    task = SweepTask(law, screened, asked, dict(missing), absent, sweeps, rows, tuple(names))
    if task.shows_noise:
        return task
    why = f"{len(rows)} runs near the best for {task.n_fitted} parameters of the surface: nothing shows the noise"
    return replace(task, missing=dict.fromkeys((parameter.name for parameter in law.parameters), why))


def _nothing_to_do(law: SweepLaw, screened: Screened, asked: FitOptions) -> SweepTask:
    names = [parameter.name for parameter in law.parameters]
    nothing = Sweeps(np.zeros(0, np.int64), np.zeros((1, 0)), np.zeros(0), np.zeros(0), (np.ones((1, 0)),))
    missing = dict.fromkeys(names, _no_sweeps(screened))
    return SweepTask(law, screened, asked, missing, frozenset(names), nothing, [])


def _no_sweeps(screened: Screened) -> str:
    reasons: dict[str, int] = {}
    for one in screened.others:
        reasons[one.why_not or ""] = reasons.get(one.why_not or "", 0) + 1
    said = "; ".join(f"{why} ({count} of {len(screened.others)} sweeps)" for why, count in reasons.items())
    return f"no sweep tells where its optimum lies: {said}"


def _traits(
    axis: Axis, columns: Mapping[str, FloatArray], n_cells: int
) -> tuple[tuple[str, ...], FloatArray]:
    """Return what the optimum of another axis is linear in: those of its columns that can be told apart."""
    logs = {name: np.log(columns[name]) for name in axis.of}
    names = tuple(_apart(logs, axis.of))
    return names, np.vstack([np.ones(n_cells), *(logs[name] for name in names)])


def _apart(logs: Mapping[str, FloatArray], names: Sequence[str]) -> list[str]:
    """Return those of the names whose logarithms (cells,) can be told apart, the first ones first."""
    found: list[str] = []
    for name in names:
        known = np.vstack([np.ones(logs[name].size), *(logs[one] for one in found)]).T
        rest = logs[name] - known @ np.linalg.lstsq(known, logs[name], rcond=None)[0]
        if np.abs(rest).max() > ON_ONE_LINE and len(known[0]) < len(rest):
            found.append(name)
    return found


def _estimate(task: SweepTask, progress: Progress) -> SweepEstimate:
    surface = task.surface()
    ones = np.ones((1, surface.sweeps.cell.size))
    found = surface.solve(surface.start(task.held)[None], ones, task.held)
    if not np.isfinite(found.objective[0]):
        raise FitFailed(reason="the surface under the sweeps has no finite objective")
    theta = found.theta[0]
    noise = noise_about(surface, theta, task.held)
    own = own_optima(surface, theta, noise.size)
    units = _units(task)
    progress(0.2, "leaving out each in turn")
    without = _without_each(task, surface, theta, units.groups)
    rises = surface.has_minimum(without)
    failed = 1 - float(rises.mean())
    samples = units.samples(theta, np.where(rises[:, None], without, np.nan), task.asked)
    folds, errors = _folds(task, surface, theta, own)
    left_out_error = _left_out_error(task, surface, theta, own)
    scatter = _scatter(own, len(task.unknown))
    if units.unit == "runs":  # whole sites that are left out show it by themselves
        samples = _scattered(task, samples, scatter)
    spread = _spread(surface, own, samples, scatter, folds, errors)
    return SweepEstimate(
        surface, theta, float(found.objective[0]), bool(found.converged[0]), samples, failed, units, noise, own,
        scatter, left_out_error, tuple(folds), tuple(errors), spread,
    )  # fmt: skip


def _units(task: SweepTask) -> Units:
    """Return what varies independently: whole sites with all their sweeps, or runs where there are few sites."""
    unit = task.asked.resample
    if unit == "blocks":
        raise InvalidInput(
            field="resample", reason="a run of a table is one point: blocks are parts of curves"
        )
    if unit is None:
        unit = "configurations" if task.sites.max() + 1 >= RUNS_NEEDED else "runs"
    if unit == "configurations":
        return Units(unit, task.sites[task.sweeps.cell], task.of_sites)
    columns = (*task.law.run_columns, *(axis.column for axis in task.screened.axes))
    numbers = np.column_stack([task.screened.table.column(name)[task.rows] for name in columns])
    return Units(unit, np.arange(len(task.rows)), tuple(map(tuple, numbers.tolist())))


def _without_each(task: SweepTask, surface: Surface, theta: FloatArray, groups: IntArray) -> FloatArray:
    """Return the surface without each group of runs in turn, (groups, parameters); NaN where there is none."""
    n_groups = int(groups.max()) + 1
    parts = []
    for begin in range(0, n_groups, BATCH):
        left_out = np.arange(begin, min(begin + BATCH, n_groups))[:, None] == groups[None]
        weights = np.where(left_out, AS_GOOD_AS_ABSENT, 1.0)
        found = surface.solve(np.repeat(theta[None], len(weights), axis=0), weights, task.held, exact=False)
        parts.append(np.where(np.isfinite(found.objective)[:, None], found.theta, np.nan))
    return np.concatenate(parts)


def _left_out_error(task: SweepTask, surface: Surface, theta: FloatArray, own: OwnOptima) -> float | None:
    """Return the root mean square error, in logarithms, of every site's setting as the others predict it."""
    if task.sites.max() + 1 <= len(task.unknown):
        return None
    without = _without_each(task, surface, theta, task.sites[surface.sweeps.cell])
    told = surface.optima(without)[task.sites, 0, np.arange(task.sites.size)]
    errors = told - surface.optima(theta[None])[0, 0] - own.shift[0]
    known = errors[np.isfinite(errors)]
    return float(np.sqrt(np.mean(known**2))) if known.size else None


def _folds(
    task: SweepTask, surface: Surface, theta: FloatArray, own: OwnOptima
) -> tuple[list[Fold], list[FloatArray]]:
    """Return who is predicted from whom, and by how much the first axis is off, in logarithms, for each sweep."""
    folds, errors = [], []
    observed = surface.optima(theta[None])[0, 0] + own.shift[0]
    for fold in task.cells.folds(task.law):
        fitted, traits, unknown = sorted(fold.fitted), task.sweeps.traits[0], task.unknown
        predicted = [cell for cell in fold.predicted if np.isfinite(observed[cell])]
        if not predicted or np.linalg.matrix_rank(traits[unknown][:, fitted]) < len(unknown):
            continue
        part = task.surface(fitted)
        start = np.concatenate(
            [theta[: surface.n_slopes + surface.n_shape], _offsets(surface, theta)[fitted]]
        )
        found = part.solve(start[None], np.ones((1, part.sweeps.cell.size)), task.held)
        if part.has_minimum(found.theta)[0]:
            told = part.slopes(found.theta)[0][0] @ traits[:, predicted]
            folds.append(Fold(tuple(fitted), tuple(predicted), fold.what.replace("runs", "sweeps")))
            errors.append(told - observed[predicted])
    return folds, errors


def _offsets(surface: Surface, theta: FloatArray) -> FloatArray:
    return theta[surface.n_slopes + surface.n_shape :]


def _scatter(own: OwnOptima, n_free: int) -> float:
    """Return how far the sweeps' own optima lie from the law beyond their errors, as a standard deviation."""
    known = np.isfinite(own.shift[0]) & np.isfinite(own.error[0])
    count = int(known.sum())
    if count <= n_free:
        return 0.0
    squares = own.shift[0][known] ** 2 * count / (count - n_free) - own.error[0][known] ** 2
    return float(np.sqrt(max(0.0, float(np.mean(squares)))))


def _scattered(task: SweepTask, samples: FloatArray, scatter: float) -> FloatArray:
    """Return resamples (resamples, parameters) whose slopes each site's own way off the law has moved by chance."""
    if not scatter or not len(samples):
        return samples
    # So few sites hardly tell their scatter: it is as wide as Student's quantile makes it.
    wider = students_factor(max(1, len(task.of_sites) - len(task.unknown)), task.asked.level)
    off = wider * scatter * draws(task.of_sites, task.asked.seed, len(samples))[:, task.sites]
    moved = samples.copy()
    moved[:, task.unknown] += off @ np.linalg.pinv(task.sweeps.traits[0][task.unknown])
    return moved


def _spread(
    surface: Surface,
    own: OwnOptima,
    samples: FloatArray,
    scatter: float,
    folds: Sequence[Fold],
    errors: Sequence[FloatArray],
) -> Spread:
    """Return what resamples do not show, in logarithms of the setting: the error of predicted sweeps."""
    known = own.shift[0][np.isfinite(own.shift[0])]
    noise = noise_quantiles(known) if known.size else (0.0,) * 201
    if not folds or not len(samples):
        return Spread(None, 0, noise)
    moved = np.var(surface.optima(samples)[:, 0], axis=0)
    worst = (0.0, 0.0, 0.0, folds[0].what)
    for fold, error in zip(folds, errors, strict=True):
        cells = list(fold.predicted)
        more = surface.sweeps.n_cells / len(fold.fitted)
        by_chance = np.mean(own.error[0][cells] ** 2 + scatter**2 + more * moved[cells])
        found, usual = float(np.sqrt(np.mean(error**2))), float(np.sqrt(by_chance))
        beyond = np.sqrt(max(0.0, found**2 - usual**2))
        limit = usual * np.sqrt(chi_squared_quantile(1 - UNLIKELY / len(folds), len(cells)) / len(cells))
        if found > limit and beyond > worst[0]:
            worst = (float(beyond), found, float(limit), fold.what)
    beyond, found, limit, what = worst
    first = float(np.sqrt(np.mean(errors[0] ** 2)))
    return Spread(beyond, len(folds), noise, found or first, limit or None, what, None)

"""What a fit of sweeps says: parameters, every sweep's own optimum, what the law's setting costs, a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import students_quantile
from isoloss.fitting.holdout import ASKED
from isoloss.fitting.intervals import Spread
from isoloss.fitting.report import resampled
from isoloss.fitting.resampling import RUNS_NEEDED
from isoloss.fitting.result import Derived, Fit, ParameterEstimate, Verdict
from isoloss.fitting.scores import mean_scores, score, score_pairs
from isoloss.fitting.sweeps.cells import OTHER_LABELS, OTHER_SETTINGS, SAME_SETTING, Cell, screen_sweeps
from isoloss.fitting.sweeps.surface import LEAST_SPARE
from isoloss.fitting.sweeps.sweep_task import SweepEstimate, SweepTask
from isoloss.fitting.verdicts import FAILED_SHARE
from isoloss.laws.power_laws import SAME_LOG
from isoloss.laws.sweep_law import SweepLaw
from isoloss.notes import counted
from isoloss.observations import RunTable

LOOSE_EXPONENT = 1.0
"""Width of an exponent's interval above which the sweeps hardly say which way the setting goes."""

FAR_OFF = float(np.log(1.5))
"""Error, beyond noise, of a predicted setting above which no prediction is trusted: half as large again."""

CENSORED_SHARE = 1 / 3
"""Share of sweeps whose optimum is on the edge above which the others may be a biased choice."""

LEVELS_FOR_BEND = 3
"""Values of a variable that show whether optima bend over it."""

UNLIKELY = 0.02
"""Chance, over all variables, that noise passes for a bend."""

OUTSIDE_SHARE = 1 / 2
"""Share of sweeps whose optimum the law puts outside of what was tried above which it is not theirs."""

MOST_NAMED = 5


def described(
    task: SweepTask,
    estimate: SweepEstimate | None,
    provenance: Mapping[str, Any],
    readings: Mapping[str, float | None],
) -> Fit:
    """Return the fit of an estimate; without one, where the sweeps do not determine the law.

    `readings` are the errors of left-out sites under each reading that the law was chosen from.
    """
    verdict, reasons = _judged(task, estimate)
    reasons += [f"{task.law.convention} was chosen: {_compared(readings)}"] if readings else []
    parameters = _parameters(task, estimate)
    n_parameters = len(task.law.parameters)
    samples = np.empty((0, n_parameters)) if estimate is None else _samples(task, estimate)
    theta = np.full(n_parameters, np.nan) if estimate is None else _theta(task, estimate)
    nothing = Spread(None, 0, (0.0,) * 201)
    told = None if "coefficient" in task.missing else estimate
    return Fit(
        law_name=task.law.name,
        parameters={one.name: one for one in parameters},
        objective=float("nan") if estimate is None else estimate.objective,
        metrics=_metrics(task, told),
        holdout=None if told is None else _holdout(task, told),
        groups=_groups(task, estimate),
        derived=[] if told is None else list(_all_derived(task, told, parameters)),
        diagnostics=_diagnostics(task, estimate) | {"readings": dict(readings)},
        left_out=task.screened.left_out,
        verdict=verdict,
        reasons=[*reasons, *task.screened.notes],
        provenance=dict(provenance),
        theta=theta,
        samples=samples,
        inflation=1.0 if estimate is None else _inflation(task, estimate),
        spread=nothing if estimate is None else estimate.spread,
        fitted_range=task.fitted_range(),
        missing=task.missing,
        curvature=None if estimate is None else _curvature(estimate),
    )


def _compared(readings: Mapping[str, float | None]) -> str:
    said = [
        f"{name} " + ("is not determined" if error is None else f"is {np.expm1(error):.1%} off")
        for name, error in readings.items()
    ]
    return "on sites left out in turn " + ", ".join(said)


def scored(found: Fit, held: RunTable, law: SweepLaw) -> Fit:
    """Return a fit with the score of held-out sweeps: its setting for each beside the best that was tried."""
    if not held.n_runs or found.verdict == "unidentified":
        return found
    screened = screen_sweeps(held, law)
    runs, column = {}, screened.table.column(law.main.column)
    for cell in screened.cells:
        told = found.predict(config=cell.of)
        settings, losses = column[list(cell.rows)], screened.table.outcome[list(cell.rows)]
        # A batch beside a learning rate is tuned too: of the runs nearest in this law's setting the best counts.
        off = np.abs(np.log(settings / told.value[0]))
        nearest = np.min(losses[off <= off.min() + SAME_LOG])
        runs[cell.name] = score(settings[[int(np.argmin(losses))]], told.value) | {
            "coverage": float(told.lower[0] <= settings[np.argmin(losses)] <= told.upper[0]),
            "regret_of_nearest_run": float(nearest / cell.best - 1),
        }
    left_out = [*found.left_out, *screened.left_out]
    if not runs:
        return replace(found, holdout=None, left_out=left_out)
    document = {
        "predicted": ASKED,
        "runs": runs,
        "mean": mean_scores(runs.values()),
        "training": found.holdout,
    }
    return replace(found, holdout=document, left_out=left_out)


def _curvature(estimate: SweepEstimate) -> FloatArray:
    """Return the second derivatives of the surface at its minimum, of the estimate and of its resamples."""
    return estimate.surface.hessian(np.concatenate([estimate.theta[None], estimate.samples]))


def _theta(task: SweepTask, estimate: SweepEstimate) -> FloatArray:
    theta = task.theta(estimate.surface.slopes(estimate.theta[None])[0])[0]
    if "coefficient" in task.missing:
        theta[:] = np.nan
    return theta


def _samples(task: SweepTask, estimate: SweepEstimate) -> FloatArray:
    if "coefficient" in task.missing:
        return np.empty((0, len(task.law.parameters)))
    return task.theta(estimate.surface.slopes(estimate.samples)[0])


def _inflation(task: SweepTask, estimate: SweepEstimate) -> float:
    whole_sites = estimate.units.unit == "configurations"
    n_known = len(task.unknown) if whole_sites else estimate.theta.size
    return estimate.units.inflation(n_known, task.asked.level)


def _parameters(task: SweepTask, estimate: SweepEstimate | None) -> list[ParameterEstimate]:
    found = []
    for number, one in enumerate(task.law.parameters):
        about = (one.name, one.symbol, one.unit)
        if one.name in task.absent - task.missing.keys():
            continue
        if estimate is None or one.name in task.missing:
            found.append(ParameterEstimate(*about, None, None, None, at_bound=False))
            continue
        value = float(_theta(task, estimate)[number])
        values, wider = _samples(task, estimate)[:, number], _inflation(task, estimate)
        if one.name in task.asked.fix:
            error, interval = None, None
        elif number == 0:  # it is above 0, and spreads over decades
            error, interval = resampled(np.log(values), task.asked.level, float(np.log(value)), wider)
            error = None if error is None else error * value
            interval = None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))
        else:
            error, interval = resampled(values, task.asked.level, value, wider)
        found.append(ParameterEstimate(*about, value, error, interval, at_bound=False))
    return found


def _groups(task: SweepTask, estimate: SweepEstimate | None) -> list[dict[str, Any]]:
    """Return every sweep: what it is of, its own optimum, and what the law's setting would cost there."""
    groups = [] if estimate is None else [
        _group(task, estimate, number, cell) for number, cell in enumerate(task.screened.cells)
    ]  # fmt: skip
    if estimate is None:
        groups += [_unused(cell, "") for cell in task.screened.cells]
    return groups + [_unused(cell, cell.why_not or "") for cell in task.screened.others]


def _unused(cell: Cell, why: str) -> dict[str, Any]:
    best = None if np.isnan(cell.best) else cell.best
    return {
        "by": cell.of,
        "n_runs": len(cell.rows),
        "best_loss": best,
        "parameters": [],
        "left_out": why or None,
    }


def _group(task: SweepTask, estimate: SweepEstimate, number: int, cell: Cell) -> dict[str, Any]:
    optima = estimate.surface.optima(estimate.theta[None])[0, :, number]
    own, level = estimate.own, task.asked.level
    z = float(students_quantile((1 + level) / 2, max(estimate.noise.spare, LEAST_SPARE)))
    parameters = []
    for axis, at, shift, error in zip(
        task.screened.axes, optima, own.shift[:, number], own.error[:, number], strict=True
    ):
        known = np.isfinite(shift) and np.isfinite(error)
        ends = np.exp([at + shift - z * error, at + shift + z * error]) if known else None
        parameters.append(
            {
                "name": axis.column,
                "symbol": axis.symbol,
                "unit": axis.unit,
                "value": float(np.exp(at + shift)) if known else None,
                "std_error": float(np.exp(at + shift) * error) if known else None,
                "interval": None if ends is None else [float(ends[0]), float(ends[1])],
                "at_law": float(np.exp(at)),
            }
        )
    said = {"by": cell.of, "n_runs": len(cell.rows), "best_loss": cell.best, "parameters": parameters}
    return {**said, "left_out": None, **_costs(task, estimate, number)}


def _costs(task: SweepTask, estimate: SweepEstimate, number: int) -> dict[str, float | None]:
    """Return what the law's setting costs at a sweep, as a share: by the surface, and at the nearest run."""
    shift = estimate.own.shift[:, number]
    excess = None
    if np.all(np.isfinite(shift)):
        excess = float(np.expm1(estimate.surface.excess(estimate.theta[None], -shift[:, None])[0, 0]))
    at = estimate.surface.optima(estimate.theta[None])[0, :, number]
    return {"excess_of_law": excess, "regret_of_nearest_run": task.regret(number, at)}


def _metrics(task: SweepTask, estimate: SweepEstimate | None) -> dict[str, Any]:
    """Return how the law meets each sweep's own optimum, in the unit of its setting."""
    if estimate is None:
        return {"runs": {}, "mean": {}}
    at = estimate.surface.optima(estimate.theta[None])[0, 0]
    own = at + estimate.own.shift[0]
    known = [number for number in range(at.size) if np.isfinite(own[number])]
    return score_pairs({task.screened.cells[one].name: _pair(own[one], at[one]) for one in known})


def _pair(log_own: float, log_told: float) -> tuple[FloatArray, FloatArray]:
    return np.exp(np.array([log_own])), np.exp(np.array([log_told]))


def _holdout(task: SweepTask, estimate: SweepEstimate) -> dict[str, Any] | None:
    """Return how the largest sweeps are predicted from the others, and then smaller ones from still smaller."""
    if not estimate.folds:
        return None
    at = estimate.surface.optima(estimate.theta[None])[0, 0] + estimate.own.shift[0]
    stages = []
    for fold, error in zip(estimate.folds, estimate.fold_errors, strict=True):
        names = [task.screened.cells[cell].name for cell in fold.predicted]
        pairs = {
            name: _pair(at[cell], at[cell] + off)
            for name, cell, off in zip(names, fold.predicted, error, strict=True)
        }
        stages.append(
            {
                "predicted": fold.what,
                "n_fitted": len(fold.fitted),
                "score": float(np.sqrt(np.mean(error**2))),
                **score_pairs(pairs),
            }
        )
    first = {name: value for name, value in stages[0].items() if name != "n_fitted"}
    others = [{name: value for name, value in one.items() if name != "runs"} for one in stages[1:]]
    return {**first, "others": others}


def _derived(task: SweepTask, estimate: SweepEstimate) -> Iterator[Derived]:
    """Yield where the other axes have their optimum, as products of powers, under the axis's name."""
    surface, wider = estimate.surface, _inflation(task, estimate)
    for number, axis in enumerate(task.screened.axes[1:], start=1):
        at, members = (
            surface.slopes(estimate.theta[None])[number][0],
            surface.slopes(estimate.samples)[number],
        )
        for position, name in enumerate(_names_of(task, number)):
            values, value = members[:, position], float(at[position])
            interval = resampled(values, task.asked.level, value, wider)[1]
            if position == 0:
                value = float(np.exp(value))
                interval = (
                    None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))
                )
            yield Derived(f"{axis.column}.{name}", axis.unit if position == 0 else "1", value, interval)


def _along_valleys(task: SweepTask, estimate: SweepEstimate) -> Iterator[Derived]:
    """Yield how the law's setting goes with another one that is not at its own best: the slope of the valley."""
    surface, main = estimate.surface, task.law.main.column
    at, members = (surface.hessian(theta) for theta in (estimate.theta[None], estimate.samples))
    for number, axis in enumerate(task.screened.axes[1:], start=1):
        value = float(-at[0, 0, number] / at[0, 0, 0])
        values = -members[:, 0, number] / members[:, 0, 0]
        interval = resampled(values, task.asked.level, value, _inflation(task, estimate))[1]
        yield Derived(f"{main}.exponent_{axis.column}", "1", value, interval)


def _all_derived(
    task: SweepTask, estimate: SweepEstimate, parameters: Sequence[ParameterEstimate]
) -> Iterator[Derived]:
    yield from _derived(task, estimate)
    yield from _along_valleys(task, estimate)
    yield from _other_readings(task, parameters)


def _other_readings(task: SweepTask, parameters: Sequence[ParameterEstimate]) -> Iterator[Derived]:
    """Yield the coefficient in other readings of the law, of which these sweeps say what they are."""
    (one,) = (one for one in parameters if one.name == "coefficient")
    for name, factor in task.law.other_readings(task.screened.runs().columns).items():
        ends = None if one.interval is None else (one.interval[0] * factor, one.interval[1] * factor)
        yield Derived(name, one.unit, None if one.value is None else one.value * factor, ends)


def _cost_of_factor_two(estimate: SweepEstimate) -> float:
    """Return what the setting of the law costs that is off by a factor of two, either way: a share of the loss."""
    away = np.zeros((len(estimate.surface.sweeps.settings), 2))
    away[0] = np.log(2) * np.array([1, -1])
    return float(np.expm1(estimate.surface.excess(estimate.theta[None], away)[0].mean()))


def _names_of(task: SweepTask, number: int) -> list[str]:
    return ["coefficient", *(f"exponent_{name}" for name in task.trait_names[number])]


def _diagnostics(task: SweepTask, estimate: SweepEstimate | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "n_points": len(task.rows),
        "n_runs": sum(len(cell.rows) for cell in task.screened.cells),
        "n_sweeps": len(task.screened.cells),
        "n_sweeps_left_out": len(task.screened.others),
        "settings": [axis.column for axis in task.screened.axes],
        "held": _held(task),
    }
    if estimate is None:
        return said
    return {
        **said,
        "degree": estimate.surface.degree,
        "noise_log_loss": estimate.noise.size,
        "spare_runs": estimate.noise.spare,
        "regret_factor_two": _cost_of_factor_two(estimate),
        "scatter_of_optima": estimate.scatter,
        "left_out_error": estimate.left_out_error,
        "resampling": {
            "unit": estimate.units.unit,
            "resamples": len(estimate.samples),
            "statement": _statement(estimate),
        },
        "discrepancy": {
            "log_setting": estimate.spread.discrepancy,
            "error": estimate.spread.error,
            "explained_by_noise": estimate.spread.explained,
            "folds": estimate.spread.folds,
            "worst": estimate.spread.worst,
        },
    }


def _held(task: SweepTask) -> dict[str, Any]:
    """Return the settings that are the same in all runs of all sweeps."""
    runs = task.screened.runs()
    columns = {name: runs.column(name) for name in OTHER_SETTINGS}
    labels = {name: list(runs.label(name)) for name in OTHER_LABELS}
    numbers = {
        name: float(one[0])
        for name, one in columns.items()
        if one.size and np.ptp(one) <= SAME_SETTING * one[0]
    }
    words = {name: one[0] for name, one in labels.items() if one and one[0] and len(set(one)) == 1}
    return numbers | words


def _statement(estimate: SweepEstimate) -> str:
    if not len(estimate.samples):
        return "no resamples were drawn: there are no intervals"
    if estimate.units.unit == "configurations":
        return f"intervals come from leaving out each of {estimate.units.count} sites with all its runs"
    return (
        f"intervals come from leaving out each of {estimate.units.count} runs, and the scatter of the sites"
    )


def _judged(task: SweepTask, estimate: SweepEstimate | None) -> tuple[Verdict, list[str]]:
    unidentified = [
        f"{name} is not determined: {why}"
        for name, why in task.missing.items()
        if name not in task.law.optional or estimate is None
    ]
    unidentified = list(dict.fromkeys(why.replace("\n", " ") for why in unidentified))
    if estimate is not None and not estimate.surface.has_minimum(estimate.theta[None])[0]:
        unidentified.append(
            "the loss has no minimum within the sweeps: the surface does not rise on all sides"
        )
    if estimate is None:
        return "unidentified", [*unidentified, *_notes(task), task.law.remedy]
    outside = _outside(task, estimate)
    if len(outside) > OUTSIDE_SHARE * len(task.screened.cells):
        share = f"{len(outside)} of {len(task.screened.cells)} sweeps"
        unidentified.append(f"the law puts the optimum outside of what was tried at {share}")
    weak = list(_weak(task, estimate))
    said = [*unidentified, *weak, *_notes(task), _statement(estimate)]
    return ("unidentified" if unidentified else "weak" if weak else "sound"), said


def _outside(task: SweepTask, estimate: SweepEstimate) -> list[int]:
    """Return the sweeps of which the law's optimum lies beyond the values that were tried."""
    at, values = (
        estimate.surface.optima(estimate.theta[None])[0, 0],
        task.screened.table.column(task.law.main.column),
    )
    tried = [np.log(values[list(cell.rows)]) for cell in task.screened.cells]
    return [number for number, logs in enumerate(tried) if not logs.min() <= at[number] <= logs.max()]


def _weak(task: SweepTask, estimate: SweepEstimate) -> Iterator[str]:
    yield from (
        f"{name} is not determined: {why}" for name, why in task.missing.items() if name in task.law.optional
    )
    for one in _parameters(task, estimate)[1:]:
        if one.interval is not None and one.interval[1] - one.interval[0] > LOOSE_EXPONENT:
            low, high = one.interval
            yield f"{one.name} is loosely determined: {one.value:.3g} in [{low:.3g}, {high:.3g}]"
    if not len(estimate.samples):
        yield "no resamples were drawn: there are no intervals"
    if estimate.failed > FAILED_SHARE:
        yield f"without one or the other, {estimate.failed:.0%} of the time, the surface has no minimum"
    n_sites = len(task.of_sites)
    if n_sites < RUNS_NEEDED:
        yield f"{counted(n_sites, 'site')} of {RUNS_NEEDED} show hardly how one differs from the next"
    spread = estimate.spread
    if spread.discrepancy is None:
        yield "too few sweeps can be predicted from smaller ones: the error at a larger run is not known"
    elif spread.discrepancy > FAR_OFF:
        yield f"predicted from the others, {spread.worst} is a factor {np.exp(spread.error or 0):.2g} off"
    yield from _bends(task, estimate)
    censored = [cell for cell in task.screened.others if "may lie beyond" in (cell.why_not or "")]
    every = len(censored) + len(task.screened.cells)
    if len(censored) > CENSORED_SHARE * every:
        yield f"{len(censored)} of {every} sweeps have their best value on the edge: the rest may be biased"


def _bends(task: SweepTask, estimate: SweepEstimate) -> Iterator[str]:
    """Say over which variables the sweeps' own optima bend by more than their errors: no power has such a bend.

    One square after the other is added to the law, and its coefficient is compared with its standard error.
    """
    own, traits = estimate.own, task.sweeps.traits[0]
    known = np.flatnonzero(np.isfinite(own.shift[0]) & np.isfinite(own.error[0]))
    error, off = own.error[0][known], own.shift[0][known] / own.error[0][known]
    words = dict(zip((one.name for one in task.law.parameters[1:]), task.law.varies, strict=True))
    variables = list(zip(task.trait_names[0], traits[1:, known], strict=True))
    for name, logs in variables:
        design = np.vstack([traits[:, known], (logs - logs.mean()) ** 2]).T / error[:, None]
        spare = len(known) - design.shape[1]
        if np.unique(np.round(logs, 3)).size < LEVELS_FOR_BEND or spare < 1:
            continue
        if np.linalg.matrix_rank(design) < design.shape[1]:
            continue
        covariance = np.linalg.inv(design.T @ design)
        moved = covariance @ design.T @ off
        # What scatters beyond the errors, once the bend is in the law, makes it less sure.
        scatter = max(1.0, float(np.sum((off - design @ moved) ** 2)) / spare)
        limit = students_quantile(1 - UNLIKELY / (2 * len(variables)), spare) * np.sqrt(
            scatter * covariance[-1, -1]
        )
        if abs(moved[-1]) > limit:
            yield f"the optima bend over {words[name]}: far beyond the sweeps no power is right"


def _notes(task: SweepTask) -> Iterator[str]:
    """Say what of the sweeps bears on the law without speaking against it."""
    censored = [cell.name for cell in task.screened.others if "may lie beyond" in (cell.why_not or "")]
    if censored:
        more = f" and {len(censored) - MOST_NAMED} more" if len(censored) > MOST_NAMED else ""
        yield f"left out, with the best value on the edge of the sweep: {'; '.join(censored[:MOST_NAMED])}{more}"
    unswept = [axis.column for axis in task.law.axes if axis not in task.screened.axes]
    for column in unswept:
        yield f"fixed {column}: it was not swept, so that the optimum holds for the values that the runs had"

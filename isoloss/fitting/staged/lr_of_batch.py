"""The best learning rate over the batch: every sweep's own optimum, then a form that all sites share.

Noise is drawn, not moved: how far up B0 may lie is far from linear in what the runs showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.distributions import f_tail, students_quantile
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.options import FitOptions
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.staged.chains import Found, Group, Points, group_rows, nothing
from isoloss.fitting.staged.shared_optima import Optima, shared_optima
from isoloss.fitting.staged.shared_rise import Rise, Sites, misfit, rise_of
from isoloss.fitting.sweeps.cells import OTHER_SETTINGS, Cell, screen_sweeps
from isoloss.fitting.verdicts import FAILED_SHARE
from isoloss.laws.lr_of_batch import FORMS, SATURATING, LROfBatch
from isoloss.laws.power_laws import LogColumns, n_distinct, on_one_line
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

UNLIKELY = 0.05
"""Chance that sites of one B0 seem to differ in it, and that a form seems better than it is."""

FEWEST_ALONE = 2
"""Batches of a site that say nothing of a B0 of its own: as many as it has parameters."""

SWEEP = ("n_params", "n_tokens", "batch_tokens")
"""What the runs of a sweep agree in."""

MOST_NAMED = 5


def sweeps_in(
    observations: RunTable, law: StagedLaw, left_out: Sequence[dict[str, str]], gate: Mapping[str, bool]
) -> tuple[TableDataset, RunTable, LeftOut]:
    """Return what the answer hangs on, the runs of sweeps that hold their optimum, and the others with why.

    Raises UnusableData where no run has what the law needs.
    """
    assert law.sweeps is not None
    screened = screen_sweeps(observations, law.sweeps, left_out, gate)
    data = TableDataset(screened.table, (*law.sweeps.run_columns, *OTHER_SETTINGS))
    rows = sorted(row for cell in screened.cells for row in cell.rows)
    notes = (*screened.notes, *_censored(screened.others), *_no_sweeps(screened.cells, screened.others))
    return data, replace(screened.table.only(rows), notes=notes), screened.left_out


def _censored(others: Sequence[Cell]) -> list[str]:
    names = [cell.name for cell in others if "may lie beyond" in (cell.why_not or "")]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    said = "left out, with the best learning rate on the edge of the sweep"
    return [f"{said}: {'; '.join(names[:MOST_NAMED])}{more}"] if names else []


def _no_sweeps(cells: Sequence[Cell], others: Sequence[Cell]) -> list[str]:
    reasons = dict.fromkeys(cell.why_not or "" for cell in others)
    return [] if cells else [f"no sweep tells where its optimum lies: {'; '.join(reasons)}"]


def lr_of_batch(law: StagedLaw, table: RunTable, asked: FitOptions, *, whole: bool = True) -> Found:
    """Return the law of the learning rate over the batch; a `chains.Study`."""
    assert isinstance(law, LROfBatch)
    cells = group_rows([table.column(name) for name in SWEEP]) if table.n_runs else []
    if not cells:
        members = 1 + asked.bootstrap
        return replace(nothing(law, members, "no sweep tells where its optimum lies", []), drawn=True)
    optima = shared_optima(table, cells, asked)
    sites = _sites(table, cells)
    if not np.all(np.isfinite(optima.log_lr[0])):
        why = "the loss has no minimum within the sweeps: it does not rise on both sides"
        return replace(nothing(law, len(optima.log_lr), why, []), drawn=True, spare=optima.spare)
    scores = _left_out(optima, sites) if whole else {}
    chosen, compared = _chosen(law.form, scores)
    law = law.under(chosen)
    rise = rise_of(chosen, optima, sites, asked)
    missing, opened = _lacking(law, rise, sites)
    theta = _theta(law, rise, sites, missing)
    points = _points(table, cells, optima, law)
    differ = [] if "B0" in missing or not whole else _differing(rise, optima, sites)
    alone = _alone(optima, rise, sites, asked) if whole else {}
    groups, derived = _groups(table, cells, optima, rise, sites, alone), _derived(alone, sites)
    return Found(
        theta, points, groups, derived, optima.noise, optima.n_fitted, missing,
        [*_untested(sites), *differ, *_failed(optima)],
        compared, [], opened, {} if rise.limits is None else {"B0": rise.limits}, drawn=True, spare=optima.spare,
        convention=chosen,
        statement=_statement(optima, rise, asked), diagnostics=_diagnostics(optima, rise, scores),
    )  # fmt: skip


def _sites(table: RunTable, cells: Sequence[Sequence[int]]) -> Sites:
    first = [rows[0] for rows in cells]
    size, data, batch = (table.column(name)[first] for name in ("n_params", "n_tokens", "batch_tokens"))
    groups = group_rows([size, data])
    site = np.empty(len(cells), dtype=np.int64)
    for number, members in enumerate(groups):
        site[members] = number
    at = [members[0] for members in groups]
    return Sites(site, size[at], data[at], np.log(batch))


def _theta(law: LROfBatch, rise: Rise, sites: Sites, missing: Mapping[str, str]) -> FloatArray:
    """Return the law's parameters, (members, parameters): powers of size and data by least squares on eta_inf."""
    features = law.prepare(
        {"n_params": sites.n_params, "n_tokens": sites.n_tokens, "batch_tokens": sites.n_tokens}
    )
    held = law.held(features)
    free = [k for k, name in enumerate(("exponent_n_params", "exponent_n_tokens")) if name not in held]
    theta = np.zeros((len(rise.log_eta), len(law.parameters)))
    undetermined = law.parameters[0].name in missing and law.parameters[0].name not in _open(rise)
    if undetermined:
        theta[:, :3] = np.nan
    else:
        design = np.vstack([np.ones(sites.count), features.logs[free]]).T
        found = rise.log_eta @ np.linalg.pinv(design).T
        theta[:, 0] = np.exp(found[:, 0])
        theta[:, [1 + k for k in free]] = found[:, 1:]
    if law.saturates:
        theta[:, 3] = np.exp(rise.log_b0)
    return theta


def _open(rise: Rise) -> tuple[str, ...]:
    """Return the parameters without a limit on one side, whose ratio is known."""
    if rise.limits is None or None not in rise.limits:
        return ()
    return ("eta_inf", "B0") if rise.limits[1] is None else ("B0",)


def _lacking(law: LROfBatch, rise: Rise, sites: Sites) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return parameters that are not determined with why, and those of them that are only open."""
    batch = np.exp(sites.log_batch)
    every = {
        "n_params": sites.n_params[sites.site],
        "n_tokens": sites.n_tokens[sites.site],
        "batch_tokens": batch,
    }
    missing = law.undetermined(law.prepare(every))
    open_ones = _open(rise)
    if "B0" in missing or not open_ones or rise.limits is None:
        return missing, ()
    low, high = rise.limits
    if high is None:
        power = "root" if law.form == "adam" else "linear"
        least = "nothing is known of it" if low is None else f"it lies above {low:.3g} tokens"
        why = f"the data do not show saturation: all batches may lie in the {power} part; of B0, {least}"
    else:
        why = f"the best learning rate does not grow with these batches: B0 lies below {high:.3g} tokens"
    return missing | dict.fromkeys(open_ones, why), open_ones


def _untested(sites: Sites) -> list[str]:
    n_batches = np.unique(sites.log_batch.round(9)).size
    said = []
    if n_batches == 2:
        said.append("two batches give one B0, and nothing to test the form by")
    if sites.count == 2:
        said.append("two sites give one exponent, and nothing to test it by")
    return said


def _failed(optima: Optima) -> list[str]:
    """Say where noise often leaves the sweeps without a minimum."""
    share = 1 - float(np.isfinite(optima.log_lr).all(axis=1).mean())
    return (
        [f"with as much noise again, {share:.0%} of the time, there is no minimum"]
        if share > FAILED_SHARE
        else []
    )


def _left_out(optima: Optima, sites: Sites) -> dict[str, FloatArray | None]:
    """Return the errors (sweeps,) in logarithms of every batch as the others predict it, for each form.

    None where there are too few batches; NaN for sweeps whose site has no other batch.
    """
    return {form: _left_out_under(form, optima, sites) for form in FORMS}


def _left_out_under(form: str, optima: Optima, sites: Sites) -> FloatArray | None:
    errors = np.full(sites.site.size, np.nan)
    needed = 2 if form in SATURATING else 1
    alone = replace(optima, log_lr=optima.log_lr[:1])
    for batch in np.unique(sites.log_batch.round(9)):
        out = sites.log_batch.round(9) == batch
        if np.unique(sites.log_batch[~out].round(9)).size < needed:
            continue
        known = np.isin(sites.site, sites.site[~out])
        kept, asked = np.flatnonzero(~out), np.flatnonzero(out & known)
        rise = rise_of(form, alone.only(kept), sites.only(kept), None)
        told = rise.told(sites.only(kept), sites.site[asked], sites.log_batch[asked])[0]
        errors[asked] = told - optima.log_lr[0, asked]
    return errors if np.isfinite(errors).any() else None


def _chosen(form: str, scores: Mapping[str, FloatArray | None]) -> tuple[str, list[str]]:
    """Return the form that is fitted, and in words which predicts left-out batches best and whether by chance."""
    known = {name: errors for name, errors in scores.items() if errors is not None}
    usual = "adam" if form == "supported" else form
    if len(known) < len(FORMS):
        return usual, ["too few batches to leave one out: no form of the law was tested against the others"]
    off = {name: _root_mean_square(errors) for name, errors in known.items()}
    best, second = sorted(known, key=lambda name: off[name])[:2]
    listed = ", ".join(f"{name} by {np.expm1(off[name]):.2g}" for name in FORMS)
    said = f"batches left out in turn are missed, as a share: {listed}"
    if _better(known[best], known[second]):
        said += f": {best} wins, {off[second] / off[best]:.3g} times nearer than {second}"
    else:
        said += f": none wins, as {best} and {second} differ by no more than chance"
    if form == "supported" and off["sgd"] < off["adam"] and _better(known["sgd"], known["adam"]):
        usual = "sgd"
    return usual, [said, *([f"{usual} was chosen"] if form == "supported" else [])]


def _root_mean_square(errors: FloatArray) -> float:
    return float(np.sqrt(np.mean(errors[np.isfinite(errors)] ** 2)))


def _better(one: FloatArray, other: FloatArray) -> bool:
    """Return whether errors are smaller than others, sweep by sweep, by more than chance (a paired t-test)."""
    gain = other**2 - one**2
    gain = gain[np.isfinite(gain)]
    if gain.size < 3:
        return False
    error = float(np.std(gain, ddof=1) / np.sqrt(gain.size))
    return bool(np.mean(gain) > students_quantile(1 - UNLIKELY, gain.size - 1) * error)


def _differing(rise: Rise, optima: Optima, sites: Sites) -> list[str]:
    """Say where sites have a B0 of their own by more than chance (an F-test of nested fits)."""
    if not rise.saturates or sites.count < 2:
        return []
    every, log_lr = np.arange(sites.site.size), optima.log_lr[0]
    parts = [every, *(np.flatnonzero(sites.site == one) for one in range(sites.count))]
    whole, *own = (misfit(rise.form, log_lr[rows], rise.variance[rows], sites.only(rows)) for rows in parts)
    apart = sum(own)
    more, left = sites.count - 1, sites.site.size - 2 * sites.count
    if left < 1 or not apart > 0:
        return []
    chance = float(f_tail(max(0.0, (whole - apart) / more) / (apart / left), more, left))
    if chance >= UNLIKELY:
        return []
    return [
        f"B0 seems to differ between sites (by chance in {chance:.1g} of cases): the shared one is a mean"
    ]


def _points(table: RunTable, cells: Sequence[Sequence[int]], optima: Optima, law: LROfBatch) -> Points:
    first = [rows[0] for rows in cells]
    columns = {name: table.column(name)[first] for name in law.columns}
    names = [", ".join(f"{name}={columns[name][k]:.4g}" for name in law.columns) for k in range(len(cells))]
    return Points(names, columns, np.exp(optima.log_lr[0]), cells)


def _alone(optima: Optima, rise: Rise, sites: Sites, asked: FitOptions) -> dict[int, Rise]:
    """Return the form fitted to every site alone that has enough batches, by the site's number."""
    places = {one: np.flatnonzero(sites.site == one) for one in range(sites.count)}
    return {
        one: rise_of(rise.form, optima.only(own), sites.only(own), asked)
        for one, own in places.items()
        if rise.saturates and own.size > FEWEST_ALONE
    }


def _groups(
    table: RunTable,
    cells: Sequence[Sequence[int]],
    optima: Optima,
    rise: Rise,
    sites: Sites,
    alone: Mapping[int, Rise],
) -> list[Group]:
    """Return every site with its eta_inf and a B0 of its own, and every sweep with its own optimum."""
    found = []
    name, of = ("eta_inf", "1") if rise.saturates else ("coefficient", f"1 / tokens^{rise.power:g}")
    unknown = np.full(len(rise.log_eta), np.nan)
    for one in range(sites.count):
        rows = [row for place in np.flatnonzero(sites.site == one) for row in cells[int(place)]]
        by = {"n_params": float(sites.n_params[one]), "n_tokens": float(sites.n_tokens[one])}
        values = {name: (of, unknown if "eta_inf" in _open(rise) else np.exp(rise.log_eta[:, one]))}
        ends: dict[str, tuple[float | None, float | None]] = {}
        if one in alone:
            ends["B0_alone"] = alone[one].limits or (None, None)
            values["B0_alone"] = ("tokens", unknown if _open(alone[one]) else np.exp(alone[one].log_b0))
        found.append(Group(by, rows, values, ends))
    for number, cell in enumerate(cells):
        by = {column: float(table.column(column)[cell[0]]) for column in SWEEP}
        found.append(Group(by, cell, {"peak_lr": ("1", np.exp(optima.log_lr[:, number]))}))
    return found


def _derived(alone: Mapping[int, Rise], sites: Sites) -> dict[str, tuple[str, FloatArray]]:
    """Return the powers of size and data that the sites' own B0 go with, where they tell these apart."""
    known = [one for one, rise in alone.items() if not _open(rise)]
    columns = {"n_params": np.log(sites.n_params[known]), "n_tokens": np.log(sites.n_tokens[known])}
    design = np.stack([np.ones(len(known)), *columns.values()], axis=1)
    features = LogColumns(len(known), 2 * len(known), design.T[1:])
    if len(known) <= design.shape[1] or 1 in n_distinct(features) or on_one_line(features):
        return {}
    log_b0 = np.stack([alone[one].log_b0 for one in known], axis=1)
    found = log_b0 @ np.linalg.pinv(design).T
    return {f"B0_alone.exponent_{name}": ("1", found[:, 1 + k]) for k, name in enumerate(columns)}


def _statement(optima: Optima, rise: Rise, asked: FitOptions) -> str:
    if not asked.bootstrap:
        return "no resamples were drawn: there are no intervals"
    return (
        f"intervals are what noise of a share of {np.expm1(optima.noise):.2g} in the loss of every run does, and a "
        f"scatter of {np.expm1(rise.scatter):.2g} of the optima about the form beyond it"
    )


def _diagnostics(optima: Optima, rise: Rise, scores: Mapping[str, FloatArray | None]) -> dict[str, object]:
    forms = {name: None if errors is None else _root_mean_square(errors) for name, errors in scores.items()}
    return {
        "n_sweeps": optima.log_lr.shape[1],
        "curvature": optima.curvature,
        "noise_log_loss": optima.noise,
        "scatter_of_optima": rise.scatter,
        "readings": forms,
        "B0_limits": None if rise.limits is None else list(rise.limits),
    }

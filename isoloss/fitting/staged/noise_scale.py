"""The gradient noise scale over training: averages in windows, their ratio, then a power of the tokens seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.distributions import students_quantile
from isoloss.errors import UnusableData
from isoloss.fitting.options import FitOptions
from isoloss.fitting.resampling import RUNS_NEEDED, correlation_time
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.staged.chains import Found, Group, Points, nothing
from isoloss.laws.noise_scale import (
    BIG,
    BIG_BATCH,
    GRADIENT,
    NOISE,
    NORMS,
    RATIO,
    SMALL,
    SMALL_BATCH,
    NoiseScale,
    gradient_noise,
    squared_gradient,
)
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

WINDOWS, A_DECADE = 10, 5
"""Windows of a training, evenly spaced in the logarithm of the tokens seen: so many, or so many a decade where that
is more. A run that is logged from its first step on has most of its readings in the last few."""

BLOCKS = 8
"""Parts in time of a window that are left out in turn, at most; a window has as many readings or more."""

APART = 12
"""A part of a run that is left out holds one of so many of its readings at least: windows that follow each other
share what fluctuates slowly."""

FEWEST_WINDOWS = 4
"""Windows that a power needs: two for its parameters, and two to test it by."""

EXACT = 1e-3
"""Readings so near to the power, as a share, show its own bend and no noise that could be correlated."""

LEAST_SPREAD = 0.1
"""How far, as a share, a window lies off the power at least: none counts much more than the others."""

STEPS = 60
"""Newton steps at most."""

UNDETERMINED = 1 / 3
"""Share of windows without a noise scale of their own above which the power rests on too few of them."""


def readings_of(table: RunTable, left_out: LeftOut) -> tuple[RunTable, LeftOut]:
    """Return readings in time, with columns `curve` (a number), `gradient` and `noise` or `inverse`, and the rest.

    `gradient` is |G|^2 and `noise` tr(Sigma) of a reading; `inverse` is 1 / B_simple where that alone was logged.
    Raises UnusableData where no reading can be used.
    """
    norms = np.stack([table.column(name) for name in NORMS])
    gradient, noise = _estimates(table, norms)
    by_norms = bool(np.any(np.isfinite(norms).all(axis=0) | np.isfinite(table.column(GRADIENT))))
    reasons = _of_norms(table, norms, gradient) if by_norms else _of_ratio(table.column(RATIO))
    curve = _curves(table)
    reasons = [one or other for one, other in zip(reasons, _repeated(table, curve), strict=True)]
    dropped = [
        {"run_id": name, "reason": why} for name, why in zip(table.run_ids, reasons, strict=True) if why
    ]
    kept = np.flatnonzero([why is None for why in reasons])
    if not kept.size:
        raise UnusableData(reason="no run is left to fit: run '{run_id}': {reason}".format(**dropped[0]))
    table, curve = table.only(kept), curve[kept]
    columns = {"n_tokens": table.column("n_tokens"), "curve": curve.astype(np.float64)}
    if by_norms:
        columns |= {"gradient": gradient[kept], "noise": noise[kept]}
    else:
        columns["inverse"] = 1 / table.column(RATIO)
    read = replace(table, columns=columns)
    return read.only(np.lexsort([columns["n_tokens"], curve])), [*left_out, *dropped]


def _estimates(table: RunTable, norms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return |G|^2 and tr(Sigma) of every reading by its norms (4, readings), or as they stand there already."""
    known = [table.column(GRADIENT), table.column(NOISE)]
    own = [squared_gradient(*norms), gradient_noise(*norms)]
    gradient, noise = (np.where(np.isnan(one), other, one) for one, other in zip(known, own, strict=True))
    return gradient, noise


def _of_norms(table: RunTable, norms: FloatArray, gradient: FloatArray) -> list[str | None]:
    """Return what keeps each reading of norms (4, readings) out, None where nothing does."""
    reasons: list[str | None] = []
    averaged = np.isfinite(table.column(GRADIENT)) & np.isfinite(gradient)
    alone = np.isnan(norms).all(axis=0) & ~np.isnan(table.column(RATIO))
    for row, (small, big, small_batch, big_batch) in enumerate(norms.T):
        why = None
        if averaged[row]:
            pass
        elif alone[row]:
            why = f"it has {RATIO} alone, which cannot be averaged with the norms that other readings have"
        elif np.isnan([small, big, small_batch, big_batch]).any():
            why = f"it lacks one of {', '.join(NORMS)}"
        elif not np.isfinite([small, big, small_batch, big_batch]).all():
            why = "a norm or a batch of it is not finite"
        elif small < 0 or big < 0:
            why = f"its {SMALL if small < 0 else BIG} is below 0: a norm never is"
        elif not 0 < small_batch < big_batch:
            why = f"its {SMALL_BATCH} must lie above 0 and below its {BIG_BATCH}"
        reasons.append(why)
    return reasons


def _of_ratio(ratio: FloatArray) -> list[str | None]:
    """Return what keeps each reading out; one below 0 says that |G|^2 was lost in the noise, and counts."""
    lacking = f"it has no config.{RATIO}, nor config.{SMALL} and config.{BIG} with their batches"
    return [
        lacking if np.isnan(one) else None if np.isfinite(one) and one != 0 else f"its {RATIO} is {one:g}"
        for one in ratio
    ]


def _curves(table: RunTable) -> IntArray:
    """Return the number of the run that each reading is of, in an order that does not hang on names."""
    named: Sequence[object] = table.label("curve")
    if "curve" not in table.labels and "curve" in table.columns:
        named = [None if np.isnan(one) else float(one) for one in table.column("curve")]
    rows: dict[object, list[int]] = {}
    for row, name in enumerate(named):
        rows.setdefault(name, []).append(row)
    contents = [table.column(name) for name in ("n_tokens", RATIO, *NORMS, GRADIENT, NOISE)]

    def content(name: object) -> tuple[float, ...]:
        own = rows[name]
        return (len(own), *(float(np.nansum(np.sort(column[own]))) for column in contents))

    number = {name: place for place, name in enumerate(sorted(rows, key=content))}
    return np.array([number[name] for name in named], dtype=np.int64)


def _repeated(table: RunTable, curve: IntArray) -> list[str | None]:
    """Return why readings of a moment that their run has a reading of already are left out."""
    first: dict[tuple[int, float], int] = {}
    columns = [np.nan_to_num(table.column(name)) for name in (RATIO, *NORMS, GRADIENT, NOISE)]
    order = np.lexsort([*columns, table.column("n_tokens")])
    reasons: list[str | None] = [None] * table.n_runs
    for row in order:
        seen = first.setdefault((int(curve[row]), float(table.column("n_tokens")[row])), int(row))
        if seen != row:
            reasons[row] = f"run {table.run_ids[seen]!r} is a reading at the same tokens"
    return reasons


@dataclass(frozen=True)
class Window:
    """Readings `rows` of one run in one window that begins at `begin`; `inverse` is 1 / B_simple of their averages.

    `without` (blocks,) is the same without each block of them in turn, `at` the tokens in their middle.
    """

    curve: int
    begin: float
    rows: IntArray
    at: float
    inverse: float
    without: FloatArray

    @property
    def moves(self) -> FloatArray:
        """By how much the inverse moves, (blocks,): the sum of their squares is its variance (the jackknife)."""
        n = self.without.size
        return np.asarray(np.sqrt((n - 1) / n) * (self.without - self.inverse))

    def ends(self, level: float) -> tuple[float | None, float | None]:
        """Return the ends of the noise scale; None above where |G|^2 may be 0, and for both where it is less."""
        wide = float(students_quantile((1 + level) / 2, self.without.size - 1)) * float(
            np.sqrt(np.sum(self.moves**2))
        )
        low, high = self.inverse - wide, self.inverse + wide
        return (1 / high if high > 0 else None), (1 / low if low > 0 else None)


def noise_scale(law: StagedLaw, table: RunTable, asked: FitOptions, *, whole: bool = True) -> Found:
    """Return the law of the noise scale over training; a `chains.Study`."""
    assert isinstance(law, NoiseScale)
    least, memory = _least_readings(table)
    windows, few = _windows(table, least, memory)
    groups = [_group(table, one, asked.level) for one in windows] if whole else []
    places = np.unique([one.begin for one in windows]).size
    units = _units(windows)
    n_units = int(units.max(initial=-1)) + 1
    if min(places, n_units) < FEWEST_WINDOWS:
        why = (
            f"{min(places, n_units)} parts of training have the {least} readings or more that err apart from the "
            f"next, and {FEWEST_WINDOWS} are needed"
        )
        return replace(nothing(law, 1, why, few), groups=groups, spare=1.0)
    theta = _powers(windows, units)
    if not np.isfinite(theta[0]).all():
        why = "the average of |G|^2 is not above 0 where it counts: the noise scale is undetermined"
        return replace(nothing(law, 1, why, few), groups=groups, spare=1.0)
    lost = [one for one in windows if not one.inverse > 0]
    weak = _said(lost, windows, theta)
    known = [one for one in windows if one.inverse > 0]
    return Found(
        _moved(theta), _points(table, known), groups, {}, _noise(theta[0], known), 2, {}, weak,
        _notes(table), few, spare=max(1.0, n_units - 2.0), unit="runs" if _by_runs(windows) else "blocks",
        statement=_statement(windows, n_units, asked),
        diagnostics={"n_windows": len(windows), "n_undetermined": len(lost), "correlated_readings": memory},
    )  # fmt: skip


def _least_readings(table: RunTable) -> tuple[int, float]:
    """Return how many readings a window must have, and over how many they are correlated.

    That is 1 + 2 (the sum of autocorrelations up to the first below 0), of what readings show beside the power
    through windows as short as can be.
    """
    windows, _ = _windows(table, BLOCKS, 1.0)
    if len(windows) < FEWEST_WINDOWS:
        return BLOCKS, 1.0
    power = _powers(windows, _units(windows))[0]
    if not np.isfinite(power).all():
        return BLOCKS, 1.0
    scale = np.exp(power[0] + power[1] * np.log(table.column("n_tokens")))
    if "inverse" in table.columns:  # of which the median counts
        off = np.sign(scale * table.column("inverse") - 1)
    else:
        off = (scale * table.column("gradient") - table.column("noise")) / _about(table.column("noise"))
    if "inverse" not in table.columns and float(np.std(off)) < EXACT:
        return BLOCKS, 1.0
    curve = table.column("curve")
    memory = float(np.mean([correlation_time(off[curve == one]) for one in np.unique(curve)]))
    return max(BLOCKS, int(np.ceil(memory))), memory


def _about(values: FloatArray) -> float:
    return max(float(np.mean(np.abs(values))), np.finfo(np.float64).tiny)


def _windows(table: RunTable, least: int, memory: float) -> tuple[list[Window], LeftOut]:
    """Return the windows of every run, of `least` readings, and the readings of runs that have too few for one."""
    tokens, curve = table.column("n_tokens"), table.column("curve").astype(np.int64)
    each = int(np.median(np.bincount(curve)[np.unique(curve)]))
    decades = float(np.log10(tokens.max() / tokens.min()))
    count = int(np.clip(each // BLOCKS, 1, max(WINDOWS, round(A_DECADE * decades))))
    edges = np.geomspace(tokens.min(), tokens.max(), count + 1)
    place = np.clip(np.searchsorted(edges, tokens, side="right") - 1, 0, count - 1)
    windows, few = [], []
    for one in np.unique(curve):
        parts = _joined(
            [np.flatnonzero((curve == one) & (place == number)) for number in range(count)], least
        )
        if not parts:
            why = f"its run has fewer than {least} readings"
            few += [{"run_id": table.run_ids[row], "reason": why} for row in np.flatnonzero(curve == one)]
        windows += [_window(table, int(one), float(edges[number]), rows, memory) for number, rows in parts]
    return windows, few


def _joined(parts: Sequence[IntArray], least: int) -> list[tuple[int, IntArray]]:
    """Return the rows of windows by their number; one of too few readings is joined to the next, or the last."""
    found: list[tuple[int, IntArray]] = []
    begin, rows = None, np.empty(0, dtype=np.int64)
    for number, part in enumerate(parts):
        begin = number if begin is None else begin
        rows = np.concatenate([rows, part])
        if rows.size >= least:
            found.append((begin, rows))
            begin, rows = None, rows[:0]
    if rows.size and found:
        last, before = found.pop()
        found.append((last, np.concatenate([before, rows])))
    return found


def _window(table: RunTable, curve: int, begin: float, rows: IntArray, memory: float) -> Window:
    rows = rows[np.argsort(table.column("n_tokens")[rows], kind="stable")]
    at = float(np.exp(np.mean(np.log(table.column("n_tokens")[rows]))))
    inverse, without = _inverses(table, rows, int(np.clip(rows.size / memory, 2, BLOCKS)))
    return Window(curve, begin, rows, at, inverse, without)


def _inverses(table: RunTable, rows: IntArray, n_blocks: int) -> tuple[float, FloatArray]:
    """Return 1 / B_simple of readings in time, and without each block of them in turn, (blocks,).

    A ratio of averages, or the median where only ratios were logged. The inverse is the one that is averaged
    safely: it passes through 0 where |G|^2 does. It is infinite where there is no noise.
    """
    block = np.arange(rows.size) * n_blocks // rows.size
    if "inverse" in table.columns:
        values = table.column("inverse")[rows]
        return float(np.median(values)), np.array([np.median(values[block != k]) for k in range(n_blocks)])
    gradient, noise = (_sums_without(table.column(name)[rows], block) for name in ("gradient", "noise"))
    inverse = np.where(noise > 0, gradient / np.where(noise > 0, noise, 1.0), np.inf)
    return float(inverse[0]), inverse[1:]


def _sums_without(values: FloatArray, block: IntArray) -> FloatArray:
    """Return the sum of values, and without each block in turn, (1 + blocks,)."""
    of_blocks = np.bincount(block, values)
    return np.concatenate([[of_blocks.sum()], of_blocks.sum() - of_blocks])


def _by_runs(windows: Sequence[Window]) -> bool:
    return len({one.curve for one in windows}) >= RUNS_NEEDED


def windows_of(table: RunTable) -> tuple[Points, LeftOut]:
    """Return what windows of readings show, as long as it is above 0, and the readings that are in none of them."""
    windows, few = _windows(table, BLOCKS, 1.0)
    lost = [
        {"run_id": table.run_ids[row], "reason": "the average of |G|^2 of its window is not above 0"}
        for one in windows
        if not one.inverse > 0
        for row in one.rows
    ]
    return _points(table, [one for one in windows if one.inverse > 0]), [*few, *lost]


def _units(windows: Sequence[Window]) -> IntArray:
    """Return which windows are left out together, (windows,).

    Those of a run where there are enough runs, else windows in time until they hold their share of the readings.
    """
    curves = np.array([one.curve for one in windows])
    if _by_runs(windows):
        return np.unique(curves, return_inverse=True)[1].astype(np.int64)
    units = np.zeros(len(windows), dtype=np.int64)
    unit = -1
    for curve in np.unique(curves):
        places = np.flatnonzero(curves == curve)
        sizes = np.array([windows[int(place)].rows.size for place in places])
        # The end of training first: there a window is a share by itself, and what is left over is the beginning.
        held, before = 0, unit + 1
        unit = before
        for place, size in zip(places[::-1], sizes[::-1], strict=True):
            if APART * held >= sizes.sum():
                unit, held = unit + 1, 0
            units[place], held = unit, held + size
        if unit > before and APART * held < sizes.sum():
            units[units == unit], unit = unit - 1, unit - 1
    return units


def _powers(windows: Sequence[Window], units: IntArray) -> FloatArray:
    """Return ln coefficient and exponent, (1 + units, 2), of all windows and without each unit; NaN for none.

    Of u = coefficient D^exponent / B_simple, whose mean is 1 whatever the noise of |G|^2, the weighted sums of
    (1 - u) and of (1 - u) ln D are 0. So windows whose |G|^2 came out below 0 count too: to leave them out
    would leave those that came out high.
    """
    inverse = np.array([one.inverse for one in windows])
    log_at = np.log([one.at for one in windows])
    keep = np.vstack([np.ones(inverse.size), units != np.arange(units.max() + 1)[:, None]])
    if not np.all(np.isfinite(inverse)):
        return np.full((len(keep), 2), np.nan)
    centre = float(log_at.mean())
    first = _root(inverse, log_at - centre, keep[:1])
    spread = (
        np.sqrt([np.sum(one.moves**2) for one in windows])
        * np.exp(first @ [np.ones(inverse.size), log_at - centre])[0]
    )
    weights = 1 / (LEAST_SPREAD**2 + np.where(np.isfinite(spread), spread, 1e6) ** 2)
    found = _root(inverse, log_at - centre, keep * weights)
    return np.column_stack([found[:, 0] - found[:, 1] * centre, found[:, 1]])


def _root(inverse: FloatArray, x: FloatArray, weights: FloatArray) -> FloatArray:
    """Return (a, m), (members, 2), where the weighted sums of (1 - u) (1, x) are 0, u = exp(a + m x) inverse.

    It is the top of sum(weights (a + m x - u)), which is concave where no inverse is below 0.
    """
    total = weights.sum(axis=1)
    mean = (weights @ inverse) / total
    theta = np.column_stack([-np.log(np.where(mean > 0, mean, np.nan)), np.zeros(len(weights))])
    design = np.stack([np.ones_like(x), x])
    for _ in range(STEPS):
        u = np.exp(theta @ design) * inverse
        slope = (weights * (1 - u)) @ design.T
        bend = np.einsum("mn,in,jn->mij", weights * u, design, design)
        with np.errstate(invalid="ignore", divide="ignore"):
            det = bend[:, 0, 0] * bend[:, 1, 1] - bend[:, 0, 1] ** 2
            step = (
                np.column_stack(
                    [
                        bend[:, 1, 1] * slope[:, 0] - bend[:, 0, 1] * slope[:, 1],
                        bend[:, 0, 0] * slope[:, 1] - bend[:, 0, 1] * slope[:, 0],
                    ]
                )
                / np.where((det > 0) & (bend[:, 0, 0] > 0), det, np.nan)[:, None]
            )
        theta = theta + np.clip(step, -1.0, 1.0)
    off = (weights * (1 - np.exp(theta @ design) * inverse)) @ design.T / total[:, None]
    settled = np.abs(off).max(axis=1) < 1e-6 * (1 + np.abs(x).max())
    return np.where(settled[:, None], theta, np.nan)


def _moved(theta: FloatArray) -> FloatArray:
    """Return the law's parameters (1 + units, 2): each unit moves as its part of the jackknife's variance says.

    Source: Bell and McCaffrey 2002 (CR3), as in `fitting.units`.
    """
    n = len(theta) - 1
    moves = np.sqrt((n - 1) / n) * (theta[1:] - theta[0])
    logs = np.concatenate([theta[:1], theta[0] + np.where(np.isfinite(moves), moves, 0.0)])
    return np.column_stack([np.exp(logs[:, 0]), logs[:, 1]])


def _points(table: RunTable, windows: Sequence[Window]) -> Points:
    names = [f"{_curve_name(table, one)}, {one.begin:.3g} tokens on" for one in windows]
    at = np.array([one.at for one in windows])
    columns = {
        "n_tokens": at,
        "window": np.array([one.begin for one in windows]),
        "curve": np.array([float(one.curve) for one in windows]),
    }
    outcome = 1 / np.array([one.inverse for one in windows])
    return Points(names, columns, outcome, [list(map(int, one.rows)) for one in windows])


def _curve_name(table: RunTable, window: Window) -> str:
    return table.label("curve")[int(window.rows[0])] or f"run {window.curve + 1}"


def _group(table: RunTable, window: Window, level: float) -> Group:
    """Return a window's noise scale, without a number where its |G|^2 or its noise is not above 0."""
    known = window.inverse > 0 and np.isfinite(window.inverse)
    by: dict[str, float | str] = {
        "curve": _curve_name(table, window),
        "from_tokens": float(table.column("n_tokens")[window.rows[0]]),
        "to_tokens": float(table.column("n_tokens")[window.rows[-1]]),
    }
    value = (
        1 / np.array([window.inverse, *window.without]) if known else np.full(1 + window.without.size, np.nan)
    )
    ends = window.ends(level) if np.isfinite(window.moves).all() else (None, None)
    rows = list(map(int, window.rows))
    return Group(by, rows, {"noise_scale_tokens": ("tokens", value)}, {"noise_scale_tokens": ends})


def _noise(theta: FloatArray, windows: Sequence[Window]) -> float:
    """Return how far windows lie off the power, as a standard deviation in logarithms."""
    off = [np.log(1 / one.inverse) - theta[0] - theta[1] * np.log(one.at) for one in windows]
    return float(np.sqrt(np.sum(np.square(off)) / max(1, len(off) - 2)))


def _said(lost: Sequence[Window], windows: Sequence[Window], theta: FloatArray) -> list[str]:
    said = []
    if lost:
        said.append(
            f"in {len(lost)} of {len(windows)} windows the average of |G|^2 is not above 0: their noise scale is "
            "undetermined"
        )
    failed = int(np.sum(~np.isfinite(theta).all(axis=1)))
    if failed:
        said.append(f"without one or the other of the windows, {failed} times, there is no power")
    return said


def _notes(table: RunTable) -> list[str]:
    notes = [
        "a noise scale holds for the moment at which it is measured, and takes the curvature to be the same in all "
        "directions: what a batch costs a whole run, steps_to_target and critical_batch measure"
    ]
    if "inverse" in table.columns:
        notes.append(
            f"only {RATIO} was logged: the median of a window stands for the ratio of averages, which the norms at "
            "two batches would give"
        )
    return notes


def _statement(windows: Sequence[Window], n_units: int, asked: FitOptions) -> str:
    if not asked.bootstrap:
        return "no resamples were drawn: there are no intervals"
    what = "runs" if _by_runs(windows) else "parts of training"
    return f"intervals come from leaving out each of {n_units} {what}"

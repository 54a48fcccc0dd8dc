"""The gradient noise scale in time, off the points of runs: norms at two batches, or their ratio alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.laws.noise_scale import (
    BATCHES,
    BIG,
    BIG_BATCH,
    GRADIENT,
    NOISE,
    NORMS,
    RATIO,
    SMALL,
    SMALL_BATCH,
    gradient_noise,
    squared_gradient,
)
from isoloss.notes import counted as number_of_points
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT, number_of
from isoloss.observations.curves import batch_tokens_of
from isoloss.readings.reader import Reader, Readings, block_means, without

TOKENS, BATCH = "tokens", "batch_tokens"


class NoiseScales(Reader):
    """Readings of `noise_scale`.

    A point's norms at two batches, whose tokens are columns of the points or fields of the run's configuration; or
    its `grad_noise_scale`, in tokens, where a run has that at more points. The tokens seen are the
    column `tokens`, or the step times `config.batch_tokens`.
    """

    law = "noise_scale"
    points = (TOKENS, RATIO, *NORMS)
    counter = TOKENS
    counts_once = True
    target = "loss"
    row = "config.n_tokens and a noise scale in config"

    def lacking(self, columns: Collection[str], config: Mapping[str, Any]) -> str | None:
        has = {*columns, *(name for name in BATCHES if config.get(name) is not None)}
        missing = [name for name in NORMS if name not in has]
        if RATIO not in has and missing:
            norms = f"of {SMALL} and {BIG} with their batches it lacks {', '.join(missing)}"
            return f"its points have no {RATIO}, and {norms}"
        if TOKENS not in columns and config.get(BATCH) is None:
            return f"its points have no {TOKENS} and its config no {BATCH}: the tokens seen at a step are not known"
        return None

    def has_row(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return any(config.get(name) is not None for name in (RATIO, SMALL, BIG))

    def per_step(self, config: Mapping[str, Any]) -> float:
        tokens = batch_tokens_of(config.get(BATCH))
        return float("nan") if tokens is None else tokens

    def read(
        self,
        step: IntArray,
        columns: Mapping[str, FloatArray],
        counted: FloatArray,
        config: Mapping[str, Any],
    ) -> Readings:
        norms = {name: _with_config(columns, config, name, step.size) for name in NORMS}
        complete = np.asarray(np.isfinite(np.stack([*norms.values()])).all(axis=0))
        ratio = columns.get(RATIO, np.full(step.size, np.nan))
        has_ratio: BoolArray = np.asarray(~np.isnan(ratio))
        if complete.any() and complete.sum() >= has_ratio.sum():
            found = _of_norms(step, norms, counted)
            found = _with_unused(found, has_ratio & ~complete, f"{RATIO} alone", "norms at two batches")
        else:
            found = _of_ratios(step, ratio, counted)
            found = _with_unused(found, complete, "norms at two batches", f"{RATIO}")
        found = without(found, np.isnan(found.columns["n_tokens"]), "the tokens seen by then are not known")
        found = without(found, found.columns["n_tokens"] <= 0, "no token had been seen by then")
        far = (found.columns["n_tokens"] < LOWEST_COUNT) | (found.columns["n_tokens"] > HIGHEST_COUNT)
        return without(found, far, f"tokens must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}")

    def averaged(self, readings: Readings, edges: IntArray) -> Readings:
        """Return averages of |G|^2 and of tr(Sigma), before any ratio; of ratios alone medians of 1 / B_simple."""
        columns = {name: block_means(values, edges) for name, values in readings.columns.items()}
        if RATIO in columns:
            parts = np.split(1 / readings.columns[RATIO], edges[1:-1])
            columns[RATIO] = 1 / np.array([np.median(part) for part in parts])
        return Readings(readings.step[edges[:-1]], columns, np.full(edges.size - 1, np.nan), readings.dropped)


def _with_unused(found: Readings, unused: BoolArray, what: str, instead: str) -> Readings:
    """Say how many points have what is not read, since more of them have the other."""
    if not unused.any():
        return found
    said = f"{number_of_points(int(unused.sum()), 'point')} with {what}, not used: more have {instead}"
    return replace(found, dropped=(*found.dropped, said))


def _of_ratios(step: IntArray, ratio: FloatArray, counted: FloatArray) -> Readings:
    found = Readings(step, {RATIO: ratio, "n_tokens": counted}, np.full(step.size, np.nan))
    found = found.where(~np.isnan(ratio))
    return without(found, found.columns[RATIO] == 0, f"{RATIO} is 0")


def _of_norms(step: IntArray, norms: Mapping[str, FloatArray], counted: FloatArray) -> Readings:
    found = Readings(step, {**norms, "n_tokens": counted}, np.full(step.size, np.nan))
    found = found.where(np.isfinite(norms[SMALL]) | np.isfinite(norms[BIG]))
    lacking = np.isnan(np.sum([found.columns[name] for name in NORMS], axis=0))
    found = without(found, lacking, f"they lack one of {', '.join(NORMS)}")
    below = (found.columns[SMALL] < 0) | (found.columns[BIG] < 0)
    found = without(found, below, "a norm is never below 0")
    wrong = (found.columns[SMALL_BATCH] <= 0) | (found.columns[SMALL_BATCH] >= found.columns[BIG_BATCH])
    found = without(found, wrong, f"{SMALL_BATCH} must lie above 0 and below {BIG_BATCH}")
    both = [found.columns[name] for name in NORMS]
    with np.errstate(over="ignore", invalid="ignore"):
        gradient, noise = squared_gradient(*both), gradient_noise(*both)
    columns = {"n_tokens": found.columns["n_tokens"], GRADIENT: gradient, NOISE: noise}
    found = Readings(found.step, columns, found.outcome, found.dropped)
    return without(
        found, ~(np.isfinite(gradient) & np.isfinite(noise)), "the squares of its norms are not finite"
    )


def _with_config(
    columns: Mapping[str, FloatArray], config: Mapping[str, Any], name: str, n_points: int
) -> FloatArray:
    """Return a column (n,); of a batch what the run's configuration says where the points do not."""
    values = columns.get(name, np.full(n_points, np.nan))
    said = number_of(config.get(name), f"config.{name}") if name in BATCHES else None
    return values if said is None else np.where(np.isnan(values), said, values)

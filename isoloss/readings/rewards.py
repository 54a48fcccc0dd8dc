"""Rewards over compute, off the points of runs of reinforcement learning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT
from isoloss.observations.tables import COMPUTE
from isoloss.readings.reader import Reader, Readings, block_means, without

REWARD = "reward"


class Rewards(Reader):
    """Readings of `rl_compute`: a point's `reward` at the `compute_flops` spent so far."""

    law = "rl_compute"
    points = (REWARD, COMPUTE)
    counter = COMPUTE
    counts_once = False
    target = REWARD
    row = "config.compute_flops and summary.reward"

    def lacking(self, columns: Collection[str], config: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        if REWARD not in columns:
            return f"its points have no {REWARD}"
        if COMPUTE not in columns:
            return (
                f"its points have {REWARD} and no {COMPUTE}: what reinforcement learning spends on rollouts does "
                "not follow from size and tokens"
            )
        return None

    def has_row(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
        return config.get(COMPUTE) is not None and summary.get(REWARD) is not None

    def per_step(self, config: Mapping[str, Any]) -> float:  # noqa: ARG002
        return float("nan")

    def read(
        self,
        step: IntArray,
        columns: Mapping[str, FloatArray],
        counted: FloatArray,
        config: Mapping[str, Any],  # noqa: ARG002
    ) -> Readings:
        reward = columns.get(REWARD, np.full(step.size, np.nan))
        found = Readings(step, {COMPUTE: counted}, reward).where(~np.isnan(reward))
        compute = found.columns[COMPUTE]
        found = without(found, np.isnan(compute), f"no {COMPUTE} is known there")
        compute = found.columns[COMPUTE]
        beyond = (compute != 0) & ~((compute >= LOWEST_COUNT) & (compute <= HIGHEST_COUNT))
        found = without(
            found, beyond, f"{COMPUTE} must be 0, or lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}"
        )
        outside = ~((found.outcome >= 0) & (found.outcome <= 1))
        return without(found, outside, f"{REWARD} must lie between 0 and 1")

    def averaged(self, readings: Readings, edges: IntArray) -> Readings:
        """Return means of neighbours."""
        compute = {COMPUTE: block_means(readings.columns[COMPUTE], edges)}
        return Readings(
            readings.step[edges[:-1]], compute, block_means(readings.outcome, edges), readings.dropped
        )

    def apart(self, readings: Readings) -> int:
        """Return how many are of no compute: they say where the curve begins."""
        return int(np.sum(readings.columns[COMPUTE] == 0))

"""How well the peak learning rate that a law would choose compares with the best of those that were trained.

The cosine and constant runs of all peaks of `lr_scheduling` are fitted. A cell is a shape of cooldown and a horizon
that was trained at several peaks; of these the law chooses the one with the lowest predicted final loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import isoloss
from benchmarks.datasets import ScheduledRun, available, scheduled_runs
from benchmarks.tables import print_table

HORIZONS = (15_000, 25_000, 35_000, 50_000)

FinalLoss = Callable[[isoloss.Schedule], float]
"""Predicts the loss at the end of a schedule."""

Fit = Callable[[Sequence[isoloss.Curve]], FinalLoss]
"""Fits a law to curves."""

Cell = tuple[str, float, int]
"""Shape of the decay, share of the steps that it takes, steps in all."""


@dataclass(frozen=True)
class Choice:
    """The peak that a law chose for a cell, the best that was trained, and what the choice costs in nats."""

    cell: Cell
    chosen: float
    best: float
    regret_nats: float


def fitted_with(law: str) -> Fit:
    """Return how `isoloss.fit` fits a law."""

    def fit(curves: Sequence[isoloss.Curve]) -> FinalLoss:
        found = isoloss.fit(law, list(curves), bootstrap=0)

        def final_loss(schedule: isoloss.Schedule) -> float:
            last = np.array([schedule.total_steps])
            return float(found.predict(schedule=schedule, steps=last).value[0])

        return final_loss

    return fit


def trained(runs: Sequence[ScheduledRun], fit: Fit) -> FinalLoss:
    """Return what a law predicts that was fitted to the cosine and constant runs."""
    return fit([run.curve for run in runs if not run.is_cooldown])


def choices(runs: Sequence[ScheduledRun], final_loss: FinalLoss) -> list[Choice]:
    """Return what the law chooses in every cell."""
    return [_choice(cell, by_peak, final_loss) for cell, by_peak in sorted(cells(runs).items())]


def cells(runs: Iterable[ScheduledRun]) -> dict[Cell, dict[float, list[ScheduledRun]]]:
    """Return the cooldown branches by cell and peak; cells of one peak leave no choice."""
    found: dict[Cell, dict[float, list[ScheduledRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.is_cooldown:
            shape = run.row["decay_type"] or "linear"
            cell = shape, float(run.row["cooldown_fraction"]), int(run.row["total_iterations"])
            found[cell][run.peak_lr].append(run)
    return {cell: dict(by_peak) for cell, by_peak in found.items() if len(by_peak) > 1}


def _choice(cell: Cell, by_peak: Mapping[float, Sequence[ScheduledRun]], final_loss: FinalLoss) -> Choice:
    measured = {
        peak: float(np.mean([float(run.row["final_val_loss"]) for run in runs]))
        for peak, runs in by_peak.items()
    }
    predicted = {peak: final_loss(runs[0].curve.schedule) for peak, runs in by_peak.items()}
    chosen, best = min(predicted, key=predicted.__getitem__), min(measured, key=measured.__getitem__)
    return Choice(cell, chosen, best, measured[chosen] - measured[best])


def best_peak(final_loss: FinalLoss, spec: Mapping[str, Any], low: float = 2e-4, high: float = 5e-3) -> float:
    """Return the peak learning rate of a declared schedule with the lowest predicted final loss."""
    peaks = np.geomspace(low, high, 65)
    losses = [final_loss(isoloss.schedule_from_spec({**spec, "peak_lr": float(peak)})) for peak in peaks]
    return float(peaks[int(np.argmin(losses))])


def main(fit: Fit | None = None) -> None:
    """Print how the choices of the effective-LR law do, and the peaks that it would choose."""
    if not available("lr_scheduling"):
        return
    runs = scheduled_runs()
    final_loss = trained(runs, fit or fitted_with("effective_lr"))
    print_table(
        "lr_scheduling: peak learning rate by predicted final loss", [_summary(choices(runs, final_loss))]
    )
    print_table(
        "the peak learning rates that it finds best", [_optima(final_loss, steps) for steps in HORIZONS]
    )


def _summary(made: Sequence[Choice]) -> dict[str, object]:
    regrets = np.array([choice.regret_nats for choice in made])
    return {
        "cells": len(made),
        "best peak chosen": f"{np.mean([choice.chosen == choice.best for choice in made]):.0%}",
        "mean regret, nats": f"{regrets.mean():.5f}",
        "worst regret, nats": f"{regrets.max():.5f}",
    }


def _optima(final_loss: FinalLoss, steps: int) -> dict[str, object]:
    warmed = {"total_steps": steps, "warmup_steps": 300}
    wsd = {"kind": "wsd", "decay_start": steps * 4 // 5, **warmed}
    return {
        "steps": steps,
        "linear cooldown .2": f"{best_peak(final_loss, wsd):.2e}",
        "cosine to zero": f"{best_peak(final_loss, {'kind': 'cosine', **warmed}):.2e}",
    }


if __name__ == "__main__":
    main()

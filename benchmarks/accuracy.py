"""How well laws predict other people's held-out runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import isoloss
from benchmarks.datasets import TEST, available, multi_power_curves, scheduled_runs
from benchmarks.tables import print_table

SIZES = ("25M", "100M")
PUBLISHED_MULTI_POWER = {"25M": (0.00376, 0.00409), "100M": (0.00435, 0.00583)}
"""Mean held-out MAE and mean of the worst relative errors that the stronger Multi-Power Law is published with."""

PEAK_LRS = (1e-4, 5e-4, 1e-3, 2e-3)


def multi_power_holdout(law: str, size: str, bootstrap: int = 200) -> dict[str, Any]:
    """Fit a law to the given training split of `multipowerlaw`; return the scores of its six test curves."""
    curves = multi_power_curves(size)
    fit = isoloss.fit(law, curves, holdout={"run_ids": list(TEST)}, bootstrap=bootstrap)
    assert fit.holdout is not None
    return fit.holdout


def cooldown_errors(law: str, peak_lr: float, bootstrap: int = 200) -> dict[str, Any]:
    """Fit a law to the cosine and constant runs of one peak of `lr_scheduling`, and predict its cooldowns.

    Returns the relative errors of the last validation point of every cooldown branch, and whether the 90
    percent interval of a new run holds it.
    """
    runs = [run for run in scheduled_runs() if np.isclose(run.peak_lr, peak_lr, rtol=1e-6)]
    fit = isoloss.fit(law, [run.curve for run in runs if not run.is_cooldown], bootstrap=bootstrap)
    errors, inside = [], []
    for run in runs:
        if run.is_cooldown:
            last, observed = run.curve.step[-1:], run.curve.loss_nats[-1]
            predicted = fit.predict(schedule=run.curve.schedule, steps=last, interval="new_run")
            errors.append(abs(predicted.value[0] / observed - 1))
            inside.append(bool(predicted.lower[0] <= observed <= predicted.upper[0]))
    return {"relative_errors": np.array(errors), "inside": np.array(inside), "verdict": fit.verdict}


def main() -> None:
    """Print the held-out errors of every curve law on both data sets."""
    if available("multipowerlaw"):
        print_table("multipowerlaw, given split: six held-out curves", _multi_power_rows())
    if available("lr_scheduling"):
        print_table("lr_scheduling: last validation point of the cooldown branches", _cooldown_rows())


def _multi_power_rows() -> list[Mapping[str, object]]:
    rows = []
    for size in SIZES:
        holdout = multi_power_holdout("lr_annealing", size)
        mean, published = holdout["mean"], PUBLISHED_MULTI_POWER[size]
        rows.append(
            {
                "size": size,
                "law": "lr_annealing",
                "MAE": f"{mean['mae']:.5f}",
                "mean worst": f"{mean['max_relative_error']:.5f}",
                "R2": f"{mean['r2']:.4f}",
                "MAE, points no run shares": f"{mean['unseen_mae']:.5f}",
                "their 90% new_run coverage": f"{mean['coverage']:.2f}",
                "Multi-Power, published": f"{published[0]} / {published[1]}",
            }
        )
    return rows


def _cooldown_rows() -> list[Mapping[str, object]]:
    rows = []
    for peak_lr in PEAK_LRS:
        found = cooldown_errors("lr_annealing", peak_lr)
        errors = 100 * found["relative_errors"]
        rows.append(
            {
                "peak lr": f"{peak_lr:g}",
                "law": "lr_annealing",
                "branches": len(errors),
                "median %": f"{np.median(errors):.3f}",
                "worst %": f"{errors.max():.3f}",
                "90% new_run coverage": f"{found['inside'].mean():.2f}",
                "verdict": found["verdict"],
            }
        )
    return rows


if __name__ == "__main__":
    main()

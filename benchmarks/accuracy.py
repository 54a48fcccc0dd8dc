"""How well laws predict other people's held-out runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import isoloss
from benchmarks import peak_lr
from benchmarks.datasets import (
    TEST,
    TRAIN,
    ScheduledRun,
    available,
    multi_power_curves,
    scheduled_runs,
)
from benchmarks.tables import print_table
from isoloss.fitting import compare

ONE_PEAK_LAWS = ("lr_annealing", "multi_power", "concave_memory")
CURVE_LAWS = (*ONE_PEAK_LAWS, "effective_lr")
SIZES = ("25M", "100M")
PUBLISHED_MULTI_POWER = {"25M": (0.00376, 0.00409), "100M": (0.00435, 0.00583)}
"""Mean held-out MAE and mean of the worst relative errors that the Multi-Power Law is published with."""

PEAK_LRS = (1e-4, 5e-4, 1e-3, 2e-3)


def multi_power_holdout(law: str, size: str, bootstrap: int = 200) -> dict[str, Any]:
    """Fit a law to the given training split of `multipowerlaw`; return the scores of its six test curves."""
    curves = multi_power_curves(size)
    fit = isoloss.fit(law, curves, holdout={"run_ids": list(TEST)}, bootstrap=bootstrap)
    assert fit.holdout is not None
    return fit.holdout


def runs_at(peak_lr: float) -> list[ScheduledRun]:
    """Return the runs of `lr_scheduling` with this peak learning rate."""
    return [run for run in scheduled_runs() if np.isclose(run.peak_lr, peak_lr, rtol=1e-6)]


def cooldown_errors(
    law: str,
    fitted: Sequence[ScheduledRun],
    asked: Sequence[ScheduledRun],
    bootstrap: int = 200,
) -> dict[str, Any]:
    """Fit a law to the cosine and constant runs among `fitted`, and predict the cooldowns among `asked`.

    Returns the relative errors of the last validation point of every cooldown branch, and whether the 90
    percent interval of a new run holds it.
    """
    fit = isoloss.fit(law, [run.curve for run in fitted if not run.is_cooldown], bootstrap=bootstrap)
    errors, inside = [], []
    for run in asked:
        if run.is_cooldown:
            last, observed = run.curve.step[-1:], run.curve.loss_nats[-1]
            predicted = fit.predict(schedule=run.curve.schedule, steps=last, interval="new_run")
            errors.append(abs(predicted.value[0] / observed - 1))
            inside.append(bool(predicted.lower[0] <= observed <= predicted.upper[0]))
    return {"relative_errors": np.array(errors), "inside": np.array(inside), "verdict": fit.verdict}


def main() -> None:
    """Print the held-out errors of every curve law on both data sets, and what the choice of a law rests on."""
    if available("multipowerlaw"):
        print_table("multipowerlaw, given split: six held-out curves", list(_multi_power_rows()))
    if available("lr_scheduling"):
        print_table(
            "lr_scheduling: last validation point of the cooldown branches, each peak alone",
            list(_one_peak_rows()),
        )
        print_table("lr_scheduling: effective_lr over all peaks", list(_all_peaks_rows()))
        peak_lr.main()
    if available("multipowerlaw") and available("lr_scheduling"):
        print_table(
            "law `auto`: error on training runs predicted from others, by law", list(_selection_rows())
        )


def _multi_power_rows() -> Iterator[Mapping[str, object]]:
    for size in SIZES:
        for law in (*ONE_PEAK_LAWS, "auto"):
            holdout = multi_power_holdout(law, size)
            mean, published = holdout["mean"], PUBLISHED_MULTI_POWER[size]
            yield {
                "size": size,
                "law": law,
                "MAE": f"{mean['mae']:.5f}",
                "mean worst": f"{mean['max_relative_error']:.5f}",
                "R2": f"{mean['r2']:.4f}",
                "MAE, points no run shares": f"{mean['unseen_mae']:.5f}",
                "their 90% new_run coverage": f"{mean['coverage']:.2f}",
                "Multi-Power, published": f"{published[0]} / {published[1]}",
            }


def _one_peak_rows() -> Iterator[Mapping[str, object]]:
    for at in PEAK_LRS:
        for law in (*CURVE_LAWS, "auto"):
            yield {"peak lr": f"{at:g}", "law": law} | _summary(
                cooldown_errors(law, runs_at(at), runs_at(at))
            )


def _all_peaks_rows() -> Iterator[Mapping[str, object]]:
    runs = scheduled_runs()
    yield {"fitted": "all peaks", "asked": "all peaks"} | _summary(
        cooldown_errors("effective_lr", runs, runs)
    )
    for at in PEAK_LRS:
        others = [run for run in runs if not np.isclose(run.peak_lr, at, rtol=1e-6)]
        found = cooldown_errors("effective_lr", others, runs_at(at))
        yield {"fitted": f"all but {at:g}", "asked": f"{at:g}"} | _summary(found)


def _summary(found: Mapping[str, Any]) -> dict[str, object]:
    errors = 100 * found["relative_errors"]
    return {
        "branches": len(errors),
        "median %": f"{np.median(errors):.3f}",
        "worst %": f"{errors.max():.3f}",
        "90% new_run coverage": f"{found['inside'].mean():.2f}",
        "verdict": found["verdict"],
    }


def _selection_rows() -> Iterator[Mapping[str, object]]:
    for size in SIZES:
        yield {"runs": f"multipowerlaw {size}"} | _compared(multi_power_curves(size, TRAIN))
    for at in PEAK_LRS:
        curves = [run.curve for run in runs_at(at) if not run.is_cooldown]
        yield {"runs": f"lr_scheduling {at:g}"} | _compared(curves)
    every = [run.curve for run in scheduled_runs() if not run.is_cooldown]
    yield {"runs": "lr_scheduling, all peaks"} | _compared(every)


def _compared(curves: list[isoloss.Curve]) -> dict[str, object]:
    found = compare(curves)
    scores = {law: f"{100 * found.scores[law]:.3f} %" if law in found.scores else "-" for law in CURVE_LAWS}
    margin = "-" if found.margin is None else f"{found.margin:.0%}"
    weights = ", ".join(f"{law} {weight:.2f}" for law, weight in found.weights.items())
    return {"folds": len(found.folds), **scores, "margin": margin, "chosen": weights}


if __name__ == "__main__":
    main()

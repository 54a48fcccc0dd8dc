"""Public data sets beside the checkout, read as curves. They are never copied into the project."""

from __future__ import annotations

import csv
import dataclasses
import gzip
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import isoloss
from isoloss.observations import branch_learning_rates, learning_rates
from isoloss.schedules import Schedule

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

WARMUP = {"warmup_steps": 2160, "peak_lr": 3e-4}
TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
TEST = (
    "constant_72000",
    "cosine_72000",
    "wsd_20000_24000",
    "wsdld_20000_24000",
    "wsdcon_3",
    "wsdcon_18",
)


def available(name: str) -> bool:
    """Return whether the data set lies beside this checkout."""
    return (SHARED / name).is_dir()


def multi_power_schedule(name: str) -> dict[str, Any]:
    """Return the declaration of a schedule of `multipowerlaw` (its README)."""
    kind, *numbers = name.split("_")
    if kind == "cosine":
        return {"kind": "cosine", "total_steps": int(numbers[0]), "end_lr": 3e-5} | WARMUP
    if kind == "constant":
        return {"kind": "constant", "total_steps": int(numbers[0])} | WARMUP
    if kind == "wsdcon":
        second = int(numbers[0]) * 1e-5
        return {
            "kind": "two_stage",
            "total_steps": 16_000,
            "switch_step": 8_000,
            "second_lr": second,
        } | WARMUP
    shape = "exponential" if kind == "wsd" else "linear"
    ends = {"total_steps": 24_000, "decay_start": 20_000, "decay_shape": shape, "end_lr": 3e-5}
    return {"kind": "wsd"} | ends | WARMUP


def multi_power_curves(size: str, names: Iterable[str] = (*TRAIN, *TEST)) -> list[isoloss.Curve]:
    """Return curves of `multipowerlaw`, size '25M' or '100M', by the published evaluation.

    Points from step 24,000 on are dropped in curves that end there, as the published evaluation does.
    """
    curves = []
    for name in names:
        spec = multi_power_schedule(name)
        [curve] = isoloss.read_curves(SHARED / "multipowerlaw" / size / f"{name}.csv", schedule=spec)
        last = 23_999 if spec["total_steps"] == 24_000 else spec["total_steps"]
        kept = curve.step <= last
        curves.append(dataclasses.replace(curve, step=curve.step[kept], loss_nats=curve.loss_nats[kept]))
    return curves


SCHEDULED_WEIGHT_DECAY = 0.1
SCHEDULED_DIVERGED = ("lr143",)
"""Of `lr_scheduling` (its README)."""


@dataclass(frozen=True)
class ScheduledRun:
    """A run of `lr_scheduling` with its validation curve, its parent's part included."""

    row: Mapping[str, str]
    curve: isoloss.Curve

    @property
    def peak_lr(self) -> float:
        return float(self.row["peak_lr"])

    @property
    def is_cooldown(self) -> bool:
        """Whether it is a branch that cools down, and not a cosine or a constant learning rate."""
        return self.row["scheduler"] == "wsd" and float(self.row["cooldown_fraction"] or 0) > 0


@cache
def scheduled_runs(group: str = "main") -> tuple[ScheduledRun, ...]:
    """Return the runs of a group of `lr_scheduling` that did not diverge.

    Branches have their parents' points and rates before them.
    """
    folder = SHARED / "lr_scheduling"
    with (folder / "runs.csv").open() as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    rates = _by_run(folder / "train_points.csv.gz", "lr")
    losses = _by_run(folder / "val_points.csv.gz", "loss")
    return tuple(
        ScheduledRun(row, _curve(rows, rates, losses, row["run_id"]))
        for row in rows.values()
        if row["group"] == group and row["run_id"] in losses and row["run_id"] not in SCHEDULED_DIVERGED
    )


Column = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _by_run(path: Path, column: str) -> dict[str, Column]:
    points = defaultdict(list)
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            points[row["run_id"]].append((int(row["step"]), float(row[column])))
    return {
        name: (np.array([p[0] for p in sorted(some)]), np.array([p[1] for p in sorted(some)]))
        for name, some in points.items()
    }


def _curve(
    rows: Mapping[str, Mapping[str, str]],
    rates: Mapping[str, Column],
    losses: Mapping[str, Column],
    run_id: str,
) -> isoloss.Curve:
    step, loss = _with_parents(rows, losses, run_id)
    schedule = _schedule(rows, rates, run_id)
    kept = (step >= 1) & (step <= schedule.total_steps)
    return isoloss.Curve(run_id, step[kept], loss[kept], schedule, weight_decay=SCHEDULED_WEIGHT_DECAY)


def _with_parents(
    rows: Mapping[str, Mapping[str, str]], columns: Mapping[str, Column], run_id: str
) -> Column:
    step, values = columns[run_id]
    parent = rows[run_id]["parent_run_id"]
    if not parent:
        return step, values
    branch_step = int(rows[run_id]["branch_step"])
    before, earlier = _with_parents(rows, columns, parent)
    early, late = before <= branch_step, step > branch_step
    return np.append(before[early], step[late]), np.append(earlier[early], values[late])


def _schedule(rows: Mapping[str, Mapping[str, str]], rates: Mapping[str, Column], run_id: str) -> Schedule:
    step, lr = rates[run_id]
    logged = step >= 1
    parent = rows[run_id]["parent_run_id"]
    if not parent:
        return learning_rates(run_id, step[logged], lr[logged], None)[0]
    branch_step = int(rows[run_id]["branch_step"])
    before = _schedule(rows, rates, parent)
    return branch_learning_rates(run_id, before, branch_step, step, lr, None)[0]

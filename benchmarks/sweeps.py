"""Sweeps of proxies: one with a worker that is killed twice, and `halving` against `grid` on the same space.

The whole service with two workers, as `isoloss up` starts it; the models are tiny, so that all of it takes minutes.
A sweep whose worker is killed is compared, point by point, with the same sweep that nobody touched.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.up import Service, Wanted, serving
from benchmarks.tables import print_table
from isoloss.client import Client
from isoloss.client.documents import Sweep, Trial

PROJECT = "bench"
SEEDS = (0, 1, 2)
KILL_AFTER = (6, 14)
"""How many trials have finished when a worker is killed."""

SPACE: dict[str, Any] = {
    "width": [32, 64],
    "depth": 1,
    "head_width": 16,
    "peak_lr": {"low": 0.002, "high": 0.064, "scale": "log", "count": 6},
    "schedule": [
        {"kind": "linear", "warmup_steps": 0.05},
        {"kind": "wsd", "warmup_steps": 0.05, "decay_start": 0.8},
    ],
    "batch_tokens": 1024,
    "sequence_length": 64,
    "n_tokens": 300_000,
    "val_tokens": 8192,
}
COMPARED = ("loss", "val_loss", "grad_norm")
OVER = ("finished", "diverged", "pruned", "failed", "cancelled", "unfinished")


def main() -> None:
    """Run all sweeps, and print what came of them."""
    with (
        tempfile.TemporaryDirectory(prefix="isoloss-bench-") as folder,
        serving(Wanted(Path(folder))) as service,
        Client(service.url, service.api_key) as client,
    ):
        client.projects.create(PROJECT)
        grids, halved = [], []
        for seed in SEEDS:
            grids.append(_swept(service, client, f"grid-{seed}", "grid", seed))
            if seed == SEEDS[0]:
                _print_killed(client, grids[0], *_killed(service, client))
            halved.append(_swept(service, client, f"halving-{seed}", "halving", seed))
        _print_halved(grids, halved)


def _swept(
    service: Service,
    client: Client,
    name: str,
    strategy: str,
    seed: int,
    look: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """The sweep, once it has ended."""
    sweep = client.sweeps.create(PROJECT, name, {**SPACE, "seed": seed}, strategy=strategy)
    while sweep["status"] == "running":
        service.tend()
        time.sleep(0.5)
        sweep = client.sweeps.get(PROJECT, name)
        if look is not None:
            look(sweep)
    return sweep


def _killed(service: Service, client: Client) -> tuple[Sweep, list[tuple[str, int, float]]]:
    """The sweep whose workers are killed, and of each death the trial, its step and its pace in steps a second."""
    deaths: list[tuple[str, int, float]] = []

    def look(sweep: Sweep) -> None:
        if len(deaths) == len(KILL_AFTER):
            return
        training = [one for one in sweep["trials"] if one["status"] == "running" and one["step"] > 30]
        if sweep["counts"].get("finished", 0) < KILL_AFTER[len(deaths)] or not training:
            return
        victim = training[0]
        deaths.append((victim["run_id"], victim["step"], victim["step"] / victim["device_seconds"]))
        os.kill(int(str(victim["worker"]).rpartition(":")[2]), signal.SIGKILL)

    return _swept(service, client, "killed", "grid", SEEDS[0], look), deaths


def _print_killed(client: Client, whole: Sweep, killed: Sweep, deaths: list[tuple[str, int, float]]) -> None:
    trials = killed["trials"]
    steps = sum(trial["step"] for trial in trials)
    known = sum(trial["repeated_steps"] for trial in trials)
    # What was trained between the last report and the death stands nowhere; a report comes every second.
    unknown = sum(pace for *_, pace in deaths)
    same = sum(_are_equal(client, *pair) for pair in zip(whole["trials"], trials, strict=True))
    measured = {
        "trials that ended once": f"{_n_ended_once(killed)} of {len(trials)}",
        "deaths, at step of": ", ".join(f"{step} of {run}" for run, step, _ in deaths),
        "steps of all trials": f"{steps:,}",
        "trained again after a death": f"{known} + at most {unknown:.0f} unreported",
        "work repeated": f"at most {(known + unknown) / steps:.2%}",
        "curves equal, bit for bit, to the sweep that nobody touched": f"{same} of {len(trials)}",
    }
    rows = [{"": name, "measured": value} for name, value in measured.items()]
    print_table("24 trials on two workers, of which one is killed (SIGKILL) twice", rows)


def _n_ended_once(sweep: Sweep) -> int:
    return sum(trial["status"] in OVER and trial["finished_at"] is not None for trial in sweep["trials"])


def _are_equal(client: Client, one: Trial, other: Trial) -> bool:
    first, second = (client.points.read(PROJECT, trial["run_id"]) for trial in (one, other))
    return np.array_equal(first["step"], second["step"]) and all(
        np.array_equal(np.ma.filled(first[name], np.nan), np.ma.filled(second[name], np.nan), equal_nan=True)
        for name in COMPARED
    )


def _print_halved(grids: list[Sweep], halved: list[Sweep]) -> None:
    rows: list[dict[str, object]] = []
    for seed, grid, halving in zip(SEEDS, grids, halved, strict=True):
        final = {one["number"]: float(one["final_loss"] or np.inf) for one in grid["trials"]}
        order = sorted(final, key=final.__getitem__)
        left = [one["number"] for one in halving["trials"] if one["status"] == "finished"]
        best = min(left, key=final.__getitem__)
        pruned = [order.index(one["number"]) + 1 for one in halving["trials"] if one["status"] == "pruned"]
        held, told = _bands(halving, final)
        rows.append(
            {
                "seed": seed,
                "steps spared": f"{halving['saved']['steps'] / halving['planned']['steps']:.0%}",
                "device time": f"{_seconds(halving):.0f} of {_seconds(grid):.0f} s",
                "pruned, of ranks": f"{len(pruned)}, best of them {min(pruned, default=0)}",
                "best kept": "yes" if best == order[0] else f"no: rank {order.index(best) + 1}",
                "ends in their intervals": f"{held} of {told}",
            }
        )
    print_table("`halving` against `grid`, the same 24 points", rows)


def _seconds(sweep: Sweep) -> float:
    return sweep["done"]["device_seconds"] or 0.0


def _bands(halving: Sweep, final: dict[int, float]) -> tuple[int, int]:
    """Of the trials that were pruned, how many would have ended within the interval that was told, and how many."""
    told = [one for one in halving["trials"] if one["status"] == "pruned" and one["forecast"] is not None]
    held = 0
    for one in told:
        forecast = one["forecast"]
        assert forecast is not None
        held += float(forecast["lower"] or 0) <= final[one["number"]] <= float(forecast["upper"] or np.inf)
    return held, len(told)


if __name__ == "__main__":
    main()

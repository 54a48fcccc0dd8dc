"""What recording a training costs: the time of `log`, a loop with it and without it, and the memory of its spool.

The service is real and on the same machine, which is the hard case: it shares the two cores with the loop.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import isoloss
from app.up import Wanted, serving
from benchmarks.tables import print_table

STEPS = 5000
STEPS_A_SECOND = 1000
PAIRS = 5
MEBIBYTE = 2**20
SPOOL_STEPS = 1_000_000
SIZE = 100


def main() -> None:
    """Measure all and print tables; each loop in a process of its own, those with and without it in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="isoloss-bench-") as folder,
        serving(Wanted(Path(folder))) as service,
    ):
        environment = {
            "BENCH_REPEATS": str(_repeats_of(1 / STEPS_A_SECOND)),
            "ISOLOSS_URL": service.url,
            "ISOLOSS_API_KEY": service.api_key,
            "ISOLOSS_DIR": f"{folder}/runs",
        }
        print_table("Time of one `log` of four numbers", [_latency(mode, environment) for mode in MODES])
        print_table(
            f"A loop of {STEPS_A_SECOND:,} steps/s with and without it, {PAIRS} pairs of {STEPS:,} steps in turn",
            [_overhead(mode, environment) for mode in ("online", "offline")],
        )
        print_table("Memory of an outage", [_in_process("memory", "online", environment | AWAY)])


MODES = ("online", "offline", "disabled")
AWAY = {"ISOLOSS_URL": "http://127.0.0.1:9"}


def _latency(mode: str, environment: dict[str, str]) -> dict[str, Any]:
    found = _in_process("latency", mode, environment)
    return {"mode": mode, **{name: f"{value:.2f} us" for name, value in found.items()}}


def _overhead(mode: str, environment: dict[str, str]) -> dict[str, Any]:
    """Loops with it and without it in turn: how much longer the fastest takes, and what its threads compute."""
    plain, recorded = [], []
    for _ in range(PAIRS):
        plain.append(_in_process("loop", "disabled", environment))
        recorded.append(_in_process("loop", mode, environment))
    ratios = [one["seconds"] / other["seconds"] - 1 for one, other in zip(recorded, plain, strict=True)]
    fastest = min(one["seconds"] for one in recorded) / min(one["seconds"] for one in plain) - 1
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    in_log = np.median([one["in_log_us"] for one in recorded])
    behind = np.median([one["behind_us"] for one in recorded])
    return {
        "mode": mode,
        "fastest loop takes longer by": f"{100 * fastest:.1f} %",
        "median pair": f"{100 * middle:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        "`log`, a step": f"{in_log:.1f} us",
        "processor time of the two threads, a step": f"{behind:.1f} us",
    }


def _in_process(what: str, mode: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.recorder", what, mode]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_latency(mode: str) -> dict[str, float]:
    """Microseconds of a call, at a thousand calls a second, so that the background works as it would."""
    run = isoloss.init("bench", mode=mode)  # type: ignore[arg-type]
    times = []
    for step in range(1, STEPS + 1):
        metrics = _metrics(step)
        started = time.perf_counter_ns()
        run.log(metrics, step=step)
        times.append((time.perf_counter_ns() - started) / 1000)
        time.sleep(1 / STEPS_A_SECOND)
    run.finish()
    return {
        "p50": float(np.median(times)),
        "p99": float(np.quantile(times, 0.99)),
        "p99.9": float(np.quantile(times, 0.999)),
    }


def measure_loop(mode: str) -> dict[str, float]:
    """Seconds of a loop whose steps compute for about a millisecond, as fast as it can, and where they went."""
    work = _work(int(os.environ["BENCH_REPEATS"]))
    run = isoloss.init("bench", mode=mode)  # type: ignore[arg-type]
    run.log(_metrics(1), step=1)
    run.flush()
    all_threads, this_thread, started = time.process_time(), time.thread_time(), time.perf_counter()
    in_log = []
    for step in range(2, STEPS + 2):
        work()
        metrics = _metrics(step)
        before = time.perf_counter_ns()
        run.log(metrics, step=step)
        in_log.append(time.perf_counter_ns() - before)
    seconds = time.perf_counter() - started
    behind = time.process_time() - all_threads - (time.thread_time() - this_thread)
    run.finish()
    in_log_us = float(np.median(in_log)) / 1000
    return {"seconds": seconds, "behind_us": 1e6 * behind / STEPS, "in_log_us": in_log_us}


def _work(repeats: int) -> Callable[[], None]:
    """Products of matrices, as a step computes: it lets other threads of Python run."""
    matrix = np.ones((SIZE, SIZE))

    def work() -> None:
        for _ in range(repeats):
            matrix @ matrix

    return work


def _repeats_of(seconds: float) -> int:
    """How many products take so long where nothing disturbs them."""
    work = _work(1)
    return max(round(seconds / min(timeit.repeat(work, number=1, repeat=2000))), 1)


def measure_memory(mode: str) -> dict[str, str]:
    """What an outage of a million steps takes of memory and of disk."""
    run = isoloss.init("bench", run_id="memory", mode=mode)  # type: ignore[arg-type]
    run.log(_metrics(1), step=1)
    run.flush()
    gc.collect()
    before = psutil.Process().memory_info().rss
    highest = before
    for step in range(2, SPOOL_STEPS + 1):
        run.log(_metrics(step), step=step)
        if step % 5000 == 0:
            highest = max(highest, psutil.Process().memory_info().rss)
            time.sleep(0.1)  # 50,000 steps a second
    run.flush()
    files = list(Path(os.environ["ISOLOSS_DIR"]).rglob("*.jsonl"))
    on_disk = sum(path.stat().st_size for path in files)
    return {
        "steps of four numbers": f"{SPOOL_STEPS:,}",
        "on disk": f"{on_disk / MEBIBYTE:.0f} MiB, {on_disk / SPOOL_STEPS:.0f} bytes a step",
        "memory, highest": f"{(highest - before) / MEBIBYTE:.0f} MiB more than before",
    }


def _metrics(step: int) -> dict[str, float]:
    return {"loss": 2 + step**-0.5, "lr": 1e-3 / step, "grad_norm": 1 + 1 / step, "tokens": step * 524_288.0}


MEASURES: dict[str, Callable[[str], dict[str, Any]]] = {
    "latency": measure_latency,
    "loop": measure_loop,
    "memory": measure_memory,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2])))
    else:
        main()

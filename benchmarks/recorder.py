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
from isoloss.arrays import FloatArray

STEPS = 5000
STEPS_A_SECOND = 1000
ROUND_STEPS, WARM_STEPS = 4000, 2000
NOISE_ROUND_S = 2.0
PAIRS = 8
MEBIBYTE = 2**20
SPOOL_STEPS = 1_000_000
SIZE = 100


def main() -> None:
    """Measure all and print tables; each measurement in a process of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="isoloss-bench-") as folder,
        serving(Wanted(Path(folder))) as service,
    ):
        environment = {
            "ISOLOSS_URL": service.url,
            "ISOLOSS_API_KEY": service.api_key,
            "ISOLOSS_DIR": f"{folder}/runs",
        }
        print_table("Time of one `log` of four numbers", [_latency(mode, environment) for mode in MODES])
        print_table(
            f"A loop of {STEPS_A_SECOND:,} steps/s with it, against without it: {PAIRS} pairs of rounds in turn",
            [_overhead(step, cores, environment) for step in STEP_WORK for cores in (2, 1)],
        )
        print_table(
            f"Updates whose gradient noise is measured, against others: {PAIRS} pairs of rounds in turn",
            [_noise(width, passes, environment) for width in (128, 512) for passes in (2, 8)],
        )
        print_table("Memory of an outage", [_in_process("memory", "online", environment | AWAY)])


MODES = ("online", "offline", "disabled")
AWAY = {"ISOLOSS_URL": "http://127.0.0.1:9"}


def _latency(mode: str, environment: dict[str, str]) -> dict[str, Any]:
    found = _in_process("latency", mode, environment)
    return {"mode": mode, **{name: f"{value:.2f} us" for name, value in found.items()}}


def _overhead(step: str, cores: int, environment: dict[str, str]) -> dict[str, Any]:
    """Rounds with it and without it in turn in one process: the ratio of their medians, of both clocks."""
    found = _in_process("loop", step, environment | {"BENCH_CORES": str(cores)})
    return {
        "a step": f"{found['step_ms']:.2f} ms of {STEP_NAMES[step]}",
        "cores": cores,
        "wall": _percent(found["wall"]),
        "processor": _percent(found["processor"]),
        "`log`, a step": f"{found['in_log_us']:.1f} us",
        "processor time of the two threads, a step": f"{found['behind_us']:.1f} us",
    }


def _noise(width: int, passes: int, environment: dict[str, str]) -> dict[str, Any]:
    found = _in_process("noise", str(width), environment | {"BENCH_PASSES": str(passes)})
    return {
        "an update": f"{found['update_ms']:.1f} ms, {passes} micro-batches, {found['n_params']:,} parameters",
        "measured": f"1 of {found['every']}",
        "wall": _percent(found["wall"]),
        "processor": _percent(found["processor"]),
    }


def _percent(ratios: list[float]) -> str:
    """The ratio of the medians, and in brackets the quartiles of the pairs."""
    middle, low, high = (100 * (ratio - 1) for ratio in ratios)
    return f"{middle:+.2f} % ({low:+.1f} to {high:+.1f})"


def _in_process(what: str, how: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.recorder", what, how]
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


def measure_loop(step: str) -> dict[str, Any]:
    """Rounds of a loop with it and without it in turn: how long a step takes, by the clock and of processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["BENCH_CORES"])])
    work = STEP_WORK[step]()
    run = isoloss.init("bench")
    plain, recorded = [], []
    for number in range(PAIRS):
        plain.append(_round(work, None, 0))
        recorded.append(_round(work, run, number * (ROUND_STEPS + WARM_STEPS)))
    run.finish()
    without, within = np.array(plain), np.array(recorded)
    return {
        "step_ms": 1000 * float(np.median(without[:, 0])),
        "wall": _ratios(within[:, 0], without[:, 0]),
        "processor": _ratios(within[:, 1], without[:, 1]),
        "in_log_us": float(np.median(within[:, 2])),
        "behind_us": float(np.median(within[:, 3])),
    }


def _ratios(within: FloatArray, without: FloatArray) -> list[float]:
    low, high = np.quantile(within / without, [0.25, 0.75])
    return [float(np.median(within) / np.median(without)), float(low), float(high)]


def _round(work: Callable[[], None], run: isoloss.Recorder | None, first: int) -> list[float]:
    """Seconds of a step, seconds of processors, microseconds in `log`, microseconds of the other threads.

    Steps before those that are timed let the threads begin what they then do all the time. What is still to be
    written and sent at the end of a round was paid for by what was at its beginning.
    """
    in_log: list[int] = []
    for number in range(1, (1 if run is None else WARM_STEPS) + 1):
        _one_step(work, run, first + number, in_log)
    del in_log[:]
    all_threads, this_thread, started = time.process_time(), time.thread_time(), time.perf_counter()
    for number in range(WARM_STEPS + 1, WARM_STEPS + ROUND_STEPS + 1):
        _one_step(work, run, first + number, in_log)
    seconds = time.perf_counter() - started
    processors = time.process_time() - all_threads
    behind = processors - (time.thread_time() - this_thread)
    if run is not None:
        run.flush()
    each = [seconds / ROUND_STEPS, processors / ROUND_STEPS]
    return [*each, float(np.median(in_log or [0])) / 1000, 1e6 * behind / ROUND_STEPS]


def _one_step(work: Callable[[], None], run: isoloss.Recorder | None, step: int, in_log: list[int]) -> None:
    work()
    metrics = _metrics(step)
    before = time.perf_counter_ns()
    if run is not None:
        run.log(metrics, step=step)
    in_log.append(time.perf_counter_ns() - before)


def _torch_step() -> Callable[[], None]:
    """Training steps of a small network, which let other threads of Python run while they compute."""
    import torch

    torch.set_num_threads(1)
    layers = [torch.nn.Linear(SIZE, SIZE), torch.nn.Tanh(), torch.nn.Linear(SIZE, 1)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())

    def made(rows: int) -> Callable[[], None]:
        batch = torch.ones(rows, SIZE)

        def work() -> None:
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return work

    return _of_a_millisecond(made)


def _python_step() -> Callable[[], None]:
    """Sums in Python alone, which hold its lock all the time."""

    def made(terms: int) -> Callable[[], None]:
        def work() -> None:
            sum(term & 3 for term in range(terms))

        return work

    return _of_a_millisecond(made)


def _of_a_millisecond(made: Callable[[int], Callable[[], None]]) -> Callable[[], None]:
    """Work of the size that takes a millisecond where nothing disturbs it."""
    low, high = 1, 1 << 17
    while high - low > max(low // 50, 1):
        middle = (low + high) // 2
        shorter = min(timeit.repeat(made(middle), number=1, repeat=50)) < 1 / STEPS_A_SECOND
        low, high = (middle, high) if shorter else (low, middle)
    return made(low)


STEP_WORK = {"torch": _torch_step, "python": _python_step}
STEP_NAMES = {"torch": "training with torch", "python": "Python alone"}


def measure_noise(width: str) -> dict[str, Any]:
    """Rounds of updates whose gradient noise is measured now and then, and of others, in turn."""
    import torch

    torch.set_num_threads(1)
    passes = int(os.environ["BENCH_PASSES"])
    without, within = (Updates(int(width), passes, noise_scale) for noise_scale in (False, True))
    times = np.array([[_timed(work) for work in (without, within)] for _ in range(PAIRS)])
    norms = within.watched._noise._norms
    return {
        "update_ms": 1000 * float(np.median(times[:, 0, 0])),
        "n_params": sum(weight.numel() for weight in within.model.parameters()),
        "every": norms.every,
        "wall": _ratios(times[:, 1, 0], times[:, 0, 0]),
        "processor": _ratios(times[:, 1, 1], times[:, 0, 1]),
    }


class Updates:
    """Updates of a network of eight layers."""

    def __init__(self, width: int, passes: int, noise_scale: bool) -> None:
        import torch

        layers = [torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh()) for _ in range(8)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.batches = torch.randn(passes, 64, width)
        run = isoloss.init("bench", config={"batch_tokens": passes * 64})
        self.watched: Any = isoloss.watch(run, self.optimizer, noise_scale=noise_scale)

    def __call__(self) -> None:
        for batch in self.batches:
            self.model(batch).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of an update in a round of some seconds, and seconds of processors."""
    processors, started, n_updates = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() < started + NOISE_ROUND_S:
        work()
        n_updates += 1
    seconds = time.perf_counter() - started
    return seconds / n_updates, (time.process_time() - processors) / n_updates


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
    "noise": measure_noise,
    "memory": measure_memory,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2])))
    else:
        main()

"""What training a proxy costs: tokens a second beside a plain loop, time outside of the step, processes or threads.

Both loops train the same shape on the same windows in one process, in turn. Their speed is of the processor's time,
not of the clock's, so that what else runs on the machine counts less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.tables import print_table
from isoloss.proxies.configuration import ProxyConfig

WIDTHS = (32, 64, 128, 256)
DEPTH = 2
BATCH_TOKENS = 2048
LENGTH = 128
ROUNDS = 11
ROUND_S = 0.5
ABREAST_WIDTHS = (64, 256)
ABREAST_S = 8.0
ABREAST_ROUNDS = 3


def main() -> None:
    """Measure all and print tables; each measurement in a process of its own."""
    print_table(
        f"Tokens a second of one core's time: depth {DEPTH}, batches of {BATCH_TOKENS:,} tokens in sequences of "
        f"{LENGTH}, fp32, medians of {ROUNDS} rounds in turn",
        [_beside_plain(width) for width in WIDTHS],
    )
    print_table(
        f"Two processes of one thread beside one of two threads, tokens a second by the clock, medians of "
        f"{ABREAST_ROUNDS} rounds in turn",
        [_processes_or_threads(width) for width in ABREAST_WIDTHS],
    )


def config_of(width: int) -> ProxyConfig:
    """A training that does not end while it is measured, and is not evaluated."""
    return ProxyConfig(
        width=width,
        depth=DEPTH,
        peak_lr=4e-3,
        batch_tokens=BATCH_TOKENS,
        n_tokens=10**9,
        sequence_length=LENGTH,
        eval_every=1.0,
    )


def _beside_plain(width: int) -> dict[str, Any]:
    found = _in_process("speed", str(width))[0]
    low, middle, high = (f"{ratio:.2f}" for ratio in found["ratios"])
    return {
        "width": width,
        "parameters": f"{config_of(width).n_params().total:,}",
        "proxy": f"{found['proxy']:,.0f}",
        "plain loop": f"{found['plain']:,.0f}",
        "proxy / plain (quartiles)": f"{middle} ({low} to {high})",
        "outside of forward, backward and update": f"{found['outside']:.1%}",
    }


def _processes_or_threads(width: int) -> dict[str, Any]:
    processes, threads = [], []
    for _ in range(ABREAST_ROUNDS):
        processes.append(sum(_in_process("abreast", str(width), "1", n_processes=2)))
        threads.append(sum(_in_process("abreast", str(width), "2")))
    two, one = float(np.median(processes)), float(np.median(threads))
    return {
        "width": width,
        "two processes": f"{two:,.0f}",
        "one of two threads": f"{one:,.0f}",
        "ratio": f"{two / one:.2f}",
    }


def _in_process(what: str, *how: str, n_processes: int = 1) -> list[Any]:
    """What so many processes, at once, print."""
    command = [sys.executable, "-m", "benchmarks.proxies", what, *how]
    threads = how[-1] if what == "abreast" else "1"
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(n_processes)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]


def measure_speed(width: str) -> dict[str, Any]:
    """Tokens for each second of processor time, of both loops in turn, and the share outside of the step."""
    import torch

    from isoloss.proxies import Training, load_data

    torch.set_num_threads(1)
    config = config_of(int(width))
    training = Training.start(config, load_data("python-stdlib"))
    timer = Timer()
    timer.time(training, "_gradient")
    timer.time(training._updates, "apply")
    plain = plain_loop(config)
    loops: list[Callable[[], Any]] = [lambda: training.advance(training.step + 1), plain]
    for loop in loops:
        _tokens_a_second(loop, seconds=ROUND_S)
    timer.seconds, outside, rates = 0.0, [], []
    for _ in range(ROUNDS):
        timer.seconds, begun = 0.0, time.thread_time()
        advanced = _tokens_a_second(loops[0], seconds=ROUND_S)
        outside.append(1 - timer.seconds / (time.thread_time() - begun))
        rates.append((advanced, _tokens_a_second(plain, seconds=ROUND_S)))
    proxy, other = np.array(rates).T
    return {
        "proxy": float(np.median(proxy)),
        "plain": float(np.median(other)),
        "ratios": np.quantile(proxy / other, [0.25, 0.5, 0.75]).tolist(),
        "outside": float(np.median(outside)),
    }


class Timer:
    """Adds up the processor time of methods."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            begun = time.thread_time()
            found = method(*arguments)
            self.seconds += time.thread_time() - begun
            return found

        setattr(owner, name, timed)


def _tokens_a_second(step: Callable[[], Any], seconds: float) -> float:
    begun, until, n_steps = time.thread_time(), time.thread_time() + seconds, 0
    while time.thread_time() < until or n_steps < 3:
        step()
        n_steps += 1
    return n_steps * BATCH_TOKENS / (time.thread_time() - begun)


def measure_abreast(width: str, n_threads: str) -> float:
    """Tokens a second by the clock, of steps that compute with so many threads."""
    import torch

    from isoloss.proxies import Training, load_data

    torch.set_num_threads(int(n_threads))
    training = Training.start(config_of(int(width)), load_data("python-stdlib"))
    for _ in range(5):
        training._train_step(training.step + 1)
    begun, first = time.perf_counter(), training.step
    while time.perf_counter() < begun + ABREAST_S:
        training._train_step(training.step + 1)
    return (training.step - first) * BATCH_TOKENS / (time.perf_counter() - begun)


def plain_loop(config: ProxyConfig) -> Callable[[], float]:
    """One step of a loop as one would write it down: the same shape, modules of torch, and its AdamW."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    from isoloss.proxies import load_data
    from isoloss.proxies.shapes import BYTES, mlp_width

    width, head_width = config.width, config.head_width
    angles = torch.arange(LENGTH)[:, None] * 10_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
    cosine, sine = angles.cos(), angles.sin()

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.RMSNorm(width, elementwise_affine=False) for _ in range(2))
            self.query, self.key, self.value, self.out = (
                nn.Linear(width, width, bias=False) for _ in range(4)
            )
            self.gate, self.up = (nn.Linear(width, mlp_width(width), bias=False) for _ in range(2))
            self.down = nn.Linear(mlp_width(width), width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            normed = self.norms[0](x)
            query, key, value = (
                part(normed).view(*x.shape[:2], -1, head_width).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            mixed = functional.scaled_dot_product_attention(turned(query), turned(key), value, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
            normed = self.norms[1](x)
            down: Tensor = self.down(functional.silu(self.gate(normed)) * self.up(normed))
            return x + down

    model = nn.Sequential(
        nn.Embedding(BYTES, width),
        nn.RMSNorm(width, elementwise_affine=False),
        *(Layer() for _ in range(config.depth)),
        nn.RMSNorm(width, elementwise_affine=False),
        nn.Linear(width, BYTES, bias=False),
    )
    assert sum(weight.numel() for weight in model.parameters()) == config.n_params().total
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    text = torch.from_numpy(load_data("python-stdlib").tokens.copy())
    reach = torch.arange(LENGTH + 1)

    def step() -> float:
        starts = torch.randint(len(text) - LENGTH, (config.batch_sequences, 1))
        windows = text[starts + reach].long()
        logits = model(windows[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


MEASURES: dict[str, Callable[..., Any]] = {"speed": measure_speed, "abreast": measure_abreast}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(MEASURES[sys.argv[1]](*sys.argv[2:])))
    else:
        main()

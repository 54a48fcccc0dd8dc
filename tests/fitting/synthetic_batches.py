"""Studies of the batch whose truth is known: best learning rates over it, and gradient norms over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isoloss.observations import RunTable

SITES: tuple[tuple[float, float], ...] = ((1e8, 2e9), (1e8, 1.6e10), (4e8, 2e9), (4e8, 1.6e10), (1.6e9, 8e9))
"""Model sizes and training tokens."""

BATCHES = 2.0 ** np.arange(15, 23)
B0 = 2.0**18


def best_lr(size: np.ndarray, data: np.ndarray, batch: np.ndarray, form: str = "adam") -> np.ndarray:
    """The best learning rate: .002 of large batches at a billion parameters and 20 billion tokens."""
    level = 2e-3 * (size / 1e9) ** -0.5 * (data / 2e10) ** 0.2
    share = {
        "adam": np.sqrt(batch / (batch + B0)),
        "sgd": batch / (batch + B0),
        "sqrt": np.sqrt(batch / B0),
        "linear": batch / B0,
    }
    return np.asarray(level * share[form])


def rising(
    seed: int | None = None,
    sites: Sequence[tuple[float, float]] = SITES,
    batches: np.ndarray = BATCHES,
    form: str = "adam",
    levels: int = 7,
    noise: float = 1e-3,
) -> RunTable:
    """Sweeps of the learning rate, half as much again from one to the next, at every site and batch."""
    u = (np.arange(levels) - levels // 2) * np.log(1.5) + 0.1
    where = [(*site, batch, one) for site in sites for batch in batches for one in u]
    size, data, batch, away = (np.array(column) for column in zip(*where, strict=True))
    excess = 0.012 * away**2
    if seed is not None:
        excess = excess + noise * np.random.default_rng(seed).standard_normal(away.size)
    columns = {
        "n_params": size,
        "n_tokens": data,
        "batch_tokens": batch,
        "peak_lr": best_lr(size, data, batch, form) * np.exp(away),
    }
    losses = (1.7 + 400 * size**-0.34 + 900 * data**-0.31 + 1e-9 * batch) * np.exp(excess)
    names = tuple(f"run-{number:04}" for number in range(away.size))
    return RunTable(names, columns, losses, n_params_kind="non_embedding")


SMALL, BIG = 2.5e5, 2e6
"""Tokens of the batches whose gradients are measured."""


def scale_at(tokens: np.ndarray) -> np.ndarray:
    """The noise scale over training: a million tokens at a billion, ten times that at a hundred billion."""
    return np.asarray(1e6 * (tokens / 1e9) ** 0.5)


def slow(random: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Return autocorrelated deviates of variance 1, (count,)."""
    drawn = random.standard_normal(count)
    for k in range(1, count):
        drawn[k] = memory * drawn[k - 1] + np.sqrt(1 - memory**2) * drawn[k]
    return drawn


def norms(
    random: np.random.Generator, gradient: np.ndarray, noise: np.ndarray, dimensions: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Return norms of gradients at the small and the big batch, which holds the small one, (readings,) each.

    `gradient` is the squared norm of the true gradient, `noise` tr(Sigma), (readings,) each.
    """
    parts = int(BIG / SMALL)
    scale = np.sqrt(noise / dimensions / SMALL)
    first, rest = random.standard_normal((2, gradient.size, dimensions)) * scale[:, None]
    true = np.zeros((gradient.size, dimensions))
    true[:, 0] = np.sqrt(gradient)
    small = true + first
    big = true + first / parts + rest * np.sqrt(parts - 1) / parts
    return np.linalg.norm(small, axis=1), np.linalg.norm(big, axis=1)


LAST = 1e11
"""Tokens at the end of a training."""


def readings(
    seed: int | None = None,
    count: int = 500,
    curves: int = 1,
    memory: float = 0.9,
    fluctuation: float = 0.2,
    first: float = 1e9,
) -> RunTable:
    """Readings evenly spaced from the `first` tokens on; |G|^2 and tr(Sigma) fluctuate slowly about their trend."""
    tables = []
    for curve in range(curves):
        tokens = np.linspace(first, LAST, count)
        gradient = 0.3 * (tokens / 1e9) ** -0.2
        noise = gradient * scale_at(tokens)
        if seed is None:
            small, big = (np.sqrt(gradient + noise / batch) for batch in (SMALL, BIG))
        else:
            random = np.random.default_rng([seed, curve])
            level = fluctuation * slow(random, count, memory) - fluctuation**2 / 2
            own = fluctuation * slow(random, count, memory) - fluctuation**2 / 2
            small, big = norms(random, gradient * np.exp(level), noise * np.exp(own))
        tables.append((np.full(count, curve), tokens, small, big))
    number, tokens, small, big = (np.concatenate(column) for column in zip(*tables, strict=True))
    columns = {
        "n_tokens": tokens,
        "grad_norm_small": small,
        "grad_norm_big": big,
        "batch_small_tokens": np.full(tokens.size, SMALL),
        "batch_big_tokens": np.full(tokens.size, BIG),
    }
    names = tuple(f"reading-{row:05}" for row in range(tokens.size))
    labels = {"curve": tuple(f"curve-{int(one)}" for one in number)}
    return RunTable(names, columns, np.full(tokens.size, np.nan), labels=labels)


def as_ratios(table: RunTable, steps: int = 50) -> RunTable:
    """Return readings of B_simple alone, as a monitor logs it that averages both parts over so many steps."""
    small, big = (table.column(f"grad_norm_{name}") ** 2 for name in ("small", "big"))
    kernel = np.ones(steps) / steps
    smooth_small, smooth_big = (np.convolve(one, kernel, mode="same") for one in (small, big))
    gradient = (BIG * smooth_big - SMALL * smooth_small) / (BIG - SMALL)
    noise = (smooth_small - smooth_big) / (1 / SMALL - 1 / BIG)
    columns = {"n_tokens": table.column("n_tokens"), "grad_noise_scale": noise / gradient}
    return RunTable(table.run_ids, columns, table.outcome, labels=table.labels)

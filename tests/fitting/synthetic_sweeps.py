"""Sweeps of settings whose best values follow a law exactly, under one bowl of loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isoloss.laws.timescale import weight_decay_of_timescale
from isoloss.observations import RunTable

SITES: tuple[tuple[float, float], ...] = tuple(
    (size, size * ratio) for size in (1e8, 2e8, 4e8, 8e8) for ratio in (10.0, 40.0, 160.0)
)
"""Model sizes and training tokens."""


def best_lr(size: np.ndarray, data: np.ndarray) -> np.ndarray:
    return 20.0 * size**-0.6 * data**0.15


def best_batch(data: np.ndarray) -> np.ndarray:
    return 0.5 * data**0.58


def best_timescale(size: np.ndarray, data: np.ndarray) -> np.ndarray:
    return 1.1 * (data / size) ** -0.5


def loss_of(size: np.ndarray, data: np.ndarray, excess: np.ndarray) -> np.ndarray:
    return (1.7 + 400 * size**-0.34 + 900 * data**-0.31) * np.exp(excess)


def table(columns: dict[str, np.ndarray], losses: np.ndarray) -> RunTable:
    names = tuple(f"run-{number:03}" for number in range(losses.size))
    return RunTable(names, columns, losses, n_params_kind="non_embedding")


def noise(seed: int | None, count: int, scale: float) -> np.ndarray:
    return np.zeros(count) if seed is None else scale * np.random.default_rng(seed).standard_normal(count)


def lr_and_batch(
    seed: int | None = None,
    sites: Sequence[tuple[float, float]] = SITES,
    scale: float = 1e-3,
    weight_decay: float | None = None,
) -> RunTable:
    """Grids of seven learning rates and seven batches at every site, half as much again from one to the next.

    The bowl is quadratic, with a valley: larger batches want larger learning rates. With a `weight_decay` at which
    all of them were trained, a timescale that is not the best costs what it does in `decays`, too.
    """
    steps = np.arange(-3, 4) * np.log(1.5)
    u, v = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    size, data = (np.repeat([site[part] for site in sites], u.size) for part in range(2))
    u, v = np.tile(u + 0.1, len(sites)), np.tile(v - 0.13, len(sites))
    excess = 0.012 * u**2 - 0.008 * u * v + 0.01 * v**2 + noise(seed, size.size, scale)
    columns = {
        "n_params": size,
        "n_tokens": data,
        "peak_lr": best_lr(size, data) * np.exp(u),
        "batch_tokens": best_batch(data) * np.exp(v),
    }
    if weight_decay is not None:
        columns["weight_decay"] = np.full(size.size, weight_decay)
        tau = columns["batch_tokens"] / (columns["peak_lr"] * weight_decay * data)
        excess = excess + 0.01 * np.log(tau / best_timescale(size, data)) ** 2
    return table(columns, loss_of(size, data, excess))


def lr_alone(
    seed: int | None = None, sites: Sequence[tuple[float, float]] = SITES, levels: int = 7
) -> RunTable:
    """Sweeps of the learning rate at one batch."""
    u = (np.arange(levels) - levels // 2) * np.log(1.5) + 0.1
    size, data = (np.repeat([site[part] for site in sites], u.size) for part in range(2))
    u = np.tile(u, len(sites))
    excess = 0.012 * u**2 + noise(seed, size.size, 1e-3)
    columns = {"n_params": size, "n_tokens": data, "peak_lr": best_lr(size, data) * np.exp(u)}
    return table(columns, loss_of(size, data, excess))


def decays(
    seed: int | None = None,
    sites: Sequence[tuple[float, float]] = SITES,
    levels: int = 7,
    shares: Sequence[float] | None = None,
) -> RunTable:
    """Sweeps of the weight decay at one learning rate and batch of each site.

    With `shares`, the mean learning rate of each site's runs as a share of the peak, the best timescale is that of
    the mean, and runs state their share.
    """
    u = (np.arange(levels) - levels // 2) * np.log(2.0) + 0.1
    size, data = (np.repeat([site[part] for site in sites], u.size) for part in range(2))
    u = np.tile(u, len(sites))
    batch, lr = np.full(size.size, 2.0**18), best_lr(size, data)
    tau = best_timescale(size, data) * np.exp(u)
    columns = {
        "n_params": size,
        "n_tokens": data,
        "batch_tokens": batch,
        "peak_lr": lr,
        "weight_decay": weight_decay_of_timescale(tau, batch, lr, data),
    }
    if shares is not None:
        share = np.repeat(np.asarray(shares, dtype=np.float64), levels)
        columns |= {"mean_lr_share": share, "weight_decay": columns["weight_decay"] / share}
    return table(columns, loss_of(size, data, 0.01 * u**2 + noise(seed, size.size, 1e-3)))


def together(*tables: RunTable) -> RunTable:
    """The runs of several studies as one table; a setting that a study does not state is missing in it."""
    names = sorted({name for table in tables for name in table.columns})
    columns = {name: np.concatenate([table.column(name) for table in tables]) for name in names}
    runs = tuple(f"{number}-{name}" for number, table in enumerate(tables) for name in table.run_ids)
    return RunTable(
        runs, columns, np.concatenate([table.outcome for table in tables]), n_params_kind="non_embedding"
    )

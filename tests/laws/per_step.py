"""The laws with a memory, summed over every step of a schedule as their formulas say, and schedules to try."""

from __future__ import annotations

import numpy as np

from benchmarks.datasets import TEST, TRAIN, WARMUP, multi_power_schedule
from isoloss.schedules import Schedule, from_log, schedule_from_spec


def rates(schedule: Schedule) -> np.ndarray:
    """Return the learning rate of every step, and before them the one that the schedule starts from."""
    steps = np.arange(1, schedule.total_steps + 1)
    return np.append(schedule.pieces[0].level(), schedule.lr(steps))


def concave_memory(theta: np.ndarray, schedule: Schedule, steps: np.ndarray) -> np.ndarray:
    """Return laws.md 1.4 at the steps."""
    L0, A, a, B, C, b, g, p, z, T = theta
    u = rates(schedule) / schedule.peak_lr
    u[0] = 0.0
    progress = np.cumsum(u) / 1000
    clock = np.cumsum(np.where(u > 0, np.maximum(u, 1e-300) ** (1 - g), 0.0)) / 1000
    k = np.arange(schedule.warmup_steps + 1, u.size)
    k = k[(k > 1) & (u[k] != u[k - 1])]
    drop = (u[k - 1] ** p - u[k] ** p) * (progress[k] / 8) ** z
    annealed = []
    for t in steps:
        before = slice(0, np.searchsorted(k, t, side="right"))
        elapsed = clock[t] - clock[k[before] - 1]
        annealed.append(np.sum(drop[before] * (1 - (1 + C * elapsed / b) ** -b)))
    early = np.exp(-np.maximum(progress[steps] - progress[schedule.warmup_steps], 0.0) / 0.5)
    return L0 + A * progress[steps] ** -a - B * np.array(annealed) + T * early


def multi_power(theta: np.ndarray, schedule: Schedule, steps: np.ndarray, begin: int) -> np.ndarray:
    """Return laws.md 1.2 at the steps, with the drops behind step `begin`."""
    L0, A, alpha, B, C, beta, gamma = theta
    lr = rates(schedule)
    area = np.cumsum(np.append(0.0, lr[1:]))
    k = np.arange(begin + 1, lr.size)
    k = k[lr[k] != lr[k - 1]]
    drop = lr[k - 1] - lr[k]
    rate = C * np.maximum(lr[k], 1e-8 * schedule.peak_lr) ** -gamma
    annealed = []
    for t in steps:
        before = slice(0, np.searchsorted(k, t, side="right"))
        reached = rate[before] * (area[t] - area[k[before] - 1])
        annealed.append(np.sum(drop[before] * (1 - (1 + reached) ** -beta)))
    return L0 + A * area[steps] ** -alpha - B * np.array(annealed)


def _schedules() -> dict[str, Schedule]:
    found = {name: schedule_from_spec(multi_power_schedule(name)) for name in (*TRAIN, *TEST)}
    for shape, end_lr in (("sqrt", 0.0), ("linear", 0.0), ("cosine", 0.0), ("exponential", 3e-6)):
        decay = {"kind": "wsd", "total_steps": 24_000, "decay_start": 19_000, "decay_shape": shape}
        found[f"wsd_{shape}"] = schedule_from_spec(decay | {"end_lr": end_lr} | WARMUP)
    found["cosine_to_0"] = schedule_from_spec({"kind": "cosine", "total_steps": 24_000} | WARMUP)
    for every, name in ((50, "cosine_24000"), (128, "wsd_sqrt"), (50, "wsdcon_3"), (128, "wsdcon_3")):
        steps = np.append(np.arange(1, found[name].total_steps, every), found[name].total_steps)
        found[f"{name}_logged_every_{every}"] = from_log(steps, found[name].lr(steps))[0]
    return found


SCHEDULES = _schedules()
"""The nine of `multipowerlaw`, decays of every shape, and logs that a line is drawn through."""


def points(schedule: Schedule) -> np.ndarray:
    """Return steps all over a schedule and just behind its jumps, about a hundred."""
    wanted = [
        np.arange(2_176, schedule.total_steps, 256),
        [8_000, 8_001, 8_010, 20_003, schedule.total_steps],
    ]
    steps = np.unique(np.concatenate(wanted)).astype(np.int64)
    return steps[steps <= schedule.total_steps]

"""Runs cut into blocks of steps, over which the norm of the weights and the effective learning rate are summed.

Units: eta = learning rate / 1e-3, time in thousands of steps, so that their product is the sum of learning rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray, FloatArray, IntArray
from isoloss.errors import UnusableData
from isoloss.laws.drops import largest_fall
from isoloss.laws.law import Features
from isoloss.observations import Trained
from isoloss.schedules import Schedule

UNIT_LR = 1e-3
UNIT_STEPS = 1e3

BINS, POWER = 80, 0.5
"""A drop changes (eta / peak)^POWER by at most 1/BINS: the noise goes with a power of eta, and low rates count."""

MOST_BINS = 600
"""Drops at most, but for those that points and corners part."""

MOST_TURNS = 40
"""A learning rate that stops, rises or falls anew more often jitters: logs do."""

FINE = (0.05, 100)
"""How blocks lengthen behind a corner of the schedule: by this share of the distance, to last / this at most."""

COARSE = (0.2, 50)
"""The same for drops, of which every point sees all before it."""

SHORTEST = 4
"""Steps of the first block behind a corner."""

SAMPLES = 20_000
"""Steps at most at which the changes of a learning rate are looked for."""

PARTS = 8
"""Parts of a drop from which its mean position is worked out."""

USUAL_P, USUAL_G = 0.75, 0.25
"""The exponents at which that is done."""

FAINT = 1e-5
"""A drop whose mean learning rate is below this share of the peak takes no time on the clock."""

NOTHING = 1e-200
"""Stands for no learning rate, so that its logarithm exists; every power of it that occurs is nothing."""


@dataclass(frozen=True)
class NormBlocks(Features):
    """The blocks of all runs one after the other, the drops and points among them, and the pairs of these.

    Blocks (blocks,): `area` integral of eta, `square` integral of eta^2, `duration`, `resting` where eta is 0,
    `log_mean` of eta, `decay` 2 wd area, `elapsed` the sum of `decay` in the run up to the block's end, `first`
    whether a run begins with it; `longest` blocks of one run. Every run begins with an empty block; edge k is
    the end of block k.
    Points (points,): edge `at`, edge `begin` that its run begins at, `log_eta`, `peak` of its run.
    Drops (drops,): eta falls from `log_high` to `log_low` between edges `drop_begin` and `drop_end`, on the mean
    at the share 1/2 + `late` of the time I between; `sudden` is 1 where eta is next to nothing in that time.
    Corners (corners,): edge `corner` at which a drop begins or ends, positions `opens` and `closes` of the drop
    that begins and of the one that ends there; behind the last drop where there is none.
    Pairs (pairs,) of a point with a corner before it, by points: `pair_corner`, `pair_point` as positions in the
    corners and in `annealed`, the points with corners before them, whose pairs lie between two `pair_ends`, the
    first of which is 0; the drop that ends with such a point is `closing`.
    """

    area: FloatArray
    square: FloatArray
    duration: FloatArray
    resting: BoolArray
    log_mean: FloatArray
    decay: FloatArray
    elapsed: FloatArray
    first: BoolArray
    longest: int
    at: IntArray
    begin: IntArray
    log_eta: FloatArray
    peak: FloatArray
    drop_begin: IntArray
    drop_end: IntArray
    log_high: FloatArray
    log_low: FloatArray
    late: FloatArray
    sudden: FloatArray
    corner: IntArray
    opens: IntArray
    closes: IntArray
    annealed: IntArray
    pair_corner: IntArray
    pair_point: IntArray
    pair_ends: IntArray
    closing: IntArray
    n_peaks: int
    fallen: float


def norm_blocks(runs: Sequence[Trained]) -> NormBlocks:
    """Return the blocks of the runs, the points in their order.

    Raises UnusableData where a run does not state its weight decay.
    """
    for position, run in enumerate(runs, start=1):
        if run.weight_decay is None:
            reason = (
                f"run {position} of {len(runs)} states no weight_decay of the kind lr_scaled "
                "(w *= 1 - lr * weight_decay), and the norm of its weights depends on it"
            )
            raise UnusableData(reason=reason)
    parts = [_blocks_of(run) for run in runs]
    begins = np.cumsum([0, *(len(part["area"]) for part in parts)])[:-1]
    for begin, part in zip(begins, parts, strict=True):
        for name in ("at", "begin", "drop_begin", "drop_end"):
            part[name] += begin
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    corners = _corners(joined["drop_begin"], joined["drop_end"])
    pairs = _pairs(corners["corner"], joined["at"], joined["begin"])
    pairs["closing"] = _position(joined["drop_end"], joined["at"][pairs["annealed"]])
    arrays: dict[str, Any] = joined | corners | pairs
    return NormBlocks(
        n_points=len(joined["at"]),
        n_terms=max(len(joined["area"]), len(pairs["pair_corner"])),
        longest=max(len(part["area"]) for part in parts),
        n_peaks=_distinct(np.array([run.schedule.peak_lr for run in runs])),
        fallen=max(largest_fall(run) for run in runs),
        **arrays,
    )


def _corners(begin: IntArray, end: IntArray) -> dict[str, IntArray]:
    """Return the edges at which drops begin or end, with the positions of these drops."""
    corner = np.unique(np.concatenate([begin, end]))
    return {"corner": corner, "opens": _position(begin, corner), "closes": _position(end, corner)}


def _position(known: IntArray, asked: IntArray) -> IntArray:
    """Return where each asked value stands in the known, which increase; behind the last where it does not."""
    found = np.searchsorted(known, asked)
    return np.where(np.append(known, -1)[found] == asked, found, len(known))


def _pairs(corner: IntArray, at: IntArray, begin: IntArray) -> dict[str, IntArray]:
    """Pair every point, at edge `at`, with the corners before it in its run, which begins at edge `begin`."""
    first = np.searchsorted(corner, begin)
    count = np.searchsorted(corner, at) - first
    annealed = np.flatnonzero(count > 0)
    count = count[annealed]
    ends = np.cumsum([0, *count])
    point = np.repeat(np.arange(len(annealed)), count)
    pair_corner = first[annealed][point] + np.arange(len(point)) - ends[point]
    return {"annealed": annealed, "pair_corner": pair_corner, "pair_point": point, "pair_ends": ends}


def _blocks_of(run: Trained) -> dict[str, np.ndarray]:
    schedule = run.schedule
    turns, edges = block_edges(schedule, run.step)
    level = schedule.level_at(edges) / UNIT_LR
    steps = np.diff(edges, prepend=0)
    area = np.diff(schedule.area(edges), prepend=0.0)
    mean = area / np.maximum(steps / UNIT_STEPS, NOTHING)
    decay = 2 * float(run.weight_decay or 0.0) * area
    ends = np.searchsorted(edges, turns)
    falls = np.flatnonzero((np.diff(level[ends]) < 0) & (turns[:-1] >= schedule.warmup_steps))
    sudden = np.diff(schedule.area(turns))[falls] <= FAINT * schedule.peak_lr * np.diff(turns)[falls]
    log_level = np.log(np.maximum(level, NOTHING))
    at = np.searchsorted(edges, run.step)
    return {
        "area": area,
        "square": steps / UNIT_STEPS * (mean**2 + _variance(schedule, edges)),
        "duration": steps / UNIT_STEPS,
        "resting": mean <= 0,
        "log_mean": np.log(np.maximum(mean, NOTHING)),
        "decay": decay,
        "elapsed": np.cumsum(decay),
        "first": np.arange(len(area)) == 0,
        "at": at,
        "begin": np.zeros(len(at), dtype=np.int64),
        "log_eta": log_level[at],
        "peak": np.full(len(at), schedule.peak_lr / UNIT_LR),
        "drop_begin": ends[falls],
        "drop_end": ends[falls + 1],
        "log_high": log_level[ends[falls]],
        "log_low": log_level[ends[falls + 1]],
        "late": np.where(sudden, 0.0, _lateness(schedule, turns[falls], turns[falls + 1])),
        "sudden": sudden.astype(np.float64),
    }


def _lateness(schedule: Schedule, begin: IntArray, end: IntArray) -> FloatArray:
    """Return how much later than half of its time I each drop of e^p has its mean, as a share of that time.

    Worked out at the usual p and g, and without the norm, which hardly changes within a drop.
    """
    at = begin[:, None] + (end - begin)[:, None] * np.arange(PARTS + 1) // PARTS
    steps = np.diff(at)
    mean = np.maximum(np.diff(schedule.area(at)), 0.0) / np.maximum(steps, 1)
    passed = steps * mean ** (1 - USUAL_G) + NOTHING
    fallen = -np.diff(schedule.level_at(at) ** USUAL_P)
    clock = (np.cumsum(passed, axis=1) - passed / 2) / np.sum(passed, axis=1, keepdims=True)
    total = np.sum(fallen, axis=1)
    late = np.sum(fallen * (clock - 0.5), axis=1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, np.clip(late, -0.5, 0.5), 0.0)  # jitter within a slight drop has no position


def _variance(schedule: Schedule, edges: IntArray) -> FloatArray:
    """Return the variance of eta over the steps of each block, as of a straight line between its ends."""
    rise = (schedule.lr(edges[1:]) - schedule.lr(edges[:-1] + 1)) / UNIT_LR
    steps = np.diff(edges)
    return np.append(0.0, rise**2 / 12 * (steps + 1) / np.maximum(steps - 1, 1))


def block_edges(schedule: Schedule, points: IntArray) -> tuple[IntArray, IntArray]:
    """Return the steps that drops and that blocks begin and end at, from 0 to the last point.

    Every point is among both: what has fallen before it counts, and no more.
    """
    last = int(points[-1])
    changes, turning = _changes(schedule, last)
    corners = np.concatenate([schedule.starts, [schedule.warmup_steps], turning])
    corners = np.unique(corners[corners < last])
    spans = list(zip(corners.tolist(), [*corners[1:].tolist(), last], strict=True))
    fine, coarse = (
        [begin + _spread(end - begin, growth, last / parts) for begin, end in spans]
        for growth, parts in (FINE, COARSE)
    )
    turns = np.concatenate([corners, corners + 1, changes, points, *coarse])
    turns = turns[turns <= last]
    return np.unique(turns), np.unique(np.concatenate([turns, *fine]))


def _spread(length: int, growth: float, longest: float) -> IntArray:
    """Return distances 0 < x < length from a corner whose gaps grow by a share of the distance up to `longest`."""
    longest = max(SHORTEST, longest)
    turn = min(longest / growth, length)
    n_growing = int(np.log(max(turn * growth / SHORTEST, 1.0)) / growth)
    growing = SHORTEST / growth * np.exp(growth * np.arange(n_growing + 1))
    near = np.arange(SHORTEST, SHORTEST / growth, SHORTEST)
    even = np.arange(growing[-1] + longest, length, longest)
    distances = np.unique(np.concatenate([near, growing, even]).round().astype(np.int64))
    return distances[distances < length]


def _changes(schedule: Schedule, last: int) -> tuple[IntArray, IntArray]:
    """Return the steps at which the learning rate has changed by another part, and the few at which it turns."""
    at = _sampled(schedule, last)
    moved = np.diff((schedule.level_at(at) / schedule.peak_lr) ** POWER)
    changed = np.append(0.0, np.cumsum(np.abs(moved)))
    n_bins = min(int(np.ceil(changed[-1] * BINS)), MOST_BINS)
    ends = at[np.searchsorted(changed, changed[-1] * np.arange(1, n_bins) / max(n_bins, 1))]
    turning = at[1:-1][np.diff(np.sign(moved)) != 0]
    return ends, turning if len(turning) <= MOST_TURNS else at[:0]


def _sampled(schedule: Schedule, last: int) -> IntArray:
    """Return the steps 0 to `last` at which a learning rate is looked at: all, or many and the ends of pieces."""
    apart = max(1, last // SAMPLES)
    at = np.arange(0, last + 1, apart)
    if apart == 1:
        return at
    starts = schedule.starts[schedule.starts < last]
    at = np.sort(np.concatenate([at, starts, starts + 1, [last]]), kind="stable")  # sorted but for its end
    return at[np.diff(at, append=last + 1) > 0]


def _distinct(values: FloatArray) -> int:
    """Return how many values differ by more than a percent: logs jitter."""
    return 1 + int(np.sum(np.diff(np.log(np.sort(values))) > 0.01))

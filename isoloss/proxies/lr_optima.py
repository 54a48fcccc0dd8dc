"""The best learning rate at several widths: does it stay where it is? No torch until something is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput
from isoloss.proxies.across_seeds import FEWEST_SEEDS, FEWEST_WIDTHS, Spread, over_seeds
from isoloss.proxies.configuration import ProxyConfig

if TYPE_CHECKING:
    from isoloss.proxies.data import TokenData

NEAR = 2
"""How many grid points either side of the best one the parabola is put through."""

STAYS = 0.25
"""By which power of the width the best learning rate may go and be said to stay: over eight times the width that
is a factor of 1.7, within the flat part of a valley."""

MOST_RATES = 24
"""How many learning rates are tried at most at one width: a factor of 2^23 between the first and the last."""

Train = Callable[[ProxyConfig], float]
"""The final loss of a configuration in nats per token; not finite where it diverges."""


@dataclass(frozen=True)
class Valley:
    """Final losses of one width over learning rates: `lrs` (n,) rising, `losses` (seeds, n), infinite if diverged.

    `log_lr` is the natural logarithm of the best rate, with its interval over seeds, by a parabola in log(lr)
    through the mean losses near the best one; `loss` the least loss of that parabola.
    """

    width: int
    lrs: FloatArray
    losses: FloatArray
    log_lr: Spread
    loss: float

    @property
    def best(self) -> Spread:
        """The best learning rate with its interval."""
        low, at, high = (
            float(np.exp(one)) for one in (self.log_lr.lower, self.log_lr.value, self.log_lr.upper)
        )
        return Spread(at, low, high)

    def loss_at(self, lr: float) -> float | None:
        """Return the mean loss at the rate that was tried nearest to this one, None where none is near.

        Infinite where a seed diverged. Near is half of the way to the next one of the grid.
        """
        logs = np.log(self.lrs)
        far = np.abs(logs - math.log(lr))
        if far.min() > np.diff(logs).max() / 2 + 1e-9:
            return None
        return float(self.losses.mean(axis=0)[np.argmin(far)])


@dataclass(frozen=True)
class LrTransfer:
    """Valleys of several widths under one parametrisation, and by which `power` of the width their bottoms go.

    `regret` is what the rate next to the first width's best one costs at the last width, in nats per token beyond
    the least mean loss there, None where it was not tried; `seed_noise` is the standard deviation over seeds of the
    losses at the best rate tried.
    """

    parametrization: str
    valleys: tuple[Valley, ...]
    power: Spread
    regret: float | None
    seed_noise: float

    @property
    def stays(self) -> bool | None:
        """Whether the best learning rate stays; None where its power of the width is too uncertain."""
        if self.power.lies_within(-STAYS, STAYS):
            return True
        return False if self.power.lies_beyond(-STAYS, STAYS) else None

    @property
    def words(self) -> str:
        """The verdict in words."""
        first, last = self.valleys[0], self.valleys[-1]
        moved = last.best.value / first.best.value
        found = (
            f"from width {first.width} to {last.width} the best learning rate goes from {first.best.value:.2g} to "
            f"{last.best.value:.2g}, {moved:.2g} times as large: as the width to the power {self.power.words()}"
        )
        cost = "was not tried there" if self.regret is None else f"costs {self.regret:.3f} nats there"
        if self.regret == math.inf:
            cost = "diverges there"
        cost += f" (seeds differ by {self.seed_noise:.3f})"
        said = {True: "transfers", False: "does not transfer", None: "undecided, take more seeds"}[self.stays]
        return f"{said}: {found}; the narrow model's best {cost}"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each width: best learning rate with its interval, least loss, losses by rate."""
        return [
            {
                "width": one.width,
                "best_lr": one.best.value,
                "lower": one.best.lower,
                "upper": one.best.upper,
                "loss": one.loss,
                "losses": dict(zip(one.lrs.tolist(), one.losses.mean(axis=0).tolist(), strict=True)),
            }
            for one in self.valleys
        ]


def lr_transfer(
    config: ProxyConfig,
    data: TokenData,
    widths: Sequence[int] = (32, 64),
    seeds: Sequence[int] = (0, 1, 2),
    factor: float = 2.0,
    device: str = "cpu",
) -> LrTransfer:
    """Train every width at learning rates around the configuration's until the best one is inside the grid.

    All widths see the same numbers of tokens. Raises InvalidInput for fewer than two widths or seeds, a factor of
    1 or less, and where no learning rate of a width trains.
    """
    from isoloss.proxies.training import Training

    def train(one: ProxyConfig) -> float:
        training = Training.start(one, data, device)
        losses = training.advance()["val_loss"]
        return float(losses[-1]) if training.status == "finished" else math.inf

    return lr_transfer_by(config, train, widths, seeds, factor)


def lr_transfer_by(
    config: ProxyConfig, train: Train, widths: Sequence[int], seeds: Sequence[int], factor: float
) -> LrTransfer:
    """Return the transfer with what `train` gives for each configuration."""
    if not 1 < factor <= 100:
        raise InvalidInput(field="factor", reason="must lie above 1 and be at most 100")
    if len(set(widths)) < FEWEST_WIDTHS or len(set(widths)) < len(widths):
        raise InvalidInput(field="widths", reason=f"must be at least {FEWEST_WIDTHS} different ones")
    if len(set(seeds)) < FEWEST_SEEDS or len(set(seeds)) < len(seeds):
        raise InvalidInput(field="seeds", reason=f"must be at least {FEWEST_SEEDS} different ones")
    configs = [replace(config, width=width) for width in sorted(widths)]
    for seed in seeds:
        replace(config, seed=seed)
    valleys: list[Valley] = []
    for one in configs:
        near = [_nearest(done.best.value, config.peak_lr, factor) for done in (valleys[-1:] + valleys[:1])]
        valleys.append(swept(one, train, seeds, near or [config.peak_lr], factor))
    return transfer_of(config.parametrization, valleys)


def transfer_of(parametrization: str, valleys: Sequence[Valley]) -> LrTransfer:
    """Judge valleys of several widths, of the same seeds in the same order."""
    widths = np.log([one.width for one in valleys])
    across = widths - widths.mean()
    seeds = np.arange(len(valleys[0].losses), dtype=np.float64)

    def power(some: FloatArray) -> float:
        kept = [int(one) for one in some]
        bottoms = [bottom(one.lrs, one.losses[kept])[0] for one in valleys]
        return float(np.array(bottoms) @ across / (across @ across))

    first, last = valleys[0], valleys[-1]
    carried = last.loss_at(first.best.value)
    regret = None if carried is None else carried - float(last.losses.mean(axis=0).min())
    noise = float(np.mean([_seed_noise(one) for one in valleys]))
    return LrTransfer(parametrization, tuple(valleys), over_seeds(power, seeds), regret, noise)


def valley_of(width: int, losses: Mapping[float, Sequence[float]]) -> Valley:
    """Return the valley of a width from final losses of the same seeds by learning rate; infinite if diverged.

    Raises InvalidInput where the least mean loss is at the first or last rate, or fewer than two seeds are there.
    """
    lrs, table = np.array(sorted(losses)), _table(losses)
    side = missing_side(table)
    if side is not None:
        reason = f"the best learning rate of width {width} is at the {side} end of those that were tried"
        raise InvalidInput(field="lrs", reason=reason)
    best = over_seeds(lambda some: bottom(lrs, some)[0], table)
    return Valley(width, lrs, table, best, bottom(lrs, table)[1])


def bottom(lrs: FloatArray, losses: FloatArray) -> tuple[float, float]:
    """Return log(lr) and loss at the bottom of a parabola through the mean over seeds of losses (seeds, n).

    It is put through the best point and up to `NEAR` either side that did not diverge; where it has no bottom
    between those, the best point itself is returned.
    """
    mean = losses.mean(axis=0)
    best = int(np.argmin(mean))
    near = slice(max(0, best - NEAR), best + NEAR + 1)
    logs, values = np.log(lrs[near]), mean[near]
    kept = np.isfinite(values)
    logs, values = logs[kept], values[kept]
    if logs.size >= 3:
        curve, slope, level = np.polyfit(logs - np.log(lrs[best]), values, 2)
        if curve > 0 and logs[0] <= np.log(lrs[best]) - slope / (2 * curve) <= logs[-1]:
            at = -slope / (2 * curve)
            return float(np.log(lrs[best]) + at), float(level + slope * at / 2)
    return float(np.log(lrs[best])), float(mean[best])


def missing_side(losses: FloatArray) -> str | None:
    """Return at which end, lower or upper, a learning rate is missing for the best one to lie inside, or None.

    Inside means a point on either side, and two on the lower one, where losses rise slowly. Upwards a point that
    diverged is a side.
    """
    mean = losses.mean(axis=0)
    if not np.isfinite(mean).any():
        return "lower"
    best = int(np.argmin(mean))
    if best < NEAR:
        return "lower"
    above = mean[best + 1 :]
    has_side = above.size >= NEAR or (above.size and not np.isfinite(above).all())
    return None if has_side else "upper"


def swept(
    config: ProxyConfig, train: Train, seeds: Sequence[int], near: Sequence[float], factor: float
) -> Valley:
    """Train one width around the first of some rates, with more at either end until the best one is inside.

    The grid also reaches the other rates, so that what they cost is measured.
    """
    losses: dict[float, list[float]] = {}

    def add(lrs: Iterable[float]) -> None:
        for lr in lrs:
            losses[lr] = [train(replace(config, peak_lr=lr, seed=seed)) for seed in seeds]

    add(near[0] * factor**power for power in (-2, -1, 0, 1))
    while (side := missing_side(_table(losses))) is not None:
        if len(losses) >= MOST_RATES:
            reason = f"no learning rate between {min(losses):.2g} and {max(losses):.2g} is the best one"
            raise InvalidInput(field="peak_lr", reason=f"of width {config.width}: {reason}")
        add([min(losses) / factor if side == "lower" else max(losses) * factor])
    while max(losses) * math.sqrt(factor) < max(near):
        add([max(losses) * factor])
    while min(losses) / math.sqrt(factor) > min(near):
        add([min(losses) / factor])
    return valley_of(config.width, losses)


def _table(losses: Mapping[float, Sequence[float]]) -> FloatArray:
    """Losses (seeds, rates) by rising rate; infinite where they are not finite."""
    table = np.array([losses[lr] for lr in sorted(losses)], dtype=np.float64).T
    return np.where(np.isfinite(table), table, np.inf)


def _nearest(lr: float, centre: float, factor: float) -> float:
    """Return the rate of the grid around `centre` that lies nearest."""
    return float(centre * factor ** round(math.log(lr / centre, factor)))


def _seed_noise(valley: Valley) -> float:
    best = int(np.argmin(valley.losses.mean(axis=0)))
    return float(valley.losses[:, best].std(ddof=1))

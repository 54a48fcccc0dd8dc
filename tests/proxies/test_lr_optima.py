from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.lr_optima import (
    LrTransfer,
    bottom,
    lr_transfer,
    lr_transfer_by,
    missing_side,
    valley_of,
)
from tests.proxies.chain_tokens import chain_tokens

CONFIG = ProxyConfig(
    width=16,
    depth=1,
    head_width=8,
    base_width=16,
    sequence_length=16,
    peak_lr=0.01,
    batch_tokens=128,
    n_tokens=128 * 20,
    val_tokens=512,
    weight_decay=0.0,
)


def made_up(power: float, noise: float = 0.0) -> Callable[[ProxyConfig], float]:
    """Losses whose best rate goes as a power of the width, .02 at 32, and diverges at 16 times it."""

    def loss(one: ProxyConfig) -> float:
        off = math.log(one.peak_lr / (0.02 * (one.width / 32) ** power))
        drawn = np.random.default_rng([one.seed, one.width, round(1e6 * one.peak_lr)])
        own = 0.1 * np.random.default_rng(one.seed).normal()
        diverges = off > math.log(16)
        return math.inf if diverges else 3 + own + 0.05 * off**2 + noise * drawn.normal()

    return loss


def found_by(power: float, noise: float = 0.0, seeds: int = 3) -> LrTransfer:
    return lr_transfer_by(CONFIG, made_up(power, noise), (32, 64, 128, 256), range(seeds), 2.0)


@pytest.mark.parametrize("power", [0.0, -1.0, -3.0])
def test_the_best_rate_is_found_however_far_it_lies_from_the_first_guess(power: float) -> None:
    found = found_by(power)
    for valley in found.valleys:
        assert valley.best.value == pytest.approx(0.02 * (valley.width / 32) ** power, rel=1e-6)
        assert valley.lrs[0] < valley.best.value / 2
        assert valley.lrs[-1] > valley.best.value
    assert found.power.value == pytest.approx(power, abs=1e-9)


def test_what_seeds_have_in_common_does_not_widen_the_interval() -> None:
    found = found_by(0.0, noise=1e-4)
    assert found.seed_noise > 0.01
    assert found.power.upper - found.power.lower < 0.02


def test_the_verdict_is_in_words() -> None:
    assert found_by(0.0, 1e-3).words.startswith(
        "transfers: from width 32 to 256 the best learning rate goes from"
    )
    moves = found_by(-1.0, 1e-3)
    assert moves.stays is False
    assert moves.words.startswith("does not transfer")
    assert moves.regret == pytest.approx(0.05 * math.log(8) ** 2, rel=0.05)
    assert "the narrow model's best diverges there" in found_by(-2.0).words
    assert "undecided, take more seeds" in found_by(0.0, 0.15).words


def test_intervals_of_the_power_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for study in range(60):
        found = lr_transfer_by(
            CONFIG, made_up(0.0, 0.01), (32, 64, 128, 256), range(4 * study, 4 * study + 4), 2.0
        )
        held += found.power.lower <= 0 <= found.power.upper
    assert held >= 48


def test_a_parabola_gives_its_bottom_and_one_without_a_bottom_the_best_point() -> None:
    lrs = 2.0 ** np.arange(-3, 4)
    exact = 1 + 0.3 * (np.log(lrs) - 0.4) ** 2
    assert bottom(lrs, exact[None]) == pytest.approx((0.4, 1.0))
    diverging = np.where(lrs > 2, np.inf, exact)
    assert bottom(lrs, diverging[None]) == pytest.approx((0.4, 1.0))
    concave = np.array([[1.0, 0.98, 0.9, 0.98, 1.0]])
    assert bottom(2.0 ** np.arange(3), np.array([[1.0, 0.9, np.inf]]))[0] == pytest.approx(math.log(2))
    assert bottom(2.0 ** np.arange(5), concave)[0] == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("losses", "side"),
    [
        ([3, 2, 1, 2, 3], None),
        ([3, 2, 1, math.inf], None),
        ([3, 2, 1], "upper"),
        ([3, 2, 1, 2], "upper"),
        ([2, 1, 2, 3], "lower"),
        ([math.inf, math.inf], "lower"),
    ],
)
def test_a_grid_is_widened_where_the_best_rate_is_at_its_end(losses: list[float], side: str | None) -> None:
    assert missing_side(np.array([losses], dtype=np.float64)) == side


def test_a_valley_whose_bottom_is_not_inside_is_refused() -> None:
    with pytest.raises(InvalidInput, match="upper end"):
        valley_of(32, {0.1: [3.0, 3.0], 0.2: [2.0, 2.0], 0.4: [1.0, 1.0]})


def test_a_width_that_never_trains_is_refused_and_does_not_go_on_for_ever() -> None:
    with pytest.raises(InvalidInput, match="peak_lr: of width 32"):
        lr_transfer_by(CONFIG, lambda one: math.nan, (32, 64), (0, 1), 2.0)


@pytest.mark.parametrize(
    ("widths", "seeds", "factor", "said"),
    [
        ((32,), (0, 1), 2.0, "widths"),
        ((32, 32), (0, 1), 2.0, "widths"),
        ((32, 64), (0,), 2.0, "seeds"),
        ((32, 64), (0, 0), 2.0, "seeds"),
        ((32, 64), (0, 1), 1.0, "factor"),
        ((32, 64), (0, 1), math.nan, "factor"),
        ((32, 36), (0, 1), 2.0, "width"),
    ],
)
def test_too_little_to_compare_is_refused_before_anything_is_trained(
    widths: tuple[int, ...], seeds: tuple[int, ...], factor: float, said: str
) -> None:
    def never(one: ProxyConfig) -> float:
        raise AssertionError("nothing is to be trained")

    with pytest.raises(InvalidInput, match=said):
        lr_transfer_by(CONFIG, never, widths, seeds, factor)


def test_real_models_are_trained_at_every_width_rate_and_seed() -> None:
    config = replace(CONFIG, parametrization="mup")
    found = lr_transfer(config, chain_tokens(), widths=(16, 32), seeds=(0, 1), factor=4.0)
    assert [valley.width for valley in found.valleys] == [16, 32]
    assert all(valley.losses.shape == (2, valley.lrs.size) for valley in found.valleys)
    assert 1e-4 < found.valleys[1].best.value < 1

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.proxies import optimizers
from isoloss.proxies.across_seeds import Spread, over_seeds, power_of_width
from isoloss.proxies.checks import CoordinateCheck, checked_coordinates, coordinate_check
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.parametrization import ADAM_POWERS, WidthPowers
from tests.proxies.chain_tokens import chain_tokens

WIDTHS, SEEDS, STEPS = (16, 32, 64, 128), (0, 1, 2), 3
TINY = ProxyConfig(
    width=16,
    depth=1,
    head_width=8,
    base_width=16,
    sequence_length=16,
    peak_lr=0.003,
    batch_tokens=128,
    n_tokens=1280,
    val_tokens=64,
    weight_decay=0.0,
    parametrization="mup",
)


@pytest.fixture(scope="module")
def tokens() -> TokenData:
    return chain_tokens()


def checked(config: ProxyConfig, tokens: TokenData) -> CoordinateCheck:
    return coordinate_check(config, tokens, WIDTHS, SEEDS, STEPS)


def test_mup_passes_and_standard_parametrisation_fails(tokens: TokenData) -> None:
    under_mup, standard = (
        checked(replace(TINY, parametrization=kind), tokens) for kind in ("mup", "standard")
    )
    assert under_mup.passes is True
    assert under_mup.words.startswith("passes: after 3 steps over widths 16 to 128")
    assert "no proof" in under_mup.words
    assert standard.passes is False
    assert standard.words.startswith("fails")
    growing = {row["layer"] for row in standard.rows() if row["verdict"] == "grows"}
    assert {"logits", "blocks.0.query", "blocks.0.mlp_out"} <= growing
    narrow = [one.rows()[0]["change"][16] for one in (under_mup, standard)]
    assert narrow[0] == narrow[1]  # at the base width both are the same


@pytest.mark.parametrize(
    ("powers", "layer", "verdict"),
    [
        ({"hidden": 0.0}, "blocks.0.query", "grows"),  # hidden rates are not scaled
        ({"hidden": -0.5}, "blocks.0.mlp_out", "grows"),  # ... by the root of the width alone
        ({"embedding": 1.0}, "embedding", "grows"),  # those of the embedding are, as under SGD
        ({"hidden": -2.0}, "blocks.0.query", "shrinks"),  # hidden matrices stop learning
    ],
)
def test_a_broken_rule_is_caught(
    powers: Mapping[str, float],
    layer: str,
    verdict: str,
    tokens: TokenData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = WidthPowers(lr=MappingProxyType({**ADAM_POWERS.lr, **powers}), decay=ADAM_POWERS.decay)
    row = replace(optimizers.OPTIMIZERS["adamw"], mup=broken)
    monkeypatch.setitem(optimizers.OPTIMIZERS, "adamw", row)
    found = checked(TINY, tokens)
    assert found.passes is False
    assert found.words.startswith("fails")
    assert {one.name: one.verdict for one in found.layers}[layer] == verdict


@pytest.mark.parametrize("name", ["sgd", "lion", "muon"])
def test_the_rules_of_other_optimisers_do_not_fail(name: str, tokens: TokenData) -> None:
    peak_lr = {"sgd": 0.05, "lion": 0.003, "muon": 0.01}[name]
    found = checked(replace(TINY, optimizer=name, peak_lr=peak_lr, clip_norm=None), tokens)
    assert {layer.verdict for layer in found.layers} <= {"steady", "undecided"}


def test_the_verdict_follows_from_what_is_measured_of_each_seed() -> None:
    def verdict(power: float, noise: float) -> CoordinateCheck:
        drawn = np.random.default_rng(0)
        return checked_coordinates(
            TINY,
            WIDTHS,
            (0, 1, 2, 3),
            5,
            lambda one: {"x": one.width**power * np.exp(noise * drawn.normal())},
        )

    assert verdict(0.0, 0.01).passes is True
    assert verdict(0.5, 0.01).passes is False
    assert verdict(-0.8, 0.01).passes is False
    unsure = verdict(0.2, 0.1)
    assert unsure.passes is None
    assert "take more seeds" in unsure.words


def test_intervals_of_powers_hold_the_truth_about_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(1)
    widths = np.array([32.0, 64.0, 128.0, 256.0])
    held = 0
    for _ in range(400):
        noise = 0.1 * drawn.normal(size=(4, 4)) + 0.2 * drawn.normal(size=(4, 1))
        found = power_of_width(widths, np.exp(noise) * widths**0.3)
        held += found.lower <= 0.3 <= found.upper
    assert 0.86 <= held / 400 <= 0.94


def test_an_interval_over_seeds_is_that_of_a_mean_by_students_t() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    found = over_seeds(lambda some: float(some.mean()), values)
    half = 2.9199855803537251 * values.std(ddof=1) / np.sqrt(3)
    assert found == Spread(*(pytest.approx(7 / 3 + sign * half) for sign in (0, -1, 1)))


@pytest.mark.parametrize(
    ("widths", "seeds", "steps", "said"),
    [
        ((16,), (0, 1), 2, "widths"),
        ((), (0, 1), 2, "widths"),
        ((16, 16), (0, 1), 2, "widths"),
        ((16, 32), (0,), 2, "seeds"),
        ((16, 32), (), 2, "widths"),
        ((16, 32), (0, 1), 0, "steps"),
        ((16, 32), (0, 1), True, "steps"),
        ((16, 20), (0, 1), 2, "width"),
    ],
)
def test_a_check_of_too_little_is_refused(
    widths: tuple[int, ...], seeds: tuple[int, ...], steps: int, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        checked_coordinates(TINY, widths, seeds, steps, lambda one: {"x": 1.0})

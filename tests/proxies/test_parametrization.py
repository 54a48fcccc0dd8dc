"""The table of width rules, and the groups and weights that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from isoloss.proxies import Training
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.model import Transformer
from isoloss.proxies.parametrization import (
    ADAM_POWERS,
    DECAYED,
    EMBEDDING_SD,
    INIT_POWERS,
    ROLES,
    SGD_POWERS,
    Parametrization,
)
from isoloss.proxies.updates import Updates
from tests.proxies.small import small_config, small_data

MUP = Parametrization("mup", width=256, base_width=64)
STANDARD = Parametrization("standard", width=256, base_width=64)


def test_the_tables_know_every_role() -> None:
    for table in (ADAM_POWERS.lr, SGD_POWERS.lr, INIT_POWERS["standard"], INIT_POWERS["mup"]):
        assert set(table) == set(ROLES)


def test_mup_sets_rates_as_published() -> None:
    """At four times the base width; arXiv 2203.03466, table 8, and laws.md 6."""
    adam = {role: MUP.lr_factor(role, ADAM_POWERS) for role in ROLES}
    assert adam == {"embedding": 1, "hidden": 1 / 4, "head": 1, "tied": 1, "vector": 1}
    sgd = {role: MUP.lr_factor(role, SGD_POWERS) for role in ROLES}
    assert sgd == {"embedding": 4, "hidden": 1, "head": 4, "tied": 4, "vector": 4}
    decay = {role: MUP.decay_factor(role, "lr_scaled", ADAM_POWERS, True) for role in ROLES}
    assert decay == {"embedding": 0, "hidden": 2, "head": 0, "tied": 0, "vector": 0}
    assert MUP.output_multiplier == 1 / 4
    assert MUP.init_sd("hidden", 256) == pytest.approx(256**-0.5)
    assert MUP.init_sd("hidden", 704) == pytest.approx(704**-0.5)
    assert MUP.init_sd("head", 256) == pytest.approx(64**-0.5)
    assert MUP.attention_scale(64, base_head_width=32) == math.sqrt(32) / 64


def test_an_independent_decay_goes_as_the_rate_times_the_decay() -> None:
    assert MUP.decay_factor("hidden", "independent", ADAM_POWERS, True) == pytest.approx(1 / 2)


def test_a_decay_that_the_timescale_law_has_set_is_not_scaled() -> None:
    for kind in ("lr_scaled", "independent", "l2"):
        assert MUP.decay_factor("hidden", kind, ADAM_POWERS, False) == 1
        assert MUP.decay_factor("embedding", kind, ADAM_POWERS, False) == 0


def test_standard_has_one_rate_and_decays_matrices_alone() -> None:
    assert {STANDARD.lr_factor(role, None) for role in ROLES} == {1}
    decayed = {role for role in ROLES if STANDARD.decay_factor(role, "lr_scaled", None, True)}
    assert decayed == set(ROLES) - {"vector"} == set(DECAYED["standard"])
    assert STANDARD.output_multiplier == 1
    assert STANDARD.init_sd("head", 256) == pytest.approx(256**-0.5)
    assert STANDARD.attention_scale(64, base_head_width=32) == 1 / 8


@pytest.mark.parametrize("role", ROLES)
def test_both_agree_at_the_base_width(role: str) -> None:
    base, other = Parametrization("mup", 64, 64), Parametrization("standard", 64, 32)
    assert base.init_sd(role, 64) == pytest.approx(other.init_sd(role, 64), rel=1e-15)
    assert base.lr_factor(role, ADAM_POWERS) == base.lr_factor(role, SGD_POWERS) == 1
    assert base.output_multiplier == 1
    assert base.attention_scale(32, 32) == pytest.approx(other.attention_scale(32, 32), rel=1e-15)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("tied_head", [False, True])
def test_the_first_steps_at_the_base_width_are_those_of_standard(optimizer: str, tied_head: bool) -> None:
    """Without decay, which mup leaves out of embeddings and head, bit for bit."""
    same = {"optimizer": optimizer, "tied_head": tied_head, "weight_decay": 0.0, "norm_gain": True}
    curves = [
        Training.start(small_config(parametrization=kind, **same), small_data()).advance(4)
        for kind in ("standard", "mup")
    ]
    assert curves[0] == curves[1]


def test_with_decay_the_first_step_at_the_base_width_differs_in_embedding_and_head_alone() -> None:
    weights = {}
    for kind in ("standard", "mup"):
        training = Training.start(small_config(parametrization=kind, weight_decay=0.5), small_data())
        before = {name: weight.clone() for name, _, weight in training.model.roles()}
        training.advance(1)
        weights[kind] = {name: (role, weight, before[name]) for name, role, weight in training.model.roles()}
    lr = float(small_config().lr_schedule().lr([1])[0])
    for name, (role, mup, before) in weights["mup"].items():
        standard = weights["standard"][name][1]
        if role == "hidden":
            assert torch.equal(mup, standard)
        else:
            torch.testing.assert_close(mup - standard, lr * 0.5 * before, rtol=0, atol=1e-6)


def test_a_group_for_each_role_carries_its_rate_and_decay() -> None:
    config = small_config(parametrization="mup", width=128, base_width=32, norm_gain=True, weight_decay=0.1)
    groups = groups_of(config)
    peak = config.peak_lr
    assert {role: group["lr"] for role, group in groups.items()} == {
        "embedding": peak,
        "hidden": peak / 4,
        "head": peak,
        "vector": peak,
    }
    assert {role: group["weight_decay"] for role, group in groups.items()} == {
        "embedding": 0,
        "hidden": 0.2,
        "head": 0,
        "vector": 0,
    }


def test_tied_weights_are_in_one_group_once() -> None:
    groups = groups_of(small_config(tied_head=True))
    assert set(groups) == {"tied", "hidden"}
    assert len(groups["tied"]["params"]) == 1


@pytest.mark.parametrize("kind", ["standard", "mup"])
@pytest.mark.parametrize("tied_head", [False, True])
def test_initial_weights_have_the_deviations_of_the_table(kind: str, tied_head: bool) -> None:
    """Matrices of 16,000 numbers or more: their deviation is known to 2 percent."""
    config = small_config(width=128, depth=2, parametrization=kind, base_width=32, tied_head=tied_head)
    for name, role, weight in Transformer(config, 256).roles():
        sd = {"hidden": weight.shape[1] ** -0.5, "embedding": EMBEDDING_SD}.get(
            role, 32**-0.5 if kind == "mup" else 128**-0.5
        )
        if name.endswith("_out.weight"):
            sd /= 2  # sqrt(2 depth)
        assert float(weight.detach().std()) == pytest.approx(sd, rel=0.03), name


def groups_of(config: ProxyConfig) -> Mapping[str, dict[str, object]]:
    groups = Updates(config, Transformer(config, 256)).optimizer.param_groups
    return {group["role"]: group for group in groups}

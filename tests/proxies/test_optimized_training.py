from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from isoloss.errors import InvalidInput
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.model import Transformer
from isoloss.proxies.optimizers import OPTIMIZERS
from isoloss.proxies.training import Training
from isoloss.proxies.updates import Updates
from tests.proxies.chain_tokens import VOCABULARY, chain_tokens

TINY = ProxyConfig(
    width=16,
    depth=1,
    head_width=8,
    sequence_length=16,
    peak_lr=0.01,
    batch_tokens=128,
    n_tokens=128 * 60,
    val_tokens=256,
    norm_gain=True,
    clip_norm=None,
)
PEAK_LR = {"sgd": 0.3, "lars": 10.0, "lamb": 0.1, "novograd": 0.1, "sgd_sai": 0.05}
"""Where it is not 0.01."""


@pytest.fixture(scope="module")
def tokens() -> TokenData:
    return chain_tokens()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_falls(name: str, tokens: TokenData) -> None:
    config = replace(TINY, optimizer=name, peak_lr=PEAK_LR.get(name, 0.01))
    training = Training.start(config, tokens)
    losses = training.advance()["loss"]
    assert training.status == "finished"
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["lr_scaled", "independent", "l2"])
def test_a_decay_is_of_the_kind_that_is_said(name: str, kind: str) -> None:
    lr, decay, step_lr = 0.01, 0.3, 0.004
    decayed = replace(TINY, optimizer=name, peak_lr=lr, weight_decay=decay, weight_decay_kind=kind)
    share = {"lr_scaled": step_lr * decay, "independent": decay * step_lr / lr, "l2": 0.0}[kind]
    model, by_hand = (Transformer(decayed, VOCABULARY) for _ in range(2))
    updates, plain = Updates(decayed, model), Updates(replace(decayed, weight_decay=0.0), by_hand)
    for step in range(2):
        for (_, role, weight), (_, _, own) in zip(model.roles(), by_hand.roles(), strict=True):
            drawn = torch.Generator().manual_seed(step)
            weight.grad = 0.01 * torch.randn(weight.shape, generator=drawn)
            own.grad = weight.grad.clone()
            if role != "vector" and kind == "l2":
                own.grad.add_(own.detach(), alpha=decay)
            elif role != "vector":
                own.data.mul_(1 - share)
        updates.apply(step_lr)
        plain.apply(step_lr)
    for (name_of, _, weight), (_, _, own) in zip(model.roles(), by_hand.roles(), strict=True):
        torch.testing.assert_close(weight, own, rtol=1e-5, atol=1e-6, msg=f"{name_of} of {name}")


def test_mup_is_refused_where_no_rule_is_published_for_an_optimiser() -> None:
    ruled = {name for name, row in OPTIMIZERS.items() if row.mup is not None}
    assert ruled == {"adamw", "sgd", "lion", "muon"}
    for name in OPTIMIZERS:
        wide = {"width": 32, "base_width": 16, "parametrization": "mup", "optimizer": name}
        if name in ruled:
            assert replace(TINY, **wide, scale_weight_decay=False).parametrization == "mup"
            continue
        with pytest.raises(InvalidInput, match=name):
            replace(TINY, **wide)


@pytest.mark.parametrize(("name", "hidden"), [("adamw", 1 / 4), ("lion", 1 / 4), ("muon", 1 / 2), ("sgd", 1)])
def test_hidden_learning_rates_go_with_the_width_as_their_optimisers_updates_ask(
    name: str, hidden: float
) -> None:
    config = replace(
        TINY, width=64, base_width=16, parametrization="mup", optimizer=name, scale_weight_decay=False
    )
    assert math.isclose(config.lr_factor("hidden"), hidden)
    assert config.lr_factor("embedding") == (4 if name == "sgd" else 1)

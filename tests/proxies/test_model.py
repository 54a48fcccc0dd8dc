"""The model: what its parts compute, against forms written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isoloss.hooks.models import read_model
from isoloss.proxies.model import Block, Transformer, rotate, rotation
from isoloss.proxies.shapes import mlp_width
from tests.proxies.small import small_config


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(256, (3, 33), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied_head", [False, True])
@pytest.mark.parametrize("norm_gain", [False, True])
def test_parameters_are_counted_without_a_model(tied_head: bool, norm_gain: bool) -> None:
    """The same numbers as the hooks read off the model itself."""
    config = small_config(width=64, depth=3, tied_head=tied_head, norm_gain=norm_gain)
    counted, read = config.n_params(1000), read_model(Transformer(config, 1000))
    assert counted.total == read["n_params_total"]
    assert counted.non_embedding == read["n_params_non_embedding"]


@pytest.mark.parametrize("width", [32, 64, 96, 256])
def test_every_matrix_grows_in_proportion_to_the_width(width: int) -> None:
    assert mlp_width(width) / width == 2.75


def test_a_token_is_predicted_from_those_before_it_alone(windows: Tensor) -> None:
    model = Transformer(small_config(depth=2), 256)
    changed = windows[:, :-1].clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 256
    before, after = model(windows[:, :-1]), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_attention_is_softmax_of_scaled_products_of_rotated_heads() -> None:
    config = small_config(width=64, parametrization="mup", base_width=32, base_head_width=32)
    block = Block(config)
    x = torch.randn(2, 5, 64)
    cosine, sine = rotation(5, 16)
    query, key, value = (matrix(x).reshape(2, 5, 4, 16) for matrix in (block.query, block.key, block.value))
    found = torch.zeros(2, 5, 4, 16)
    for batch in range(2):
        for head in range(4):
            for at in range(5):
                q = turned(query[batch, at, head], at)
                scores = torch.stack([q @ turned(key[batch, past, head], past) for past in range(at + 1)])
                weights = torch.softmax(scores * math.sqrt(32) / 16, 0)
                found[batch, at, head] = weights @ value[batch, : at + 1, head]
    torch.testing.assert_close(block.attend(x, cosine, sine), found.flatten(2))


def turned(x: Tensor, position: int) -> Tensor:
    """A head's features as complex numbers, each turned by its angle (arXiv 2104.09864, equation 34)."""
    half = x.shape[0] // 2
    angles = torch.tensor([position * 10_000 ** (-2 * k / x.shape[0]) for k in range(half)])
    pairs = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones(half), angles)
    return torch.cat([pairs.real, pairs.imag])


def test_rotated_products_hang_on_the_distance_alone() -> None:
    cosine, sine = rotation(50, 16)
    query, key = torch.randn(16), torch.randn(16)
    at = [
        rotate(query, cosine[position], sine[position])
        @ rotate(key, cosine[position - 7], sine[position - 7])
        for position in (7, 30, 49)
    ]
    torch.testing.assert_close(torch.stack(at), at[0].expand(3), rtol=1e-4, atol=1e-4)


def test_a_rotation_is_differentiated_once_and_twice() -> None:
    cosine, sine = (part.double() for part in rotation(5, 4))
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: rotate(given, cosine, sine).square(), x)
    assert torch.autograd.gradgradcheck(lambda given: rotate(given, cosine, sine).square(), x)


def test_the_mlp_is_a_gated_one() -> None:
    block = Block(small_config())
    with torch.no_grad():
        block.attention_out.weight.zero_()
    x = torch.randn(2, 5, 32)
    normed = x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    hidden = torch.nn.functional.silu(normed @ block.gate.weight.T) * (normed @ block.up.weight.T)
    torch.testing.assert_close(block(x, *rotation(5, 16)), x + hidden @ block.mlp_out.weight.T)


def test_the_logits_are_multiplied_under_mup(windows: Tensor) -> None:
    narrow = small_config(width=128, parametrization="mup", base_width=32)
    model = Transformer(narrow, 256)
    logits = model(windows[:, :-1])
    model.output_multiplier = 1.0
    torch.testing.assert_close(logits, model(windows[:, :-1]) / 4)


def test_a_model_begins_near_guessing(windows: Tensor) -> None:
    loss = Transformer(small_config(), 256).summed_loss(windows).detach() / (3 * 32)
    assert float(loss) == pytest.approx(math.log(256) + 0.5, abs=0.3)  # logits of variance 1


def test_the_seed_draws_the_weights() -> None:
    first, again, other = (Transformer(small_config(seed=seed), 256).embedding.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput
from isoloss.proxies.optimizers import OPTIMIZERS, build_optimizer, checked_options, optimizer_row
from tests.proxies.one_step import LR, ONE_STEP, RANK, UPDATE_EVERY, scale

SHAPES = {"embedding": (20, 8), "hidden": (16, 8), "hidden_wide": (8, 16), "head": (20, 8), "vector": (8,)}
FOR_TEST: Mapping[str, dict[str, Any]] = {
    "galore": {"rank": RANK, "update_every": UPDATE_EVERY},
    "fira": {"rank": RANK, "update_every": UPDATE_EVERY},
}


def weights() -> dict[str, torch.nn.Parameter]:
    drawn = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=drawn)) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Gradients of each weight; those of the second step are nearly across the rows of the weights."""
    drawn = torch.Generator().manual_seed(100 + step)
    found = {name: torch.randn(shape, generator=drawn) for name, shape in SHAPES.items()}
    if step == 1:
        w = weights()["hidden"].detach()
        g = found["hidden"]
        found["hidden"] = g - w * (w * g).sum(1, keepdim=True) / w.square().sum(1, keepdim=True)
    return found


def optimizer_of(
    name: str, of: Mapping[str, torch.nn.Parameter], options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    groups = [
        {"params": [weight], "role": role.removesuffix("_wide"), "lr": LR, "weight_decay": 0.0}
        for role, weight in of.items()
    ]
    return build_optimizer(name, groups, FOR_TEST.get(name, {}) if options is None else options)


def take(
    optimizer: torch.optim.Optimizer, of: Mapping[str, torch.nn.Parameter], steps: Sequence[int]
) -> None:
    for step in steps:
        for name, gradient in gradients(step).items():
            of[name].grad = gradient.clone()
        optimizer.step()


def after(name: str, steps: Sequence[int]) -> dict[str, FloatArray]:
    of = weights()
    take(optimizer_of(name, of), of, steps)
    return {role: weight.detach().double().numpy() for role, weight in of.items()}


def in_numpy(role: str, steps: Sequence[int]) -> tuple[FloatArray, list[FloatArray]]:
    return weights()[role].detach().double().numpy(), [gradients(one)[role].double().numpy() for one in steps]


@pytest.mark.parametrize("name", ONE_STEP)
@pytest.mark.parametrize("role", ["hidden", "hidden_wide", "vector"])
def test_four_steps_are_those_of_the_paper_in_numpy(name: str, role: str) -> None:
    expected = ONE_STEP[name](*in_numpy(role, range(4)))
    moved = np.abs(expected - in_numpy(role, [])[0]).max()
    assert np.abs(after(name, range(4))[role] - expected).max() < 2e-4 * moved + 5e-7  # single precision


@pytest.mark.parametrize("role", ["embedding", "head"])
def test_scale_has_momentum_in_the_output_layer_alone_and_norms_an_embedding_by_feature(role: str) -> None:
    np.testing.assert_allclose(
        after("scale", range(4))[role], scale(*in_numpy(role, range(4)), role), atol=1e-5
    )


def test_scale_by_the_formula_of_the_paper_is_scale_by_the_mean_square_at_another_rate() -> None:
    by_rms, by_l2 = weights(), weights()
    take(optimizer_of("scale", by_rms), by_rms, [0])
    take(optimizer_of("scale", by_l2, {"column_norm": "l2"}), by_l2, [0])
    moved = [one["hidden"].detach() - weights()["hidden"].detach() for one in (by_rms, by_l2)]
    torch.testing.assert_close(moved[0], moved[1] * math.sqrt(8), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("role", ["hidden", "hidden_wide"])
def test_muon_is_torchs_muon_on_hidden_matrices(role: str) -> None:
    own = torch.nn.Parameter(weights()[role].detach().clone())
    theirs = torch.optim.Muon([own], lr=LR, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        own.grad = gradients(step)[role]
        theirs.step()
    # Both make updates orthogonal in bfloat16, in another order.
    found = after("muon", range(4))[role]
    moved = np.abs(found - in_numpy(role, [])[0]).max()
    assert np.abs(found - own.detach().double().numpy()).max() < 0.03 * moved


@pytest.mark.parametrize("name", ["muon", "galore", "fira"])
@pytest.mark.parametrize("role", ["embedding", "head", "vector"])
def test_what_is_no_hidden_matrix_is_given_adam(name: str, role: str) -> None:
    second = 0.95 if name == "muon" else 0.999
    expected = ONE_STEP["galore"].__globals__["adam"](*in_numpy(role, range(4)), b2=second)
    np.testing.assert_allclose(after(name, range(4))[role], expected, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_optimiser_goes_on_bit_for_bit_and_is_read_without_running_code(name: str) -> None:
    kept = weights()
    whole = optimizer_of(name, kept)
    take(whole, kept, range(4))
    file = io.BytesIO()
    torch.save({"weights": kept, "optimizer": whole.state_dict()}, file)
    take(whole, kept, range(4, 8))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = weights()
    for role, weight in again.items():
        weight.data.copy_(saved["weights"][role])
    resumed = optimizer_of(name, again)
    resumed.load_state_dict(saved["optimizer"])
    take(resumed, again, range(4, 8))
    assert all(torch.equal(kept[role], again[role]) for role in SHAPES)


def test_an_unknown_optimiser_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as refused:
        optimizer_row("adamax")
    assert all(name in str(refused.value) for name in OPTIMIZERS)
    assert len(OPTIMIZERS) == 13


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lion", {"eps": 1e-8}, "optimizer_options.eps: lion has no such option; it has beta1, beta2"),
        ("adamp", {"beta1": 1.0}, "optimizer_options.beta1"),
        ("galore", {"rank": -1}, "optimizer_options.rank"),
        ("galore", {"rank": 2.5}, "optimizer_options.rank"),
        ("galore", {"update_every": 0}, "optimizer_options.update_every"),
        ("muon", {"ns_steps": True}, "optimizer_options.ns_steps"),
        ("muon", {"ns_steps": 10**6}, "optimizer_options.ns_steps"),
        ("lamb", {"eps": math.nan}, "optimizer_options.eps"),
        ("scale", {"column_norm": "l1"}, "optimizer_options.column_norm"),
        ("sgd", {"nesterov": 1}, "optimizer_options.nesterov"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checked_options(name, options)


def test_a_rank_of_nothing_is_a_quarter_of_the_smaller_side_and_none_is_above_it() -> None:
    for given, rank in ((0, 2), (100, 8), (3, 3)):
        optimizer = optimizer_of("galore", weights(), {"rank": given})
        ranks = {group["role"]: group.get("rank") for group in optimizer.param_groups}
        assert ranks == {"embedding": None, "hidden": rank, "head": None, "vector": None}

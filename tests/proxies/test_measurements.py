from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from isoloss.errors import InvalidInput
from isoloss.laws.noise_scale import simple_noise_scale
from isoloss.observations.point_columns import COLUMN_NAME, MAX_FREE_COLUMNS
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.gradient_parts import parts_of
from isoloss.proxies.measurement_names import MEASUREMENTS
from isoloss.proxies.measurements import MEASURES, Moment, measured
from isoloss.proxies.model import Transformer
from isoloss.proxies.training import Training
from tests.proxies.chain_tokens import VOCABULARY, chain_tokens

SMALL = ProxyConfig(
    width=8,
    depth=1,
    head_width=8,
    sequence_length=8,
    peak_lr=0.01,
    batch_tokens=64,
    n_tokens=64 * 10,
    val_tokens=64,
    tied_head=True,
    measure=tuple(MEASUREMENTS),
    measure_every=5,
)


@pytest.fixture(scope="module")
def tokens() -> TokenData:
    return chain_tokens()


@pytest.fixture
def moment() -> Moment:
    return moment_of(SMALL)


def moment_of(config: ProxyConfig) -> Moment:
    drawn = torch.Generator().manual_seed(1)
    windows = torch.randint(VOCABULARY, (8, 9), generator=drawn)
    model = Transformer(replace(config, seed=3), VOCABULARY)
    made = Moment(config, 1, model, windows, micro_sequences=8, lr=0.01, generator=drawn)
    made.loss(windows).backward()
    return made


@pytest.fixture(scope="module")
def columns(tokens: TokenData) -> dict[str, list[Any]]:
    return Training.start(SMALL, tokens).advance()


def single_gradients(moment: Moment) -> torch.Tensor:
    """Gradients (sequences, parameters) of each sequence, by a loop."""
    found = []
    for k in range(len(moment.windows)):
        gradients = torch.autograd.grad(moment.loss(moment.windows[k : k + 1]), moment.weights)
        found.append(torch.cat([one.flatten() for one in gradients]).double())
    return torch.stack(found)


def test_norms_are_those_of_the_batch(moment: Moment) -> None:
    whole = single_gradients(moment).mean(0)
    assert math.isclose(measured("grad_norm", moment)["grad_norm"], float(whole.norm()), rel_tol=1e-5)
    assert math.isclose(
        measured("grad_norm_l1", moment)["grad_norm_l1"], float(whole.abs().sum()), rel_tol=1e-5
    )


def test_the_noise_scale_is_that_of_gradients_of_each_sequence_by_a_loop(moment: Moment) -> None:
    single = single_gradients(moment)
    variance = float(single.var(dim=0, correction=1).sum())
    signal = float(single.mean(0).square().sum()) - variance / 8
    found = measured("grad_noise_scale", moment)
    expected = 8 * variance / signal if signal > 0 else None  # of a sequence, in its eight tokens
    assert found["grad_noise_scale"] == (None if expected is None else pytest.approx(expected, rel=1e-3))
    norms = [np.array([found[f"grad_norm_{one}"]]) for one in ("small", "big")]
    at_once = simple_noise_scale(*norms, found["batch_small_tokens"], found["batch_big_tokens"])
    assert at_once == (None if expected is None else pytest.approx(expected, rel=1e-3))
    assert (found["batch_small_tokens"], found["batch_big_tokens"]) == (8, 64)


def test_the_norm_test_is_that_of_gradients_of_each_sequence_by_a_loop(moment: Moment) -> None:
    single = single_gradients(moment)
    variance = float(single.var(dim=0, correction=1).sum())
    least_eta = math.sqrt(variance / 8) / float(single.mean(0).norm())
    assert measured("norm_test", moment)["norm_test"] == pytest.approx(least_eta, rel=1e-4)


def test_singular_values_are_those_of_every_matrix(moment: Moment) -> None:
    found = measured("singular_values", moment)
    expected = {
        f"singular_value/{name.removesuffix('.weight')}": float(np.linalg.norm(weight.detach().numpy(), 2))
        for name, weight in moment.model.named_parameters()
        if weight.ndim == 2
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert "singular_value/blocks.0.query" in found


def test_many_matrices_share_columns_so_that_a_run_may_have_them() -> None:
    model = Transformer(replace(SMALL, depth=20), VOCABULARY)
    windows = torch.zeros((1, 9), dtype=torch.int64)
    found = measured("singular_values", Moment(SMALL, 1, model, windows, 1, 0.01, torch.Generator()))
    assert set(found) == {
        f"singular_value/{name}"
        for name in (
            "embedding",
            "blocks.query",
            "blocks.key",
            "blocks.value",
            "blocks.attention_out",
            "blocks.gate",
            "blocks.up",
            "blocks.mlp_out",
        )
    }
    largest = max(float(torch.linalg.svdvals(block.gate.weight.detach())[0]) for block in model.blocks)
    assert found["singular_value/blocks.gate"] == pytest.approx(largest)


def test_the_top_eigenvalue_is_that_of_the_whole_hessian_at_every_batch() -> None:
    moment = moment_of(replace(SMALL, width=4, head_width=4))
    found = measured("hessian", moment)
    assert list(found) == ["hessian/8", "hessian/16", "hessian/32", "hessian/64"]
    for n_tokens in (8, 64):
        assert found[f"hessian/{n_tokens}"] == pytest.approx(
            whole_hessian_top(moment, n_tokens // 8), rel=2e-3
        )


def whole_hessian_top(moment: Moment, n_sequences: int) -> float:
    """The largest eigenvalue of the full Hessian by torch, in double precision."""
    model = Transformer(moment.config, VOCABULARY).double()
    named = dict(moment.model.named_parameters())
    windows = moment.windows[:n_sequences]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([weight.numel() for weight in named.values()])
        at = {
            name: part.view(weight.shape) for (name, weight), part in zip(named.items(), parts, strict=True)
        }
        logits = functional_call(model, at, (windows[:, :-1],))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    flat = torch.cat([weight.detach().flatten() for weight in named.values()]).double()
    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(loss, flat)
    return float(torch.linalg.eigvalsh(hessian)[-1])


@pytest.mark.parametrize("name", MEASURES)
def test_a_measurement_leaves_weights_gradients_and_random_numbers_alone(name: str, moment: Moment) -> None:
    kept = [(weight.detach().clone(), weight.grad.clone()) for weight in moment.model.parameters()]
    random, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    measured(name, moment)
    for (weight, gradient), now in zip(kept, moment.model.parameters(), strict=True):
        assert torch.equal(weight, now)
        assert torch.equal(gradient, now.grad)
    assert torch.equal(random, torch.get_rng_state())
    assert np.array_equal(of_numpy, np.random.get_state()[1])  # noqa: NPY002


def test_a_curve_is_the_same_bit_for_bit_with_all_measurements_and_without(
    tokens: TokenData, columns: dict[str, list[Any]]
) -> None:
    plain = Training.start(replace(SMALL, measure=()), tokens).advance()
    assert {name: columns[name] for name in plain} == plain
    assert set(columns) > set(plain)


def test_measured_columns_are_ones_that_a_run_takes_at_the_steps_that_are_asked_for(
    columns: dict[str, list[Any]],
) -> None:
    free = [name for name in columns if name not in ("step", "loss", "val_loss", "lr", "tokens", "grad_norm")]
    assert len(free) <= MAX_FREE_COLUMNS
    assert all(COLUMN_NAME.fullmatch(name) for name in free)
    at = [
        step for step, value in zip(columns["step"], columns["norm_test"], strict=True) if value is not None
    ]
    assert at == [5, 10]


def test_what_is_not_finite_is_missing(moment: Moment) -> None:
    with torch.no_grad():
        moment.model.embedding.weight[0, 0] = math.nan
    for name in ("grad_noise_scale", "norm_test", "hessian"):
        fresh = replace(moment)
        found = measured(name, fresh)
        assert all(value is None or math.isfinite(value) for value in found.values())
        assert found[next(iter(found))] is None


def test_a_training_goes_on_where_a_measurement_runs_out_of_memory(
    tokens: TokenData, columns: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(moment: Moment) -> dict[str, float | None]:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setitem(MEASURES, "hessian", too_large)
    training = Training.start(SMALL, tokens)
    found = training.advance()
    assert found == {name: values for name, values in columns.items() if not name.startswith("hessian")}
    assert [note for note in training.notes if "hessian" in note] == [
        f"step {step}: hessian is not measured: out of memory" for step in (5, 10)
    ]


def test_one_sequence_has_no_noise_that_could_be_told(moment: Moment) -> None:
    alone = replace(moment, windows=moment.windows[:1])
    assert measured("grad_noise_scale", alone) == {"grad_noise_scale": None}
    assert measured("norm_test", alone) == {"norm_test": None}


@pytest.mark.parametrize(
    ("n_sequences", "most", "n_parts"),
    [(32, 32, 8), (32, 2, 16), (7, 7, 7), (12, 12, 12), (4, 4, 4), (1, 1, 1)],
)
def test_a_batch_is_measured_in_eight_equal_parts_or_more(n_sequences: int, most: int, n_parts: int) -> None:
    assert parts_of(n_sequences, most) == n_parts


def test_an_unknown_measurement_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(SMALL, measure=("sharpness",))
    assert all(name in str(refused.value) for name in MEASURES)


def test_every_name_of_a_measurement_is_made() -> None:
    assert set(MEASUREMENTS) == set(MEASURES)

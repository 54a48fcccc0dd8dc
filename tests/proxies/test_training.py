"""Training: the same curve however it is cut, what each part does, and how it ends."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoloss.errors import InvalidInput
from isoloss.observations.point_columns import KNOWN_COLUMNS
from isoloss.proxies import TokenData, Training, load_data, train_run
from isoloss.proxies.logbook import HIGH_STEPS
from isoloss.schedules import schedule_from_spec
from tests.proxies.small import small_config, small_data

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant", "warmup_steps": 3},
    "linear": {"kind": "linear", "warmup_steps": 0.25},
    "cosine": {"kind": "cosine", "warmup_steps": 2, "end_lr_share": 0.1, "warmup_start_lr_share": 0.5},
    "wsd_linear": {"kind": "wsd", "decay_start": 0.5},
    "wsd_sqrt": {"kind": "wsd", "decay_start": 6, "decay_shape": "sqrt"},
    "wsd_exponential": {"kind": "wsd", "decay_start": 6, "decay_shape": "exponential", "end_lr": 1e-4},
    "wsd_cosine": {"kind": "wsd", "warmup_steps": 1, "decay_start": 0.75, "decay_shape": "cosine"},
    "two_stage": {"kind": "two_stage", "switch_step": 0.5, "second_lr_share": 0.3},
    "piecewise_linear": {"kind": "piecewise_linear", "knots_share": [[1, 0.1], [0.3, 1.0], [1.0, 0.0]]},
    "values": {"kind": "values", "lr_share": [1.0, 0.5] * 6},
}


def trained(**changed: Any) -> Mapping[str, list[Any]]:
    return Training.start(small_config(**changed), small_data()).advance()


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_step_has_the_learning_rate_of_its_schedule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(schedule=SCHEDULES[name])
    training = Training.start(config, small_data())
    used: list[list[float]] = []
    optimizer = training._updates.optimizer
    optimizer.register_step_pre_hook(
        lambda *_: used.append([group["lr"] for group in optimizer.param_groups])
    )
    columns = training.advance()
    expected = config.lr_schedule().lr(np.arange(1, 13)).tolist()
    assert columns["lr"] == expected
    assert used == [[lr] * 3 for lr in expected]
    assert (
        schedule_from_spec(config.run_specification()["schedule"]).lr(np.arange(1, 13)).tolist() == expected
    )


def test_under_mup_the_logged_rate_is_that_of_hidden_matrices_and_of_the_run() -> None:
    config = small_config(parametrization="mup", width=64, base_width=32)
    training = Training.start(config, small_data())
    columns = training.advance(5)
    schedule = schedule_from_spec(config.run_specification()["schedule"])
    assert columns["lr"] == schedule.lr(np.arange(1, 6)).tolist()
    assert columns["lr"][4] == pytest.approx(0.5 * config.lr_schedule().lr([5])[0])


def test_columns_are_those_of_points() -> None:
    columns = trained(measure=["grad_norm_l1"], measure_every=6, eval_every=5)
    assert set(columns) == {"step", *KNOWN_COLUMNS} & set(columns)
    assert {len(column) for column in columns.values()} == {12}
    assert columns["step"] == list(range(1, 13))
    assert columns["tokens"] == [128 * step for step in range(1, 13)]
    at = [step for step, value in zip(columns["step"], columns["val_loss"], strict=True) if value is not None]
    assert at == [5, 10, 12]
    measured = [step for step, value in enumerate(columns["grad_norm_l1"], 1) if value is not None]
    assert measured == [6, 12]
    assert all(type(value) is float for name in ("loss", "lr", "grad_norm") for value in columns[name])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_loss_falls(optimizer: str) -> None:
    columns = trained(n_tokens=100 * 128, optimizer=optimizer, peak_lr={"adamw": 1e-2, "sgd": 0.1}[optimizer])
    assert columns["loss"][-1] < 0.6 * columns["loss"][0]
    assert columns["val_loss"][-1] == pytest.approx(columns["loss"][-1], rel=0.3)


CUTS = ([12], [1, 12], [5, 6, 12], list(range(1, 13)), [0, 0, 7, 3, 100])


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optimizer": "sgd", "weight_decay_kind": "independent", "eval_every": 5},
        {"parametrization": "mup", "width": 64, "measure": ["grad_norm_l1"], "micro_batch_tokens": 32},
    ],
    ids=["adamw", "sgd", "mup"],
)
def test_a_training_that_is_cut_and_resumed_is_the_whole_one_bit_for_bit(
    cuts: list[int], changed: dict[str, Any], tmp_path: Path
) -> None:
    config, data, path = small_config(**changed), small_data(), tmp_path / "checkpoint"
    whole = Training.start(config, data)
    columns = whole.advance()
    parts: dict[str, list[Any]] = {}
    training = Training.start(config, data)
    for until in cuts:
        torch.rand(3)  # what the caller draws is no matter
        taken = training.advance(until)
        for name in columns:
            parts.setdefault(name, []).extend(taken.get(name) or [None] * len(taken["step"]))
        training.save(path)
        training = Training.resume(config, data, "cpu", path)
    assert parts == columns
    for mine, other in zip(whole.model.parameters(), training.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert same(whole._state(), training._state())
    assert training.status == "finished"


def same(one: Any, other: Any) -> bool:
    """Whether two states hold the same numbers, those of tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_another_process_trains_the_same_curve_whatever_its_threads() -> None:
    code = (
        "import sys, json, torch\nfrom tests.proxies.small import small_config, small_data\n"
        "from isoloss.proxies import Training\ntorch.set_num_threads(int(sys.argv[1]))\n"
        "print(json.dumps(Training.start(small_config(width=64), small_data()).advance()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "2"], capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout) == trained(width=64)


def test_random_numbers_and_threads_of_the_caller_are_left_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(2)
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    training = Training.start(small_config(), small_data())
    first = torch.rand(1)
    training.advance()
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    assert torch.get_num_threads() == threads


def test_a_measurement_does_not_change_the_curve() -> None:
    measured, plain = trained(measure=["grad_norm_l1"], measure_every=1), trained()
    assert {name: measured[name] for name in plain} == plain


@pytest.mark.parametrize("micro", [32, 64, 96])
def test_micro_batches_accumulate_the_gradient_of_the_batch(micro: int) -> None:
    gradients = []
    for tokens in (None, micro):
        training = Training.start(small_config(micro_batch_tokens=tokens), small_data())
        windows = torch.from_numpy(small_data().batch(training.config, 1))
        loss = training._accumulated(windows)
        gradients.append([loss, *(weight.grad for weight in training.model.parameters())])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-7)


def test_the_logged_norm_is_that_of_the_gradient_before_it_is_clipped() -> None:
    free, clipped = trained(clip_norm=None), trained(clip_norm=1e-3)
    assert free["grad_norm"][0] == clipped["grad_norm"][0] > 1e-3
    training = Training.start(small_config(), small_data())
    training._accumulated(torch.from_numpy(small_data().batch(training.config, 1)))
    total = math.sqrt(sum(float(weight.grad.square().sum()) for weight in training.model.parameters()))
    assert free["grad_norm"][0] == pytest.approx(total, rel=1e-5)


def test_clipping_shortens_the_gradient_to_the_norm() -> None:
    """One step of plain SGD moves all weights together by learning rate times the clipped norm."""
    config = small_config(
        optimizer="sgd",
        optimizer_options={"momentum": 0.0},
        weight_decay=0.0,
        clip_norm=0.01,
        schedule={"kind": "constant"},
    )
    training = Training.start(config, small_data())
    before = [weight.detach().double().clone() for weight in training.model.parameters()]
    training.advance(1)
    moved = zip(before, training.model.parameters(), strict=True)
    length = math.sqrt(sum(float((after.detach().double() - was).square().sum()) for was, after in moved))
    assert length == pytest.approx(0.01 * 0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("kind", "goes_with", "share"),
    [
        ("lr_scaled", "lr", 0.5 * 0.01 * 0.3),
        ("independent", "lr", 0.5 * 0.3),
        ("independent", "constant", 0.5),
    ],
)
def test_a_decoupled_decay_takes_its_share_of_the_weights(
    optimizer: str, kind: str, goes_with: str, share: float
) -> None:
    """Beside the same step without decay; the learning rate is at .3 of its peak."""
    ends = []
    for decay in (0.0, 0.5):
        config = small_config(
            optimizer=optimizer,
            weight_decay=decay,
            weight_decay_kind=kind,
            weight_decay_schedule=goes_with,
            schedule={"kind": "values", "lr_share": [0.3, *[1.0] * 11]},
        )
        training = Training.start(config, small_data())
        before = [weight.detach().clone() for weight in training.model.parameters()]
        training.advance(1)
        ends.append([weight.detach() for weight in training.model.parameters()])
    for start, without, within in zip(before, *ends, strict=True):
        torch.testing.assert_close(without - within, share * start, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_l2_decay_is_in_the_gradient(optimizer: str) -> None:
    """The first step of an l2 decay is the step of the gradient plus decay times weight."""
    config = small_config(optimizer=optimizer, weight_decay=0.5, weight_decay_kind="l2", clip_norm=None)
    decayed = Training.start(config, small_data())
    by_hand = Training.start(
        small_config(optimizer=optimizer, weight_decay=0.0, clip_norm=None), small_data()
    )
    decayed.advance(1)
    by_hand._accumulated(torch.from_numpy(small_data().batch(config, 1)))
    for weight in by_hand.model.parameters():
        weight.grad += 0.5 * weight.detach()
    by_hand._updates.apply(float(config.lr_schedule().lr([1])[0]))
    for mine, other in zip(decayed.model.parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_the_validation_loss_is_the_mean_over_all_its_windows() -> None:
    training = Training.start(small_config(val_tokens=4096, batch_tokens=96), small_data())
    windows = torch.from_numpy(training.data.validation(training.config))
    assert len(windows) > 3
    logits = training.model(windows[:, :-1]).flatten(0, 1)
    mean = torch.nn.functional.cross_entropy(logits.detach(), windows[:, 1:].flatten())
    assert training.validation_loss() == pytest.approx(float(mean), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    config = small_config(optimizer="sgd", peak_lr=1e6, clip_norm=None, schedule={"kind": "constant"})
    training = Training.start(config, small_data())
    columns = training.advance()
    assert training.status == "diverged"
    assert not math.isfinite(columns["loss"][-1])
    assert all(math.isfinite(loss) for loss in columns["loss"][:-1])
    assert training.step == columns["step"][-1] < 12
    assert training.advance()["step"] == []
    training.save(tmp_path / "checkpoint")
    assert Training.resume(config, small_data(), "cpu", tmp_path / "checkpoint").status == "diverged"


def test_a_loss_that_stays_far_above_its_start_ends_the_training() -> None:
    config = small_config(n_tokens=200 * 128, peak_lr=3.0, schedule={"kind": "constant"})
    training = Training.start(config, small_data())
    columns = training.advance()
    assert training.status == "diverged"
    assert training.step == columns["step"][-1] < 200
    assert min(columns["loss"][-HIGH_STEPS:]) > 1.5 * columns["loss"][0]


def test_time_ends_a_call_and_not_the_training() -> None:
    training = Training.start(small_config(), small_data())
    assert training.advance(seconds=0)["step"] == [1]
    assert training.status == "running"
    assert training.advance(3)["step"] == [2, 3]
    assert training.advance(2)["step"] == []
    assert training.advance(seconds=1000)["step"] == list(range(4, 13))


def test_what_is_computed_at_once_is_halved_until_it_fits() -> None:
    """In a process that may take so little memory that the whole batch does not fit; its loss stays the same."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.proxies.little_memory"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    halved, loss, whole = done.stdout.splitlines()
    assert "micro-batch halved to" in halved
    assert halved.endswith("sequences: out of memory")
    assert float(loss) == pytest.approx(float(whole), rel=1e-5)


def test_a_single_sequence_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training.start(small_config(), small_data())

    def full(windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "_loss_of", full)
    with pytest.raises(torch.OutOfMemoryError):
        training.advance()
    assert training.micro_batch_tokens == 32
    assert len(training.notes) == 2
    assert training.step == 0


def test_a_mistake_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training.start(small_config(), small_data())

    def wrong(windows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(training, "_loss_of", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        training.advance()
    assert training.notes == []


def test_bf16_trains_as_fp32_does_up_to_its_rounding() -> None:
    half, full = trained(precision="bf16"), trained()
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["loss"] != full["loss"]


def test_a_compiled_model_trains_the_same_curve() -> None:
    """As on CUDA, but for the code that is generated."""
    config = small_config(micro_batch_tokens=96)
    training = Training.start(config, small_data(), compile_with="eager")
    plain = Training.start(config, small_data())
    assert training.advance(4)["loss"] == pytest.approx(plain.advance(4)["loss"], rel=1e-5)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "meta", "mps"])
def test_a_device_that_is_not_there_is_refused_before_any_training(device: str) -> None:
    with pytest.raises(InvalidInput, match="device: "):
        Training.start(small_config(), small_data(), device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(InvalidInput, match="device: 'cuda' is asked for, and torch finds no CUDA here"):
        Training.start(small_config(), small_data(), "cuda")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_trains_the_curve_of_the_cpu_up_to_rounding(precision: str, tmp_path: Path) -> None:
    config, data = small_config(precision=precision, measure=["grad_norm_l1"]), small_data()
    on_cuda = Training.start(config, data, "cuda")
    losses = on_cuda.advance(6)["loss"]
    on_cuda.save(tmp_path / "checkpoint")
    losses += Training.resume(config, data, "cuda", tmp_path / "checkpoint").advance()["loss"]
    assert losses == pytest.approx(trained()["loss"], rel=1e-3 if precision == "fp32" else 0.02)


@needs_cuda
def test_cuda_that_runs_out_of_memory_halves_the_micro_batch() -> None:
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        tokens = np.tile(small_data().tokens, 5000)
        config = small_config(width=1024, batch_tokens=2**21, n_tokens=2**21)
        training = Training.start(config, TokenData("words", tokens, 256), "cuda")
        training.advance()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("out of memory" in note for note in training.notes)


@needs_cuda
def test_a_divergence_on_cuda_ends_at_its_step() -> None:
    config = small_config(optimizer="sgd", peak_lr=1e6, clip_norm=None, schedule={"kind": "constant"})
    training = Training.start(config, small_data(), "cuda", compile_with="eager")
    columns = training.advance()
    assert training.step == columns["step"][-1] < 12
    assert not math.isfinite(columns["loss"][-1])


def test_train_run_returns_a_curve_that_a_law_is_fitted_to() -> None:
    curve = train_run(small_config(), small_data())
    assert curve.step.tolist() == list(range(1, 13))
    assert curve.schedule.total_steps == 12
    assert curve.n_params == small_config().n_params().non_embedding
    assert curve.weight_decay == 0.1
    held_out = train_run(small_config(eval_every=4), small_data(), target="val_loss", run_id="mine")
    assert (held_out.run_id, held_out.step.tolist()) == ("mine", [4, 8, 12])


def test_train_run_says_where_a_training_diverged() -> None:
    config = small_config(optimizer="sgd", peak_lr=1e6, clip_norm=None, schedule={"kind": "constant"})
    curve = train_run(config, small_data())
    assert any("the training diverged at step" in note for note in curve.notes)


def test_the_default_data_train() -> None:
    columns = Training.start(small_config(), load_data("python-stdlib")).advance(2)
    assert columns["loss"][0] == pytest.approx(math.log(256) + 0.5, abs=1)

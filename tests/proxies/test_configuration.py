"""A proxy's configuration: what is refused before any training, and what its run is told to be."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput
from isoloss.observations.tables import RunTable
from isoloss.proxies import ProxyConfig
from isoloss.proxies.configuration import whole_batch
from isoloss.schedules import schedule_from_spec
from tests.proxies.small import small_config

VALID = {"width": 64, "depth": 2, "peak_lr": 4e-3, "batch_tokens": 2048, "n_tokens": 409_600}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"width": 48}, "width"),
    ({"width": 0}, "width"),
    ({"width": 64.0}, "width"),
    ({"width": True}, "width"),
    ({"width": 6, "head_width": 6}, "width"),
    ({"depth": 0}, "depth"),
    ({"head_width": 3}, "head_width"),
    ({"sequence_length": 0}, "sequence_length"),
    ({"sequence_length": 4096}, "batch_tokens"),
    ({"batch_tokens": 2000}, "batch_tokens"),
    ({"batch_tokens": 10**18}, "batch_tokens"),
    ({"n_tokens": 0}, "n_tokens"),
    ({"n_tokens": 2047}, "n_tokens"),
    ({"n_tokens": math.nan}, "n_tokens"),
    ({"val_tokens": 100}, "val_tokens"),
    ({"micro_batch_tokens": 100}, "micro_batch_tokens"),
    ({"micro_batch_tokens": 4096}, "micro_batch_tokens"),
    ({"peak_lr": 0}, "peak_lr"),
    ({"peak_lr": -1e-3}, "peak_lr"),
    ({"peak_lr": math.nan}, "peak_lr"),
    ({"peak_lr": "1e-3"}, "peak_lr"),
    ({"peak_lr": 10**400}, "peak_lr"),
    ({"weight_decay": -0.1}, "weight_decay"),
    ({"weight_decay": 11}, "weight_decay"),
    ({"weight_decay_kind": "decoupled"}, "weight_decay_kind"),
    ({"weight_decay_schedule": "cosine"}, "weight_decay_schedule"),
    ({"clip_norm": 0}, "clip_norm"),
    ({"parametrization": "ntk"}, "parametrization"),
    ({"parametrization": "mup", "base_width": 6}, "base_width"),
    ({"tied_head": 1}, "tied_head"),
    ({"tied_head": "yes"}, "tied_head"),
    ({"optimizer": "adam"}, "optimizer"),
    ({"optimizer": None}, "optimizer"),
    ({"optimizer_options": {"beta3": 0.5}}, "optimizer_options.beta3"),
    ({"optimizer_options": {"eps": "small"}}, "optimizer_options.eps"),
    ({"optimizer_options": {"eps": math.inf}}, "optimizer_options.eps"),
    ({"optimizer_options": [1]}, "optimizer_options"),
    ({"precision": "fp16"}, "precision"),
    ({"seed": -1}, "seed"),
    ({"seed": 0.5}, "seed"),
    ({"data": ""}, "data"),
    ({"data": 3}, "data"),
    ({"measure": "hessian"}, "measure"),
    ({"measure": ["happiness"]}, "measure"),
    ({"eval_every": 0}, "eval_every"),
    ({"eval_every": 1.5}, "eval_every"),
    ({"eval_every": math.nan}, "eval_every"),
    ({"schedule": "cosine"}, "schedule"),
    ({"schedule": {"kind": "sine"}}, "kind"),
    ({"schedule": {"kind": "cosine", "total_steps": 100}}, "total_steps"),
    ({"schedule": {"kind": "cosine", "peak_lr": 1e-3}}, "peak_lr"),
    ({"schedule": {"kind": "cosine", "warmup_steps": 1.5}}, "warmup_steps"),
    ({"schedule": {"kind": "cosine", "warmup_steps": 300}}, "warmup_steps"),
    ({"schedule": {"kind": "cosine", "warmup_steps": "0.1"}}, "warmup_steps"),
    ({"schedule": {"kind": "cosine", "end_lr_share": 2.0}}, "end_lr"),
    ({"schedule": {"kind": "cosine", "end_lr": 1e-4, "end_lr_share": 0.1}}, "end_lr_share"),
    ({"schedule": {"kind": "cosine", "happy_share": 0.1}}, "happy_share"),
    ({"schedule": {"kind": "wsd"}}, "decay_start"),
    ({"schedule": {"kind": "values", "lr_share": [1.0, 0.5]}}, "lr"),
    ({"schedule": {"kind": "values", "lr": [1.0] * 200}}, "lr"),
    ({"schedule": {"kind": "piecewise_linear", "knots_share": [[1, 1.0], [100, 0.0]]}}, "knots"),
    ({"schedule": {"kind": "piecewise_linear", "knots_share": [[1, 1.0, 2.0]]}}, "knots_share"),
    ({"colour": "red"}, "colour"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "field"), BAD, ids=lambda value: str(value)[:60])
def test_what_cannot_be_trained_is_refused_by_its_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ProxyConfig.of(VALID | changed)
    assert refused.value.fields["field"] == field


@pytest.mark.parametrize("missing", sorted(VALID))
def test_a_field_without_a_default_is_asked_for(missing: str) -> None:
    with pytest.raises(InvalidInput, match=f"{missing}: is missing"):
        ProxyConfig.of({name: value for name, value in VALID.items() if name != missing})


@pytest.mark.parametrize("given", [None, [], "width", 3])
def test_only_a_mapping_is_a_configuration(given: Any) -> None:
    with pytest.raises(InvalidInput, match="mapping"):
        ProxyConfig.of(given)


def test_an_unknown_optimiser_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"adamw.*sgd"):
        small_config(optimizer="magic")


def test_a_batch_that_is_not_whole_names_the_nearest_that_is() -> None:
    with pytest.raises(InvalidInput, match="nearest is 2048"):
        ProxyConfig.of(VALID | {"batch_tokens": 2000})
    assert [whole_batch(tokens, 128) for tokens in (1, 100, 200, 2000)] == [128, 128, 256, 2048]


def test_a_configuration_goes_through_json_and_between_processes() -> None:
    config = small_config(
        parametrization="mup",
        width=64,
        schedule={"kind": "piecewise_linear", "knots_share": [[0.0, 0.1], [0.5, 1.0], [1.0, 0.0]]},
        optimizer_options={"beta1": 0.8},
        measure=["grad_norm_l1"],
    )
    again = ProxyConfig.of(json.loads(json.dumps(config.document())))
    assert again == config
    assert again.document() == config.document()
    assert pickle.loads(pickle.dumps(config)) == config
    assert {config: 1}[again] == 1


def test_a_configuration_is_not_changed_by_what_it_was_made_of() -> None:
    schedule = {"kind": "constant"}
    config = small_config(schedule=schedule)
    schedule["kind"] = "nonsense"
    assert config.schedule["kind"] == "constant"
    with pytest.raises(TypeError):
        config.schedule["kind"] = "nonsense"  # type: ignore[index]


def test_tokens_are_rounded_to_whole_batches() -> None:
    config = small_config(n_tokens=12 * 128 + 63)
    assert (config.total_steps, config.trained_tokens) == (12, 12 * 128)
    assert small_config(n_tokens=12 * 128 + 64).total_steps == 13


def test_steps_of_a_schedule_may_be_shares_of_the_run_and_rates_shares_of_the_peak() -> None:
    shares = {"kind": "wsd", "warmup_steps": 0.1, "decay_start": 0.8, "end_lr_share": 0.1}
    config = ProxyConfig.of(VALID | {"schedule": shares})
    steps = {"kind": "wsd", "warmup_steps": 20, "decay_start": 160, "end_lr": 4e-4}
    said = schedule_from_spec(steps | {"total_steps": 200, "peak_lr": 4e-3})
    every = np.arange(1, 201)
    assert np.array_equal(config.lr_schedule().lr(every), said.lr(every))


def test_a_share_of_a_short_run_leaves_steps_to_train() -> None:
    config = small_config(n_tokens=2 * 128, schedule={"kind": "linear", "warmup_steps": 0.9})
    assert config.lr_schedule().warmup_steps == 1


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (5, {5, 10, 12}),
        (0.25, {3, 6, 9, 12}),
        (1.0, {12}),
        (100, {12}),
        (0.1, {1, 2, 4, 5, 6, 7, 8, 10, 11, 12}),
    ],
)
def test_what_is_done_at_intervals_is_done_at_the_last_step_too(every: float, steps: set[int]) -> None:
    assert small_config().steps_at(every) == steps


def test_a_run_is_told_the_rates_that_its_hidden_matrices_see() -> None:
    config = small_config(parametrization="mup", width=128, base_width=32, weight_decay=0.2)
    run = config.run_specification()
    told = run["config"]
    assert told["peak_lr"] == pytest.approx(1e-2 / 4)
    assert told["weight_decay"] == pytest.approx(0.2 * 2)
    assert run["schedule"]["peak_lr"] == told["peak_lr"]
    assert ProxyConfig.of(told["proxy"]) == config
    json.dumps(run)


def test_the_timescale_of_a_run_is_that_of_its_decayed_matrices() -> None:
    config = small_config(parametrization="mup", width=128, base_width=32, weight_decay=0.2)
    tau = 128 / ((1e-2 / 4) * (0.2 * 2) * 12 * 128)
    assert config.timescale() == pytest.approx(tau)
    assert config.run_specification()["config"]["timescale_peak"] == pytest.approx(tau)
    unscaled = small_config(parametrization="mup", width=128, scale_weight_decay=False, weight_decay=0.2)
    assert unscaled.timescale() == pytest.approx(2 * tau)
    assert small_config(weight_decay=0).timescale() is None
    assert small_config(weight_decay_kind="l2").timescale() is None


def test_an_independent_decay_says_what_it_goes_with() -> None:
    config = small_config(
        weight_decay=0.001, weight_decay_kind="independent", weight_decay_schedule="constant"
    )
    told = config.run_specification()["config"]
    assert (told["weight_decay_kind"], told["weight_decay_schedule"]) == ("independent", "constant")
    assert config.timescale() == pytest.approx(1 / (0.001 * 12))
    assert "weight_decay_schedule" not in small_config().run_specification()["config"]


def test_what_a_run_is_told_makes_a_row_of_a_table_of_runs() -> None:
    rows = [
        {
            "run_id": f"{width}",
            **small_config(width=width).run_specification(),
            "summary": {"final_loss": 3.0},
        }
        for width in (32, 64)
    ]
    table = RunTable.from_runs(rows)
    assert table.column("n_params").tolist() == [
        small_config(width=width).n_params().non_embedding for width in (32, 64)
    ]


def test_mup_is_refused_where_no_rule_is_published() -> None:
    with pytest.raises(InvalidInput, match=r"scale_weight_decay: .*not published"):
        small_config(parametrization="mup", width=64, weight_decay_kind="l2")
    with pytest.raises(InvalidInput, match=r"scale_weight_decay: .*sgd"):
        small_config(parametrization="mup", width=64, optimizer="sgd", weight_decay_kind="lr_scaled")
    for allowed in ({"scale_weight_decay": False}, {"weight_decay": 0.0}, {"width": 32}):
        small_config(**{"parametrization": "mup", "width": 64, "optimizer": "sgd"} | allowed)


def test_a_configuration_is_read_without_torch() -> None:
    code = (
        "import sys\nfrom isoloss.proxies import ProxyConfig\n"
        "ProxyConfig(width=64, depth=2, peak_lr=1e-3, batch_tokens=2048, n_tokens=10**6).run_specification()\n"
        "from isoloss.proxies import load_data\nassert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

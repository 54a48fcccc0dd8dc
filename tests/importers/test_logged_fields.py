"""Names of metrics and hyper-parameters: what is guessed, what a map says, what is left out."""

from __future__ import annotations

import json
import math

import pytest

from isoloss.errors import InvalidInput
from isoloss.importers.logged_config import read_config
from isoloss.importers.logged_fields import chosen_names, name_metrics, read_map, total_steps_of


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        (["train/loss", "eval/loss"], {"train/loss": "loss", "eval/loss": "val_loss"}),
        (["loss", "train_loss"], {"loss": "loss", "train_loss": "train_loss"}),
        (["Train Loss", "validation_loss"], {"Train Loss": "loss", "validation_loss": "val_loss"}),
        (["train.loss", "lr-AdamW"], {"train.loss": "loss", "lr-AdamW": "lr"}),
        (["train/learning_rate", "_runtime"], {"train/learning_rate": "lr", "_runtime": "wall_time_s"}),
        (
            ["num_input_tokens_seen", "grad_norm"],
            {"num_input_tokens_seen": "tokens", "grad_norm": "grad_norm"},
        ),
        (["lr-AdamW/pg1", "lr-AdamW/pg2"], {"lr-AdamW/pg1": "lr", "lr-AdamW/pg2": "lr-adamw/pg2"}),
        (["GPU Memory (GB)"], {"GPU Memory (GB)": "gpu_memory_gb"}),
    ],
)
def test_usual_names_mean_what_they_do_and_others_keep_their_own(names, fields):
    fields = {name: field.replace("lr-adamw", "lr_adamw") for name, field in fields.items()}
    assert name_metrics(names, {}).fields == fields


def test_a_map_goes_before_every_guess():
    named = name_metrics(["loss", "nll", "junk"], {"nll": "loss", "junk": "-"})
    assert named.fields == {"nll": "loss"}
    assert named.notes == ("metric 'loss' left out: another is loss already",)


def test_metrics_beyond_64_of_their_own_are_counted():
    named = name_metrics(["loss", *(f"m{at}" for at in range(70))], {})
    assert len(named.fields) == 65
    assert "6 metrics left out (m64, m65, m66, ...): a run has at most 64" in named.notes[0]


def test_names_that_no_column_can_have_are_told():
    named = name_metrics(["损失", "A", "a"], {})
    assert named.fields == {"A": "a"}
    assert len(named.notes) == 2


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [({"a": "loss", "b": "loss"}, "both loss"), ({"a": "My Loss"}, "no name for a field")],
)
def test_a_map_that_cannot_be_meant_is_refused(pairs, reason):
    with pytest.raises(InvalidInput, match=reason):
        chosen_names(pairs)


@pytest.mark.parametrize(
    ("document", "reason"),
    [("[]", "a JSON object"), ("{", "not JSON"), ('{"metrics": 3}', "a map is"), ('{"a": "b c"}', "no name")],
)
def test_a_file_that_is_no_map_is_refused(tmp_path, document, reason):
    path = tmp_path / "map.json"
    path.write_text(document)
    with pytest.raises(InvalidInput, match=reason):
        read_map(path)
    with pytest.raises(InvalidInput, match="No such file"):
        read_map(tmp_path / "none.json")


def test_a_saved_map_is_read_as_it_was(tmp_path):
    names = chosen_names({"nll": "loss", "Size": "n_params"})
    (tmp_path / "map.json").write_text(json.dumps(names.document()))
    assert read_map(tmp_path / "map.json").document() == names.document()
    assert names.document() == {"metrics": {"nll": "loss"}, "config": {"Size": "n_params"}}


def test_hyper_parameters_become_the_fields_that_laws_read():
    logged = {
        "learning_rate": 3e-4,
        "model.hidden_size": 768,
        "model.num_hidden_layers": 12,
        "model/num_parameters": 124_000_000,
        "optim": "adamw_torch",
        "weight_decay": "0.1",
        "bf16": True,
        "adam_beta2": 0.95,
        "max_seq_length": 1024,
        "odd": {"set": {1}},
        "per_device_train_batch_size": 8,
    }
    read = read_config(logged, {})
    assert read.config == {
        "peak_lr": 3e-4,
        "width": 768,
        "depth": 12,
        "n_params_total": 124_000_000,
        "optimizer": "adamw_torch",
        "weight_decay": 0.1,
        "precision": "bf16",
        "bf16": True,
        "beta2": 0.95,
        "sequence_length": 1024,
        "odd": {"set": [1]},
        "per_device_train_batch_size": 8,
    }
    assert read.notes == ()


def test_a_value_that_a_field_cannot_have_is_left_out_with_a_note():
    logged = {"n_params": "many", "weight_decay": -1.0, "seed": 0.5, "peak_lr": 0, "x": math.nan, "y": None}
    read = read_config(logged, {})
    assert read.config == {}
    assert len(read.notes) == 4
    assert "config n_params left out: 'many' is no n_params" in read.notes


def test_the_stated_length_of_a_training_is_found():
    assert total_steps_of({"trainer.max_steps": 500, "max_iters": 3}) == 500
    assert total_steps_of({"max_steps": -1}) is None
    assert total_steps_of({"max_steps": True}) is None

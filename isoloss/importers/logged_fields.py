"""Which metric of a logged run is which column of its points, and which hyper-parameter which field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.fields import GUESSES, bare_name
from isoloss.importers.run_fields import RUN_FIELDS, SETTINGS
from isoloss.notes import counted
from isoloss.observations.point_columns import COLUMN_NAME, KNOWN_COLUMNS, MAX_FREE_COLUMNS, spelled

STEP = "step"
LEFT_OUT = "-"
"""The field of what shall not be imported, in a map."""

LR_OF_GROUP = re.compile(
    r"(?:train/)?(?:lr|learning_rate)(?:[-/_](?:adam|sgd|muon|lion|adafactor).*|[/_-]?(?:group|pg)?_?0)"
)
"""What loggers of learning rates call that of an optimiser's first group, such as `lr-AdamW` or `lr/group0`."""

METRICS: dict[str, tuple[str, ...]] = {
    **{name: names for name, names in GUESSES.items() if name != STEP},
    "loss": (
        *GUESSES["loss"],
        "train/loss_step",
        "train_loss_step",
        "train/lm_loss",
        "lm_loss",
        "lm-loss",
        "ce_loss",
    ),
    "val_loss": (
        *GUESSES["val_loss"],
        "validation/loss",
        "loss/validation",
        "loss/eval",
        "val/loss_epoch",
        "evaluation/loss",
        "eval/lm_loss",
        "test/loss",
        "test_loss",
    ),
    "lr": (*GUESSES["lr"], "train/learning-rate", "learning-rate", "optim/lr", "optimizer/lr"),
    "tokens": (
        *GUESSES["tokens"],
        "num_input_tokens_seen",
        "train/num_input_tokens_seen",
        "tokens_consumed",
        "total_tokens",
        "train/tokens_seen",
        "throughput/total_tokens",
    ),
    "grad_norm": (*GUESSES["grad_norm"], "grad-norm", "gradnorm", "optim/grad_norm", "grad_norm/total"),
    "grad_norm_l1": ("grad_norm_l1",),
    "grad_noise_scale": ("grad_noise_scale", "gradient_noise_scale"),
    "wall_time_s": (*GUESSES["wall_time_s"], "train/wall_time_s", "elapsed_s", "elapsed_time"),
}
"""Column of points to the metrics that mean it, best first; case and leading underscores do not matter."""

_MORE_CONFIG: dict[str, tuple[str, ...]] = {
    "n_params": ("model_parameters", "total_parameters"),
    "n_params_total": ("model/num_parameters", "num_parameters"),
    "n_params_non_embedding": ("num_non_embedding_parameters",),
    "n_tokens": ("total_tokens", "max_tokens", "train_tokens_total"),
    "batch_tokens": ("tokens_per_batch", "tokens_per_step", "global_batch_tokens"),
    "batch_sequences": ("global_batch_size", "total_train_batch_size"),
    "sequence_length": (
        "seq_length",
        "max_seq_len",
        "max_seq_length",
        "max_sequence_length",
        "context_length",
        "block_size",
        "n_ctx",
    ),
    "peak_lr": ("max_learning_rate", "base_lr"),
    "width": ("n_embd", "dim", "model_dim", "embedding_size", "embed_dim"),
    "depth": ("num_hidden_layers", "n_layer", "layers"),
    "optimizer": ("optim", "optimizer_name", "optimizer_type"),
    "precision": ("precision", "dtype", "mixed_precision"),
    "warmup_steps": ("warmup_iters", "num_warmup_steps", "lr_warmup_steps", "lr_warmup_iters"),
    "beta1": ("adam_beta1",),
    "beta2": ("adam_beta2",),
    "epsilon": ("adam_epsilon", "adam_eps", "eps"),
    "max_grad_norm": ("grad_clip", "clip_grad", "gradient_clip_val", "clip_grad_norm"),
    "dataset": ("dataset_name", "dataset"),
    "tokenizer": ("tokenizer_name",),
    "parametrization": ("parametrization",),
    "weight_decay_kind": ("weight_decay_kind",),
    "weight_decay_schedule": ("weight_decay_schedule",),
    "n_params_kind": ("n_params_kind",),
}
_NO_CONFIG = frozenset(
    {
        "run_id",
        "name",
        "status",
        "diverged",
        "recipe",
        "final_loss",
        "final_val_loss",
        "reward",
        "steps_to_target",
    }
)
_TOO_SHORT = frozenset({"n", "d"})
"""Names that mean something only where they stand alone, not behind a dot."""

CONFIG: dict[str, tuple[str, ...]] = {
    known: tuple(dict.fromkeys((*RUN_FIELDS.get(known, ()), *_MORE_CONFIG.get(known, ()), known)))
    for known in (*(name for name in RUN_FIELDS if name not in _NO_CONFIG), *_MORE_CONFIG, *sorted(SETTINGS))
}
"""Field of a configuration to the hyper-parameters that mean it, best first."""

TOTAL_STEPS = (
    "total_steps",
    "max_steps",
    "num_training_steps",
    "train_iters",
    "max_iters",
    "training_steps",
    "num_steps",
)
"""What configurations call the length of a training in optimiser steps."""


@dataclass(frozen=True)
class FieldNames:
    """A map: the column of each metric and the field of each hyper-parameter, as said or as guessed."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    def with_more(self, other: FieldNames) -> FieldNames:
        """This map and, of names that it does not have, another's."""
        return FieldNames({**other.metrics, **self.metrics}, {**other.config, **self.config})

    @property
    def step_column(self) -> str | None:
        """The column that is said to hold the steps; only files of rows have one."""
        return next((name for name, said in self.metrics.items() if said == STEP), None)

    def without_step(self) -> FieldNames:
        """The map without that column."""
        kept = {name: said for name, said in self.metrics.items() if said != STEP}
        return FieldNames(kept, {name: said for name, said in self.config.items() if said != STEP})

    def document(self) -> dict[str, dict[str, str]]:
        """The map as it is saved."""
        return {"metrics": dict(sorted(self.metrics.items())), "config": dict(sorted(self.config.items()))}


def read_map(path: str | Path) -> FieldNames:
    """A saved map, or one written by hand: `{"metrics": {name: field}, "config": {...}}` or `{name: field}`.

    Raises InvalidInput for what is none.
    """
    place = f"map {path}"
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(field=place, reason=error.strerror or str(error)) from error
    except ValueError as error:
        raise InvalidInput(field=place, reason=f"this is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise InvalidInput(field=place, reason="a map is a JSON object of names and fields")
    if all(isinstance(value, str) for value in document.values()):
        return chosen_names(document, place)
    if document.keys() <= {"metrics", "config"} and all(map(_names_texts, document.values())):
        metrics, config = document.get("metrics", {}), document.get("config", {})
        for fields in (metrics, config):
            _check(fields, place)
        return FieldNames(metrics, config)
    raise InvalidInput(field=place, reason='a map is {"metrics": {name: field}, "config": {name: field}}')


def _names_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def chosen_names(pairs: Mapping[str, str], place: str = "--map") -> FieldNames:
    """What a user says of columns, as a map; whether a name is a metric or a hyper-parameter, its field tells.

    A field of neither is meant for whichever has the name. Raises InvalidInput for a name that no field can have,
    and where two columns are chosen for one field.
    """
    _check(pairs, place)
    metrics = {name: said for name, said in pairs.items() if said in KNOWN_COLUMNS or said not in CONFIG}
    config = {name: said for name, said in pairs.items() if said not in KNOWN_COLUMNS}
    return FieldNames(metrics, config)


def _check(fields: Mapping[str, str], place: str) -> None:
    taken: dict[str, str] = {}
    for name, said in fields.items():
        if said == LEFT_OUT:
            continue
        if COLUMN_NAME.fullmatch(said) is None:
            raise InvalidInput(field=place, reason=f"{said!r} is no name for a field")
        if said in taken:
            reason = f"columns {taken[said]!r} and {name!r} are both {said}"
            raise InvalidInput(field=place, reason=reason)
        taken[said] = name


@dataclass(frozen=True)
class Named:
    """The field of each name that is imported, and notes on those that are not."""

    fields: Mapping[str, str]
    notes: tuple[str, ...] = ()


def name_metrics(metrics: Sequence[str], chosen: Mapping[str, str]) -> Named:
    """The column of every metric: as chosen, else by usual names, else its own name made lower case."""
    fields = {name: chosen[name] for name in metrics if chosen.get(name, LEFT_OUT) != LEFT_OUT}
    unsaid = [name for name in metrics if name not in chosen]
    for known, names in METRICS.items():
        if known not in fields.values():
            found = _best(unsaid, names, fields)
            if found is None and known == "lr":
                found = next((name for name in unsaid if LR_OF_GROUP.fullmatch(bare_name(name))), None)
            if found is not None:
                fields[found] = known
    notes, beyond = [], []
    room = MAX_FREE_COLUMNS - sum(said not in KNOWN_COLUMNS for said in fields.values())
    for name in [name for name in unsaid if name not in fields]:
        own = spelled(name)
        reason = _refusal(own, fields)
        if reason is not None:
            notes.append(f"metric {name!r} left out: {reason}")
        elif room <= 0:
            beyond.append(name)
        else:
            fields[name], room = str(own), room - 1
    return Named(fields, (*notes, *_too_many(beyond)))


def _refusal(own: str | None, fields: Mapping[str, str]) -> str | None:
    if own is None or own == STEP:
        return "it has no name that a column can have"
    return f"another is {own} already" if own in fields.values() else None


def _too_many(beyond: Sequence[str]) -> list[str]:
    if not beyond:
        return []
    named = ", ".join(beyond[:3]) + (", ..." if beyond[3:] else "")
    limit = f"a run has at most {MAX_FREE_COLUMNS} columns of its own; --map NAME=- leaves another out"
    return [f"{counted(len(beyond), 'metric')} left out ({named}): {limit}"]


def _best(names: Sequence[str], usual: Iterable[str], taken: Mapping[str, str]) -> str | None:
    """The first of the names, none taken yet, that is a usual one, the best usual one first."""
    by_name: dict[str, str] = {}
    for name in names:
        if name not in taken:
            by_name.setdefault(bare_name(name).replace(".", "/"), name)
    return next((by_name[meant] for meant in usual if meant in by_name), None)


def name_config(keys: Sequence[str], chosen: Mapping[str, str]) -> Named:
    """The field of every hyper-parameter: as chosen, else by usual names, else its own.

    A name behind dots or slashes, as in `model.hidden_size`, means what it does alone where nothing else does.
    """
    fields = {key: chosen[key] for key in keys if chosen.get(key, LEFT_OUT) != LEFT_OUT}
    open_keys = [key for key in keys if key not in chosen]
    for known, names in CONFIG.items():
        if known in fields.values():
            continue
        found = _best(open_keys, names, fields) or _nested(open_keys, names, fields)
        if found is not None:
            fields[found] = known
    taken = set(fields.values())
    for key in open_keys:
        if key not in fields and key[:200] not in taken:
            fields[key] = key[:200]
            taken.add(key[:200])
    return Named({key: fields[key] for key in keys if key in fields})


def _nested(keys: Sequence[str], usual: Iterable[str], taken: Mapping[str, str]) -> str | None:
    """The one key whose last part is a usual name; of several none is the one."""
    for meant in usual:
        found = [k for k in keys if k not in taken and bare_name(re.split(r"[./]", k)[-1]) == meant]
        if len(found) == 1 and meant not in _TOO_SHORT:
            return found[0]
    return None


def total_steps_of(config: Mapping[str, Any]) -> int | None:
    """The length of the training that a configuration states, None where it states none."""
    by_name = {bare_name(re.split(r"[./]", key)[-1]): value for key, value in reversed(list(config.items()))}
    for name in TOTAL_STEPS:
        value = by_name.get(name)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value > 0
            and value == int(value)
        ):
            return int(value)
    return None

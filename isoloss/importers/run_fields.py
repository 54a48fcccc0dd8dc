"""Which column of a table of runs is which field, and where in a run's specification it belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isoloss.errors import InvalidInput
from isoloss.importers.fields import FREE_NAME, bare_name, choose_fields, free_name
from isoloss.observations.tables import STARTS

RUN_FIELDS: dict[str, tuple[str, ...]] = {
    "run_id": ("run_id", "run", "id"),
    "name": ("name", "run_name"),
    "status": ("status",),
    "diverged": ("diverged",),
    "recipe": ("recipe",),
    "n_params": ("n_params", "params", "parameters", "num_params", "n_parameters", "model_size", "n"),
    "n_params_total": ("n_params_total", "total_params"),
    "n_params_non_embedding": ("n_params_non_embedding", "non_embedding_params"),
    "n_params_active": ("n_params_active", "active_params"),
    "n_tokens": ("n_tokens", "tokens", "training_tokens", "train_tokens", "num_tokens", "d"),
    "batch_tokens": ("batch_tokens", "batch_size_tokens"),
    "sequence_length": ("sequence_length", "seq_len"),
    "compute_flops": ("compute_flops",),
    "peak_lr": ("peak_lr", "max_lr", "lr", "learning_rate"),
    "weight_decay": ("weight_decay", "wd"),
    "width": ("width", "d_model", "hidden_size"),
    "depth": ("depth", "n_layers", "num_layers"),
    "seed": ("seed",),
    "optimizer": ("optimizer", "optimiser"),
    "tokenizer": ("tokenizer", "tokeniser"),
    "final_loss": ("final_loss", "loss", "train_loss", "final_train_loss"),
    "final_val_loss": ("final_val_loss", "val_loss", "eval_loss", "validation_loss", "final_eval_loss"),
    "reward": ("reward", "final_reward"),
    "steps_to_target": ("steps_to_target",),
    "target_loss": ("target_loss",),
}
"""Field to the column names that mean it, best first; case does not matter."""

SPECIFICATION = frozenset({"run_id", "name", "status", "recipe"})
FLAG = "diverged"
"""A column that says so with true or false: the run's status, in the words of other tools."""

LOSSES = frozenset({"final_loss", "final_val_loss"})
OUTCOMES = LOSSES | {"reward"}
MEASURED = frozenset({"steps_to_target", "grad_noise_scale", "grad_norm_small"})
"""What laws are fitted to that need no outcome."""

READINGS = frozenset(
    {
        "grad_noise_scale",
        "grad_norm_small",
        "grad_norm_big",
        "batch_small_tokens",
        "batch_big_tokens",
        "curve",
    }
)
"""Columns of readings in time, which stand in tables under their own names."""

SETTINGS = frozenset(
    {
        "batch_sequences",
        "warmup_steps",
        "warmup_share",
        "final_lr_share",
        "mean_lr_share",
        "beta1",
        "beta2",
        "epsilon",
        "max_grad_norm",
    }
)
"""Columns that the gate before a fit reads, and laws of settings, under their own names."""

SUMMARY = OUTCOMES | {"steps_to_target", "target_loss"}
TEXT = SPECIFICATION | {
    "n_params_kind",
    "optimizer",
    "weight_decay_kind",
    "weight_decay_schedule",
    "parametrization",
    "dataset",
    "tokenizer",
    "curve",
}
KNOWN = TEXT | set(RUN_FIELDS)

SPELLINGS = {"tokeniser": "tokenizer", "optimiser": "optimizer"}
"""Fields by other spellings of their names."""

FIELDS = KNOWN | READINGS | SETTINGS | set(STARTS.values())
"""What a column may be said to be: all that a law or a check reads, or a run's specification holds."""

MOST_NAMED = 8
"""Columns that a note names one by one."""


def map_run_columns(
    header: Sequence[str], chosen: Mapping[str, str] | None = None, *, file: str
) -> dict[str, str]:
    """Give every column of a table of runs its field: column -> field, in the order of the header.

    `chosen` maps fields to columns and wins. Of two columns that mean one field the better name gets it; other
    columns become fields of the configuration under their own names, made lower case. A column without a name
    that a field can have is passed over. Raises InvalidInput for a chosen column that is not there, and for a
    chosen field that there is not.
    """
    _refuse_reversed(header, chosen or {}, file)
    chosen = _by_usual_names(chosen or {}, file)
    fields = choose_fields(header, chosen or {}, file)
    for known, names in RUN_FIELDS.items():
        if known not in fields.values():
            free = (column for name in names for column in header if _is_free(column, name, fields))
            column = next(free, None)
            if column is not None:
                fields[column] = known
    for column in header:
        name = free_name(column)
        if column not in fields and FREE_NAME.fullmatch(name) and name not in fields.values():
            fields[column] = name
    return {column: fields[column] for column in header if column in fields}


def _refuse_reversed(header: Sequence[str], chosen: Mapping[str, str], file: str) -> None:
    for field, column in chosen.items():
        if column not in header and field in header and column in KNOWN:
            reason = f"there is no column {column!r}; a map is FIELD=COLUMN; did you mean {column}={field}?"
            raise InvalidInput(field=file, reason=reason)


def _by_usual_names(chosen: Mapping[str, str], file: str) -> dict[str, str]:
    """Return which column a field is, by the one name of each; raises InvalidInput for what is no field."""
    columns: dict[str, str] = {}
    for spelt, column in chosen.items():
        field = SPELLINGS.get(spelt, spelt)
        if field not in FIELDS:
            reason = f"{spelt!r} is no field that a column can be; those are {', '.join(sorted(FIELDS))}"
            raise InvalidInput(field=file, reason=reason)
        if field in columns:
            reason = f"columns {columns[field]!r} and {column!r} are both chosen for {field}"
            raise InvalidInput(field=file, reason=reason)
        columns[field] = column
    return columns


def unread_columns(header: Sequence[str], fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return notes in words on the columns that no law reads, and on those that were passed over."""
    own = [column for column, field in fields.items() if field not in KNOWN | READINGS | SETTINGS]
    passed = [column for column in header if column not in fields]
    read = "no law reads {}: kept beside the runs, and every run counts the same"
    over = "passed over: {}, for want of a name, or because another column has it"
    return tuple(text.format(_named(columns)) for text, columns in ((read, own), (over, passed)) if columns)


def _named(columns: Sequence[str]) -> str:
    several = "columns" if len(columns) > 1 else "column"
    more = f" and {len(columns) - MOST_NAMED} more" if len(columns) > MOST_NAMED else ""
    return f"{several} {', '.join(map(repr, columns[:MOST_NAMED]))}{more}"


def _is_free(column: str, name: str, fields: Mapping[str, str]) -> bool:
    return column not in fields and bare_name(column) == name


def check_outcome(fields: Mapping[str, str], wanted: str, file: str, header: Sequence[str]) -> None:
    """Raise InvalidInput where no column holds the outcome that is wanted."""
    if wanted not in fields.values():
        reason = f"no column is the {wanted}; name the one that is, as {wanted}=column (it has {', '.join(header)})"
        raise InvalidInput(field=file, reason=reason)

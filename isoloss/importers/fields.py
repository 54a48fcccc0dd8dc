"""Which column of a log is which field: the names that training loops write, and the user's own choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isoloss.errors import InvalidInput
from isoloss.observations.counts import mapping_of

GUESSES: dict[str, tuple[str, ...]] = {
    "step": (
        "step",
        "steps",
        "iteration",
        "iterations",
        "iter",
        "global_step",
        "train/global_step",
        "trainer/global_step",
        "update",
    ),
    "loss": ("loss", "train_loss", "training_loss", "train/loss", "loss/train", "training/loss"),
    "val_loss": (
        "val_loss",
        "eval_loss",
        "valid_loss",
        "validation_loss",
        "val/loss",
        "eval/loss",
        "valid/loss",
        "loss/val",
    ),
    "lr": ("lr", "learning_rate", "train/lr", "train/learning_rate"),
    "tokens": ("tokens", "n_tokens", "tokens_seen", "num_tokens", "consumed_tokens", "train/tokens"),
    "grad_norm": ("grad_norm", "gradient_norm", "train/grad_norm"),
    "reward": ("reward", "train/reward", "mean_reward"),
    "compute_flops": ("compute_flops", "flops", "total_flos", "total_flops"),
    "wall_time_s": ("wall_time_s", "runtime", "wall_time"),
}
"""Field to the column names that mean it, best first; case and leading underscores do not matter."""

POINT_FIELDS = frozenset({*GUESSES, "grad_norm_l1", "grad_noise_scale"})
FREE_NAME = re.compile(r"[a-z][a-z0-9_./]*")


@dataclass(frozen=True)
class FieldMap:
    """The field of each column that is read, and the reason for each that is not."""

    fields: dict[str, str]
    ignored: dict[str, str] = field(default_factory=dict)

    def without(self, column: str, reason: str) -> FieldMap:
        """The map with one column fewer."""
        kept = {name: named for name, named in self.fields.items() if name != column}
        return FieldMap(kept, {**self.ignored, column: reason})


def checked_map(map: object) -> Mapping[str, str]:
    """Return which column a field is, empty for None; raises InvalidInput for what says no such thing."""
    chosen = mapping_of(map, "map")
    for field_name, column in chosen.items():
        if not isinstance(column, str):
            reason = f"the column of {field_name!r} must be named, not be {type(column).__name__}"
            raise InvalidInput(field="map", reason=reason)
    return chosen


def map_columns(header: Sequence[str], chosen: Mapping[str, str] | None = None, *, file: str) -> FieldMap:
    """Give every column of a header its field.

    `chosen` maps fields to columns and wins. Of two columns that mean one field the better name gets it;
    other columns keep their own name, made lower case where it is no name for a free field.
    Raises InvalidInput for a chosen column that is not there, and where no column holds the steps.
    """
    fields = choose_fields(header, chosen or {}, file)
    for known, names in GUESSES.items():
        if known not in fields.values():
            column = next(
                (c for name in names for c in header if c not in fields and bare_name(c) == name), None
            )
            if column is not None:
                fields[column] = known
    if "step" not in fields.values():
        raise InvalidInput(field=file, reason=lacking("step", header))
    return _name_others(header, fields)


def lacking(field_name: str, header: Sequence[str]) -> str:
    """Say that no column is a field, which there are, and how to name the one that is."""
    return (
        f"no column is the {field_name}; name the one that is, as map={{'{field_name}': 'column'}} or "
        f"--map column={field_name} (it has {', '.join(header)})"
    )


def choose_fields(header: Sequence[str], chosen: Mapping[str, str], file: str) -> dict[str, str]:
    """The field of each column that `chosen`, field to column, names; raises InvalidInput."""
    fields: dict[str, str] = {}
    for known, column in chosen.items():
        if column not in header:
            raise InvalidInput(
                field=file, reason=f"there is no column {column!r} (it has {', '.join(header)})"
            )
        if column in fields:
            raise InvalidInput(
                field=file, reason=f"column {column!r} is chosen for {fields[column]} and {known}"
            )
        if not FREE_NAME.fullmatch(known):
            raise InvalidInput(field=file, reason=f"{known!r} is no name for a field")
        fields[column] = known
    return fields


def _name_others(header: Sequence[str], fields: Mapping[str, str]) -> FieldMap:
    named = FieldMap({column: fields[column] for column in header if column in fields})
    for column in header:
        if column in named.fields:
            continue
        name = free_name(column)
        if not FREE_NAME.fullmatch(name):
            named = named.without(column, "it has no name that a field can have")
        elif name in named.fields.values():
            named = named.without(column, f"another column is {name} already")
        else:
            named.fields[column] = name
    return named


def bare_name(column: str) -> str:
    """A column's name as it is compared with usual ones."""
    name = re.sub(r"\s+", "_", column.strip().lower())
    return name.lstrip("_")


def free_name(column: str) -> str:
    """A column's name as that of a field of the user's own; it may still be none."""
    return re.sub(r"[^a-z0-9_./]+", "_", column.strip().lower()).strip("_")

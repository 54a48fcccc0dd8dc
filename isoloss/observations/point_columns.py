"""The columns of a run's points: those with a meaning, and what each may hold."""

from __future__ import annotations

import re

KNOWN_COLUMNS = (
    "loss",
    "val_loss",
    "lr",
    "tokens",
    "grad_norm",
    "grad_norm_l1",
    "grad_noise_scale",
    "reward",
    "compute_flops",
    "wall_time_s",
)
"""The columns that mean something to Isoloss, in the order of the table `point`."""

MAY_BE_NON_FINITE = ("loss", "val_loss")
ABOVE_ZERO = frozenset({"loss", "val_loss"})
NOT_BELOW_ZERO = frozenset({"lr", "tokens", "grad_norm", "grad_norm_l1", "compute_flops", "wall_time_s"})
MAX_STEP = 2**53
MAX_FREE_COLUMNS = 64
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_./]{0,99}")


def spelled(name: str) -> str | None:
    """A metric's name as a column's, None where nothing of it can be one."""
    if COLUMN_NAME.fullmatch(name):
        return name
    changed = re.sub(r"[^a-z0-9_./]+", "_", name.lower()).strip("_")[:100]
    return changed if COLUMN_NAME.fullmatch(changed) else None
